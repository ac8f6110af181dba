"""A receiver of webhooks that answers as the test decides, or not at all."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.servers.loopback import LoopbackServer, QuietHandler

#: A status with header fields; None to close the connection without an answer.
Answer = tuple[int, dict[str, str]] | None


@dataclass(frozen=True, slots=True)
class Message:
    """A request: its method and path, its headers in lower case, and its body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver(LoopbackServer):
    """An HTTP server on a free port of 127.0.0.1, HTTPS with a context; a context manager."""

    def __init__(
        self, answer: Callable[[Message], Answer] = lambda _: (200, {}), context: ssl.SSLContext | None = None
    ) -> None:
        self.answer = answer
        self.messages: list[Message] = []

        outer = self

        class Handler(QuietHandler):
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

        super().__init__(Handler, context)
        self.url = f"http://127.0.0.1:{self.port}/hook?x=1"

    @property
    def posts(self) -> list[Message]:
        """The messages, without the requests that ask whether they are allowed."""
        return [message for message in self.messages if message.method == "POST"]
