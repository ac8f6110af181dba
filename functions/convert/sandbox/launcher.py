"""Confines itself, then executes a program with an empty environment.

Started with ``-I -S`` ahead of every ffmpeg, so it imports only what loads quickly.
"""

import os
import sys

from functions.convert.sandbox import limits

#: Processes and threads of one ffmpeg, of which it starts up to 16 for each of its filter graphs.
_MAX_TASKS = 128


def main() -> None:
    """Takes its parent's id, the limits, a CPU, whether to confine, and the program with its arguments."""
    parent, encoded, cpu, confined, *argv = sys.argv[1:]
    values = dict(pair.split("=") for pair in encoded.split())
    limits.enter(int(parent), {name: int(value) for name, value in values.items()})
    # ffmpeg's threads wake each other for every packet; in a batch process they do not preempt each other: 12 % less
    # CPU time.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if cpu:
        os.sched_setaffinity(0, [int(cpu)])
    if not confined:
        os.execve(argv[0], argv, {})  # noqa: S606 - an absolute path and a list, no shell
    program = os.open(argv[0], os.O_PATH | os.O_CLOEXEC)
    limits.confine(int(parent), tasks=_MAX_TASKS, program=argv[0])
    try:
        os.execve(argv[0], argv, {})  # noqa: S606
    except PermissionError:  # the program is in a directory that only root can enter
        os.execve(program, argv, {})  # noqa: S606
