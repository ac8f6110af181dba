"""Incoming HTTP: finds the function by path or host name, and streams request and response through."""

import asyncio
import functools
import gzip
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from events.errors import TryAgain
from functions.http_endpoint import is_trusted_proxy, nearest_client
from functions.login.proxy import HEADERS as IDENTITY_HEADERS
from infra import front
from infra.apidocs.site import Document
from infra.local.clients import Clients
from infra.local.connections import Connections
from infra.local.instances import NoInstance, Pool
from infra.local.manifests import Function
from infra.local.problems import problem

#: Headers that apply to one connection only (RFC 9110, 7.6.1), and Expect, which is handled here.
_PER_CONNECTION = {
    *("connection", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te"),
    *("trailer", "transfer-encoding", "upgrade"),
}
#: Bytes that are read at once.
_READ_SIZE = 1 << 18

Body = Callable[[], AsyncIterator[bytes]] | bytes | None


class Functions:
    """Every function's pool by name, and the client that calls them."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        """Creates the HTTP client; ``close`` closes it and the pools."""
        self.pools = pools
        self._session = aiohttp.ClientSession(
            # One connection per request: a persistent one may close while a request is sent, and then nobody knows
            # whether the request arrived.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=_READ_SIZE,
        )

    @asynccontextmanager
    async def call(
        self, name: str, method: str, path: str, headers: Mapping[str, str], body: Body, wait: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Sends a request to an instance of the function and yields the response, its body unread.

        Args:
            name: the function.
            method: the HTTP method.
            path: path and query, encoded as they are sent.
            headers: all of them.
            body: the bytes, or a function that returns an iterator over them.
            wait: seconds to wait for a free instance; None to wait without limit.

        Raises:
            TryAgain: no instance became free in time, or none starts.
            TimeoutError: the whole response takes longer than timeoutSeconds.
            aiohttp.ClientError: the instance died, or its response is not valid HTTP.
        """
        pool = self.pools[name]
        while True:
            instance = await pool.acquire(wait)
            url = URL(f"http://127.0.0.1:{instance.port}{path}", encoded=True)
            data = body() if callable(body) else body
            try:
                async with asyncio.timeout(pool.function.timeout):
                    try:
                        response = await self._session.request(
                            method, url, headers=headers, data=data, allow_redirects=False
                        )
                    except aiohttp.ClientConnectorError as error:
                        if error.os_error.errno in front.OUT_OF_RESOURCES:
                            raise NoInstance(front.MESSAGES[503]) from error
                        instance.retire()  # Nothing was sent, so another instance can take the request.
                        continue
                    try:
                        yield response
                        return
                    finally:
                        response.close()
            finally:
                pool.release(instance)

    async def close(self, seconds: float) -> None:
        """Stops every instance, by force after so many seconds."""
        await asyncio.gather(*(pool.close(seconds) for pool in self.pools.values()))
        await self._session.close()


class Ingress:
    """The HTTP server for users."""

    def __init__(
        self, functions: Functions, environ: Mapping[str, str], documents: Mapping[str, Document] | None = None
    ) -> None:
        """Creates the server; ``server.accept`` runs it.

        Args:
            functions: where requests go.
            environ: ``TRUSTED_PROXIES``.
            documents: what is served as it is, by path.
        """
        self._documents = documents or {}
        self._functions = functions
        self._environ = environ
        self._find = router(pool.function for pool in functions.pools.values())
        #: Requests that the platform waits for while it stops.
        self.inflight = 0
        self.draining = False
        self._clients = Clients()
        self.server = Connections(self._handle, _READ_SIZE)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        host = request.headers.get("Host", "").partition(":")[0].lower()
        path = request.rel_url.raw_path
        name = self._find(host, path)
        client = _client(request, self._environ)
        if not self._clients.enter(client):
            return problem(429, front.MESSAGES[429])
        if name is None:
            try:
                return await self._document(request, host, path)
            finally:
                self._clients.leave(client)
        if self.draining:
            self._clients.leave(client)
            return problem(503, "mp3burst is stopping: try again once it has restarted.")
        self.inflight += 1
        body = _RequestBody(request)
        try:
            return await self._forward(request, name, body)
        finally:
            self._clients.leave(client)
            self.inflight -= 1
            await body.idle.wait()

    async def _document(self, request: web.BaseRequest, host: str, path: str) -> web.Response:
        if host.endswith(".localhost"):
            return problem(404, front.NOT_FOUND)
        if path == front.SHARE and "/" in self._documents:
            page = front.NOT_RECEIVED if request.method == "POST" else "/"
            refusal = await _dropped(request)
            if refusal is not None:
                return refusal
            return web.Response(status=303, headers={**front.SHARE_HEADERS, "Location": page})
        if path in self._documents:
            return _static(request, self._documents[path])
        if path == "/":
            return web.Response(status=503, text=f"{front.NO_PAGE}\n")
        return problem(404, front.NOT_FOUND)

    async def _forward(self, request: web.BaseRequest, name: str, body: "_RequestBody") -> web.StreamResponse:
        headers = _forwarded_headers(request, self._environ)
        function = self._functions.pools[name].function
        response = None
        try:
            data = await body.receive(function.buffered_body) if request.body_exists else None
            path = request.rel_url.raw_path_qs
            async with self._functions.call(name, request.method, path, headers, data, function.timeout) as answer:
                response = web.StreamResponse(
                    status=answer.status, reason=answer.reason, headers=_end_to_end(answer.headers)
                )
                await response.prepare(request)
                with self._not_awaited() if answer.content_type == "text/event-stream" else nullcontext():
                    async for chunk in answer.content.iter_any():
                        async with asyncio.timeout(front.SEND_SECONDS):
                            await response.write(chunk)
                    async with asyncio.timeout(front.SEND_SECONDS):
                        await response.write_eof()
        except (TimeoutError, TryAgain, aiohttp.ClientError, aiohttp.ClientConnectionResetError) as error:
            if response is None:
                return _failed(name, request.path, body, error)
            if request.transport:
                request.transport.abort()  # A truncated response must not look complete.
        return response

    @contextmanager
    def _not_awaited(self) -> Iterator[None]:
        """Keeps a response without an end out of those that the platform waits for while it stops."""
        self.inflight -= 1
        try:
            yield
        finally:
            self.inflight += 1


def _static(request: web.BaseRequest, document: Document) -> web.Response:
    if request.method not in ("GET", "HEAD"):
        return problem(405, front.MESSAGES[405])
    digest, compressed = _prepared(document.content)
    headers = {**document.headers, "ETag": f'W/"{digest}"', "Vary": "Accept-Encoding"}
    if any(known.value in (digest, "*") for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = document.content_type
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=document.content, headers=headers)
    return web.Response(body=compressed, headers={**headers, "Content-Encoding": "gzip"})


@functools.cache
def _prepared(content: bytes) -> tuple[str, bytes]:
    """Returns a digest of a document, and the document compressed."""
    return hashlib.sha256(content).hexdigest()[:32], gzip.compress(content, mtime=0)


class _RequestBody:
    """A request's body on its way to a function. While ``idle``, nobody reads it and the server drains the rest."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._first = b""
        self._has_ended = False
        self._is_expected = request.headers.get("Expect", "").lower() == "100-continue"
        self.problem: web.Response | None = None
        self.idle = asyncio.Event()
        self.idle.set()

    async def receive(self, size: int) -> Body:
        """Returns the body if it has at most ``size`` bytes, complete; otherwise what reads it in chunks.

        Raises:
            TimeoutError: it did not arrive within BODY_SECONDS.
        """
        if size and (self._request.content_length or 0) <= size:
            first = bytearray()
            async with asyncio.timeout(front.BODY_SECONDS):
                while len(first) <= size and not self._has_ended:
                    first += await self._read()
            self._first = bytes(first)
        return self._first if self._has_ended else self.chunks

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body, including what ``receive`` has read."""
        if self._first:
            yield self._first
        while not self._has_ended:
            async with asyncio.timeout(front.BODY_SECONDS):
                chunk = await self._read()
            if chunk:
                yield chunk

    async def _read(self) -> bytes:
        if self._is_expected:
            self._is_expected = False
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.idle.clear()
        try:
            chunk = await self._request.content.readany()
        except asyncio.CancelledError:  # the time is over, or the client has left
            self.problem = problem(408, front.MESSAGES[408])
            raise
        except Exception:
            self.problem = problem(400, "The request's body is incomplete: send it again.")
            raise  # so that a truncated body never looks complete to the function
        finally:
            self.idle.set()
        self._has_ended = not chunk
        return chunk


async def _dropped(request: web.BaseRequest) -> web.Response | None:
    """Reads a request's body, which nobody needs; returns the response if it does not arrive."""
    body = _RequestBody(request)
    try:
        async with asyncio.timeout(front.SHARE_SECONDS):
            async for _ in body.chunks():
                pass
    except Exception:
        if body.problem is None:
            raise
    return body.problem


def router(functions: Iterable[Function]) -> Callable[[str, str], str | None]:
    """Returns a function that maps a host name and a path to a function's name, or to None.

    The host ``NAME.localhost`` selects a function by its name; otherwise the longest matching path prefix does, in
    which ``*`` stands for any one segment.
    """
    public = [function for function in functions if function.public]
    hosts = {f"{function.name}.localhost": function.name for function in public}
    named = sorted(((path, f.name) for f in public for path in f.paths), key=lambda item: -len(item[0]))
    paths = [(re.compile(re.escape(path).replace(r"\*", "[^/]+") + "/"), name) for path, name in named]

    def find(host: str, path: str) -> str | None:
        if not path.startswith("/"):  # such as that of OPTIONS *
            return None
        if host.endswith(".localhost"):
            return hosts.get(host)
        return next((name for prefix, name in paths if prefix.match(f"{path}/")), None)

    return find


def _failed(name: str, path: str, body: _RequestBody, error: Exception) -> web.Response:
    if body.problem is not None:
        return body.problem
    if isinstance(error, TryAgain):
        return problem(503, str(error))
    if isinstance(error, TimeoutError):
        return problem(504, f"The function {name} took too long: try again later.")
    return problem(502, front.interrupted(path))


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    dropped = _PER_CONNECTION | {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


def _client(request: web.BaseRequest, environ: Mapping[str, str]) -> str:
    client = request.remote or ""
    # Functions trust this ingress, so X-Forwarded-For is accepted only from a trusted proxy.
    if is_trusted_proxy(client, environ):
        return nearest_client(client, ", ".join(request.headers.getall("X-Forwarded-For", ())), environ)
    return client


def _forwarded_headers(request: web.BaseRequest, environ: Mapping[str, str]) -> CIMultiDict[str]:
    headers = _end_to_end(request.headers)
    client = request.remote or ""
    is_behind_proxy = is_trusted_proxy(client, environ)
    previous = headers.popall("X-Forwarded-For", ()) if is_behind_proxy else ()
    headers["X-Forwarded-For"] = ", ".join([*previous, client])
    for name in IDENTITY_HEADERS if not is_behind_proxy else ():
        headers.popall(name, None)
    headers["X-Forwarded-Proto"] = request.scheme
    headers["X-Forwarded-Host"] = request.headers.get("Host", "")
    return headers
