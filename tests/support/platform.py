"""Starts the embedded platform as a process for a test: ``with start(tmp_path / "data") as platform``."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from events.http import UnixConnection, unix_url
from infra.local import control
from tests.support.paths import ROOT

#: The second has the sitecustomize that gives functions no more than their rights on SQLite.
_PATH = (ROOT, ROOT / "tests/support/restricted")
#: Most tests are about something else than confirmed addresses, register many users from one network, and do not mind
#: a disk that is nearly full.
_UNGUARDED: Final = {"CONFIRM_EMAIL": "off", "REGISTRATIONS_PER_HOUR": "0", "MIN_FREE_BYTES": "0"}


class Platform:
    """A running platform. Leaving the ``with`` block stops it, by force if necessary."""

    def __init__(self, process: subprocess.Popen[str], port: int, data: Path, log: Path) -> None:
        self.process = process
        self.port = port
        self.data = data
        self.log = log
        self.url = f"http://localhost:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def status(self) -> dict[str, Any]:
        """Returns the answer of GET /_platform."""
        with contextlib.closing(self.pages()) as connection:
            connection.request("GET", "/_platform")
            report: dict[str, Any] = json.load(connection.getresponse())
            return report

    def pages(self, timeout: float = 10) -> UnixConnection:
        """Returns a connection to the platform's own pages, which is opened by its first request."""
        return UnixConnection(self.data / control.SOCKET, timeout)

    @property
    def sink(self) -> str:
        """The URL of its broker."""
        return self.page_url("/_broker")

    def page_url(self, page: str) -> str:
        """Returns the URL of one of its own pages."""
        return unix_url(self.data / control.SOCKET, page)

    def instances(self, name: str) -> list[dict[str, Any]]:
        """Returns the instances of a function, as /_platform lists them."""
        found: list[dict[str, Any]] = self.status()["functions"][name]["instances"]
        return found

    def stop(self, seconds: float = 60) -> int:
        """Sends SIGTERM and returns the exit status."""
        self.process.terminate()
        return self.process.wait(seconds)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.process.kill()
        self.process.wait()

    def output(self) -> str:
        """Returns what it has written to stderr so far."""
        return self.log.read_text(errors="replace")


def start(
    data: Path,
    port: int = 0,
    manifests: Path | None = None,
    env: Mapping[str, str] | None = None,
    idle: float | None = None,
) -> Platform:
    """Starts the platform and waits until it is ready. On SQLite, too, its functions have no more than their rights.

    Args:
        data: the data directory; created if it does not exist. The log is written beside it.
        port: the port; 0 for a free one.
        manifests: a directory of manifests to use in place of knative/.
        env: the environment variables. Of this process's variables only PATH, HOME and the like are inherited. Unless
            they say otherwise, addresses need no confirmation and registrations are not limited.
        idle: seconds to use for every idle window.
    """
    command = [sys.executable, "-m", "infra.local", "--data", str(data), "--port", str(port)]
    if manifests:
        command += ["--manifests", str(manifests)]
    if idle is not None:
        command += ["--idle", str(idle)]
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    log = data.parent / f"{data.name}.log"
    with log.open("a") as stderr:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**inherited, "PYTHONPATH": os.pathsep.join(map(str, _PATH)), **_UNGUARDED, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout
    line = process.stdout.readline()
    if not line.startswith("mp3burst is ready on http://localhost:"):
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        raise AssertionError(f"The platform did not start: {line}{log.read_text(errors='replace')}")
    return Platform(process, int(line.rpartition(":")[2]), data, log)
