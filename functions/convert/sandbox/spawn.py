"""Starts and stops programs that handle what a stranger sent, each in its cage (``limits.py``).

The launcher is a second start of Python, 10 ms; ``preexec_fn`` would save it, but may deadlock where there are threads.
"""

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from functions.convert.errors import OutOfResources
from functions.convert.sandbox.limits import Limits

_LAUNCHER = Path(__file__).resolve().with_name("limits.py")
_FULL = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Raise OutOfResources where the machine or the container has no room for another process."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OutOfResources("There is no room for another process just now; the conversion is tried again.") from error


def spawn(
    argv: Sequence[str],
    limits: Limits,
    *,
    pass_fds: Iterable[int] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    core: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program inside its limits.

    Args:
        argv: the program's absolute path and its arguments.
        limits: resource limits, soft and hard alike.
        pass_fds: open files that the program keeps under their numbers.
        stdin: as for ``subprocess.Popen``, and so for the other two.
        stdout: see there.
        stderr: see there.
        core: the number of the one that it may run on, None for all.

    Raises:
        OutOfResources: there is none for another process.
    """
    told = " ".join(f"{name}={value}" for name, value in limits.items())
    caged = [str(os.getpid()), told, "" if core is None else str(core)]
    launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), *caged]
    with starting():
        return subprocess.Popen(
            [*launcher, *argv], env={}, cwd="/", stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=tuple(pass_fds)
        )


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
