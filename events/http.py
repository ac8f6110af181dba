"""POSTs events over HTTP, by TCP or a Unix socket, with one persistent connection per thread and URL.

Uses ``http.client``. urllib3 would add a package to four images and about 20 ms of CPU time to their cold starts, and
would still need code of ours for the two rules that matter here: one deadline for the whole request, and a single
resend if the server has closed the idle connection.
"""

import http.client
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from events.errors import Mp3burstError

#: The scheme of HTTP on a Unix socket, whose percent-encoded path is in the place of the host name.
_UNIX = "http+unix"
#: Bytes of a response that are read to keep the connection open; after a longer one it is closed.
_MAX_RESPONSE = 64 * 1024


class BadUrl(Mp3burstError):
    """Not an HTTP URL."""


def unix_url(path: Path, page: str) -> str:
    """Returns the URL of a page on a Unix socket: ``http+unix://%2Frun%2Fa.sock/page``."""
    return f"{_UNIX}://{quote(str(path), safe='')}{page}"


class UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._socket = path

    def connect(self) -> None:
        """Connects to the socket, whose path may be longer than the 108 bytes of an address (unix(7))."""
        folder = os.open(self._socket.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{self._socket.name}")
        finally:
            os.close(folder)


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
            url: ``http://``, ``https://`` or ``http+unix://``.

        Raises:
            BadUrl: it is none of them.
        """
        try:
            parts = urlsplit(url)
            is_known = parts.scheme in ("http", "https", _UNIX) and bool(parts.hostname) and parts.port != 0
        except ValueError:  # the host or the port is malformed
            is_known = False
        if not is_known:
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
        timeout = _remaining(deadline)
        if self._parts.scheme == _UNIX:
            return _IdleConnection(UnixConnection(Path(unquote(self._parts.netloc)), timeout))
        is_https = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
        return _IdleConnection(kind(self._parts.hostname or "", self._parts.port, timeout=timeout))

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
