"""Tests what happens while another process has the lock of SQLite's database, such as a backup or a shell."""

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import OperationalError

from functions.state import database as module
from functions.state.database import Database, DatabaseFault, DatabaseUnavailable
from functions.state.schema import logins
from tests.support.databases import sqlite

ROW = insert(logins).values(subject="a", clears_at=0, locked_until=0)
COUNT = select(logins.c.subject)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[str]:
    """The URL of a database whose lock another connection has."""
    with sqlite(tmp_path) as database:
        database.run(lambda connection: connection.execute(ROW))
        foreign = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
        foreign.execute("BEGIN EXCLUSIVE")
        yield f"sqlite:///{tmp_path / 'test.db'}"
        foreign.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUTS", {"sqlite": {"timeout": 0.2, "check_same_thread": False}})


@pytest.mark.usefixtures("impatient")
def test_reads_do_not_wait_for_the_lock(locked: str) -> None:
    database = Database(locked)
    assert database.read(lambda connection: connection.execute(COUNT).all()) == [("a",)]
    database.close()


@pytest.mark.usefixtures("impatient")
def test_writes_wait_once_and_may_be_tried_again_later(locked: str, caplog: pytest.LogCaptureFixture) -> None:
    database = Database(locked)
    with caplog.at_level(logging.WARNING), pytest.raises(DatabaseUnavailable) as caught:
        database.run(lambda connection: connection.execute(ROW))
    database.close()
    assert caught.value.status == 503
    assert "Retrying" not in caplog.text


def test_lock_that_the_driver_does_not_wait_for_is_tried_again(tmp_path: Path) -> None:
    """SQLite reports it at once while another process begins or ends the WAL (sqlite.org/wal.html, 9)."""
    tries: list[int] = []

    def work(connection: Connection) -> None:
        tries.append(1)
        connection.execute(ROW)
        if len(tries) == 1:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise OperationalError("SELECT 1", None, error)

    with sqlite(tmp_path) as database:
        database.run(work)
        assert len(database.read(lambda connection: connection.execute(COUNT).all())) == 1
    assert len(tries) == 2


def test_reading_transactions_cannot_write(tmp_path: Path) -> None:
    """Their lock would be taken too late: what they have read may be outdated by then."""
    with sqlite(tmp_path) as database:
        with pytest.raises((DatabaseFault, DatabaseUnavailable)):
            database.read(lambda connection: connection.execute(ROW))
        database.run(lambda connection: connection.execute(ROW))
        assert len(database.read(lambda connection: connection.execute(COUNT).all())) == 1
