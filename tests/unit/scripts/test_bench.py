"""Tests the parts of scripts/bench that need no clock: the arguments, the rows and the report."""

import json
from pathlib import Path

import pytest

from scripts.benchmarks import chart, report
from scripts.benchmarks.__main__ import ROWS, main
from scripts.benchmarks.model import Costs
from scripts.benchmarks.report import Row, at_least, at_most
from scripts.benchmarks.timing import Took, alternate, quantile, ratio


@pytest.mark.parametrize("name", ROWS)
def test_every_row_describes_itself(name: str) -> None:
    assert (ROWS[name].__doc__ or "").strip()


def test_an_unknown_row_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tool", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "-1"], "--rounds: '-1' is not a whole number of 1 or more"),
        (["--rounds", "0"], "--rounds: '0' is not a whole number of 1 or more"),
        (["--calm-timeout", "nan"], "--calm-timeout: 'nan' is not a number of seconds"),
        (["--calm-timeout=-1"], "--calm-timeout: '-1' is not a number of seconds"),
    ],
)
def test_an_impossible_number_is_rejected(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--list", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_report_is_json_with_every_row(tmp_path: Path) -> None:
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
    assert read["machine"]["cpus"] >= 1


def test_a_missed_goal_is_visible() -> None:
    assert "NOT MET" in report.line(Row("tool", "what", 0.9, "x", "ffmpeg", **at_most(0.9, 0.65)))


def test_every_round_takes_every_measurement_once() -> None:
    order: list[str] = []
    measurements = {name: lambda name=name: order.append(name) or Took(1.0) for name in ("a", "b")}  # type: ignore[func-returns-value]  # short
    took = alternate(measurements, 3)
    assert {name: len(some) for name, some in took.items()} == {"a": 3, "b": 3}
    assert [sorted(order[start : start + 2]) for start in (0, 2, 4)] == [["a", "b"]] * 3


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    assert ratio([Took(1), Took(9), Took(2)], [Took(2), Took(1), Took(2)]) == 1.0
    assert quantile([3.0, 1.0, 2.0, 4.0], 0.5) == 3.0


def test_pods_take_pieces_in_rounds() -> None:
    costs = Costs(split=1.0, admission=0.5, piece=2.0, join=0.5)
    assert costs.seconds(1, 16) == pytest.approx(2 + 16 * 2, abs=0.3)
    assert costs.seconds(8, 16) == costs.seconds(15, 16) == pytest.approx(2 + 2 * 2, abs=0.3)
    assert costs.seconds(16, 16) == costs.seconds(64, 16) == pytest.approx(2 + 2, abs=0.3)
    assert costs.speedup(16, 16) == pytest.approx(34 / 4, rel=0.1)


def test_the_chart_shows_rows_with_a_speedup_by_pods(tmp_path: Path) -> None:
    speedups = {"1": 1.0, "16": 14.0}
    rows = [
        Row("tool", "what", 0.6, "x", "ffmpeg"),
        Row("scale", "20 min: pods", 14.0, "x", "", details={chart.MEASURED: speedups, chart.MODELED: speedups}),
    ]
    assert chart.write(rows, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
    assert not chart.write(rows[:1], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
