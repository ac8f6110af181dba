"""Waits for conditions, looks at processes in /proc, and writes programs that stand in for others."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str = "the condition", seconds: float = 30, every: float = 0.02) -> T:
    """Polls ``condition`` and returns its first true value.

    Args:
        condition: what to call.
        what: a name of the condition for the error message.
        seconds: the deadline.
        every: seconds between two calls.

    Raises:
        AssertionError: the condition was still false at the deadline.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(every)
    return value


def is_alive(pid: int) -> bool:
    """Returns whether a process exists and is not a zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def children(pid: int) -> list[int]:
    """Returns the processes that any thread of a process has started, zombies included."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                found += map(int, (thread / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process so far, which does not depend on what else the machine does."""
    used = 0
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                used += int((thread / "schedstat").read_text().split()[0])  # nanoseconds
    return used / 1e9


def descendants(ancestor: int) -> list[int]:
    """Returns the children of a process, their children and so on, from one pass over /proc."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    generation = {ancestor}
    while generation:
        generation = {pid for pid, parent in parents.items() if parent in generation}
        found |= generation
    return sorted(found)


def most_lines_since(began: float) -> float:
    """Returns how many lines a log with at most one a second may have got since a time of ``time.monotonic``."""
    return 1 + time.monotonic() - began


def shell_program(path: Path, script: str) -> str:
    """Writes an executable shell script that stands in for a program, and returns its path."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)
