"""Times that can be compared on a machine that is not idle: measured in alternation, as medians of ratios."""

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

ROOT = Path(__file__).resolve().parents[2]
#: The fraction of the machine that other processes may use while something is measured.
_CALM = 0.1
#: Seconds to wait for an idle machine before each measurement; --calm-timeout sets it.
calm_timeout = 0.0


@dataclass(frozen=True, slots=True)
class Took:
    """The time that something took.

    Attributes:
        seconds: wall-clock seconds.
        cpu: CPU seconds of all processes; 0 if they were not counted.
    """

    seconds: float
    cpu: float = 0.0


class CannotMeasure(Exception):
    """A measurement failed or something that it needs is missing; the text says what."""


def process(command: Sequence[str | os.PathLike[str]], environ: Mapping[str, str] | None = None) -> Took:
    """Runs a program to its end and returns its time, including that of its children."""
    return _run(command, environ)[0]


def _run(command: Sequence[str | os.PathLike[str]], environ: Mapping[str, str] | None) -> tuple[Took, str]:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        running = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        _, status, used = os.wait4(running.pid, 0)
        seconds = time.perf_counter() - begin
        running.returncode = os.waitstatus_to_exitcode(status)
        for file in (output, errors):
            file.seek(0)
        if running.returncode:
            text = errors.read().decode(errors="replace")[-2000:]
            raise CannotMeasure(f"{' '.join(map(str, command[:4]))} ended with {running.returncode}: {text}")
        return Took(seconds, used.ru_utime + used.ru_stime), output.read().decode()


def reference(name: str, uri: str, what: str | os.PathLike[str]) -> Took:
    """Runs a reference of scripts/benchmarks/references.py in its own process, which measures its work alone."""
    _, output = _run([sys.executable, "-m", "scripts.benchmarks.references", name, uri, what], None)
    return Took(**json.loads(output))


def work(function: Callable[[], object]) -> Took:
    """Calls a function and returns its time, including that of the children it waited for."""
    before = os.times()
    begin = time.perf_counter()
    function()
    seconds = time.perf_counter() - begin
    after = os.times()
    return Took(seconds, sum(after[:4]) - sum(before[:4]))


def alternate(measurements: Mapping[str, Callable[[], Took]], rounds: int) -> dict[str, list[Took]]:
    """Takes every measurement once per round, in reversed order every other round.

    That way, a busy moment of the machine affects all of them alike.
    """
    took: dict[str, list[Took]] = {name: [] for name in measurements}
    names = list(measurements)
    for number in range(rounds):
        for name in names if number % 2 else reversed(names):
            _await_calm()
            took[name].append(measurements[name]())
    return took


def _await_calm() -> None:
    """Waits until other processes use less than a tenth of the machine, for at most ``calm_timeout`` seconds."""
    deadline = time.monotonic() + calm_timeout
    while time.monotonic() < deadline:
        before = _jiffies()
        time.sleep(0.3)
        after = _jiffies()
        if (after[0] - before[0]) <= _CALM * max(after[1] - before[1], 1):
            return


def _jiffies() -> tuple[int, int]:
    """Returns how long all CPUs have worked, and how long they could have (proc(5), /proc/stat)."""
    user, nice, system, idle, wait, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    busy = user + nice + system + sum(rest)
    return busy, busy + idle + wait


def fastest(ours: Sequence[Took], theirs: Sequence[Took]) -> float:
    """Returns the ratio of the fastest rounds, which a busy machine disturbs least."""
    return min(one.seconds for one in ours) / min(one.seconds for one in theirs)


def ratios(ours: Sequence[Took], theirs: Sequence[Took]) -> list[float]:
    """Returns the ratio of wall-clock seconds of each round."""
    return [one.seconds / other.seconds for one, other in zip(ours, theirs, strict=True)]


def ratio(ours: Sequence[Took], theirs: Sequence[Took]) -> float:
    """Returns the median of the rounds' ratios."""
    return statistics.median(ratios(ours, theirs))


def median(took: Sequence[Took]) -> Took:
    """Returns the medians of wall-clock and CPU seconds."""
    return Took(statistics.median(one.seconds for one in took), statistics.median(one.cpu for one in took))


def quantile(values: Sequence[float], fraction: float) -> float:
    """Returns the smallest value that this fraction of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(fraction * len(ordered)), len(ordered) - 1)]


def cpus() -> int:
    """Returns how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))
