"""Fixtures of the contract tests: each test runs on every implementation of an interface."""

from collections.abc import Iterator

import pytest

from functions.state.database import Database
from infra.migrations.schema import upgrade
from tests.contract.media_places import Place, opened, server
from tests.support.databases import USERS_KEY, empty, sqlite
from tests.support.servers.function import Function
from tests.support.servers.mariadb import MariaDB
from tests.support.servers.mongodb import MongoDB
from tests.support.servers.postgresql import PostgreSQL
from tests.support.servers.rabbitmq import RabbitMQ
from tests.support.servers.sql import SqlServer


def _migrated(server: SqlServer) -> Iterator[Database]:
    with server:
        database = Database(server.url)
        upgrade(database, USERS_KEY)
        yield database
        database.close()


@pytest.fixture(scope="session")
def _mariadb() -> Iterator[Database]:
    yield from _migrated(MariaDB())


@pytest.fixture(scope="session")
def _postgresql() -> Iterator[Database]:
    yield from _migrated(PostgreSQL())


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """An empty, migrated database."""
    if request.param == "sqlite":
        with sqlite(tmp_path_factory.mktemp("database")) as database:
            yield database
    else:
        shared: Database = request.getfixturevalue(f"_{request.param}")
        empty(shared)
        yield shared


@pytest.fixture(scope="module")
def mongodb() -> Iterator[MongoDB]:
    with server() as running:
        yield running


@pytest.fixture(params=["memory", "directory", "gridfs"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """An empty media store."""
    with opened(request.param, request) as found:
        yield found


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ server."""
    with RabbitMQ() as running:
        yield running


@pytest.fixture
def function() -> Iterator[Function]:
    """A function that records what it receives."""
    with Function() as running:
        yield running
