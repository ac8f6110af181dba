"""A receiver of webhooks that answers as the test decides, or not at all."""

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

#: A status with header fields; None to close the connection without an answer.
Answer = tuple[int, dict[str, str]] | None


@dataclass(frozen=True, slots=True)
class Message:
    """A request: its method and path, its headers in lower case, and its body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """An HTTP server on a free port of 127.0.0.1, HTTPS with a context; a context manager."""

    def __init__(
        self, answer: Callable[[Message], Answer] = lambda _: (200, {}), context: ssl.SSLContext | None = None
    ) -> None:
        self.answer = answer
        self.messages: list[Message] = []

        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                message = Message(self.command, self.path, headers, body)
                outer.messages.append(message)
                answer = outer.answer(message)
                self.close_connection = True
                if answer is None:
                    return
                status, fields = answer
                self.send_response(status)
                for name, value in {"Content-Length": "0", **fields}.items():
                    self.send_header(name, value)
                self.end_headers()

            do_POST = handle_one
            do_OPTIONS = handle_one

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # the caller has left

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook?x=1"

    @property
    def posts(self) -> list[Message]:
        """The messages, without the requests that ask whether they are allowed."""
        return [message for message in self.messages if message.method == "POST"]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
