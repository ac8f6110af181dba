"""Lowers the priority of programs that compute for long, so that short conversions on the same CPUs do not wait."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from functions.convert.sandbox.watchdog import cpu_seconds

#: Seconds of CPU time that a program gets at the usual priority: encoding a minute of sound takes less.
SHORT_SECONDS: Final = 0.5
#: The nice value after that: a thirtieth of the CPU time of a program of the usual priority, if there is one.
NICE: Final = 15


def lower_if_long(pid: int) -> None:
    """Lowers the priority of every thread of a child that has computed for long; to be called every second or so.

    What counts is the time used, since what a file claims about its length may be wrong. Best effort: nothing happens
    if the child has ended or if this process may not change another user's.
    """
    used = cpu_seconds(pid)
    if used is None or used < SHORT_SECONDS:
        return
    with suppress(OSError):
        # A nice value belongs to a thread; new threads inherit it (sched(7)).
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(task.name), NICE)
