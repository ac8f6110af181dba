"""The files for Prometheus, as promtool of Prometheus sees them, and the text of the metrics."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from events.schema import VideoUploaded
from functions.metrics.families import exposition
from functions.metrics.readings import Reading, Totals, read, read_totals
from functions.state.blobs import Blobs
from functions.state.counters import Count, Series
from functions.state.disks import Disks
from functions.state.leases import LeaseTerms
from functions.state.outbox import Outbox
from functions.state.overdue import Overdue
from functions.sweep.main import Dependencies, sweep_up
from tests.contract.test_jobs import Records
from tests.support.databases import make_past, sqlite
from tests.support.fakes import memory_media
from tests.support.paths import ROOT
from tests.support.servers import program
from tests.test_docs import quoted, rows, section
from tests.unit.metrics.test_metrics import samples

FILES = ROOT / "infra/prometheus"
TESTS = ROOT / "tests/unit/metrics/alerts_test.yml"


def promtool(directory: Path, *arguments: str, text: bytes = b"") -> str:
    """Runs promtool, which must find nothing wrong; returns what it says."""
    command = [program("promtool"), *arguments]
    done = subprocess.run(
        command, input=text, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    return said


def metrics(directory: Path) -> bytes:
    with sqlite(directory) as database:
        return exposition(read(database, read_totals(database)))


def test_names_and_help_are_as_prometheus_recommends(tmp_path: Path) -> None:
    assert promtool(tmp_path, "check", "metrics", text=metrics(tmp_path)) == ""


def test_configuration_and_alerts_are_valid(tmp_path: Path) -> None:
    shutil.copytree(FILES, tmp_path / "etc")
    (tmp_path / "etc/mp3burst.key").touch()
    assert "SUCCESS" in promtool(tmp_path / "etc", "check", "config", "prometheus.yml")


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    for file in (FILES / "alerts.yml", TESTS):
        shutil.copy(file, tmp_path)
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", TESTS.name)


def readings_of_a_lost_event(directory: Path, *, is_repaired: bool) -> Iterator[Reading]:
    """Yields what is read every 30 s of two hours in which sweep comes every 5 minutes, and the event of a job is lost.

    Args:
        directory: of the database.
        is_repaired: whether a worker handles the event that sweep emits; otherwise nobody ever does.
    """
    with sqlite(directory) as database:
        records = Records(database, LeaseTerms())
        outbox = Outbox(database, lambda *_: None)
        deps = Dependencies(Overdue(database), Blobs(database), memory_media(), outbox, Disks(database), 0)
        outbox.emit(VideoUploaded(records.job().id))
        for step in range(241):
            if step % 10 == 9:
                sweep_up(deps)
                lease = records.jobs.claim(records.row("jobs").id) if is_repaired and step > 20 else None
                if lease is not None:
                    records.jobs.fail(lease, "The file has no sound.")
            yield read(database, Totals({}, 0))
            make_past(database, "jobs", "due_at", 30_000)


@pytest.mark.parametrize("is_repaired", [True, False])
def test_alert_fires_if_nobody_works_on_what_sweep_emits(tmp_path: Path, is_repaired: bool) -> None:
    readings = list(readings_of_a_lost_event(tmp_path, is_repaired=is_repaired))
    repeated = [each.counts.get(Series.of("events_repeated", "convert"), Count(0, 0)).amount for each in readings]
    assert repeated[-1] == 1 if is_repaired else repeated[-1] > 5
    values = {
        "mp3burst_queue_late_rows": [each.queues["convert"].late for each in readings],
        "mp3burst_events_repeated_total": repeated,
    }
    series = [
        {"series": f'{name}{{job="mp3burst", queue="convert"}}', "values": " ".join(map(str, each))}
        for name, each in values.items()
    ]
    fires = 'max_over_time(count(ALERTS{alertname="Mp3burstLate", alertstate="firing"})[2h:1m])'
    expected = {"eval_time": "2h", "expr": fires, "exp_samples": [] if is_repaired else [{"value": 1}]}
    test = {"interval": "30s", "input_series": series, "promql_expr_test": [expected]}
    (tmp_path / "late.yml").write_text(yaml.safe_dump({"rule_files": ["alerts.yml"], "tests": [test]}))
    shutil.copy(FILES / "alerts.yml", tmp_path)
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "late.yml")


def test_counters_that_the_tests_begin_with_zero_do_so(tmp_path: Path) -> None:
    """One that begins with 1 has not increased for Prometheus."""
    shown = samples(metrics(tmp_path).decode())
    tried = re.findall(r"(mp3burst_\w+_total)\{job=\"mp3burst\", instance=\"\w+\"(.*)\}'", TESTS.read_text())
    assert tried
    for name, others in tried:
        labels = ",".join(sorted(others.strip(", ").split(", "))) if others else ""
        assert shown[f"{name}{{{labels}}}" if labels else name] == 0


def rules() -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load((FILES / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def test_every_alert_is_described_and_tried() -> None:
    names = {rule["alert"] for rule in rules()}
    described = rows(section((ROOT / "docs/metrics.md").read_text(), "## Alerts"))
    assert {name for row in described for name in quoted(row[0])} == names
    assert {*re.findall(r'alertname="(\w+)"', TESTS.read_text())} == names


def test_alerts_and_queries_name_metrics_that_exist(tmp_path: Path) -> None:
    text = metrics(tmp_path).decode()
    # Some have no values before the first sweep.
    shown = {*re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)} | {name.partition("{")[0] for name in samples(text)}
    documents = section((ROOT / "docs/metrics.md").read_text(), "## Questions and queries")
    for queries in (*(rule["expr"] for rule in rules()), documents, TESTS.read_text()):
        named = {*re.findall(r"\bmp3burst_\w+", queries)}
        assert named - shown == set(), queries
