"""Puts the process that runs it into limits: no network, no new privileges, no life beyond its parent's.

As a script, with ``-I -S``, it is a launcher: caged, it becomes the program it was given, without an environment. It
imports what starts quickly, and nothing else: signal and json would take as long as all that it does.
"""

import ctypes
import os
import resource
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_CLONE_NEWUSER = 0x10000000  # linux/sched.h

_SIGKILL, _SIGPIPE, _SIGXFSZ, _SIG_DFL = 9, 13, 25, None  # signal(7), x86 and ARM

#: Names of resource limits ("AS", "CPU", "FSIZE", "NOFILE", "NPROC") and their values.
Limits = dict[str, int]


def enter(parent: int, limits: Limits) -> None:
    """Put this process into its limits; what the kernel does not grant is gone without, the limits aside.

    Args:
        parent: the process that this one must not outlive.
        limits: resource limits, soft and hard alike; one above what is allowed already leaves that standing.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew whom to watch
        os._exit(1)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    for number in (_SIGPIPE, _SIGXFSZ):
        libc.signal(number, _SIG_DFL)  # Python ignores it, and so would the program it becomes
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit(limits)


def limit(limits: Limits) -> None:
    """Set resource limits, as ``enter`` does."""
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # At the hard limit on CPU the kernel kills; at the soft one it says why, and that is the file's fault.
        soft = value - 1 if name == "CPU" and value > 1 else value
        resource.setrlimit(kind, (soft, value))


if __name__ == "__main__":
    told = dict(one.split("=") for one in sys.argv[2].split())
    enter(int(sys.argv[1]), {name: int(value) for name, value in told.items()})
    # ffmpeg's threads wake each other for every packet; in a batch process they do not push each other aside:
    # 12 % less CPU.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if sys.argv[3]:
        os.sched_setaffinity(0, [int(sys.argv[3])])
    os.execve(sys.argv[4], sys.argv[4:], {})  # noqa: S606 - an absolute path and a list, no shell
