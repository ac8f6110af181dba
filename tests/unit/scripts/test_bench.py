"""What of scripts/bench can be wrong without a clock: its rows, its report, its model and its chart."""

import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from functions.convert import distribution
from scripts.benchmarks import report
from scripts.benchmarks.__main__ import ROWS, main, measure
from scripts.benchmarks.chart import draw
from scripts.benchmarks.clock import Took, in_turn, quantile, ratio
from scripts.benchmarks.model import PODS, Costs, bounds, enough, seconds, stages
from scripts.benchmarks.report import Row, at_least, at_most

FREE = Costs(**dict.fromkeys(Costs.__dataclass_fields__, 0.0))


def costs(**known: float) -> Costs:
    return Costs(**{**FREE.to_json(), **known})


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_found_by_its_name_and_says_what_it_is(name: str) -> None:
    assert (measure(name).__doc__ or "").strip()


def test_a_row_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tool", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "-1"], "--rounds: '-1' is no whole number from 1 on"),
        (["--rounds", "0"], "--rounds: '0' is no whole number from 1 on"),
        (["--size=0"], "--size: '0' is no whole number from 1 on"),
        (["--size=-64"], "--size: '-64' is no whole number from 1 on"),
        (["--patience", "nan"], "--patience: 'nan' is no number of seconds"),
        (["--patience=-1"], "--patience: '-1' is no number of seconds"),
    ],
)
def test_a_number_that_nothing_can_be_measured_with_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--list", *arguments])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_a_report_is_json_with_every_row(tmp_path: Path) -> None:
    rows = [
        Row("tool", "what", 0.6, "x", "ffmpeg", **at_most(0.6, 0.65), details={"rounds": [0.6, 0.7]}),
        Row("events", "what", 300.0, "/s", "pika", **at_least(300, 400)),
    ]
    report.write(tmp_path / "run.json", report.machine(), rows, {"login": "no database"})
    read = json.loads((tmp_path / "run.json").read_text())
    assert [(row["name"], row["value"], row["met"]) for row in read["rows"]] == [
        ("tool", 0.6, True),
        ("events", 300.0, False),
    ]
    assert read["failed"] == {"login": "no database"}
    assert read["machine"]["cores"] >= 1


def test_a_missed_goal_is_to_be_seen() -> None:
    assert "NOT MET" in report.line(Row("tool", "what", 0.9, "x", "ffmpeg", **at_most(0.9, 0.65)))


def test_every_round_takes_everything_once() -> None:
    order: list[str] = []
    takes = {name: lambda name=name: order.append(name) or Took(1.0) for name in ("a", "b")}  # type: ignore[func-returns-value]  # short
    took = in_turn(takes, 3)
    assert {name: len(some) for name, some in took.items()} == {"a": 3, "b": 3}
    assert [sorted(order[start : start + 2]) for start in (0, 2, 4)] == [["a", "b"]] * 3


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    assert ratio([Took(1), Took(9), Took(2)], [Took(2), Took(1), Took(2)]) == 1.0
    assert quantile([3.0, 1.0, 2.0, 4.0], 0.5) == 3.0


def test_encoding_alone_is_divided_among_the_pods() -> None:
    alone = costs(encode=0.01)
    assert seconds(alone, 3600, 1) == pytest.approx(36, rel=0.01)
    # Pieces are cut as if decoding the prefix cost a tenth, so that the first is longer than the rest.
    assert 36 / 4 < seconds(alone, 3600, 4) < 36 / 4 * 1.3


def test_what_every_pod_fetches_goes_through_one_store() -> None:
    fetching = costs(track=0.02, get=0.01)
    assert stages(fetching, 36000, 8)["fetch the track"] == pytest.approx(distribution.MAX_PIECES * 7.2)


def test_pods_that_leap_fetch_and_decode_little_more_than_the_whole_once() -> None:
    some = costs(track=0.02, get=0.01, decode=0.001, encode=0.01, count=0.0001)
    slow, fast = (stages(some, 36000, 64, leaping) for leaping in (False, True))
    assert fast["fetch the track"] == pytest.approx(7.2, rel=0.1)
    assert slow["fetch the track"] == pytest.approx(distribution.MAX_PIECES * 7.2)
    assert fast["decode what is before the pieces"] < 0.05 < 5 < slow["decode what is before the pieces"]
    assert fast["encode"] == pytest.approx(396 / 64, rel=0.05)
    assert fast["count the packets"] == pytest.approx(3.6)
    for length, pods in ((600, 64), (36000, 1)):
        assert stages(some, length, pods, True) == stages(some, length, pods, False)


def test_more_pods_never_help_what_is_not_encoding() -> None:
    reading = costs(read=0.002, video=0.5, event=0.01, row=0.001)
    times = [seconds(reading, 36000, n) for n in PODS]
    assert times == sorted(times)


def test_more_pods_than_pieces_are_not_worth_having() -> None:
    free = costs(encode=0.01)
    assert enough(free, 36000) == distribution.MAX_PIECES
    assert seconds(free, 36000, 64) == seconds(free, 36000, distribution.MAX_PIECES)
    assert enough(costs(encode=0.01, read=1.0, video=0.5), 36000) == 1  # what nobody shares is all there is


def test_the_parts_of_a_time_make_the_whole() -> None:
    some = Costs(**dict.fromkeys(Costs.__dataclass_fields__, 0.01))
    assert math.isclose(sum(bounds(some, 36000, 64).values()), 1, abs_tol=0.01)


def test_the_chart_is_an_svg_with_a_line_for_every_length() -> None:
    table = {"10 min": {"1": 60.0, "64": 3.0}, "1 h": {"1": 400.0, "64": 9.0}}
    drawn = ElementTree.fromstring(draw(table, "a <title>"))  # noqa: S314 - our own
    texts = [one.text for one in drawn.iter() if one.tag.endswith("text")]
    assert {"10 min", "1 h", "a <title>", "64"} <= set(texts)
