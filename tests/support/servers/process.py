"""A server as a process of its own: a folder, a port, a log, and every way to stop it and have it go on."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from tests.support.processes import children, descendants, is_alive, wait_for
from tests.support.servers import free_port

_START = 60.0  # seconds; an idle core needs 4 for the slowest, RabbitMQ
_STOP = 30.0  # seconds


class Server:
    """A server; a context manager. Its port stays the same over restarts, and its folder ends with it."""

    #: What the log says once it can be used; where that is empty, its port has to take connections.
    ready: ClassVar[bytes] = b""
    #: What ends it in good order, without waiting for clients.
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory(prefix=f"{type(self).__name__.lower()}-")
        self.folder = Path(self._directory.name)
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What starts the server in the foreground."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """Arguments of ``Popen``: whose process it is, and where."""
        return {}

    def prepare(self) -> None:
        """What has to be there before it starts for the first time."""

    def clean(self) -> None:
        """What has to go when it has ended for good."""

    def __enter__(self) -> Self:
        try:
            self.prepare()
            self.start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.kill()
            self.clean()
        finally:
            self._directory.cleanup()

    def start(self) -> None:
        """Start, and wait until it can be used."""
        path, command = self.folder / "log", self.command()
        began = path.stat().st_size if path.exists() else 0
        with path.open("ab") as log:
            self._process = process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self.options()
            )
        deadline = time.monotonic() + _START
        while not self._is_ready(path.read_bytes()[began:]):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{self.log()[-3000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop in good order, without waiting for clients."""
        if self._process is not None:
            self.resume()
            self._process.send_signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP)
            self.kill()

    def kill(self) -> None:
        """Kill, as a lost machine: the server and all that it has started."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        _signal(process.pid, signal.SIGSTOP)  # held, it can start no other between the list and the kill
        processes = [process.pid, *descendants(process.pid)]
        for pid in processes:
            _signal(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what has lost its parent
        process.wait()
        wait_for(lambda: not any(map(is_alive, processes)), "the end of the killed processes", seconds=10)

    def suspend(self) -> None:
        """Hang: connections stay up, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)  # on a busy machine a thread of it may still answer
        for pid in (self._process.pid, *descendants(self._process.pid)):
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after suspend()."""
        assert self._process is not None
        for pid in (self._process.pid, *descendants(self._process.pid)):
            _signal(pid, signal.SIGCONT)

    def log(self) -> str:
        """What it has written."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def children(self) -> list[int]:
        """The processes that it has started itself."""
        assert self._process is not None
        return children(self._process.pid)

    def _is_ready(self, said: bytes) -> bool:
        if self.ready:
            return self.ready in said
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
