"""POST over a connection that is kept: one for each thread and server."""

import http.client
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from events.errors import Mp3burstError

_MOST = 64 * 1024  # bytes of an answer that are read to keep the connection; a longer one costs a new connection


class BadUrl(Mp3burstError):
    """Not an HTTP URL."""


class _Kept:
    # Closes the connection when its thread has ended, or nobody has the Poster any more.
    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class Poster:
    """POSTs to one URL. Threads may share it: each has a connection of its own."""

    def __init__(self, url: str) -> None:
        """Connect to nothing yet.

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
        """POST, and return the answer's status.

        A kept connection that turns out to be closed is replaced, and the request sent once more: whoever gets
        events gets some of them twice anyhow.

        Args:
            headers: of the request.
            body: of the request.
            timeout: seconds for all of it.

        Raises:
            OSError: no connection, or no answer in time.
            http.client.HTTPException: the answer is not HTTP.
        """
        deadline = time.monotonic() + timeout
        kept: _Kept | None = getattr(self._local, "kept", None)
        if kept is not None:
            try:
                return self._exchange(kept, headers, body, deadline)
            except (ConnectionError, http.client.BadStatusLine):  # RemoteDisconnected is both
                pass
        return self._exchange(self._connect(deadline), headers, body, deadline)

    def close(self) -> None:
        """Close this thread's connection."""
        self._local.kept = None

    def _connect(self, deadline: float) -> _Kept:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return _Kept(kind(self._parts.hostname or "", self._parts.port, timeout=_left(deadline)))

    def _exchange(self, kept: _Kept, headers: Mapping[str, str], body: bytes, deadline: float) -> int:
        self._local.kept = None
        connection = kept.connection
        try:
            connection.timeout = _left(deadline)  # for a new socket
            if connection.sock is not None:
                connection.sock.settimeout(connection.timeout)
            connection.request("POST", self._path, body, dict(headers))
            connection.sock.settimeout(_left(deadline))
            answer = connection.getresponse()
            answer.read(_MOST)
            if answer.isclosed():  # read to its end: the connection can take the next request
                self._local.kept = kept
            return answer.status
        finally:
            if self._local.kept is None:
                connection.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for the request is over")
    return left
