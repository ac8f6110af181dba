"""For all tests: no deadline for an example of hypothesis, and one summary of several runs.

``scripts/test`` makes two runs of all tests; the last one says at its end what the first one said.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# An example that takes long on a busy machine is no fault.
settings.register_profile("mp3burst", deadline=None)
settings.load_profile("mp3burst")

#: What a run's last line counts, in its order.
_COUNTED = ("failed", "error", "passed", "skipped", "xfailed", "xpassed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tally", type=Path, metavar="FILE", help="add up this run and those that the file tells of")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    file: Path | None = config.getoption("tally", None)
    if file is None or reporter is None or hasattr(config, "workerinput"):  # xdist's workers report to their master
        return
    text = file.read_text() if file.exists() else ""
    runs = [*json.loads(text or "[]"), tally(reporter.stats)]
    file.write_text(json.dumps(runs))
    if len(runs) > 1:
        reporter.section(f"all {len(runs)} runs")
        for line in together(runs):
            reporter.write_line(line)


def tally(stats: dict[str, list[Any]]) -> dict[str, Any]:
    """A run: how many tests there were of each kind, and a line for each that has to be looked at."""
    lines = [f"{kind.upper()} {report.nodeid}" for kind in ("failed", "error") for report in stats.get(kind, [])]
    lines += [f"SKIPPED {report.nodeid}: {_reason(report)}" for report in stats.get("skipped", [])]
    return {"counts": {kind: len(stats[kind]) for kind in _COUNTED if stats.get(kind)}, "lines": lines}


def together(runs: list[dict[str, Any]]) -> list[str]:
    """The lines of all runs but the last, which has just printed its own, and the sums of all of them."""
    lines = [line for run in runs[:-1] for line in run["lines"]]
    sums = {kind: sum(run["counts"].get(kind, 0) for run in runs) for kind in _COUNTED}
    return [*lines, ", ".join(f"{count} {kind}" for kind, count in sums.items() if count) or "no test ran"]


def _reason(report: Any) -> str:
    where = report.longrepr
    return str(where[2] if isinstance(where, tuple) else where).removeprefix("Skipped: ")
