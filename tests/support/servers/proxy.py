"""A TCP proxy that breaks and stalls connections between a client under test and its server."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Listens on a free port of 127.0.0.1 and forwards to another; a context manager."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flowing.set()
        self.disconnect()

    def disconnect(self) -> int:
        """Breaks every open connection abruptly and returns how many there were. New ones are accepted."""
        with self._lock:
            ends = list(self._open)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        return len(ends) // 2

    def stall(self) -> None:
        """Forwards nothing and closes nothing, like an unplugged cable."""
        self._flowing.clear()

    def resume(self) -> None:
        """Continues after ``stall``."""
        self._flowing.set()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._open |= {client, server}
            open_directions = [2]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, target, open_directions), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, open_directions: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        with self._lock:
            open_directions[0] -= 1
            if open_directions[0] == 0:
                self._open -= {source, target}
                source.close()
                target.close()
