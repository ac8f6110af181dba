"""Prometheus as packaged by Debian, with our configuration."""

import http.client
import json
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from tests.support.paths import ROOT
from tests.support.servers import program
from tests.support.servers.process import Server

CONFIGURATION = ROOT / "infra/prometheus"


class Prometheus(Server):
    """A Prometheus that scrapes one installation every two seconds; a context manager."""

    ready: ClassVar[bytes] = b"Server is ready to receive web requests."

    def __init__(self, port: int, key: str) -> None:
        """Prepares the server; the context manager starts it.

        Args:
            port: of the installation on this machine.
            key: an API key with the scope ``metrics``.
        """
        self._program = program("prometheus")
        self._target = port
        self._key = key
        super().__init__()

    def prepare(self) -> None:
        """Writes the configuration as an operator does: with the address, the key and the alerts beside it."""
        text = (CONFIGURATION / "prometheus.yml").read_text()
        assert "localhost:8080" in text
        text = text.replace("localhost:8080", f"localhost:{self._target}").replace(": 30s", ": 2s")
        (self.folder / "prometheus.yml").write_text(f"global: {{evaluation_interval: 1s}}\n{text}")
        (self.folder / "alerts.yml").write_bytes((CONFIGURATION / "alerts.yml").read_bytes())
        (self.folder / "mp3burst.key").write_text(self._key)

    def command(self) -> list[str]:
        """Returns the command that starts the server in the foreground."""
        places = {"config.file": Path("prometheus.yml"), "storage.tsdb.path": Path("data")}
        flags = [f"--{name}={self.folder / path}" for name, path in places.items()]
        return [self._program, *flags, f"--web.listen-address=127.0.0.1:{self.port}"]

    def query(self, query: str) -> dict[frozenset[tuple[str, str]], float]:
        """Returns the values that a query has now, by the labels other than name, job and instance."""
        return {
            frozenset((name, value) for name, value in each["metric"].items() if name not in _OWN): float(
                each["value"][1]
            )
            for each in self._get(f"/api/v1/query?query={quote(query)}")["result"]
        }

    def value(self, query: str) -> float | None:
        """Returns the one value that a query has now; None if it has none."""
        found = self.query(query)
        assert len(found) <= 1, found
        return next(iter(found.values()), None)

    def alerts(self) -> set[str]:
        """Returns the alerts that fire or are about to."""
        return {each["labels"]["alertname"] for each in self._get("/api/v1/alerts")["alerts"]}

    def _get(self, path: str) -> Any:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", path)
            answer = json.load(connection.getresponse())
        assert answer["status"] == "success", answer
        return answer["data"]


_OWN = ("__name__", "job", "instance")
