"""Provides what every row needs: inputs, servers that start on first use, and how much to measure."""

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from functions.state.database import Database
from infra.migrations.schema import upgrade
from scripts.benchmarks.inputs import SECONDS, Inputs


@dataclass
class Bench:
    """A run of the benchmarks; a context manager that stops every server it started.

    Attributes:
        inputs: the videos.
        quick: whether to use small inputs, to check that everything works.
        rounds: how often to measure each thing.
    """

    inputs: Inputs
    quick: bool
    rounds: int
    _stack: ExitStack = field(default_factory=ExitStack)
    _servers: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        self.work = Path(folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def seconds(self) -> int:
        """The length of the video; 580 s are 300 MB."""
        return 60 if self.quick else SECONDS

    def video(self, codec: str = "aac") -> Path:
        """Returns the video that most rows use, after reading it into the page cache."""
        path = self.inputs.video(self.seconds, codec)
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass
        return path

    def folder(self) -> Path:
        """Creates a directory that is deleted after the run."""
        return Path(tempfile.mkdtemp(dir=self.work))

    def mongodb(self) -> str | None:
        """Returns the URL of a MongoDB server without a database, or None if MongoDB is not installed."""
        from tests.support.servers.mongodb import MongoDB

        server = self._server("mongodb", MongoDB)
        return str(server.url) if server else None

    def rabbitmq(self) -> str | None:
        """Returns the URL of a RabbitMQ server, or None if RabbitMQ is not installed."""
        from tests.support.servers.rabbitmq import RabbitMQ

        server = self._server("rabbitmq", RabbitMQ)
        return str(server.url) if server else None

    def database(self) -> str:
        """Returns the URL of a database with the tables: PostgreSQL, MariaDB or SQLite, the first that is installed."""
        from tests.support.servers.mariadb import MariaDB
        from tests.support.servers.postgresql import PostgreSQL

        fresh = "sql" not in self._servers
        server = self._server("sql", PostgreSQL, MariaDB)
        if not server:
            server = _SQLite(f"sqlite:///{self.work / 'bench.db'}")
            self._servers["sql"] = server
        if fresh:
            database = Database(server.url)
            upgrade(database)
            database.close()
        return str(server.url)

    def media(self, name: str = "bench") -> dict[str, str]:
        """Returns the variables of a media store: GridFS, or a directory if MongoDB is not installed."""
        if url := self.mongodb():
            return {"MONGO_URI": f"{url}/{name}", "MONGO_MP3_URI": f"{url}/{name}-mp3s"}
        return {"MEDIA_DIR": str(self.work / "media")}

    def servers(self) -> str:
        """Returns the names of the running servers, for the report."""
        names = [type(server).__name__.lstrip("_") for server in self._servers.values() if server]
        return ", ".join(names) or "none"

    def _server(self, name: str, *kinds: Any) -> Any:
        if name not in self._servers:
            self._servers[name] = None
            for kind in kinds:
                with _if_installed(), contextlib.suppress(FileNotFoundError):
                    self._servers[name] = self._stack.enter_context(kind())
                    break
        return self._servers[name]


@dataclass(frozen=True, slots=True)
class _SQLite:
    url: str


@contextlib.contextmanager
def _if_installed() -> Iterator[None]:
    """Leaves the block when a program is not installed: the tests' servers skip or fail the test then."""
    import pytest

    try:
        yield
    except (pytest.skip.Exception, pytest.fail.Exception):
        return
