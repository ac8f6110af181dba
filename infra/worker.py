"""gunicorn's threaded worker, except that a connection has a thread only while there is something to compute.

In gunicorn's own, a client that sends its request slowly, or does not close its connection, keeps a thread or even the
event loop waiting. Here the event loop receives the head of a request and a small body before a thread takes it, and
drains what a refused client still sends.
"""

import contextlib
import json
import logging
import re
import resource
import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.http.body import ChunkedReader  # type: ignore[import-untyped]
from gunicorn.workers import gthread  # type: ignore[import-untyped]

from functions.push import Push
from infra import front
from infra.once_a_second import OnceASecond
from infra.pushed import PushedResponse

#: Bytes of a request's head: its line and all its header fields.
MAX_HEAD: Final = 32 << 10
#: Bytes that one event reads from a connection.
_READ_SIZE: Final = 64 << 10
#: Bytes that a thread receives at once. gunicorn's megabyte is copied again by every read that takes a part of it.
_READ_AHEAD: Final = 256 << 10
#: How much of an unread request body is drained after the response so that the client receives it: bytes and seconds.
_DRAIN_BYTES: Final = 256 << 20
_DRAIN_SECONDS: Final = 5.0
#: Seconds in which a thread drains the rest of a body that has arrived, so that its connection can be kept.
_REST_SECONDS: Final = 0.01
#: Seconds by which a write that no SlowClientGuard watches may exceed the time that a client is granted.
_WRITE_MARGIN: Final = 2.0
#: Seconds between two looks at the responses that are pushed.
_TICK: Final = 0.25
#: Descriptors that connections leave to everything else: log, stores, temporary files.
_OTHER_DESCRIPTORS: Final = 128
#: Connections at once by default, if there are enough descriptors.
_MAX_CONNECTIONS: Final = 512

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked[ \t]*\r\n", re.IGNORECASE)
_EXPECT: Final = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
_HTTP_1_0: Final = re.compile(rb"(?:\r\n)?[^\r\n]* HTTP/1\.0\r\n")
_CHUNK_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,16})[^\r\n]{0,256}\r\n")
#: Bytes of the line that begins a chunk.
_MAX_CHUNK_LINE: Final = 16 + 256 + 2
#: Bytes that a chunked body may have for each byte that is buffered of its content: some clients send small chunks.
_MAX_OVERHEAD: Final = 2
#: The status for each of gunicorn's errors; 400 for all others.
_STATUS: Final = {
    errors.LimitRequestLine: 414,
    errors.LimitRequestHeaders: 431,
    errors.UnsupportedTransferCoding: 501,
    errors.ExpectationFailed: 417,
}
#: What is wrong with a request, by status: the sentences of gateway and ingress, and those of what only this refuses.
_MESSAGES: Final = {
    **front.MESSAGES,
    413: "The request is too large: send it in fewer and larger chunks.",
    417: "The Expect header is not supported: send it as 100-continue, or not at all.",
}
_OUR_MISTAKES: Final = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)
log = logging.getLogger("infra.worker")


def max_connections(streams: int) -> int:
    """Returns how many connections this process may have open, by its limit of file descriptors.

    Args:
        streams: how many of them may be responses that are pushed; the limit is raised for them as far as possible.
    """
    wanted = _MAX_CONNECTIONS + streams
    descriptors, possible = resource.getrlimit(resource.RLIMIT_NOFILE)
    if streams and descriptors < wanted + _OTHER_DESCRIPTORS:
        descriptors = min(wanted + _OTHER_DESCRIPTORS, possible)
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, possible))
    return max(16, min(wanted, descriptors - _OTHER_DESCRIPTORS))


class Arrival:
    """The bytes of a request that have arrived so far.

    Attributes:
        data: the bytes.
        expects_continue: whether the client waits for ``100 Continue`` before it sends a body that we want first.
        refusal: the status, if the request cannot be served.
    """

    def __init__(self, buffered_body: int) -> None:
        """Starts with nothing; ``buffered_body`` is how long a body may be to be received before the request runs."""
        self.data = bytearray()
        self.expects_continue = False
        self._buffered_body = buffered_body
        self._head = 0
        self._end: int | None = None
        self._next_chunk = 0
        self._content = 0  # of complete chunks
        self.refusal: int | None = None

    def add(self, data: bytes) -> bool:
        """Adds bytes; returns whether a thread can take the request now."""
        searched = max(0, len(self.data) - 3)
        self.data += data
        if not self._head:
            end = self.data.find(b"\r\n\r\n", searched)
            if end < 0:
                if len(self.data) > MAX_HEAD:
                    self.refusal = 431
                return False
            self._head = end + 4
            self._begin_body()
        if self._end is None:
            self._follow_chunks()
            if self._end is None and len(self.data) - self._head > _MAX_OVERHEAD * self._buffered_body:
                self.refusal = 413
        return self._end is not None and len(self.data) >= self._end

    def _begin_body(self) -> None:
        head = bytes(self.data[: self._head])
        self._end = self._head
        if _CHUNKED.search(head):
            self._end = None if self._buffered_body else self._head
            self._next_chunk = self._head
        elif (found := _LENGTH.search(head)) and int(found[1]) <= self._buffered_body:
            self._end = self._head + int(found[1])
        is_buffered = self._end is None or self._end > self._head
        # A client of HTTP/1.0 does not know 100 Continue (RFC 9110, 10.1.1), and gunicorn sends it none either.
        if is_buffered and not _HTTP_1_0.match(head) and (field := _EXPECT.search(head)):
            # gunicorn would send 100 Continue once more, after the body.
            del self.data[field.start() : field.end()]
            removed = field.end() - field.start()
            self._head -= removed
            self._next_chunk -= removed
            self._end = None if self._end is None else self._end - removed
            self.expects_continue = True

    def _follow_chunks(self) -> None:
        """Looks for the end of a chunked body (RFC 9112, 7.1), or for more of its content than is buffered."""
        while (size := _CHUNK_SIZE.match(self.data, self._next_chunk)) is not None:
            length = int(size[1], 16)
            if not length:
                last = self.data.find(b"\r\n\r\n", size.end() - 2)
                self._end = last + 4 if last >= 0 else None
                return
            arrived = min(length, len(self.data) - size.end())
            if self._content + arrived > self._buffered_body:
                self._end = self._head
            if self._end is not None or arrived < length:
                return
            self._content += length
            self._next_chunk = size.end() + length + 2
        line = self.data[self._next_chunk : self._next_chunk + _MAX_CHUNK_LINE]
        if b"\r\n" in line or len(line) == _MAX_CHUNK_LINE:
            self.refusal = 400


@dataclass
class _Wait:
    """What the event loop waits for on one connection: a request, if ``arrival`` is set, or its end."""

    deadline: float
    arrival: Arrival | None


class FunctionWorker(gthread.ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Receives requests, runs them in threads, and closes connections, each without waiting for a client.

    Attributes:
        buffered_body: bytes of a body that is received before a thread takes the request.
        seconds: that a request up to there may take to arrive.
    """

    buffered_body = 64 << 10
    seconds = 30.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Passes everything to gunicorn."""
        super().__init__(*args, **kwargs)
        self._waits: dict[Any, _Wait] = {}  # by the connections that the event loop waits for
        self._pushed: dict[Any, PushedResponse] = {}  # by the connections on which responses are pushed
        self._accept_at = 0.0
        self._tick_at = 0.0
        self._log = OnceASecond(log)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accepts connections or not; not while there are no file descriptors."""
        super().set_accept_enabled(enabled and time.monotonic() >= self._accept_at)

    def accept(self, listener: socket.socket) -> None:
        """Accepts a connection and waits for its first request."""
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in front.OUT_OF_RESOURCES:
                raise
            self._accept_at = time.monotonic() + front.ACCEPT_PAUSE
            self.set_accept_enabled(enabled=False)
            self._log.warning("New connections wait: %s", error.strerror)
            return
        self.nr_conns += 1
        # gunicorn writes 100 Continue, heads and the ends of chunked bodies without a limit of time.
        seconds, fraction = divmod(self.seconds + _WRITE_MARGIN, 1)
        timeout = struct.pack("@ll", int(seconds), int(fraction * 1_000_000))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        connection = gthread.TConn(self.cfg, client, address, listener.getsockname())
        self._await_request(connection, self.seconds)

    def handle(self, conn: Any) -> Any:
        """Runs a request; a malformed one is answered with a problem (RFC 9457)."""
        conn.data_ready = True
        return super().handle(conn)

    def handle_error(self, _req: Any, client: socket.socket, _addr: Any, exc: BaseException) -> None:
        """Answers a request that gunicorn cannot parse, without repeating any of it in the answer or the log."""
        if not isinstance(exc, errors.ParseException) or isinstance(exc, _OUR_MISTAKES):
            log.error("Handling a request failed", exc_info=exc)
            _send_problem(client, 500)
            return
        status = next((found for kind, found in _STATUS.items() if isinstance(exc, kind)), 400)
        self._log.warning("Refused a request with %d: %s", status, type(exc).__name__)
        _send_problem(client, status)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Waits for the connection's next request, or closes it, in the event loop."""
        push = getattr(conn.parser.mesg, "push", None) if conn.parser else None
        keep = not fs.cancelled() and fs.exception() is None and fs.result()
        if push is not None:
            self._begin_push(conn, push, chunked=conn.parser.mesg.version > (1, 0))
        elif not keep:
            self._drain(conn)
        else:
            seconds = self.cfg.keepalive if self.alive else gthread.STOP_KEEPALIVE_LINGER
            self._await_request(conn, seconds, conn.parser.unreader.take_buffered())

    def murder_keepalived(self, force: bool = False) -> None:
        """Closes connections whose time is over; all of them if ``force``."""
        now = time.monotonic()
        if now >= self._tick_at or force:
            self._tick_at = now + _TICK
            for connection, pushed in list(self._pushed.items()):
                if pushed.tick(now) or force:
                    self._end_push(connection)
        for connection, wait in list(self._waits.items()):
            if force or wait.deadline <= now:
                if wait.arrival is not None and wait.arrival.data:
                    _send_problem(connection.sock, 408)
                self._close(connection)

    def _cap_keepalive(self, deadline: float) -> None:
        for wait in self._waits.values():
            wait.deadline = min(wait.deadline, deadline)
        for pushed in self._pushed.values():
            pushed.deadline = min(pushed.deadline, deadline)

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        return keepalive and bool(conn.parser.finish_body(deadline=time.monotonic() + _REST_SECONDS))

    def _await_request(self, connection: Any, seconds: float, received: bytes = b"") -> None:
        arrival = Arrival(self.buffered_body)
        self._watch(connection, seconds, partial(self._receive, connection, arrival), arrival)
        if received:
            self._add(connection, arrival, received)

    def _receive(self, connection: Any, arrival: Arrival, client: socket.socket) -> None:
        data = _receive(client)
        if data:
            self._add(connection, arrival, data)
        elif data is not None:
            self._close(connection)

    def _add(self, connection: Any, arrival: Arrival, data: bytes) -> None:
        client = connection.sock
        if not arrival.data:
            self._waits[connection].deadline = time.monotonic() + self.seconds
        is_ready = arrival.add(data)
        if arrival.expects_continue:
            arrival.expects_continue = False
            with contextlib.suppress(OSError):  # the next event on the connection shows that the client has left
                client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if arrival.refusal is not None:
            self._log.warning("Refused a request with %d", arrival.refusal)
            _send_problem(client, arrival.refusal)
            self._unwatch(connection)
            self._drain(connection)
        elif is_ready:
            self._unwatch(connection)
            connection.init()
            connection.parser.unreader.unread(bytes(arrival.data))
            connection.parser.unreader.max_body_chunk = _READ_AHEAD
            self.enqueue_req(connection)

    def _drain(self, connection: Any) -> None:
        """Closes a connection once its client has, since closing it earlier may destroy the response (RFC 9112, 9.6).

        A proxy that has sent its whole request closes at once. One that still sends a body gets time to notice the
        response.
        """
        left = [_DRAIN_BYTES]

        def drain(client: socket.socket) -> None:
            data = _receive(client)
            if data is None:
                return
            left[0] -= len(data)
            if not data or left[0] <= 0:
                self._close(connection)

        try:
            if _is_complete(connection):
                connection.sock.shutdown(socket.SHUT_WR)
            self._watch(connection, _DRAIN_SECONDS, drain)
        except (OSError, ValueError):  # it is closed already
            self.nr_conns -= 1
            connection.close()

    def _begin_push(self, connection: Any, push: Push, *, chunked: bool) -> None:
        """Has the rest of a response sent by whoever pushes it; meanwhile notices if the client leaves."""
        client = connection.sock
        client.setblocking(False)

        def receive(_: socket.socket) -> None:
            if _receive(client) == b"":
                self._end_push(connection, is_gone=True)

        self._pushed[connection] = PushedResponse(client, push, chunked=chunked)
        try:
            self.poller.register(client, selectors.EVENT_READ, receive)
        except (OSError, ValueError):  # it is closed already
            self._pushed.pop(connection).close()
            self.nr_conns -= 1
            connection.close()
            return
        self._pushed[connection].begin()

    def _end_push(self, connection: Any, *, is_gone: bool = False) -> None:
        self.poller.unregister(connection.sock)
        self._pushed.pop(connection).close()
        if is_gone:
            self.nr_conns -= 1
            connection.close()
        else:
            self._drain(connection)

    def _watch(
        self,
        connection: Any,
        seconds: float,
        callback: Callable[[socket.socket], None],
        arrival: Arrival | None = None,
    ) -> None:
        connection.sock.setblocking(False)
        self._waits[connection] = _Wait(time.monotonic() + seconds, arrival)
        self.poller.register(connection.sock, selectors.EVENT_READ, callback)

    def _unwatch(self, connection: Any) -> None:
        del self._waits[connection]
        self.poller.unregister(connection.sock)

    def _close(self, connection: Any) -> None:
        self._unwatch(connection)
        self.nr_conns -= 1
        connection.close()


def _receive(client: socket.socket) -> bytes | None:
    """Returns what has arrived; None if nothing has, and no bytes at the end of the connection."""
    try:
        return client.recv(_READ_SIZE)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _is_complete(connection: Any) -> bool:
    """Whether the request's body was read to its end."""
    message = connection.parser.mesg if connection.parser else None
    reader = getattr(getattr(message, "body", None), "reader", None)
    if isinstance(reader, ChunkedReader):
        return reader.parser is None
    return getattr(reader, "length", 0) == 0


def _send_problem(client: socket.socket, status: int) -> None:
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": _MESSAGES[status]}
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} {body['title']}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    try:
        client.send(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
    except OSError as error:
        log.debug("A client left before it was refused: %s", error)
