"""Runs a server as a process with a folder, a port and a log; stops, kills, suspends and restarts it."""

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

_START_TIMEOUT = 60.0  # seconds; on an idle machine the slowest, RabbitMQ, needs 4
_STOP_TIMEOUT = 30.0  # seconds


class Server:
    """A server; a context manager. It keeps its port across restarts; its folder is deleted at the end."""

    #: The log line that announces that it is ready; if empty, it is ready once its port accepts connections.
    ready: ClassVar[bytes] = b""
    #: The signal that shuts it down cleanly, without waiting for clients.
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory(prefix=f"{type(self).__name__.lower()}-")
        self.folder = Path(self._directory.name)
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Returns the command that starts the server in the foreground."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """Returns further arguments of ``Popen``, such as its user and directory."""
        return {}

    def prepare(self) -> None:
        """Creates what must exist before its first start."""

    def clean(self) -> None:
        """Removes what must not outlive it."""

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
        """Starts the server and waits until it is ready."""
        command = self.command()
        path = self.folder / "log"
        offset = path.stat().st_size if path.exists() else 0
        with path.open("ab") as log:
            self._process = process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self.options()
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._is_ready(path.read_bytes()[offset:]):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{self.log()[-3000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Shuts down cleanly, without waiting for clients."""
        if self._process is not None:
            self.resume()
            self._process.send_signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT)
            self.kill()

    def kill(self) -> None:
        """Kills the server and every process it has started, as if the machine were lost."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        _signal(process.pid, signal.SIGSTOP)  # while suspended, it cannot start further processes before the kill
        processes = [process.pid, *descendants(process.pid)]
        for pid in processes:
            _signal(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also processes that have lost their parent
        process.wait()
        wait_for(lambda: not any(map(is_alive, processes)), "the end of the killed processes", seconds=10)

    def suspend(self) -> None:
        """Makes the server hang: connections stay open, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)  # on a busy machine one of its threads may still answer
        for pid in (self._process.pid, *descendants(self._process.pid)):
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continues after ``suspend``."""
        assert self._process is not None
        for pid in (self._process.pid, *descendants(self._process.pid)):
            _signal(pid, signal.SIGCONT)

    def log(self) -> str:
        """Returns what it has written so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def children(self) -> list[int]:
        """Returns the processes that it has started directly."""
        assert self._process is not None
        return children(self._process.pid)

    def _is_ready(self, output: bytes) -> bool:
        if self.ready:
            return self.ready in output
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
