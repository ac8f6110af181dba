"""Runs a program on what a stranger sent: no environment, no network, limits, and no life beyond its parent's.

Run as a script, with ``-I -S``, it is the launcher: it puts the limits on itself and becomes the program.
``preexec_fn`` would do so without a second start of Python (20 ms), but may deadlock in a process with threads.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_CLONE_NEWUSER = 0x10000000  # linux/sched.h

MB = 1 << 20

#: Names of resource limits ("AS", "CPU", "FSIZE", "NOFILE", "NPROC") and their values.
Limits = Mapping[str, int]


def spawn(
    argv: Sequence[str],
    limits: Limits,
    *,
    pass_fds: Iterable[int] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program inside its limits.

    Args:
        argv: the program's absolute path and its arguments.
        limits: resource limits, soft and hard alike.
        pass_fds: open files that the program keeps under their numbers.
        stdin: as for ``subprocess.Popen``, and so for the other two.
        stdout: see there.
        stderr: see there.
    """
    launcher = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), json.dumps(dict(limits))]
    return subprocess.Popen(
        [*launcher, *argv], env={}, cwd="/", stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=tuple(pass_fds)
    )


def enter(parent: int, limits: Limits) -> None:
    """Put this process into its limits; what the kernel does not grant is gone without, the limits aside.

    Args:
        parent: the process that this one must not outlive.
        limits: resource limits, soft and hard alike; one above what is allowed already leaves that standing.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew whom to watch
        os._exit(1)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and so would the program it becomes
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Kill what still runs and leave no zombie behind."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    for process in processes:
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


if __name__ == "__main__":
    enter(int(sys.argv[1]), json.loads(sys.argv[2]))
    os.execve(sys.argv[3], sys.argv[3:], {})  # noqa: S606 - an absolute path and a list, no shell
