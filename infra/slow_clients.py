"""Gives up on clients who keep a thread waiting for their bytes.

A server of threads is shut by as many clients as it has threads, each of which sends a byte now and then; no time-out
of a single receive ends that. So every read of a body has an end, after which the connection's receiving half is shut:
the reader sees a body that broke off, and its answer can still be sent.
"""

import contextlib
import socket
import threading
import time
from typing import Any

_LOOK = 0.5


class Patience:
    """Watches over the reads of all threads of a process."""

    def __init__(self, seconds: float) -> None:
        """Reads that may last so many seconds each."""
        self._seconds = seconds
        self._lock = threading.Lock()
        self._reading: dict[int, tuple[float, socket.socket]] = {}
        self._watcher: threading.Thread | None = None

    def body(self, stream: Any, connection: socket.socket) -> "Body":
        """The request's body, each read of which comes to an end."""
        return Body(self, stream, connection)

    @contextlib.contextmanager
    def reading(self, connection: socket.socket) -> Any:
        """Reading from the connection, in the block."""
        me = threading.get_ident()
        with self._lock:
            if self._watcher is None:  # not before the first read: threads do not outlive a fork
                self._watcher = threading.Thread(target=self._watch, name="patience", daemon=True)
                self._watcher.start()
            self._reading[me] = time.monotonic() + self._seconds, connection
        try:
            yield
        finally:
            with self._lock:
                self._reading.pop(me, None)

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK)
            now = time.monotonic()
            with self._lock:
                late = [connection for end, connection in self._reading.values() if end < now]
                for connection in late:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RD)


class Body:
    """A body as WSGI has it (PEP 3333), for what Werkzeug calls."""

    def __init__(self, patience: Patience, stream: Any, connection: socket.socket) -> None:
        self._patience, self._stream, self._connection = patience, stream, connection

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; fewer at the end, or where the client took too long."""
        with self._patience.reading(self._connection):
            data: bytes = self._stream.read() if size < 0 else self._stream.read(size)
            return data

    def readline(self, size: int = -1) -> bytes:
        """Up to the end of the line; fewer as for ``read``."""
        with self._patience.reading(self._connection):
            line: bytes = self._stream.readline() if size < 0 else self._stream.readline(size)
            return line
