"""What scripts/test prints at its end, of two runs of pytest."""

from types import SimpleNamespace
from typing import Any

from tests.conftest import tally, together


def report(name: str, reason: str = "") -> Any:
    return SimpleNamespace(nodeid=name, longrepr=("tests/a.py", 7, f"Skipped: {reason}") if reason else None)


def test_the_first_runs_failures_and_skips_are_told_at_the_end_of_the_last() -> None:
    first = tally({"passed": [report("a"), report("b")], "failed": [report("c")], "skipped": [report("d", "no nginx")]})
    last = tally({"passed": [report("e")], "skipped": [report("f", "no java")], "": [report("g")]})
    *lines, sums = together([first, last])
    assert lines == ["FAILED c", "SKIPPED d: no nginx"]
    assert sums == "1 failed, 3 passed, 2 skipped"


def test_a_run_of_nothing_says_so() -> None:
    assert together([tally({}), tally({})]) == ["no test ran"]
