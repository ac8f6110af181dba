"""HTTP in: finds the function by path or host name and passes the bytes both ways as they come."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from events.errors import TryAgain
from functions.http_endpoint import is_trusted_proxy
from infra.local.instances import Pool
from infra.local.manifests import Function

#: Headers that speak of one connection only (RFC 9110, 7.6.1), and Expect, which is answered here.
_PER_CONNECTION = {
    *("connection", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te"),
    *("trailer", "transfer-encoding", "upgrade"),
}
#: Seconds that a client that was refused may go on sending, and bytes that are read at once.
_LINGER, _READ = 30.0, 1 << 18

Body = Callable[[], AsyncIterator[bytes]] | bytes | None
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Functions:
    """Every function's pool by name, and the way to call one."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self.pools = pools
        self._session = aiohttp.ClientSession(
            # A connection each: one that is kept could close under a request, and nobody knew whether it arrived.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=_READ,
        )

    @asynccontextmanager
    async def call(
        self, name: str, method: str, path: str, headers: Mapping[str, str], body: Body, patience: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request to an instance of the function; yields the answer, its body unread.

        Args:
            name: the function.
            method: the HTTP method.
            path: path and query, as they are sent.
            headers: all of them.
            body: the bytes, or what makes an iterator over them.
            patience: seconds to wait for an instance; None: as long as it takes.

        Raises:
            TryAgain: no instance in time, or none starts.
            TimeoutError: the whole answer takes longer than timeoutSeconds.
            aiohttp.ClientError: the instance died, or its answer makes no sense.
        """
        pool = self.pools[name]
        while True:
            instance = await pool.acquire(patience)
            url = URL(f"http://127.0.0.1:{instance.port}{path}", encoded=True)
            data = body() if callable(body) else body
            try:
                async with asyncio.timeout(pool.function.timeout):
                    try:
                        request = self._session.request(method, url, headers=headers, data=data, allow_redirects=False)
                        answer = await request
                    except aiohttp.ClientConnectorError:
                        instance.retire()  # Nothing was sent, so another instance may have it.
                        continue
                    try:
                        yield answer
                        return
                    finally:
                        answer.close()
            finally:
                pool.release(instance)

    async def close(self, seconds: float) -> None:
        """Stop every instance, by force after so many seconds."""
        await asyncio.gather(*(pool.close(seconds) for pool in self.pools.values()))
        await self._session.close()


class Ingress:
    """The front door. ``own`` has the platform's own pages by path, which only this machine's names lead to."""

    def __init__(self, functions: Functions, own: Mapping[str, Handler], environ: Mapping[str, str]) -> None:
        self._functions, self._own, self._environ = functions, own, environ
        self._find = routes(pool.function for pool in functions.pools.values())
        self.inflight, self.draining = 0, False
        self.server = web.Server(
            self._handle,
            handler_cancellation=True,
            auto_decompress=False,
            lingering_time=_LINGER,
            read_bufsize=_READ,
            access_log=None,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        host, path = request.headers.get("Host", "").partition(":")[0].lower(), request.rel_url.raw_path
        if path in self._own and _is_ours(request):
            return await self._own[path](request)
        name = self._find(host, path)
        if name is None:
            return problem(404, "There is nothing at this address: check the path.")
        if self.draining:
            return problem(503, "mp3burst is stopping: try again when it has started.")
        self.inflight += 1
        upload = _Upload(request)
        try:
            return await self._pass_on(request, name, upload)
        finally:
            self.inflight -= 1
            await upload.idle.wait()

    async def _pass_on(self, request: web.BaseRequest, name: str, upload: "_Upload") -> web.StreamResponse:
        body, path, response = upload.chunks if request.body_exists else None, request.rel_url.raw_path_qs, None
        patience = self._functions.pools[name].function.timeout
        try:
            call = self._functions.call(name, request.method, path, _forwarded(request, self._environ), body, patience)
            async with call as answer:
                headers = _end_to_end(answer.headers)
                response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
        except (TimeoutError, TryAgain, aiohttp.ClientError) as error:
            if response is None:
                return _failed(name, upload, error)
            if request.transport:
                request.transport.abort()  # What was sent of the answer must not look whole.
        return response


class _Upload:
    """A request's body on its way to a function. ``idle`` while nobody reads it: the rest is the server's to drain."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request, self.broken, self.idle = request, False, asyncio.Event()
        self.idle.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._request.headers.get("Expect", "").lower() == "100-continue":
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunk = b"-"
        while chunk:
            self.idle.clear()
            try:
                chunk = await self._request.content.readany()
            except Exception:
                self.broken = True
                raise  # So the function never sees a short body as whole.
            finally:
                self.idle.set()
            if chunk:
                yield chunk


def routes(functions: Iterable[Function]) -> Callable[[str, str], str | None]:
    """Finds the function for a host name and a path: by host ``NAME.localhost``, else by the longest path prefix."""
    public = [function for function in functions if function.public]
    hosts = {f"{function.name}.localhost": function.name for function in public}
    paths = sorted(((path, f.name) for f in public for path in f.paths), key=lambda item: -len(item[0]))

    def find(host: str, path: str) -> str | None:
        if host.endswith(".localhost"):
            return hosts.get(host)
        return next((name for prefix, name in paths if f"{path}/".startswith(f"{prefix}/")), None)

    return find


def leads_here(host: str, port: int) -> bool:
    """Whether a Host header is one that a client on this machine sends; port 80 is left out of it (RFC 9110, 4.2.3)."""
    names = ("localhost", "127.0.0.1")
    return host in {f"{name}:{port}" for name in names} or (port == 80 and host in names)


def problem(status: int, detail: str) -> web.Response:
    """An error of the platform itself, RFC 9457."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    headers = {"Content-Type": "application/problem+json"}
    return web.Response(status=status, body=json.dumps(body).encode(), headers=headers)


def _is_ours(request: web.BaseRequest) -> bool:
    """Whether somebody on this machine asks, and not a proxy on it for somebody elsewhere."""
    port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
    forwarded = {"X-Forwarded-For", "Forwarded", "Via"} & request.headers.keys()
    return leads_here(request.headers.get("Host", ""), port) and not forwarded


def _failed(name: str, upload: _Upload, error: Exception) -> web.Response:
    if upload.broken:
        return problem(400, "The body of the request is broken: send it again.")
    if isinstance(error, TryAgain):
        return problem(503, str(error))
    if isinstance(error, TimeoutError):
        return problem(504, f"The function {name} took too long: try again later.")
    return problem(502, f"The function {name} broke off: try again.")


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    dropped = _PER_CONNECTION | {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


def _forwarded(request: web.BaseRequest, environ: Mapping[str, str]) -> CIMultiDict[str]:
    headers, caller = _end_to_end(request.headers), request.remote or ""
    # From anybody but a proxy the header is an invention; and every function trusts this ingress.
    said = headers.popall("X-Forwarded-For", ()) if caller and is_trusted_proxy(caller, environ) else ()
    headers["X-Forwarded-For"] = ", ".join([*said, caller])
    headers["X-Forwarded-Proto"] = request.scheme
    headers["X-Forwarded-Host"] = request.headers.get("Host", "")
    return headers
