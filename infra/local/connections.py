"""Accepts the ingress's connections, closes those that are idle, and answers requests that cannot be parsed."""

import asyncio
import logging
import resource
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from infra import front
from infra.local.problems import problem
from infra.once_a_second import OnceASecond

#: Connections that the kernel keeps until they are accepted.
_BACKLOG: Final = 1024
#: Descriptors for everything but connections, and those that a connection may need: its own, one to the function, and
#: a share of the function's process.
_OTHER_DESCRIPTORS: Final = 128
_PER_CONNECTION: Final = 3
_MAX_CONNECTIONS: Final = 4096  # as worker_connections in the gateway
#: A byte apart from the limit of a header field, so that aiohttp's error says which of the two it was.
_MAX_PATH: Final = front.MAX_LINE + 1
#: Seconds that a client may continue to send after an early response.
_LINGER_SECONDS: Final = 30.0
log = logging.getLogger("platform")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Connection(web.RequestHandler):
    """One connection of a client."""

    def __init__(self, server: "Connections", **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        #: Whether a request is in progress.
        self.is_busy = False
        self._requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Closes the connection unless its first request arrives in time."""
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(front.HEADER_SECONDS, self._close_if_silent)
        self._server.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Makes room for another connection."""
        self._server.closed(self)
        super().connection_lost(exc)

    def begin(self) -> None:
        """Notes that a request has arrived."""
        self.is_busy = True
        self._requests += 1

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers a request that cannot be parsed, without repeating any of it in the answer or the log."""
        del message
        if isinstance(exc, BadHttpMessage):
            status = _status(exc)
            self._server.log.warning("Refused a request with %d: %s", status, type(exc).__name__)
        elif exc is not None:
            log.error("Handling a request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("The response has begun, so it cannot become another one.")
        response = problem(status, front.MESSAGES[status])
        response.force_close()
        return response

    def _close_if_silent(self) -> None:
        if not self._requests:
            self.force_close()


class Connections(web.Server):
    """All connections: at most as many as there are file descriptors for."""

    def __init__(self, handler: Handler, read_size: int) -> None:
        """Accepts nothing yet.

        Args:
            handler: what answers a request.
            read_size: bytes that are read at once.
        """
        super().__init__(self._handle, handler_cancellation=True)
        self.log = OnceASecond(log)
        self._answer = handler
        self._options = {
            "auto_decompress": False,
            "lingering_time": _LINGER_SECONDS,
            "read_bufsize": read_size,
            "access_log": None,
            "keepalive_timeout": front.KEEPALIVE_SECONDS,
            "max_line_size": _MAX_PATH,
            "max_field_size": front.MAX_LINE,
            "max_headers": front.MAX_FIELDS,
        }
        self._open: dict[Connection, None] = {}  # the oldest first
        self._changed = asyncio.Event()

    def __call__(self) -> Connection:
        """Creates the protocol of one connection."""
        return Connection(self, loop=asyncio.get_running_loop(), **self._options)

    async def accept(self, listener: socket.socket) -> None:
        """Accepts connections until it is cancelled."""
        await accept(listener, self, self.log, self._make_room)

    def opened(self, connection: Connection) -> None:
        """Counts a connection."""
        self._open[connection] = None

    def closed(self, connection: Connection) -> None:
        """Counts a connection no more."""
        self._open.pop(connection, None)
        self._changed.set()

    async def _make_room(self) -> None:
        """Closes the oldest connection without a request, or waits for the end of one, if there are too many."""
        while len(self._open) >= max_connections():
            self._changed.clear()
            idle = next((connection for connection in self._open if not connection.is_busy), None)
            if idle is not None:
                idle.force_close()
            else:
                self.log.warning("New connections wait: %d are open", len(self._open))
            await self._changed.wait()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)  # noqa: S101 - __call__ makes all of them
        connection.begin()
        try:
            return await self._answer(request)
        finally:
            connection.is_busy = False


async def accept(
    listener: socket.socket,
    protocol: Callable[[], asyncio.Protocol],
    warnings: OnceASecond,
    room: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Accepts connections until it is cancelled.

    Without a file descriptor for a connection, ``asyncio.Server`` of Python 3.11 tries and logs a thousand times, then
    schedules a thousand further attempts.

    Args:
        listener: a bound socket.
        protocol: creates the protocol of one connection.
        warnings: logs why connections wait.
        room: waits until there may be one more connection.
    """
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    listener.listen(_BACKLOG)
    while True:
        if room is not None:
            await room()
        try:
            client, _ = await loop.sock_accept(listener)
        except ConnectionAbortedError:
            continue
        except OSError as error:
            warnings.warning("New connections wait: %s", error.strerror)
            await asyncio.sleep(front.ACCEPT_PAUSE)
        else:
            await loop.connect_accepted_socket(protocol, client)


def max_connections() -> int:
    """Returns how many connections may be open, by this process's limit of file descriptors."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, min(_MAX_CONNECTIONS, (descriptors - _OTHER_DESCRIPTORS) // _PER_CONNECTION))


def _status(error: BadHttpMessage) -> int:
    if isinstance(error, LineTooLong):
        return 414 if error.args[1] == _MAX_PATH else 431
    return 431 if "Too many headers" in error.message else 400
