"""What every row is given: inputs, servers that start when they are asked for, and how much to do."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from functions.state.database import Database
from infra.migrations.schema import upgrade
from scripts.benchmarks.inputs import SECONDS, Inputs

T = TypeVar("T")


@dataclass
class Bench:
    """A run; a context manager that ends every server it started.

    Attributes:
        inputs: the videos.
        quick: small inputs, to see that everything works.
        rounds: how often each thing is measured.
        big: bytes of the file for the memory rows.
        chart: where the chart of the model goes, if anywhere.
    """

    inputs: Inputs
    quick: bool
    rounds: int
    big: int
    chart: Path | None = None
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
        """Length of the video; 580 s are 300 MB."""
        return 60 if self.quick else SECONDS

    def video(self, codec: str = "aac") -> Path:
        """The video that most rows use, in the page cache."""
        path = self.inputs.video(self.seconds, codec)
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass
        return path

    def folder(self) -> Path:
        """A fresh directory, gone after the run."""
        return Path(tempfile.mkdtemp(dir=self.work))

    def mongodb(self) -> str | None:
        """The URL of a MongoDB server, without a database; None where none can be had."""
        from tests.support.servers.mongodb import MongoDB

        server = self._server("mongodb", MongoDB)
        return str(server.url) if server else None

    def rabbitmq(self) -> str | None:
        """The URL of a RabbitMQ server; None where none can be had."""
        from tests.support.servers.rabbitmq import RabbitMQ

        server = self._server("rabbitmq", RabbitMQ)
        return str(server.url) if server else None

    def database(self) -> str:
        """The URL of a database with the tables in it: PostgreSQL, MariaDB, or SQLite."""
        from tests.support.servers.mariadb import MariaDB
        from tests.support.servers.postgresql import PostgreSQL

        fresh = "sql" not in self._servers
        server = self._server("sql", PostgreSQL, MariaDB)
        if not server:
            self._servers["sql"] = server = _SQLite(f"sqlite:///{self.work / 'bench.db'}")
        if fresh:
            database = Database(server.url)
            upgrade(database)
            database.close()
        return str(server.url)

    def media(self, name: str = "bench") -> dict[str, str]:
        """Variables of a media store: GridFS, or a directory where there is no MongoDB."""
        if url := self.mongodb():
            return {"MONGO_URI": f"{url}/{name}", "MONGO_MP3_URI": f"{url}/{name}-mp3s"}
        return {"MEDIA_DIR": str(self.work / "media")}

    def roomy_media(self) -> dict[str, str]:
        """A media store for gigabytes: mongo-java-server holds all that a sorted query finds, up to its 1 GB."""
        return self.media() if shutil.which("mongod") else {"MEDIA_DIR": str(self.work / "media")}

    def servers(self) -> str:
        """What runs, for the report."""
        names = [type(server).__name__.lstrip("_") for server in self._servers.values() if server]
        return ", ".join(names) or "none"

    def _server(self, name: str, *kinds: Any) -> Any:
        if name not in self._servers:
            self._servers[name] = None
            for kind in kinds:
                with installed(), contextlib.suppress(FileNotFoundError):
                    self._servers[name] = self._stack.enter_context(kind())
                    break
        return self._servers[name]


@dataclass(frozen=True, slots=True)
class _SQLite:
    url: str


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Pass over a block that begins with a program that is not installed: the tests' servers skip or fail then."""
    import pytest

    try:
        yield
    except (pytest.skip.Exception, pytest.fail.Exception):
        return
