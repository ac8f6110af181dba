"""An event function that remembers what it got and answers as it is told."""

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

#: What to do with a delivery: answer this status, drop the connection (None), or call this and answer 200.
Answer = int | None | Callable[[], None]


@dataclass(frozen=True, slots=True)
class Request:
    """A POST that came: its headers in lower case, and its JSON."""

    headers: dict[str, str]
    data: Any

    @property
    def id(self) -> str:
        return self.headers.get("ce-id", "")


class Function:
    """An HTTP server on a free port; a context manager. ``answer`` decides by request and number of its delivery."""

    def __init__(self, answer: Callable[[Request, int], Answer] = lambda _, __: 200) -> None:
        self.answer = answer
        self.got: list[Request] = []
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
                answer = outer._take(Request({k.lower(): v for k, v in self.headers.items()}, data))
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
                pass  # a bridge that was killed is not there to be answered

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
        self.hang_up()
        self._server.server_close()

    def hang_up(self) -> int:
        """Close the connections that are open; how many."""
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
        """The ids of the events that came, in their order."""
        return [request.id for request in self.got]

    def wait(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Wait until the condition on ``got`` holds; fail if it does not within the time."""
        deadline = time.monotonic() + seconds
        with self._new:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, f"not within {seconds} s; {len(self.got)} events came, the last {self.ids[-5:]}"
                self._new.wait(left)

    def _take(self, request: Request) -> Answer:
        with self._new:
            self.got.append(request)
            self._new.notify_all()
            return self.answer(request, self.ids.count(request.id))
