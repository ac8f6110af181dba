"""Detects a stalled program, which never reaches its limit on CPU time."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from functions.convert.errors import EncoderKilled

#: Seconds after which a program counts as stalled. A working ffmpeg uses ``MIN_CPU_SECONDS`` or makes progress long
#: before that, however many processes share its CPU.
STALL_SECONDS: Final = 300.0
#: Seconds of CPU time that count as work: reporting progress alone takes ffmpeg less, a thousandth of the time.
MIN_CPU_SECONDS: Final = 1.0
#: Seconds between two checks, and the most that one check adds to the idle time: if this process was suspended with the
#: program, as in a paused container, the time in between says nothing.
CHECK_INTERVAL: Final = 5.0


class Watchdog:
    """Watches one process."""

    def __init__(self, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Watches a process.

        Args:
            pid: its id.
            clock: returns seconds, not counting those in which the machine is suspended.
        """
        self._pid = pid
        self._clock = clock
        self._checked = clock()
        self._idle = 0.0
        self._used = 0.0
        self._done = -1.0

    def check(self, done: float, waiting: bool = False) -> None:
        """Checks whether the process makes progress; to be called at least every few seconds.

        Args:
            done: its progress, in any unit that only grows.
            waiting: whether it may have to wait for its input.

        Raises:
            EncoderKilled: it is stalled; the caller must kill it.
        """
        now = self._clock()
        if now - self._checked < CHECK_INTERVAL:
            return
        self._checked = now
        self._idle += CHECK_INTERVAL
        used = cpu_seconds(self._pid)
        if waiting or used is None or done != self._done or used - self._used >= MIN_CPU_SECONDS:
            self._idle = 0.0
            self._used = used or 0.0
            self._done = done
        if self._idle >= STALL_SECONDS:
            raise EncoderKilled("The encoder stalled; the conversion will be retried.")


def cpu_seconds(pid: int) -> float | None:
    """Returns the CPU time that a process has used; None if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:  # it has ended, or this is not Linux
        return None
    # utime and stime, fields 14 and 15 (proc_pid_stat(5)); field 2 is a name that may contain anything.
    fields = stat.rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
