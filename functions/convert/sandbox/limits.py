"""Confines this process: resource limits, no network, no new privileges, dies with its parent.

Run as a script with ``-I -S`` it is a launcher: it confines itself and then executes the given program with an empty
environment. It imports only what loads quickly: signal and json would take as long as everything it does.
"""

import ctypes
import os
import resource
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_CLONE_NEWUSER = 0x10000000  # linux/sched.h

_SIGKILL = 9  # these four: signal(7), x86 and ARM
_SIGPIPE = 13
_SIGXFSZ = 25
_SIG_DFL = None

#: Names of resource limits ("AS", "CPU", "FSIZE", "NOFILE", "NPROC") and their values.
Limits = dict[str, int]


def enter(parent: int, limits: Limits) -> None:
    """Confines this process. Resource limits always apply; the rest as far as the kernel allows it.

    Args:
        parent: id of the process that this one must not outlive.
        limits: resource limits, both soft and hard; one above the current hard limit leaves that in place.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    for number in (_SIGPIPE, _SIGXFSZ):
        libc.signal(number, _SIG_DFL)  # Python ignores it, and the executed program would inherit that
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit(limits)


def limit(limits: Limits) -> None:
    """Sets resource limits, as ``enter`` does."""
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # At the hard CPU limit the kernel sends SIGKILL; at the soft one SIGXCPU: the file is at fault.
        soft = value - 1 if name == "CPU" and value > 1 else value
        resource.setrlimit(kind, (soft, value))


if __name__ == "__main__":
    values = dict(pair.split("=") for pair in sys.argv[2].split())
    enter(int(sys.argv[1]), {name: int(value) for name, value in values.items()})
    # ffmpeg's threads wake each other for every packet; in a batch process they do not preempt each other: 12 % less
    # CPU time.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if sys.argv[3]:
        os.sched_setaffinity(0, [int(sys.argv[3])])
    os.execve(sys.argv[4], sys.argv[4:], {})  # noqa: S606 - an absolute path and a list, no shell
