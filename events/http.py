"""POSTs events over HTTP with one persistent connection per thread and URL.

Uses ``http.client``. urllib3 would add a package to four images and about 20 ms of CPU time to their cold starts, and
would still need code of ours for the two rules that matter here: one deadline for the whole request, and a single
resend if the server has closed the idle connection.
"""

import http.client
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from events.errors import Mp3burstError

#: Bytes of a response that are read to keep the connection open; after a longer one it is closed.
_MAX_RESPONSE = 64 * 1024


class BadUrl(Mp3burstError):
    """Not an HTTP URL."""


class _IdleConnection:
    """Closes its connection when its thread has ended or its HttpSink is garbage-collected."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class HttpSink:
    """POSTs to one URL. Threads may share it: each has a connection of its own."""

    def __init__(self, url: str) -> None:
        """Checks the URL; the first ``post`` connects.

        Args:
            url: ``http://`` or ``https://``.

        Raises:
            BadUrl: it is neither.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadUrl(f"{url!r} is not a URL to send events to: write http://HOST:PORT/PATH.")
        self.url = url
        self._parts = parts
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._local = threading.local()

    def post(self, headers: Mapping[str, str], body: bytes, timeout: float) -> int:
        """Sends a POST request and returns the response's status.

        If the server turns out to have closed the idle connection, the request is sent once more on a new one.
        The server may then receive the event twice; events are delivered at least once anyway.

        Args:
            headers: of the request.
            body: of the request.
            timeout: seconds for the whole exchange.

        Raises:
            OSError: connecting failed, or no response arrived in time.
            http.client.HTTPException: the response is not HTTP.
        """
        deadline = time.monotonic() + timeout
        idle: _IdleConnection | None = getattr(self._local, "idle", None)
        if idle is not None:
            try:
                return self._exchange(idle, headers, body, deadline)
            except (ConnectionError, http.client.BadStatusLine):  # RemoteDisconnected is both
                pass
        return self._exchange(self._connect(deadline), headers, body, deadline)

    def close(self) -> None:
        """Closes this thread's connection."""
        self._local.idle = None

    def _connect(self, deadline: float) -> _IdleConnection:
        is_https = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
        return _IdleConnection(kind(self._parts.hostname or "", self._parts.port, timeout=_remaining(deadline)))

    def _exchange(self, idle: _IdleConnection, headers: Mapping[str, str], body: bytes, deadline: float) -> int:
        self._local.idle = None
        connection = idle.connection
        try:
            connection.timeout = _remaining(deadline)  # for a new socket
            if connection.sock is not None:
                connection.sock.settimeout(connection.timeout)
            connection.request("POST", self._path, body, dict(headers))
            connection.sock.settimeout(_remaining(deadline))
            response = connection.getresponse()
            response.read(_MAX_RESPONSE)
            if response.isclosed():  # read to its end: the connection can take the next request
                self._local.idle = idle
            return response.status
        finally:
            if self._local.idle is None:
                connection.close()


def _remaining(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the request timed out")
    return seconds
