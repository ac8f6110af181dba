"""Starts demux children, and keeps a spare one ready if asked to: starting one takes a tenth of a second.

A spare child has not seen a byte of any user's file. A child reads one file only.
"""

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from events.errors import Mp3burstError
from functions.convert.demux import protocol
from functions.convert.demux.protocol import Order, Wanted
from functions.convert.errors import OutOfResources
from functions.convert.sandbox import setting, spawn

_ADDRESS_SPACE = 1 << 30
_BYTES_PER_CPU_SECOND = 5_000_000
_ROOT = Path(__file__).resolve().parents[3]
_START = "import sys; sys.path[:] = {!r}; from functions.convert.demux.child.main import main; main()"


@dataclass(frozen=True, slots=True)
class DemuxProcess:
    """A demux child and the socket to it (``protocol.py``)."""

    process: subprocess.Popen[bytes]
    link: socket.socket

    def begin(self, target: int, size: int, wanted: Wanted) -> None:
        """Sends the order; to be called once.

        Args:
            target: descriptor of the open file that the child writes.
            size: bytes of the source.
            wanted: what to extract.

        Raises:
            PeerClosed: the child has ended.
        """
        limits = {
            "CPU": cpu_seconds(size),
            "FSIZE": 2 * size + (16 << 20),  # the track is part of the source, plus the container's overhead
            "NOFILE": 0,
        }
        protocol.send_order(self.link, Order(target, size, limits, wanted))

    def stop(self) -> None:
        """Kills the process and closes the socket."""
        spawn.stop([self.process])
        self.link.close()


class DemuxSpawner:
    """Supplies conversions with demux children."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Starts afresh in a forked process, which has neither its parent's threads nor its children."""
        self._spares: deque[Future[DemuxProcess]] = deque()
        # A child dies with the thread that started it: this thread lives as long as the process.
        self._starter = ThreadPoolExecutor(1, "demux-spawner")

    def prepare(self) -> None:
        """Starts a spare child in the background, unless there is one; best effort."""
        if not self._spares:
            with contextlib.suppress(RuntimeError):  # no more threads
                self._spares.append(self._starter.submit(start))

    def take(self) -> DemuxProcess:
        """Returns the spare child, or starts one.

        Raises:
            OutOfResources: as ``spawn.spawn``.
        """
        while self._spares:
            with contextlib.suppress(IndexError, OSError, OutOfResources):  # taken meanwhile, or not started
                child = self._spares.popleft().result()
                if child.process.poll() is None:
                    return child
                child.stop()
        return start()

    def dismiss(self) -> None:
        """Stops the spare child."""
        while self._spares:
            with contextlib.suppress(IndexError, OSError, Mp3burstError):
                self._spares.popleft().result().stop()


def cpu_seconds(size: int) -> int:
    """Seconds of CPU time that a child may use for a source of this many bytes."""
    return 60 + size // _BYTES_PER_CPU_SECOND


def start() -> DemuxProcess:
    """Starts a child, which waits for its order and dies with the calling thread.

    Raises:
        OutOfResources: as ``spawn.spawn``.
        BadSetting: as ``spawn.spawn``.
    """
    confined = setting.is_on(os.environ)
    with spawn.starting():
        link, theirs = socket.socketpair()
    arguments = {
        "parent": os.getpid(),
        "limits": {"AS": _ADDRESS_SPACE, "NPROC": 0},
        "link": theirs.fileno(),
        "confined": confined,
    }
    with theirs, spawn.starting(), contextlib.ExitStack() as on_error:
        on_error.callback(link.close)
        process = subprocess.Popen(
            # -S skips the setup of the Python environment: the child gets our path.
            [sys.executable, "-I", "-S", "-c", _START.format(_path()), json.dumps(arguments)],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        )
        on_error.pop_all()
    return DemuxProcess(process, link)


def _path() -> list[str]:
    return [str(_ROOT), *(entry for entry in sys.path if Path(entry).is_absolute())]


#: This process's spawner.
spawner = DemuxSpawner()
os.register_at_fork(after_in_child=spawner.reset)
atexit.register(spawner.dismiss)
