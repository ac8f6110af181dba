"""Configures hypothesis, and summarizes several runs of pytest.

``scripts/test`` runs pytest twice. The second run repeats the failures and skips of the first and prints the totals.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A slow example on a busy machine is not a failure.
settings.register_profile("mp3burst", deadline=None)
settings.load_profile("mp3burst")

#: The outcomes in the order of pytest's last line.
_COUNTED = ("failed", "error", "passed", "skipped", "xfailed", "xpassed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tally", type=Path, metavar="FILE", help="add this run to the runs in the file and print the totals"
    )


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    file: Path | None = config.getoption("tally", None)
    if file is None or reporter is None or hasattr(config, "workerinput"):  # a worker of xdist
        return
    text = file.read_text() if file.exists() else ""
    runs = [*json.loads(text or "[]"), summarize(reporter.stats)]
    file.write_text(json.dumps(runs))
    if len(runs) > 1:
        reporter.section(f"all {len(runs)} runs")
        for line in combine(runs):
            reporter.write_line(line)


def summarize(stats: dict[str, list[Any]]) -> dict[str, Any]:
    """Returns a run's number of tests by outcome, and a line for each failure, error and skip."""
    lines = [f"{kind.upper()} {report.nodeid}" for kind in ("failed", "error") for report in stats.get(kind, [])]
    lines += [f"SKIPPED {report.nodeid}: {_reason(report)}" for report in stats.get("skipped", [])]
    return {"counts": {kind: len(stats[kind]) for kind in _COUNTED if stats.get(kind)}, "lines": lines}


def combine(runs: list[dict[str, Any]]) -> list[str]:
    """Returns the lines of all runs except the last, which pytest has just printed, and the totals."""
    lines = [line for run in runs[:-1] for line in run["lines"]]
    sums = {kind: sum(run["counts"].get(kind, 0) for run in runs) for kind in _COUNTED}
    return [*lines, ", ".join(f"{count} {kind}" for kind, count in sums.items() if count) or "no tests ran"]


def _reason(report: Any) -> str:
    where = report.longrepr
    return str(where[2] if isinstance(where, tuple) else where).removeprefix("Skipped: ")
