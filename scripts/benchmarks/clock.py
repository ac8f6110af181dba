"""Takes times that can be compared on a machine that does other things too: in turn, and as medians of ratios."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: The part of the machine that others may use while something is measured.
_CALM = 0.1
#: Seconds for which each measurement waits for the machine to be calm; --patience sets it.
patience = 0.0


@dataclass(frozen=True, slots=True)
class Took:
    """What something took.

    Attributes:
        seconds: by the wall clock.
        cpu: seconds of all cores, 0 where nobody counted.
    """

    seconds: float
    cpu: float = 0.0


class CannotMeasure(Exception):
    """A measurement failed, or what it needs is not there; the text says what."""


def process(command: Sequence[str | os.PathLike[str]], environ: Mapping[str, str] | None = None) -> Took:
    """Run a program to its end: wall and CPU seconds, its own children included."""
    return _run(command, environ)[0]


def _run(command: Sequence[str | os.PathLike[str]], environ: Mapping[str, str] | None) -> tuple[Took, str]:
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complaints:
        begin = time.perf_counter()
        running = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=complaints,
        )
        _, status, used = os.wait4(running.pid, 0)
        seconds = time.perf_counter() - begin
        running.returncode = os.waitstatus_to_exitcode(status)
        for file in (said, complaints):
            file.seek(0)
        if running.returncode:
            text = complaints.read().decode(errors="replace")[-2000:]
            raise CannotMeasure(f"{' '.join(map(str, command[:4]))} ended with {running.returncode}: {text}")
        return Took(seconds, used.ru_utime + used.ru_stime), said.read().decode()


def inner(module: str, *arguments: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a module of this package, run as a process, measured of itself: it prints one JSON object.

    ``cpu`` is added where the module does not say it: seconds of the whole process.
    """
    took, said = _run([sys.executable, "-m", f"scripts.benchmarks.{module}", *arguments], environ)
    value: dict[str, Any] = {"cpu": took.cpu} | json.loads(said)
    return value


def in_turn(takes: Mapping[str, Callable[[], Took]], rounds: int) -> dict[str, list[Took]]:
    """Every take once a round, in an order that changes with the round, so that a busy moment hits them all alike."""
    took: dict[str, list[Took]] = {name: [] for name in takes}
    names = list(takes)
    for number in range(rounds):
        for name in names if number % 2 else reversed(names):
            await_calm()
            took[name].append(takes[name]())
    return took


def await_calm() -> bool:
    """Wait until the rest of the machine rests, for no longer than ``patience``; whether it does."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = _jiffies()
        time.sleep(0.3)
        after = _jiffies()
        if (after[0] - before[0]) <= _CALM * max(after[1] - before[1], 1):
            return True
    return not patience


def _jiffies() -> tuple[int, int]:
    """What all cores have worked, and what they could have (proc(5), /proc/stat)."""
    user, nice, system, idle, wait, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    busy = user + nice + system + sum(rest)
    return busy, busy + idle + wait


def fastest(ours: Sequence[Took], theirs: Sequence[Took]) -> float:
    """The ratio of the fastest rounds, which a busy machine disturbs least."""
    return min(one.seconds for one in ours) / min(one.seconds for one in theirs)


def ratio(ours: Sequence[Took], theirs: Sequence[Took]) -> float:
    """The median of the rounds' ratios of wall seconds."""
    return statistics.median(one.seconds / other.seconds for one, other in zip(ours, theirs, strict=True))


def median(took: Sequence[Took]) -> Took:
    """The medians of wall and CPU seconds."""
    return Took(statistics.median(one.seconds for one in took), statistics.median(one.cpu for one in took))


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that so large a part of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
