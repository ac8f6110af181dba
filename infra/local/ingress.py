"""HTTP in: finds the function by path or host name and passes the bytes both ways as they come."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from events.errors import TryAgain
from infra.local.instances import Instance, Pool
from infra.local.manifests import Function

#: Headers that speak of one connection only (RFC 9110, 7.6.1), and those that aiohttp makes itself.
_PER_CONNECTION = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"),
    *("transfer-encoding", "upgrade", "expect"),
}
#: Seconds and bytes: how long a client that was refused may go on sending, and how much is read at once.
_LINGER_SECONDS, _READ = 30.0, 1 << 18
#: Names under which only this machine reaches us.
_LOCAL = {"localhost", "127.0.0.1"}

Headers = Mapping[str, str]
Body = Callable[[], AsyncIterator[bytes]] | bytes | None


class Routes:
    """Which function a request is for: by host ``NAME.localhost``, else by the longest path prefix."""

    def __init__(self, functions: Iterable[Function]) -> None:
        public = [function for function in functions if function.public]
        self._hosts = {f"{function.name}.localhost": function.name for function in public}
        paths = {path.rstrip("/"): function.name for function in public for path in function.paths}
        self._paths = sorted(paths.items(), key=lambda item: -len(item[0]))

    def find(self, host: str, path: str) -> str | None:
        """The name of the function, or None. ``host`` may have a port, ``path`` is without the query."""
        host = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if host.lower().endswith(".localhost"):
            return self._hosts.get(host.lower())
        return next((name for prefix, name in self._paths if (path + "/").startswith(prefix + "/")), None)


class Functions:
    """Every function by name, and the way to call one."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self.pools = pools
        # A connection each: one that is kept could close under a request, and nobody knows then whether it arrived.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=_READ,
        )

    @asynccontextmanager
    async def call(
        self, name: str, method: str, path: str, headers: Headers, body: Body, patience: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request to an instance of the function; yields the answer, its body unread.

        Args:
            name: the function.
            method: the HTTP method.
            path: path and query, as they are sent.
            headers: all headers.
            body: the body, or what makes an iterator over it, to be streamed.
            patience: seconds to wait for an instance; None: as long as it takes.

        Raises:
            TryAgain: no instance in time, or none starts.
            TimeoutError: the whole answer took longer than timeoutSeconds.
            aiohttp.ClientError: the instance died, or its answer makes no sense.
        """
        pool = self.pools[name]
        while True:
            instance = await pool.acquire(patience)
            try:
                async with asyncio.timeout(pool.function.timeout):
                    answer = await self._send(instance, method, path, headers, body)
                    if answer is None:
                        pool.retire(instance)
                        continue
                    try:
                        yield answer
                    finally:
                        answer.close()
                    return
            finally:
                pool.release(instance)

    async def _send(
        self, instance: Instance, method: str, path: str, headers: Headers, body: Body
    ) -> aiohttp.ClientResponse | None:
        url = URL(f"http://127.0.0.1:{instance.port}{path}", encoded=True)
        data = body() if callable(body) else body
        try:
            return await self._session.request(method, url, headers=headers, data=data, allow_redirects=False)
        except aiohttp.ClientConnectorError:
            return None  # Nothing was sent, so another instance may have it.

    async def close(self, seconds: float) -> None:
        """Stop every instance."""
        await asyncio.gather(*(pool.close(seconds) for pool in self.pools.values()))
        await self._session.close()


class Ingress:
    """The front door. ``own`` has the platform's own pages by path; only this machine gets them."""

    def __init__(self, functions: Functions, own: Mapping[str, Callable[[web.BaseRequest], Any]]) -> None:
        self._functions, self._own = functions, own
        self._routes = Routes(pool.function for pool in functions.pools.values())
        self.inflight = 0
        self.draining = False

    def server(self) -> web.Server:
        """For asyncio's create_server."""
        return web.Server(
            self._handle,
            handler_cancellation=True,
            auto_decompress=False,
            lingering_time=_LINGER_SECONDS,
            read_bufsize=_READ,
            access_log=None,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path, host = request.rel_url.raw_path, request.headers.get("Host", "")
        if path in self._own and host.partition(":")[0].lower() in _LOCAL:
            answer: web.StreamResponse = await self._own[path](request)
            return answer
        name = self._routes.find(host, path)
        if name is None:
            return problem(404, "There is nothing at this address: check the path.")
        if self.draining:
            return problem(503, "mp3burst is stopping: try again when it has started.")
        self.inflight += 1
        try:
            return await self._pass_on(request, name)
        finally:
            self.inflight -= 1

    async def _pass_on(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        upload = _Upload(request)
        patience = self._functions.pools[name].function.timeout
        response: web.StreamResponse | None = None
        target, headers = request.rel_url.raw_path_qs, _forwarded(request)
        try:
            async with self._functions.call(
                name, request.method, target, headers, upload.chunks if request.body_exists else None, patience
            ) as answer:
                response = web.StreamResponse(
                    status=answer.status, reason=answer.reason, headers=_end_to_end(answer.headers)
                )
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
        except (TimeoutError, TryAgain, aiohttp.ClientError) as error:
            if response is None:
                return _failed(name, upload, error)
            # What was sent of the answer must not look whole.
            if request.transport:
                request.transport.abort()
        finally:
            await upload.ended()
        return response


class _Upload:
    """A request's body on its way to a function."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._idle = asyncio.Event()
        self._idle.set()
        self.broken = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they come. What breaks off raises, so that the function never sees a short body as whole."""
        if self._request.headers.get("Expect", "").lower() == "100-continue":
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while True:
            self._idle.clear()
            try:
                chunk = await self._request.content.readany()
            except Exception:
                self.broken = True
                raise
            finally:
                self._idle.set()
            if not chunk:
                return
            yield chunk

    async def ended(self) -> None:
        """Wait until nobody reads the body any more: what is left of it is the server's to drain."""
        await self._idle.wait()


def problem(status: int, detail: str) -> web.Response:
    """An error of the platform itself, RFC 9457."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return web.Response(
        status=status, body=json.dumps(body).encode(), headers={"Content-Type": "application/problem+json"}
    )


def _failed(name: str, upload: _Upload, error: Exception) -> web.Response:
    if upload.broken:
        return problem(400, "The body of the request is broken: send it again.")
    if isinstance(error, TryAgain):
        return problem(503, str(error))
    if isinstance(error, TimeoutError):
        return problem(504, f"The function {name} took too long: try again later.")
    return problem(502, f"The function {name} broke off: try again.")


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _PER_CONNECTION | named)


def _forwarded(request: web.BaseRequest) -> CIMultiDict[str]:
    headers = _end_to_end(request.headers)
    chain = [*request.headers.getall("X-Forwarded-For", ()), request.remote or ""]
    headers["X-Forwarded-For"] = ", ".join(chain)
    headers["X-Forwarded-Proto"] = request.scheme
    headers["X-Forwarded-Host"] = request.headers.get("Host", "")
    return headers
