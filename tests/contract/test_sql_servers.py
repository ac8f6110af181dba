"""The SQL servers that other tests use: committed rows survive every way to stop a server."""

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from tests.support.servers.mariadb import MariaDB
from tests.support.servers.postgresql import PostgreSQL
from tests.support.servers.sql import SqlServer


@pytest.mark.parametrize("kind", [MariaDB, PostgreSQL])
def test_committed_rows_outlive_the_server(kind: type[SqlServer]) -> None:
    with kind() as server:
        engine = create_engine(server.url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE names (name VARCHAR(9))"))
        for end in (server.stop, server.kill):
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO names VALUES ('Ünï 🎬')"))
            end()
            engine.dispose()
            with pytest.raises(OperationalError):
                engine.connect()
            server.start()
        with engine.begin() as connection:
            names = connection.execute(text("SELECT name FROM names")).scalars().all()
        engine.dispose()
        assert names == ["Ünï 🎬", "Ünï 🎬"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [(MariaDB, {"connect_timeout": 1, "read_timeout": 1}), (PostgreSQL, {"connect_timeout": 2})],
)
def test_suspended_server_answers_only_after_it_is_resumed(kind: type[SqlServer], options: dict[str, int]) -> None:
    with kind() as server:
        impatient = create_engine(server.url, connect_args=options)
        engine = create_engine(server.url)
        server.suspend()
        with pytest.raises(OperationalError):
            impatient.connect()
        server.resume()
        with engine.begin() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
        engine.dispose()
