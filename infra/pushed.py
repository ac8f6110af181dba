"""A response that is sent bit by bit from any thread, and that makes none of them wait (``functions.push``)."""

import socket
import threading
import time

from functions.push import Push


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

    def wake(self) -> None:
        """Sends what the push has; what the client's buffer does not take waits for ``tick``."""
        with self._lock:
            if not self.is_ended:
                self._flush()

    def end(self) -> None:
        """Ends the response at the next ``tick``."""
        self.deadline = 0.0

    def tick(self, now: float) -> bool:
        """Sends what waits, and what is due by now; returns whether the response has ended."""
        with self._lock:
            if not self.is_ended and now >= self.deadline:
                self._add(self._push.last())
                if self._chunked:
                    self._waiting += b"0\r\n\r\n"
                self._send()
                self.is_ended = True
            elif not self.is_ended:
                self._flush()
                if now >= self._next_beat and not self._waiting:
                    self._add(self._push.beat)
                    self._send()
            return self.is_ended

    def close(self) -> None:
        """Ends the response without a word: the client has left, or ``tick`` has ended it."""
        with self._lock:
            self.is_ended = True
        self._push.ended()

    def _flush(self) -> None:
        """Sends what waits and then what the push has, until the client's buffer is full or there is no more."""
        while self._send() and (data := self._push.take()):
            self._add(data)

    def _add(self, data: bytes) -> None:
        if data:
            self._waiting += b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
            self._next_beat = time.monotonic() + self._push.beat_seconds

    def _send(self) -> bool:
        """Sends what waits; returns whether the client's buffer has taken all of it."""
        try:
            while self._waiting:
                del self._waiting[: self._client.send(self._waiting)]
        except BlockingIOError:
            return False
        except OSError:
            self.is_ended = True
            return False
        return True
