"""Stops clients from occupying a thread by sending their request bodies slowly.

A threaded server can be blocked by as many clients as it has threads, each sending a byte now and then; a timeout on
single receives does not prevent that. So every read of a body has a deadline, after which the connection's receiving
half is shut down: the reader sees a truncated body, and its response can still be sent.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

#: Seconds between two checks for reads past their deadline.
_CHECK_INTERVAL = 0.5


class SlowClientGuard:
    """Limits how long each read of a request body may take, for all threads of a process."""

    def __init__(self, seconds: float) -> None:
        """Sets the limit.

        Args:
            seconds: for one read.
        """
        self._seconds = seconds
        self._lock = threading.Lock()
        self._reads: dict[int, tuple[float, socket.socket]] = {}  # deadline and connection by thread
        self._watcher: threading.Thread | None = None

    def body(self, stream: Any, connection: socket.socket) -> "GuardedBody":
        """Wraps the request's body so that each read ends in time."""
        return GuardedBody(self, stream, connection)

    @contextlib.contextmanager
    def reading(self, connection: socket.socket) -> Iterator[None]:
        """Applies the limit to a read from the connection in the ``with`` block."""
        thread = threading.get_ident()
        with self._lock:
            if self._watcher is None:  # started by the first read: threads do not survive a fork
                self._watcher = threading.Thread(target=self._watch, name="slow-clients", daemon=True)
                self._watcher.start()
            self._reads[thread] = time.monotonic() + self._seconds, connection
        try:
            yield
        finally:
            with self._lock:
                self._reads.pop(thread, None)

    def _watch(self) -> None:
        while True:
            time.sleep(_CHECK_INTERVAL)
            now = time.monotonic()
            with self._lock:
                for deadline, connection in self._reads.values():
                    if deadline < now:
                        with contextlib.suppress(OSError):
                            connection.shutdown(socket.SHUT_RD)


class GuardedBody:
    """A WSGI input stream (PEP 3333), with the methods that Werkzeug calls."""

    def __init__(self, guard: SlowClientGuard, stream: Any, connection: socket.socket) -> None:
        self._guard = guard
        self._stream = stream
        self._connection = connection

    def read(self, size: int = -1) -> bytes:
        """Returns up to ``size`` bytes; fewer at the end, or if the client took too long."""
        with self._guard.reading(self._connection):
            data: bytes = self._stream.read() if size < 0 else self._stream.read(size)
            return data

    def readline(self, size: int = -1) -> bytes:
        """Returns the bytes up to the end of the line; fewer as for ``read``."""
        with self._guard.reading(self._connection):
            line: bytes = self._stream.readline() if size < 0 else self._stream.readline(size)
            return line
