"""The embedded ingress's limits of time and rate, with shorter times and a clock of the test."""

import asyncio
import contextlib
import gzip
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infra import front
from infra.apidocs.site import Document, documents, page_files
from infra.local.clients import Clients
from infra.local.ingress import Functions, Ingress
from infra.local.manifests import Function

WEB = Function("web", ["/web"], True, 1, 0, 1, 60, 60, {})


class NoFunctions:
    """Pools that no request may reach."""

    def __init__(self) -> None:
        self.pools = {"web": SimpleNamespace(function=WEB)}

    def call(self, *_: Any) -> Any:
        raise AssertionError("the request has taken a place")


async def ask(request: bytes, served: Mapping[str, Document] | None = None, late: bytes = b"") -> bytes:
    """Sends a request to an ingress and returns everything that it answers until it closes the connection.

    Args:
        request: the bytes.
        served: the documents.
        late: is sent half a second after the request.
    """
    ingress = Ingress(cast("Functions", NoFunctions()), {}, documents() if served is None else served)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = asyncio.create_task(ingress.server.accept(listener))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(request)
        if late:
            await asyncio.sleep(0.5)
            writer.write(late)
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        accepting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await accepting
        await ingress.server.shutdown(0)
    return answer


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /web HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 10\r\n\r\n.",
        b"POST /web HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n.",
    ],
)
def test_body_that_does_not_arrive_in_time(request_: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "BODY_SECONDS", 0.2)
    monkeypatch.setattr("infra.local.connections._LINGER_SECONDS", 0.1)
    head, _, body = asyncio.run(ask(request_)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["detail"] == front.MESSAGES[408]


@pytest.mark.parametrize("request_", [b"", b"GET /web HTTP/1.1\r\nHost"])
def test_head_that_does_not_arrive_in_time(request_: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "HEADER_SECONDS", 0.2)
    assert asyncio.run(ask(request_)) == b""


def test_rate_of_a_network() -> None:
    now = 0.0
    clients = Clients(lambda: now)

    def admitted(address: str, count: int) -> int:
        admissions = 0
        for _ in range(count):
            if clients.enter(address):
                admissions += 1
                clients.leave(address)
        return admissions

    assert admitted("2001:db8::1", 2 * front.BURST) == front.BURST
    assert admitted("2001:db8::2", 1) == 0
    assert admitted("2001:db8:0:1::1", 1) == 1
    now = 0.5
    assert admitted("2001:db8::2", 1000) == front.REQUESTS_PER_SECOND // 2
    now = 3600.0
    assert admitted("2001:db8::1", 2 * front.BURST) == front.BURST


def test_requests_in_progress_of_a_network() -> None:
    clients = Clients(lambda: 0.0)
    assert [clients.enter("192.0.2.1") for _ in range(front.REQUESTS_AT_ONCE)] == [True] * front.REQUESTS_AT_ONCE
    assert not clients.enter("192.0.2.1")
    assert clients.enter("192.0.2.2")
    clients.leave("192.0.2.1")
    assert clients.enter("192.0.2.1")


@pytest.mark.parametrize("path", sorted(documents()))
def test_documents_are_served(path: str) -> None:
    def answer(method: str, host: str = "h") -> tuple[int, dict[str, str], bytes]:
        request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        head, _, body = asyncio.run(ask(request)).partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        return int(line.split()[1]), dict(each.split(": ", 1) for each in lines), body

    for method, content in (("GET", documents()[path].content), ("HEAD", b"")):
        status, headers, body = answer(method)
        assert (status, body) == (200, content)
        assert headers["Content-Type"] == documents()[path].content_type
        assert documents()[path].headers.items() <= headers.items()
    assert answer("POST")[0] == 405
    assert answer("GET", "web.localhost")[0] != 200, "the host name of a function has only its paths"


def test_page_that_is_not_built_says_what_is_missing(tmp_path: Path) -> None:
    assert page_files(tmp_path) == {}
    head, _, body = asyncio.run(ask(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", {})).partition(
        b"\r\n\r\n"
    )
    assert head.startswith(b"HTTP/1.1 503 ")
    assert body.decode().strip() == front.NO_PAGE


@pytest.mark.parametrize(("method", "page"), [("POST", front.NOT_RECEIVED), ("GET", "/")])
def test_what_is_shared_without_a_service_worker_leads_to_the_page(method: str, page: str) -> None:
    documents_ = {"/": Document("text/html; charset=utf-8", b"page", front.PAGE_HEADERS)}
    body = bytes(5 << 20) if method == "POST" else b""
    request = f"{method} {front.SHARE} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    last = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    answers = asyncio.run(ask(request + last, documents_))
    head = answers.partition(b"\r\n\r\n")[0].decode()
    assert head.startswith("HTTP/1.1 303 ")
    expected = {**front.SHARE_HEADERS, "Location": page}
    assert {f"{name}: {value}" for name, value in expected.items()} <= set(head.splitlines())
    assert answers.endswith(b"page"), "all that was sent is read"


def test_what_is_shared_slowly_is_read_before_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an answer the connection lingers for a shorter time."""
    monkeypatch.setattr("infra.local.connections._LINGER_SECONDS", 0.1)
    documents_ = {"/": Document("text/html; charset=utf-8", b"page", front.PAGE_HEADERS)}
    head = f"POST {front.SHARE} HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n".encode()
    last = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    answers = asyncio.run(ask(head + b"first", documents_, late=b"later" + last))
    assert answers.startswith(b"HTTP/1.1 303 ")
    assert answers.endswith(b"page")


@pytest.mark.parametrize("limit", ["BODY_SECONDS", "SHARE_SECONDS"])
def test_what_is_shared_and_does_not_arrive_is_refused(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(front, limit, 0.2)
    monkeypatch.setattr("infra.local.connections._LINGER_SECONDS", 0.1)
    documents_ = {"/": Document("text/html; charset=utf-8", b"page", front.PAGE_HEADERS)}
    head = f"POST {front.SHARE} HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n".encode()
    assert asyncio.run(ask(head + b"first", documents_)).startswith(b"HTTP/1.1 408 ")


def test_page_and_its_assets_have_headers_of_their_own(tmp_path: Path) -> None:
    for folder in ("assets", "share"):
        (tmp_path / folder).mkdir()
    (tmp_path / "share/worker.js").write_text("receive()")
    (tmp_path / "index.html").write_text("<p>page</p>")
    (tmp_path / "assets/page-1.js").write_text("alert()")
    found = page_files(tmp_path)
    assert found["/"] == Document("text/html; charset=utf-8", b"<p>page</p>", front.PAGE_HEADERS)
    assert found["/assets/page-1.js"] == Document("text/javascript; charset=utf-8", b"alert()", front.ASSET_HEADERS)
    assert found["/share/worker.js"] == Document("text/javascript; charset=utf-8", b"receive()", front.WORKER_HEADERS)
    assert "unsafe" not in front.PAGE_HEADERS["Content-Security-Policy"]


def test_page_is_compressed_for_those_who_accept_it() -> None:
    request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n"
    page = Document("text/html; charset=utf-8", b"page" * 1000, front.PAGE_HEADERS)
    head, _, body = asyncio.run(ask(request, {"/": page})).partition(b"\r\n\r\n")
    assert b"\r\nContent-Encoding: gzip" in head
    assert b"\r\nVary: Accept-Encoding" in head
    assert gzip.decompress(body) == page.content


def test_page_that_the_browser_has_is_not_sent_again() -> None:
    documents_ = {"/": Document("text/html; charset=utf-8", b"page" * 1000, front.PAGE_HEADERS)}
    request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
    head = asyncio.run(ask(request + b"\r\n", documents_)).partition(b"\r\n\r\n")[0]
    (etag,) = re.findall(rb"ETag: (.*)", head)
    again, _, body = asyncio.run(ask(request + b"If-None-Match: " + etag.strip() + b"\r\n\r\n", documents_)).partition(
        b"\r\n\r\n"
    )
    assert (again.split()[1], body) == (b"304", b"")
    other = asyncio.run(ask(request + b'If-None-Match: W/"other"\r\n\r\n', documents_))
    assert other.split()[1] == b"200"
