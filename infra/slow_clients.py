"""Stops clients from occupying a thread by sending a request, or reading a response, slowly.

A threaded server can be blocked by as many clients as it has threads, each moving a byte now and then; a timeout on
single reads and writes does not prevent that. So every direction of every request has a credit in seconds: waiting for
the client uses it up, and the bytes that the client moves restore it. A client that has used it up is disconnected.
A request of N bytes therefore takes at most ``seconds + N / rate``, and a client that pauses has ``seconds``. Time in
which the function itself works, or waits for a store, does not count.
"""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

#: Seconds between two checks for clients whose credit is used up.
_CHECK_INTERVAL: Final = 0.5
#: Bytes that are credited at once, if a client at the minimum rate can move them with half its credit.
_PIECE: Final = 256 << 10
#: Bytes that the kernel buffers for a client. A full buffer takes more only after a third of it was sent, and at the
#: minimum rate that has to happen before the credit is used up.
SEND_BUFFER: Final = 256 << 10
log = logging.getLogger(__name__)


class SlowClientGuard:
    """Enforces a minimum rate in both directions, for all threads of a process."""

    def __init__(self, seconds: float, rate: float) -> None:
        """Sets the limits.

        Args:
            seconds: that a client may fall behind the rate.
            rate: bytes per second.
        """
        self.seconds = seconds
        self.rate = rate
        self.piece = max(1, min(_PIECE, int(rate * seconds / 2)))
        self._lock = threading.Lock()
        self._waiting: set[_Credit] = set()
        self._watcher: threading.Thread | None = None

    def body(self, stream: Any, connection: socket.socket, length: int | None) -> "GuardedBody":
        """Wraps a request's body; ``length`` is its Content-Length, None for a chunked one."""
        # The response can still be sent after the receiving half was shut down.
        return GuardedBody(_Credit(self, connection, socket.SHUT_RD), stream, length)

    def response(self, chunks: Iterable[bytes], connection: socket.socket) -> Iterator[bytes]:
        """Yields the same bytes, while the server that takes them writes each one before it takes the next."""
        credit = _Credit(self, connection, socket.SHUT_RDWR)
        with contextlib.suppress(OSError):  # the client has left, which the server notices
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        has_begun = False
        for chunk in chunks:
            for start in range(0, len(chunk), self.piece):
                piece = chunk if len(chunk) <= self.piece else chunk[start : start + self.piece]
                has_begun = True
                with self.waiting(credit):
                    yield piece
                credit.add(len(piece))
        if not has_begun:
            # The server writes the head with the first bytes. Without any it would do so only after this iterator.
            with self.waiting(credit):
                yield b""

    @contextlib.contextmanager
    def waiting(self, credit: "_Credit") -> Iterator[None]:
        """Uses up the credit while the ``with`` block waits for the client."""
        credit.began = time.monotonic()
        with self._lock:
            if self._watcher is None:  # started by the first request: threads do not survive a fork
                watcher = threading.Thread(target=self._watch, name="slow-clients", daemon=True)
                watcher.start()
                self._watcher = watcher
            self._waiting.add(credit)
        try:
            yield
        finally:
            with self._lock:
                self._waiting.discard(credit)
            credit.seconds -= time.monotonic() - credit.began

    def _watch(self) -> None:
        while True:
            time.sleep(_CHECK_INTERVAL)
            now = time.monotonic()
            with self._lock:
                for credit in self._waiting:
                    if not credit.is_cut and credit.began + credit.seconds < now:
                        credit.cut()


class _Credit:
    """What one client has left in one direction.

    Attributes:
        seconds: that it may still keep us waiting.
        began: when it began to keep us waiting.
        is_cut: whether it was disconnected.
    """

    def __init__(self, guard: SlowClientGuard, connection: socket.socket, half: int) -> None:
        self.guard = guard
        self.seconds = guard.seconds
        self.began = 0.0
        self.is_cut = False
        self._connection = connection
        self._half = half

    def add(self, count: int) -> None:
        """Restores the credit for so many bytes."""
        self.seconds = min(self.guard.seconds, self.seconds + count / self.guard.rate)

    def cut(self) -> None:
        """Disconnects the client; the thread that waits for it continues."""
        self.is_cut = True
        log.info("Disconnected a client that moved less than %g bytes per second", self.guard.rate)
        with contextlib.suppress(OSError):
            self._connection.shutdown(self._half)


class GuardedBody:
    """A WSGI input stream (PEP 3333), with the methods that Werkzeug calls."""

    def __init__(self, credit: _Credit, stream: Any, length: int | None) -> None:
        self._credit = credit
        self._stream = stream
        self._left = length
        self._is_at_end = length == 0

    @property
    def is_complete(self) -> bool:
        """Whether all of it was read."""
        return self._is_at_end

    def read(self, size: int = -1) -> bytes:
        """Returns up to ``size`` bytes, fewer at the end.

        Raises:
            RequestTooSlow: the client was disconnected.
        """
        pieces = []
        while size:
            wanted = self._limited(size)
            piece = self._read(self._stream.read, wanted)
            pieces.append(piece)
            size -= len(piece) if size > 0 else 0
            if len(piece) < wanted:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size: int = -1) -> bytes:
        """Returns the bytes up to the end of the line, at most ``size``; raises as ``read`` does."""
        return self._read(self._stream.readline, self._limited(size))

    def _limited(self, size: int) -> int:
        piece = self._credit.guard.piece
        return min(size, piece) if size > 0 else piece

    def _read(self, read: Any, size: int) -> bytes:
        from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]  # gunicorn has no types

        try:
            with self._credit.guard.waiting(self._credit):
                data: bytes = read(size)
        except ParseException as error:
            from functions.http_endpoint import BadRequest  # event functions start faster without it

            raise BadRequest("The request is not valid HTTP: check the client that sends it.") from error
        if self._credit.is_cut:
            from functions.http_endpoint import RequestTooSlow  # event functions start faster without it

            raise RequestTooSlow
        self._credit.add(len(data))
        if self._left is not None:
            self._left -= len(data)
        self._is_at_end = not data or self._left == 0
        return data
