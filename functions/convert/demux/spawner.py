"""Starts readers, and keeps one in hand where that pays: to start one takes a tenth of a second.

A reader in hand has not seen a byte of anybody's file, and sees those of one only.
"""

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functions.convert.demux import protocol
from functions.convert.errors import OutOfResources
from functions.convert.sandbox import spawn

_ADDRESS_SPACE = 1 << 30
_BYTES_PER_CPU_SECOND = 5_000_000
_ROOT = Path(__file__).resolve().parents[3]
_START = "import sys; sys.path[:] = {!r}; from functions.convert.demux.child.main import main; main()"


@dataclass(frozen=True, slots=True)
class Reader:
    """The process, and the socket on which it asks and tells (``protocol.py``)."""

    process: subprocess.Popen[bytes]
    link: socket.socket

    def begin(self, target: int, size: int, wanted: Mapping[str, Any]) -> None:
        """Say what to read, once.

        Args:
            target: the open file that the reader writes.
            size: bytes of the source.
            wanted: what to take out, as ``reader.main`` knows it.

        Raises:
            remote.Gone: the reader has ended.
        """
        limits = {
            "CPU": cpu_seconds(size),
            "FSIZE": 2 * size + (16 << 20),  # the track is part of the source, plus what a container costs
            "NOFILE": 0,
        }
        protocol.send_order(self.link, {"limits": limits, "size": size, **wanted}, target)

    def stop(self) -> None:
        """Kill it, and leave nothing behind."""
        spawn.stop([self.process])
        self.link.close()


class Readers:
    """Where conversions get their readers from."""

    def __init__(self) -> None:
        """None in hand."""
        self.forget()

    def forget(self) -> None:
        """Begin anew in a fork of the process, which has neither its threads nor its children."""
        self._spare: deque[Future[Reader]] = deque()
        # A child dies with the thread that has started it: this one lives as long as the process.
        self._starter = ThreadPoolExecutor(1, "readers")

    def prepare(self) -> None:
        """Have a reader in hand soon, for whoever takes the next one; a wish, where there is no room for a thread."""
        if not self._spare:
            with contextlib.suppress(RuntimeError):
                self._spare.append(self._starter.submit(start))

    def take(self) -> Reader:
        """The reader in hand, else a new one; OutOfResources where there is none for it."""
        while self._spare:
            with contextlib.suppress(IndexError, OSError, OutOfResources):  # another took it; it could not be started
                reader = self._spare.popleft().result()
                if reader.process.poll() is None:
                    return reader
                reader.stop()
        return start()

    def dismiss(self) -> None:
        """Let go of the reader in hand."""
        while self._spare:
            with contextlib.suppress(IndexError, OSError, OutOfResources):
                self._spare.popleft().result().stop()


def cpu_seconds(size: int) -> int:
    """Seconds that a reader may compute for a source of so many bytes."""
    return 60 + size // _BYTES_PER_CPU_SECOND


def start() -> Reader:
    """Start a reader, which waits for what to read; it dies with the calling thread.

    Raises OutOfResources like ``sandbox.spawn``.
    """
    with spawn.starting():
        link, theirs = socket.socketpair()
    arguments = {"parent": os.getpid(), "limits": {"AS": _ADDRESS_SPACE, "NPROC": 0}, "link": theirs.fileno()}
    with theirs, spawn.starting(), contextlib.ExitStack() as undone:
        undone.callback(link.close)
        process = subprocess.Popen(
            # What makes a Python environment is done already: our path is its path.
            [sys.executable, "-I", "-S", "-c", _START.format(_path()), json.dumps(arguments)],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        )
        undone.pop_all()
    return Reader(process, link)


def _path() -> list[str]:
    return [str(_ROOT), *(entry for entry in sys.path if Path(entry).is_absolute())]


#: Those of this process.
readers = Readers()
os.register_at_fork(after_in_child=readers.forget)
atexit.register(readers.dismiss)
