"""A server of files, which answers ranges, breaks off, and changes its files as the test decides."""

import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler

from tests.support.servers.loopback import LoopbackServer, QuietHandler


@dataclass
class Served:
    """A file, and how the server behaves.

    Attributes:
        content: its bytes.
        etag: of this version; empty for none.
        status: of responses without a range.
        headers: further header fields; one here replaces the server's own.
        partial_headers: likewise, of responses to ranges.
        has_ranges: whether ranges are answered; otherwise the whole file is sent.
        has_length: whether the length is told.
        ends_tls: whether TLS is ended before the connection is.
        cuts: bytes that further responses send before they break off, one after the other; later ones send all.
        hold: is waited for before each response sends its body,
        hold_at: or once it has sent so many bytes of it.
        hold_head: is waited for within each head.
        hold_seconds: after which nothing is waited for any longer.
    """

    content: bytes = b""
    etag: str = '"1"'
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    partial_headers: Mapping[str, str] = field(default_factory=dict)
    has_ranges: bool = True
    has_length: bool = True
    ends_tls: bool = False
    cuts: list[int] = field(default_factory=list)
    hold: threading.Event | None = None
    hold_at: int = 0
    hold_head: threading.Event | None = None
    hold_seconds: float = 60


@dataclass(frozen=True, slots=True)
class Request:
    """A request: its path, its Range and its If-Range."""

    path: str
    range: str | None
    if_range: str | None


class FileServer(LoopbackServer):
    """An HTTP server on a free port of 127.0.0.1, HTTPS with a context; a context manager."""

    def __init__(self, files: Mapping[str, Served], context: ssl.SSLContext | None = None) -> None:
        self.files = dict(files)
        self.requests: list[Request] = []
        self.sent = 0
        outer = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                outer.requests.append(Request(self.path, self.headers.get("Range"), self.headers.get("If-Range")))
                self.close_connection = True
                file = outer.files.get(self.path.partition("?")[0])
                if file is None:
                    self.send_error(404)
                    return
                body = outer._head(self, file)
                if file.cuts:
                    body = body[: file.cuts.pop(0)]
                self.wfile.write(body[: file.hold_at])
                if file.hold is not None:
                    file.hold.wait(file.hold_seconds)
                self.wfile.write(body[file.hold_at :])
                outer.sent += len(body)
                if file.ends_tls and isinstance(self.connection, ssl.SSLSocket):
                    self.connection.unwrap()

        super().__init__(Handler, context)
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{self.port}"

    @staticmethod
    def _head(handler: BaseHTTPRequestHandler, file: Served) -> bytes:
        """Sends the head of a response, and returns its body."""
        asked = handler.headers.get("Range")
        body = file.content
        fields = {"Content-Type": "video/mp4", "Last-Modified": formatdate(0, usegmt=True)}
        is_same = handler.headers.get("If-Range") in (None, file.etag or fields["Last-Modified"])
        status = file.status
        if asked and file.has_ranges and is_same:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            body = body[start:]
            status = 206 if body else 416
            fields["Content-Range"] = f"bytes {start}-{len(file.content) - 1}/{len(file.content)}"
        if file.etag:
            fields["ETag"] = file.etag
        if file.has_length:
            fields["Content-Length"] = str(len(body))
        handler.send_response(status)
        if status == 206:
            fields |= file.partial_headers
        for name, value in {**fields, **file.headers}.items():
            handler.send_header(name, value)
        if file.hold_head is not None:
            handler.flush_headers()
            file.hold_head.wait(file.hold_seconds)
        handler.end_headers()
        return body
