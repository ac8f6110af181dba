"""Notices a program that does nothing any more, for which limits on CPU time never come."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from functions.convert.errors import EncoderKilled

#: Seconds in which an ffmpeg at work has long used ``LEAST`` or got on, however many share its core.
PATIENCE: Final = 300.0
#: Seconds of CPU time below which it did nothing but tell its progress, which takes it a thousandth of the time.
LEAST: Final = 1.0
#: Seconds between two looks, and what one counts for at most: whoever was halted with it, as in a container that is
#: paused, knows of no more.
LOOK: Final = 5.0


class Watch:
    """Looks at one process."""

    def __init__(self, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        """The process's id, and a clock in seconds, which stands still while the machine is suspended."""
        self._pid, self._clock = pid, clock
        self._looked, self._idle = clock(), 0.0
        self._used, self._done = 0.0, -1.0

    def check(self, done: float, waiting: bool = False) -> None:
        """Look whether it gets on; to be called at least every few seconds.

        Args:
            done: how far it has come, in anything that grows.
            waiting: whether it may have to wait for what it reads.

        Raises:
            EncoderKilled: it does not; whoever started it has to end it.
        """
        now = self._clock()
        if now - self._looked < LOOK:
            return
        self._looked, self._idle = now, self._idle + LOOK
        used = _cpu_seconds(self._pid)
        if waiting or used is None or done != self._done or used - self._used >= LEAST:
            self._idle, self._used, self._done = 0.0, used or 0.0, done
        if self._idle >= PATIENCE:
            raise EncoderKilled("The encoder came to a standstill; the conversion is tried again.")


def _cpu_seconds(pid: int) -> float | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:  # it is over, or the system is another
        return None
    # utime and stime, fields 14 and 15 (proc_pid_stat(5)); the second is a name that may have anything in it.
    fields = stat.rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
