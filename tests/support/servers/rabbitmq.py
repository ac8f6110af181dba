"""RabbitMQ as packaged by Debian, on loopback, with its own data, ports, node name and epmd."""

import os
import secrets
import subprocess
from typing import Any

from tests.support.servers import free_port, program
from tests.support.servers.process import Server

_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_CONTROL = "/usr/lib/rabbitmq/bin/rabbitmqctl"


class Epmd(Server):
    """Erlang's name server, in the foreground: one started by a node would outlive the node."""

    def __init__(self) -> None:
        self._program = program("epmd")
        super().__init__()

    def command(self) -> list[str]:
        """Returns the command that starts the server in the foreground."""
        return [self._program, "-port", str(self.port), "-address", "127.0.0.1"]


class RabbitMQ(Server):
    """A RabbitMQ server; a context manager. ``url`` is its AMQP URL and stays the same across restarts."""

    ready = b"Server startup complete"

    def __init__(self) -> None:
        self._program = program(_SERVER)
        self._epmd = Epmd()
        super().__init__()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def prepare(self) -> None:
        """Writes its configuration and starts its name server."""
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "log.console = true\nlog.console.level = info\nlog.file = false\n"
            "disk_free_limit.absolute = 1MB\n"
        )
        (self.folder / "plugins").write_text("[].\n")
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(10))
        cookie.chmod(0o400)
        self._epmd.__enter__()

    def clean(self) -> None:
        """Stops its name server."""
        self._epmd.__exit__(None, None, None)

    def command(self) -> list[str]:
        """Returns the command that starts the server in the foreground."""
        return [self._program, "-noinput"]

    def options(self) -> dict[str, Any]:
        """Returns its folder and variables."""
        return {"cwd": self.folder, "env": self._environ()}

    def control(self, *arguments: str) -> None:
        """Runs rabbitmqctl."""
        subprocess.run([_CONTROL, *arguments], env=self._environ(), check=True, capture_output=True, timeout=60)

    def _environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._epmd.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false",
            "RABBITMQ_CTL_ERL_ARGS": "-start_epmd false",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            # One process instead of a shell that supervises another, so that signals reach the server itself.
            "RABBITMQ_ALLOW_INPUT": "1",
        }
