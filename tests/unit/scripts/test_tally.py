"""Tests what scripts/test prints after two runs of pytest."""

from types import SimpleNamespace
from typing import Any

from tests.conftest import combine, summarize


def report(name: str, reason: str = "") -> Any:
    return SimpleNamespace(nodeid=name, longrepr=("tests/a.py", 7, f"Skipped: {reason}") if reason else None)


def test_the_last_run_repeats_the_failures_and_skips_of_the_first() -> None:
    first = summarize(
        {"passed": [report("a"), report("b")], "failed": [report("c")], "skipped": [report("d", "no nginx")]}
    )
    last = summarize({"passed": [report("e")], "skipped": [report("f", "no java")], "": [report("g")]})
    *lines, sums = combine([first, last])
    assert lines == ["FAILED c", "SKIPPED d: no nginx"]
    assert sums == "1 failed, 3 passed, 2 skipped"


def test_a_run_without_tests_says_so() -> None:
    assert combine([summarize({}), summarize({})]) == ["no tests ran"]
