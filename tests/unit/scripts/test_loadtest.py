"""scripts/burst without a burst: what is counted, what it is compared with, and what is drawn of it."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from scripts.loadtest import __main__ as command
from scripts.loadtest import picture
from scripts.loadtest.accounting import account, sentences, table
from scripts.loadtest.knative import cpu_seconds, depths, owner_of
from scripts.loadtest.processes import WithServers
from scripts.loadtest.quantities import cores
from scripts.loadtest.recording import BadRecording, Look, Meter, Recording, Standing


def look(pods: dict[str, int], cpu: dict[str, float], waiting: int = 0, letters: int = 0) -> Look:
    standing = {"broker": Standing(2, cores=0.2), "store": Standing(1, anyway=True, cores=0.5)}
    return Look(pods, {"convert": waiting}, cpu, {"convert": 1.0, "notify": 0.05}, standing, letters)


def burst() -> Recording:
    """Ten seconds: two pods of convert for five of them and one for two, one of notify for one."""
    made = Recording("embedded", "2 videos of 20 s", {"cores": 2, "when": "2030-01-02T03:04:05+00:00"})
    made.add(0.0, look({}, {"broker": 1.0}), {})
    made.add(1.0, look({"convert": 2}, {"broker": 1.2, "convert": 3.0}, 2), {"uploaded": 2})
    made.add(6.0, look({"convert": 1, "notify": 1}, {"broker": 1.5, "convert": 9.0, "notify": 0.5}), {"converting": 2})
    made.add(7.0, look({"convert": 1}, {"broker": 1.5, "convert": 9.5, "notify": 0.7}), {"done": 2})
    made.add(8.0, look({}, {"broker": 1.5, "convert": 9.5, "notify": 0.7}), {"done": 2})
    made.add(10.0, look({}, {"broker": 1.75, "convert": 9.5, "notify": 0.7, "late": 0.1}), {"done": 2})
    made.began, made.accepted, made.finished = 0.5, 2.0, 7.0
    return made


def test_pods_are_counted_for_as_long_as_they_are_there() -> None:
    used = {line.name: line for line in account(burst()).functions}
    assert (used["convert"].pods, used["convert"].peak, used["convert"].cpu) == (12.0, 2, 9.5)
    assert (used["notify"].pods, used["notify"].peak, used["notify"].cpu) == (1.0, 1, 0.7)
    assert used["late"].cpu == pytest.approx(0.1)  # what ended before it was seen is not forgotten


def test_always_on_is_the_peak_of_each_for_the_whole_time() -> None:
    made = account(burst())
    assert made.seconds == 10.0
    assert {line.name: line.always for line in made.functions} == {"convert": 20.0, "notify": 10.0, "late": 0.0}
    assert (made.work.pods, made.work.always, made.work.peak) == (13.0, 30.0, 3)
    assert (made.work.reserved, made.work.reserved_always) == pytest.approx((12.05, 20.5))


def test_what_stays_up_is_counted_too_and_stores_on_both_sides() -> None:
    made = account(burst())
    standing = {line.name: (line.pods, line.always, line.cpu) for line in made.standing}
    assert standing == {"broker": (20.0, 0.0, 0.75), "store": (10.0, 10.0, 0.0)}
    assert (made.whole.pods, made.whole.always) == (43.0, 40.0)
    assert made.whole.cpu == pytest.approx(9.5 + 0.7 + 0.1 + 0.75)
    assert (made.whole.reserved, made.whole.reserved_always) == pytest.approx((12.05 + 2 + 5, 20.5 + 5))


def test_the_break_even_is_where_both_take_the_same() -> None:
    made = account(burst())
    every = made.break_even
    # A second of always on takes 3 pods and the store's; ours the burst's part, the broker's 2 and the store's.
    assert made.work.pods / every + 2 + 1 == pytest.approx(3 + 1)
    assert made.hourly == (13 + 3600 * 3, 3600 * 4)


def test_always_on_never_pays_back_more_than_the_platform_itself_takes() -> None:
    idle = Recording("embedded", "nothing", {})
    idle.add(0.0, look({}, {}), {})
    idle.add(5.0, look({"notify": 1}, {}), {})
    assert account(idle).break_even == float("inf")
    assert "more often" not in " ".join(sentences(idle, account(idle)))
    assert "ended before every pod had" in sentences(idle, account(idle))[-1]


def test_an_empty_recording_is_an_empty_account() -> None:
    nothing = Recording("embedded", "nothing", {})
    assert account(nothing).whole.pods == 0.0
    assert "all" in table(account(nothing))


def test_counters_of_what_has_gone_stay_and_none_falls() -> None:
    meter = Meter()
    assert meter.read({"1": ("convert", 2.0), "2": ("convert", 1.0)}) == {"convert": 3.0}
    assert meter.read({"2": ("convert", 0.0), "3": ("notify", 0.5)}) == {"convert": 3.0, "notify": 0.5}
    assert meter.read({}) == {"convert": 3.0, "notify": 0.5}


def test_a_recording_is_drawn_again_from_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    burst().write(tmp_path / "one.json")
    assert Recording.read(tmp_path / "one.json") == burst()
    assert command.main(["--from", str(tmp_path), "--draw", "one.json"]) == 0
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "one.html").read_text()
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    assert ElementTree.fromstring(svg).tag.endswith("svg")  # noqa: S314 - our own
    assert "2 videos of 20 s on the embedded platform" in page
    assert not any(tag in page for tag in ("<script", "<link", "<img"))
    assert "convert" in capsys.readouterr().out


def test_a_lost_job_and_a_refused_upload_are_a_failure(tmp_path: Path) -> None:
    lost, refused = burst(), burst()
    lost.samples[-1].jobs["failed"] = 1
    refused.refused = 1
    for number, made in enumerate((lost, refused)):
        made.write(tmp_path / f"{number}.json")
        assert command.main(["--from", str(tmp_path), "--draw", f"{number}.json"]) == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"samples": [{}]}'])
def test_a_file_that_is_no_recording_is_named(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.json").write_text(content)
    with pytest.raises(BadRecording):
        Recording.read(tmp_path / "odd.json")
    assert command.main(["--from", str(tmp_path), "--draw", "odd.json"]) == 1
    assert "odd.json is no recording of a burst" in capsys.readouterr().err


def test_a_recording_without_a_pod_can_be_drawn() -> None:
    idle = Recording("knative", "<nothing>", {})
    idle.add(0.0, look({}, {}), {})
    made = account(idle)
    assert "&lt;nothing&gt;" in picture.html(idle, made, picture.draw(idle, made))


def pod(namespace: str, name: str, owner: tuple[str, str] = ("", ""), function: str = "", broker: str = "") -> Any:
    labels = {"serving.knative.dev/service": function, "eventing.knative.dev/broker": broker}
    labels = {label: value for label, value in labels.items() if value}
    references = [{"kind": owner[0], "name": owner[1]}] if owner[0] else []
    return {"metadata": {"namespace": namespace, "name": name, "labels": labels, "ownerReferences": references}}


@pytest.mark.parametrize(
    ("found", "owner"),
    [
        (pod("mp3burst", "a-1", ("ReplicaSet", "convert-00001-deployment-5d4f7"), "convert"), ("convert", None)),
        (
            pod("mp3burst", "a-2", ("ReplicaSet", "mp3burst-broker-ingress-7c9d8f6b5"), broker="mp3burst"),
            ("broker", False),
        ),
        (pod("mp3burst", "a-3", ("ReplicaSet", "mail-56dd9f4f9b")), ("mail", False)),
        (pod("mp3burst", "mongodb-0", ("StatefulSet", "mongodb")), ("mongodb", True)),
        (pod("mp3burst", "migrate-x", ("Job", "migrate")), None),
        (pod("knative-serving", "activator-1", ("ReplicaSet", "activator-6d8f9")), ("knative-serving", False)),
        (pod("elsewhere", "theirs", function="theirs"), None),
        (pod("kube-system", "coredns-1"), None),
    ],
)
def test_every_pod_is_counted_to_whom_it_serves(found: Any, owner: tuple[str, bool | None] | None) -> None:
    assert owner_of(found, "mp3burst") == owner


def test_a_kubelets_counters_are_found_by_pod() -> None:
    metrics = (
        "# HELP pod_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the pod in core-seconds\n"
        'pod_cpu_usage_seconds_total{namespace="mp3burst",pod="convert-1"} 12.5 1900000000000\n'
        'container_cpu_usage_seconds_total{container="x",namespace="mp3burst",pod="convert-1"} 12.1 1900000000000\n'
        'pod_cpu_usage_seconds_total{namespace="kube-system",pod="dns"} 1e-05 1900000000000\n'
    )
    assert dict(cpu_seconds(metrics)) == {"mp3burst/convert-1": 12.5, "kube-system/dns": 1e-05}


def test_queues_are_named_for_their_triggers() -> None:
    listed = json.loads(
        '[{"name": "mp3burst.convert.0a1b", "messages": 3}, {"name": "b.mp3burst.mp3burst.dlq.0a1b", "messages": 1},'
        ' {"name": "other.convert.0a1b", "messages": 9}, {"name": "video"}, {"name": "mp3burst.mp3-ready.0a1b"}]'
    )
    assert depths(listed, "mp3burst") == {"convert": 3, "mp3-ready": 0, "mp3burst, dead letters": 1}


def test_a_store_beside_the_cluster_stands_and_its_time_is_counted_also_when_it_is_gone() -> None:
    class Empty:
        name = "knative"

        def look(self) -> Look:
            return Look({}, {}, {"broker": 1.0}, {}, {"broker": Standing(2)})

    work = "import sys, time\nwhile time.process_time() < 0.5: pass\nprint(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as store:
        platform = WithServers(Empty(), {"store": store.pid})
        assert store.stdout is not None
        store.stdout.readline()
        there = platform.look()
    gone = platform.look()
    assert there.standing == {"broker": Standing(2), "store": Standing(1, anyway=True)}
    assert there.cpu["broker"] == 1.0
    assert 0.4 <= there.cpu["store"] < 3
    assert gone.cpu["store"] == there.cpu["store"]


def test_quantities_of_cpu_are_cores() -> None:
    assert [cores(text) for text in ("1", "100m", "0.5", "25m")] == [1.0, 0.1, 0.5, 0.025]


def test_a_burst_of_nothing_is_refused_before_a_platform_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--video", "/nowhere/holiday.mp4"]) == 1
    assert capsys.readouterr().err.startswith("There is no file /nowhere/holiday.mp4: ")
    with pytest.raises(SystemExit):
        command.main(["--clips", "0"])
    assert "0 is too few" in capsys.readouterr().err
