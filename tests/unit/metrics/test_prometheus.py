"""The files for Prometheus, as promtool of Prometheus sees them, and the text of the metrics."""

import re
import shutil
import subprocess
from pathlib import Path

import yaml

from functions.metrics.families import exposition
from functions.metrics.readings import read
from tests.support.databases import sqlite
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
        return exposition(read(database))


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
