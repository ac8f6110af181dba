"""A response that is sent bit by bit from any thread, and that makes none of them wait (``functions.push``)."""

import socket
import threading
import time
from typing import Final

from functions.push import Push

#: Bytes that may wait for a client. The kernel takes half a megabyte before the first has to wait.
_MAX_WAITING: Final = 256 << 10


class PushedResponse:
    """Sends what is pushed, at once if the client's buffer takes it. Its methods may be called on any thread."""

    def __init__(self, client: socket.socket, push: Push, *, chunked: bool) -> None:
        """Prepares the response, whose head and first bytes were sent.

        Args:
            client: the connection, which does not block.
            push: what to send.
            chunked: whether the rest is sent in chunks (RFC 9112, 7.1).
        """
        self.deadline = time.monotonic() + push.seconds
        self.is_ended = False
        self._client = client
        self._push = push
        self._chunked = chunked
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._next_beat = time.monotonic() + push.beat_seconds

    def begin(self) -> None:
        """Begins to send."""
        self._push.begin(self)

    def send(self, data: bytes) -> None:
        """Sends bytes; what the client's buffer does not take waits for ``tick``."""
        with self._lock:
            if not self.is_ended and data:
                self._add(data)

    def end(self) -> None:
        """Ends the response at the next ``tick``."""
        self.deadline = 0.0

    def tick(self, now: float) -> bool:
        """Sends what waits, and what is due by now; returns whether the response has ended."""
        with self._lock:
            if not self.is_ended:
                if now >= self.deadline:
                    self._add(self._push.last())
                    self._add(b"")
                    self.is_ended = True
                elif now >= self._next_beat:
                    self._add(self._push.beat)
                else:
                    self._flush()
            return self.is_ended

    def close(self) -> None:
        """Ends the response without a word: the client has left, or ``tick`` has ended it."""
        with self._lock:
            self.is_ended = True
        self._push.ended()

    def _add(self, data: bytes) -> None:
        """Sends bytes; none end the response if it is chunked."""
        self._waiting += b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
        self._next_beat = time.monotonic() + self._push.beat_seconds
        self._flush()

    def _flush(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: self._client.send(self._waiting)]
        except BlockingIOError:
            if len(self._waiting) > _MAX_WAITING:
                self.is_ended = True
        except OSError:
            self.is_ended = True
