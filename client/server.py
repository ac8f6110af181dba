"""Sends requests to a server of mp3burst, and turns its problems into errors."""

import json
import threading
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3 import BaseHTTPResponse

from client.errors import ClientError, NotLoggedIn, RequestRefused, ServerBusy, Unreachable, not_mp3burst
from events.errors import TryAgain

#: Seconds without a byte after which a connection counts as lost. Events have a sign of life every 10 s.
_READ_SECONDS: Final = 40.0
_CONNECT_SECONDS: Final = 10.0
#: Responses that a later request may not get.
_PASSING: Final = frozenset({408, 423, 429, 502, 503, 504, 507})
#: Failures in a row after which a command gives up, and the longest pause between them, in seconds.
_MAX_FAILURES: Final = 8
_MAX_PAUSE: Final = 30.0


class Server:
    """A server, as the owner of a key sees it. Threads may share it."""

    def __init__(self, url: str, authorization: str = "") -> None:
        """Prepares requests to the server at ``url`` with the value of their header Authorization."""
        self.url = url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ClientError(f"{url} is not the address of a server: it begins with https:// or http://.")
        self._headers = {"User-Agent": "mp3burst"}
        if authorization:
            self._headers["Authorization"] = authorization
        self._pool = _pool(self.url)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        stream: bool = False,
    ) -> BaseHTTPResponse:
        """Sends a request; ``stream`` leaves the body of the response to be read.

        Raises:
            Unreachable: there is no connection, or it was lost.
            ServerBusy: a later request may succeed.
            NotLoggedIn: the server does not accept the key.
            RequestRefused: the request cannot succeed.
        """
        try:
            response = self._pool.request(
                method,
                self.url + path,
                body=body,
                headers={**self._headers, **(headers or {})},
                preload_content=not stream,
                redirect=False,
            )
            if response.status < 300:
                return response
            content = response.read() if stream else response.data
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{self.url} cannot be reached: check the address and the connection.") from error
        raise _refusal(response, content)

    def json(self, method: str, path: str, value: object = None) -> Any:
        """Sends a request with a JSON value, unless it is None; returns the JSON of the response.

        Raises:
            ClientError: as in ``request``, or the response is not a JSON object. So does looking for a field that the
                response does not have.
        """
        headers = {} if value is None else {"Content-Type": "application/json"}
        body = None if value is None else json.dumps(value).encode()
        response = self.request(method, path, body, headers)
        if not response.data:
            return None
        return self.parse(response.data)

    def parse(self, text: bytes | str) -> Any:
        """Returns the JSON object in a response.

        Raises:
            ClientError: there is none. So does looking for a field that it does not have.
        """
        url = self.url

        class Object(dict[str, Any]):
            def __missing__(self, key: str) -> Any:
                raise not_mp3burst(url)

        try:
            found = json.loads(text, object_hook=Object)
        except ValueError as error:
            raise not_mp3burst(self.url) from error
        if not isinstance(found, Object):
            raise not_mp3burst(self.url)
        return found


def _pool(url: str) -> urllib3.PoolManager:
    """Returns connections to a server, by way of the proxy of HTTPS_PROXY or HTTP_PROXY unless NO_PROXY excludes it."""
    timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
    address = urlsplit(url)
    proxy = getproxies().get(address.scheme, "")
    if not proxy or proxy_bypass(address.hostname or ""):
        return urllib3.PoolManager(retries=False, timeout=timeout, maxsize=4)
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    user = urlsplit(proxy)
    login = f"{unquote(user.username)}:{unquote(user.password or '')}" if user.username else None
    try:
        return urllib3.ProxyManager(
            proxy,
            retries=False,
            timeout=timeout,
            maxsize=4,
            proxy_headers=urllib3.make_headers(proxy_basic_auth=login),
        )
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        name = f"{address.scheme.upper()}_PROXY"
        raise ClientError(f"{name} is not the address of a proxy: set it to http://HOST:PORT, or unset it.") from error


def bearer(key: str) -> str:
    """Returns the header Authorization for an API key or a token."""
    return f"Bearer {key}"


def basic(username: str, password: str) -> str:
    """Returns the header Authorization for a password (RFC 7617)."""
    return f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"


def _refusal(response: BaseHTTPResponse, content: bytes) -> Exception:
    detail = f"The server answered {response.status}: is the address that of mp3burst?"
    try:
        problem = json.loads(content)
        if isinstance(problem, dict) and isinstance(problem.get("detail"), str):
            detail = problem["detail"]
    except ValueError:
        pass
    if response.status in _PASSING:
        return ServerBusy(detail, _retry_after(response), is_limit=response.status == 429)
    if response.status == 401:
        return NotLoggedIn(detail)
    return RequestRefused(detail, response.status, response.headers)


def _retry_after(response: BaseHTTPResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 1.0


class Retries:
    """Pauses after failures that may pass, and gives up after too many in a row without progress."""

    def __init__(self, stopped: threading.Event | None = None) -> None:
        """Begins to count; there are no further attempts once ``stopped`` is set."""
        self._failures = 0
        self._stopped = stopped or threading.Event()

    def progressed(self) -> None:
        """Begins to count anew."""
        self._failures = 0

    def pause(self, error: TryAgain) -> None:
        """Pauses before the next attempt, or raises the error if there have been too many."""
        wait = min(2.0**self._failures, _MAX_PAUSE)
        if isinstance(error, ServerBusy):
            wait = min(max(wait, error.seconds), _MAX_PAUSE)
        if not (isinstance(error, ServerBusy) and error.is_limit):  # a limit of use ends when other jobs do
            self._failures += 1
        if self._failures >= _MAX_FAILURES or self._stopped.wait(wait):
            raise error
