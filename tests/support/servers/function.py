"""An event function that records its requests and responds as the test decides."""

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

#: How to respond to a delivery: with this status, by dropping the connection (None), or with 200 after calling this.
Answer = int | None | Callable[[], None]


@dataclass(frozen=True, slots=True)
class Request:
    """A POST request: its headers in lower case, and its JSON."""

    headers: dict[str, str]
    data: Any

    @property
    def id(self) -> str:
        return self.headers.get("ce-id", "")


class Function:
    """An HTTP server on a free port; a context manager. ``answer`` gets each request and the number of its delivery."""

    def __init__(self, answer: Callable[[Request, int], Answer] = lambda _, __: 200) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self._new = threading.Condition()
        self._open: set[socket.socket] = set()

        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                outer._open.add(self.connection)

            def finish(self) -> None:
                super().finish()
                outer._open.discard(self.connection)

            def do_POST(self) -> None:
                data = json.loads(self.rfile.read(int(self.headers["content-length"])))
                answer = outer._receive(Request({k.lower(): v for k, v in self.headers.items()}, data))
                if answer is None:
                    self.close_connection = True
                    return
                if callable(answer):
                    answer()
                    answer = 200
                self.send_response(answer)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 100

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a killed bridge cannot receive its response

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self.close_connections()
        self._server.server_close()

    def close_connections(self) -> int:
        """Closes the open connections and returns how many there were."""
        closed = 0
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
            closed += 1
        return closed

    @property
    def ids(self) -> list[str]:
        """The ids of the received events, in order."""
        return [request.id for request in self.requests]

    def wait(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Waits until the condition on ``requests`` is true; fails after so many seconds."""
        deadline = time.monotonic() + seconds
        with self._new:
            while not condition():
                remaining = deadline - time.monotonic()
                assert remaining > 0, (
                    f"not within {seconds} s; received {len(self.requests)} events, the last {self.ids[-5:]}"
                )
                self._new.wait(remaining)

    def _receive(self, request: Request) -> Answer:
        with self._new:
            self.requests.append(request)
            self._new.notify_all()
            return self.answer(request, self.ids.count(request.id))
