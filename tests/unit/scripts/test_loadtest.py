"""Tests scripts/burst without a burst: what it counts, what it compares with, and what it draws."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from scripts.loadtest import __main__ as command
from scripts.loadtest import charts
from scripts.loadtest.accounting import sentences, table, usage_of
from scripts.loadtest.knative import WithServers, cpu_seconds, owner_of
from scripts.loadtest.recording import BadRecording, Meter, Recording, Snapshot, Standing, cpus_of


def snapshot(pods: dict[str, int], cpu: dict[str, float], waiting: int = 0) -> Snapshot:
    standing = {"broker": Standing(2, cores=0.2), "store": Standing(1, anyway=True, cores=0.5)}
    return Snapshot(pods, {"convert": waiting}, cpu, {"convert": 1.0, "notify": 0.05}, standing)


def burst() -> Recording:
    """A recording of 10 s: convert has two pods for 5 s and one for 2 s, notify has one for 1 s."""
    recording = Recording("embedded", "2 videos of 20 s", {"cores": 2, "when": "2030-01-02T03:04:05+00:00"})
    recording.add(0.0, snapshot({}, {"broker": 1.0}), {})
    recording.add(1.0, snapshot({"convert": 2}, {"broker": 1.2, "convert": 3.0}, 2), {"uploaded": 2})
    recording.add(
        6.0, snapshot({"convert": 1, "notify": 1}, {"broker": 1.5, "convert": 9.0, "notify": 0.5}), {"converting": 2}
    )
    recording.add(7.0, snapshot({"convert": 1}, {"broker": 1.5, "convert": 9.5, "notify": 0.7}), {"done": 2})
    recording.add(8.0, snapshot({}, {"broker": 1.5, "convert": 9.5, "notify": 0.7}), {"done": 2})
    recording.add(10.0, snapshot({}, {"broker": 1.75, "convert": 9.5, "notify": 0.7, "late": 0.1}), {"done": 2})
    recording.began = 0.5
    recording.accepted = 2.0
    recording.finished = 7.0
    return recording


def test_pods_count_for_as_long_as_they_run() -> None:
    used = {line.name: line for line in usage_of(burst()).functions}
    assert (used["convert"].pods, used["convert"].peak, used["convert"].cpu) == (12.0, 2, 9.5)
    assert (used["notify"].pods, used["notify"].peak, used["notify"].cpu) == (1.0, 1, 0.7)
    assert used["late"].cpu == pytest.approx(0.1)  # a process that ended before any snapshot


def test_always_on_is_the_peak_of_each_function_for_the_whole_time() -> None:
    usage = usage_of(burst())
    assert usage.seconds == 10.0
    assert {line.name: line.always for line in usage.functions} == {"convert": 20.0, "notify": 10.0, "late": 0.0}
    assert (usage.work.pods, usage.work.always, usage.work.peak) == (13.0, 30.0, 3)
    assert (usage.work.reserved, usage.work.reserved_always) == pytest.approx((12.05, 20.5))


def test_what_runs_all_the_time_counts_and_databases_count_on_both_sides() -> None:
    usage = usage_of(burst())
    standing = {line.name: (line.pods, line.always, line.cpu) for line in usage.standing}
    assert standing == {"broker": (20.0, 0.0, 0.75), "store": (10.0, 10.0, 0.0)}
    assert (usage.total.pods, usage.total.always) == (43.0, 40.0)
    assert usage.total.cpu == pytest.approx(9.5 + 0.7 + 0.1 + 0.75)
    assert (usage.total.reserved, usage.total.reserved_always) == pytest.approx((12.05 + 2 + 5, 20.5 + 5))


def test_at_the_break_even_both_take_the_same() -> None:
    usage = usage_of(burst())
    every = usage.break_even
    # A second of always on takes 3 pods and the store's; ours takes the burst's share, the broker's 2 and the store's.
    assert usage.work.pods / every + 2 + 1 == pytest.approx(3 + 1)
    assert usage.hourly == (13 + 3600 * 3, 3600 * 4)


def test_there_is_no_break_even_if_the_platform_itself_takes_more() -> None:
    idle = Recording("embedded", "nothing", {})
    idle.add(0.0, snapshot({}, {}), {})
    idle.add(5.0, snapshot({"notify": 1}, {}), {})
    assert usage_of(idle).break_even == float("inf")
    assert "more often" not in " ".join(sentences(idle, usage_of(idle)))
    assert "while pods were still running" in sentences(idle, usage_of(idle))[-1]


def test_idle_time_has_its_pods_and_no_jobs() -> None:
    idle = Recording("knative", "10 idle minutes", {}, is_idle=True)
    for at in (0.0, 300.0, 306.0, 600.0):
        idle.add(at, snapshot({"sweep": 1} if at == 300 else {}, {}), {})
    usage = usage_of(idle)
    (sentence,) = sentences(idle, usage)
    assert sentence.startswith("The functions' pods ran for 6 pod-seconds in 600 s, 1.0% of a pod that is always on")
    titles = [axes.get_title("left") for axes in charts.draw(idle, usage).axes]
    assert titles[0] == "Pods by function"


def test_an_empty_recording_has_empty_figures() -> None:
    nothing = Recording("embedded", "nothing", {})
    assert usage_of(nothing).total.pods == 0.0
    assert "all" in table(usage_of(nothing))


def test_counters_of_ended_processes_are_kept_and_none_decreases() -> None:
    meter = Meter()
    assert meter.read({"1": ("convert", 2.0), "2": ("convert", 1.0)}) == {"convert": 3.0}
    assert meter.read({"2": ("convert", 0.0), "3": ("notify", 0.5)}) == {"convert": 3.0, "notify": 0.5}
    assert meter.read({}) == {"convert": 3.0, "notify": 0.5}


def test_a_recording_can_be_drawn_again_from_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_lost_job_or_a_refused_upload_is_a_failure(tmp_path: Path) -> None:
    lost = burst()
    refused = burst()
    lost.samples[-1].jobs["failed"] = 1
    refused.refused = 1
    for number, recording in enumerate((lost, refused)):
        recording.write(tmp_path / f"{number}.json")
        assert command.main(["--from", str(tmp_path), "--draw", f"{number}.json"]) == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"samples": [{}]}'])
def test_a_file_that_is_not_a_recording_is_named(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.json").write_text(content)
    with pytest.raises(BadRecording):
        Recording.read(tmp_path / "odd.json")
    assert command.main(["--from", str(tmp_path), "--draw", "odd.json"]) == 1
    assert "odd.json is not a recording of a burst" in capsys.readouterr().err


def test_pieces_are_drawn_if_a_job_was_split() -> None:
    recording = burst()
    assert "pieces encoded" not in legend(recording)
    recording.add(11.0, snapshot({}, {}), {"done": 2}, 16, 4)
    assert "pieces encoded" in legend(recording)


def legend(recording: Recording) -> list[str]:
    """Returns what the legend of the first chart has."""
    _, labels = charts.draw(recording, usage_of(recording)).axes[0].get_legend_handles_labels()
    return labels


def test_a_recording_without_a_pod_can_be_drawn() -> None:
    idle = Recording("knative", "<nothing>", {})
    idle.add(0.0, snapshot({}, {}), {})
    usage = usage_of(idle)
    assert "&lt;nothing&gt;" in charts.html(idle, usage, charts.draw(idle, usage))


def pod(
    namespace: str, name: str, owner: tuple[str, str] = ("", ""), function: str = "", broker: str = "", label: str = ""
) -> Any:
    labels = {
        "serving.knative.dev/service": function,
        "eventing.knative.dev/broker": broker,
        "app.kubernetes.io/name": label,
    }
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
        (pod("mp3burst", "sweep-1-x", ("Job", "sweep-1"), label="sweep"), ("sweep", None)),
        (pod("knative-serving", "activator-1", ("ReplicaSet", "activator-6d8f9")), ("knative-serving", False)),
        (pod("elsewhere", "theirs", function="theirs"), None),
        (pod("kube-system", "coredns-1"), None),
    ],
)
def test_every_pod_is_attributed_to_its_owner(found: Any, owner: tuple[str, bool | None] | None) -> None:
    assert owner_of(found, "mp3burst") == owner


def test_the_kubelet_metrics_are_parsed_by_pod() -> None:
    metrics = (
        "# HELP pod_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the pod in core-seconds\n"
        'pod_cpu_usage_seconds_total{namespace="mp3burst",pod="convert-1"} 12.5 1900000000000\n'
        'container_cpu_usage_seconds_total{container="x",namespace="mp3burst",pod="convert-1"} 12.1 1900000000000\n'
        'pod_cpu_usage_seconds_total{namespace="kube-system",pod="dns"} 1e-05 1900000000000\n'
    )
    assert dict(cpu_seconds(metrics)) == {"mp3burst/convert-1": 12.5, "kube-system/dns": 1e-05}


def test_a_database_beside_the_cluster_counts_even_after_it_has_ended() -> None:
    class Empty:
        name = "knative"

        def snapshot(self) -> Snapshot:
            return Snapshot({}, {}, {"broker": 1.0}, {}, {"broker": Standing(2)})

    work = "import sys, time\nwhile time.process_time() < 0.5: pass\nprint(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as store:
        platform = WithServers(Empty(), {"store": store.pid})
        assert store.stdout is not None
        store.stdout.readline()
        during = platform.snapshot()
    after = platform.snapshot()
    assert during.standing == {"broker": Standing(2), "store": Standing(1, anyway=True)}
    assert during.cpu["broker"] == 1.0
    assert 0.4 <= during.cpu["store"] < 3
    assert after.cpu["store"] == during.cpu["store"]


def test_cpu_quantities_are_parsed() -> None:
    assert [cpus_of(text) for text in ("1", "100m", "0.5", "25m")] == [1.0, 0.1, 0.5, 0.025]


def test_wrong_arguments_are_rejected_before_a_platform_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--video", "/nowhere/holiday.mp4"]) == 1
    assert capsys.readouterr().err.startswith("There is no file /nowhere/holiday.mp4: ")
    with pytest.raises(SystemExit):
        command.main(["--clips", "0"])
    assert "0 is too small" in capsys.readouterr().err
