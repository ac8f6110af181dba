"""The files for Prometheus, as promtool of Prometheus sees them, and the text of the metrics."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from events.schema import VideoUploaded
from functions.metrics.families import exposition
from functions.metrics.readings import Totals, read, read_totals
from functions.state.leases import LeaseTerms
from functions.state.outbox import Outbox
from tests.contract.test_jobs import Records
from tests.support.databases import make_past, sqlite
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


def late_rows(directory: Path, *, is_repaired: bool) -> list[int]:
    """Returns the late rows every 30 s of two hours in which sweep comes every 5 minutes, and the event of a job is lost.

    Args:
        directory: of the database.
        is_repaired: whether a worker handles the event that sweep emits; otherwise nobody ever does.
    """
    late = []
    with sqlite(directory) as database:
        records = Records(database, LeaseTerms())
        outbox = Outbox(database, lambda *_: None)
        outbox.emit(VideoUploaded(records.job().id))
        for step in range(240):
            if step % 10 == 9:
                for due in records.overdue.due(10):
                    outbox.emit(due.event, seen=due.seen)
                    lease = records.jobs.claim(due.event.subject) if is_repaired else None
                    if lease is not None:
                        records.jobs.fail(lease, "The file has no sound.")
            late.append(read(database, Totals({}, 0)).queues["convert"].late)
            make_past(database, "jobs", "due_at", 30_000)
    return late


@pytest.mark.parametrize("is_repaired", [True, False])
def test_alert_fires_if_nobody_works_on_what_sweep_emits(tmp_path: Path, is_repaired: bool) -> None:
    late = late_rows(tmp_path, is_repaired=is_repaired)
    assert 0 < sum(late) < len(late) / 3
    fires = 'max_over_time(count(ALERTS{alertname="Mp3burstLate", alertstate="firing"})[2h:1m])'
    series = {"series": 'mp3burst_queue_late_rows{job="mp3burst", queue="convert"}', "values": " ".join(map(str, late))}
    expected = {"eval_time": "2h", "expr": fires, "exp_samples": [] if is_repaired else [{"value": 1}]}
    test = {"interval": "30s", "input_series": [series], "promql_expr_test": [expected]}
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
