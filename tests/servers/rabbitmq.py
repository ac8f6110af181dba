"""RabbitMQ as Debian packages it, on loopback, with its own data, ports, node name and epmd."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import free_port, program

_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_CONTROL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
_START = 60.0  # seconds; an idle core needs 4


class RabbitMQ:
    """A server of its own; a context manager. ``url`` is its AMQP URL and stays the same over restarts."""

    def __init__(self) -> None:
        self._server, self._epmd_program = program(_SERVER), program("epmd")
        self._port, self._epmd_port = free_port(), free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="rabbitmq-")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._suspended = False
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/%2F"

    @property
    def port(self) -> int:
        return self._port

    def __enter__(self) -> Self:
        try:
            self._epmd()
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        folder = Path(self._folder.name)
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self._port}\n"
            "log.console = true\nlog.console.level = info\nlog.file = false\n"
            "disk_free_limit.absolute = 1MB\n"
        )
        (folder / "plugins").write_text("[].\n")
        cookie = folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(secrets.token_hex(10))
            cookie.chmod(0o400)
        log = folder / "log"
        began = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            server = subprocess.Popen(
                [self._server, "-noinput"],
                env=self._environ(),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes["server"] = server
        deadline = time.monotonic() + _START
        while b"Server startup complete" not in log.read_bytes()[began:]:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"RabbitMQ did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop in good order."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill, as a lost machine."""
        self._signal(signal.SIGKILL)

    def suspend(self) -> None:
        """Hang: connections stay up, nothing answers."""
        os.killpg(self._processes["server"].pid, signal.SIGSTOP)
        self._suspended = True

    def resume(self) -> None:
        """Go on after suspend()."""
        os.killpg(self._processes["server"].pid, signal.SIGCONT)
        self._suspended = False

    def control(self, *arguments: str) -> None:
        """Run rabbitmqctl."""
        subprocess.run([_CONTROL, *arguments], env=self._environ(), check=True, capture_output=True, timeout=60)

    def _environ(self) -> dict[str, str]:
        folder = Path(self._folder.name)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false",
            "RABBITMQ_CTL_ERL_ARGS": "-start_epmd false",
            "RABBITMQ_NODENAME": f"test{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            # One process instead of a shell that watches another, so that a signal reaches the server itself.
            "RABBITMQ_ALLOW_INPUT": "1",
        }

    def _epmd(self) -> None:
        # Ours, in the foreground: one that a node starts outlives it.
        self._processes["epmd"] = subprocess.Popen(
            [self._epmd_program, "-port", str(self._epmd_port), "-address", "127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self._epmd_port)):
                return
            if time.monotonic() > deadline:
                raise RuntimeError("epmd did not start")
            time.sleep(0.01)

    def _signal(self, number: signal.Signals) -> None:
        server = self._processes.pop("server", None)
        if server is None:
            return
        if self._suspended:
            os.killpg(server.pid, signal.SIGCONT)
            self._suspended = False
        server.send_signal(number)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            number = signal.SIGKILL
        if number == signal.SIGKILL:
            self._kill_group(server)

    @staticmethod
    def _kill_group(server: subprocess.Popen[bytes]) -> None:
        # Erlang's helpers (erl_child_setup, inet_gethostbyname) are in the same session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    def _end(self) -> None:
        self._signal(signal.SIGKILL)
        if epmd := self._processes.pop("epmd", None):
            epmd.terminate()
            epmd.wait()
        self._folder.cleanup()
