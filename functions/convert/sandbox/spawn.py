"""Starts and stops programs that handle untrusted data, each inside its limits (``launcher.py``).

The launcher is a second start of Python, 10 ms; ``preexec_fn`` would save it, but may deadlock in a process with
threads.
"""

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from functions.convert.errors import OutOfResources
from functions.convert.sandbox import setting
from functions.convert.sandbox.limits import Limits

_ROOT = Path(__file__).resolve().parents[3]
#: Imports the launcher, which is faster than running it as a script: Python keeps the compiled module.
_START = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from functions.convert.sandbox.launcher import main; main()"
_EXHAUSTED = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Raises OutOfResources if the machine or the container cannot start another process."""
    try:
        yield
    except OSError as error:
        if error.errno not in _EXHAUSTED:
            raise
        raise OutOfResources("No process can be started at the moment; the conversion will be retried.") from error


def spawn(
    argv: Sequence[str],
    limits: Limits,
    *,
    pass_fds: Iterable[int] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    cpu: int | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a program inside its limits and, unless SANDBOX is off, in the sandbox (``limits.confine``).

    Args:
        argv: the program's absolute path and its arguments.
        limits: resource limits, both soft and hard.
        pass_fds: open descriptors that the program inherits under the same numbers.
        stdin: as for ``subprocess.Popen``, like the next two.
        stdout: see there.
        stderr: see there.
        cpu: number of the only CPU that the program may run on; None for all.

    Raises:
        OutOfResources: no process can be started at the moment.
        BadSetting: as ``setting.is_on``.
    """
    confined = "confined" if setting.is_on(os.environ) else ""
    encoded = " ".join(f"{name}={value}" for name, value in limits.items())
    arguments = [str(os.getpid()), encoded, "" if cpu is None else str(cpu), confined]
    launcher = [sys.executable, "-I", "-S", "-c", _START, *arguments]
    with starting():
        return subprocess.Popen(
            [*launcher, *argv], env={}, cwd="/", stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=tuple(pass_fds)
        )


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Kills the processes that still run, reaps all of them, and closes their pipes."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    for process in processes:
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
