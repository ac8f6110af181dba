"""Runs one ffmpeg to its end: watched, and at a lower priority if it computes for long."""

import contextlib
import os
import selectors
import subprocess
from collections.abc import Callable, Iterable, Sequence

from functions.convert.ffmpeg.encoder import EncoderRun
from functions.convert.progress import HEARTBEAT
from functions.convert.sandbox import priority, spawn
from functions.convert.sandbox.limits import Limits
from functions.convert.sandbox.watchdog import Watchdog


def run_to_end(
    run: EncoderRun,
    arguments: Sequence[str],
    limits: Limits,
    *,
    pass_fds: Iterable[int],
    on_progress: Callable[[], None],
) -> None:
    """Runs ffmpeg; its progress, its errors and its exit status are in ``run`` afterwards.

    Args:
        run: not started.
        arguments: ffmpeg's path and arguments.
        limits: resource limits.
        pass_fds: open descriptors that ffmpeg inherits.
        on_progress: called at least twice a second. An exception that it raises stops ffmpeg and propagates.

    Raises:
        EncoderKilled: ffmpeg hangs.
        OutOfResources: as ``spawn.spawn``.
    """
    process = spawn.spawn(arguments, limits, pass_fds=pass_fds, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.process = process
    watchdog = Watchdog(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout or 0, selectors.EVENT_READ, "stdout")
            selector.register(process.stderr or 0, selectors.EVENT_READ, "stderr")
            while selector.get_map() or process.poll() is None:
                on_progress()
                watchdog.check(run.seconds)
                priority.lower_if_long(process.pid)
                _receive(run, selector, process)
    finally:
        spawn.stop([process])


def _receive(run: EncoderRun, selector: selectors.BaseSelector, process: "subprocess.Popen[bytes]") -> None:
    """Processes what ffmpeg prints; waits up to a heartbeat for it, or for the end."""
    if not selector.get_map():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(HEARTBEAT)
    for key, _ in selector.select(HEARTBEAT) if selector.get_map() else ():
        if data := os.read(key.fd, 1 << 16):
            run.receive(key.data, data)
        else:
            selector.unregister(key.fileobj)
