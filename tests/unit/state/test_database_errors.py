"""Tells the errors of a server that is full, locked, read-only or stopping from those of a wrong statement."""

import sqlite3
from pathlib import Path

import psycopg
import pymysql.err
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from functions.settings import BadSetting
from functions.state.database import Database, DatabaseFault, DatabaseUnavailable, url
from tests.support.databases import sqlite

TEMPORARY = {
    "lock timeout": psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"),
    "statement timeout": psycopg.errors.QueryCanceled("canceling statement due to statement timeout"),
    "disk full": psycopg.errors.DiskFull("could not extend file"),
    "out of memory": psycopg.errors.OutOfMemory("out of memory"),
    "too many connections": psycopg.errors.TooManyConnections("too many connections for role"),
    "stopping": psycopg.errors.AdminShutdown("terminating connection due to administrator command"),
    "starting": psycopg.errors.CannotConnectNow("the database system is starting up"),
    "standby": psycopg.errors.ReadOnlySqlTransaction("cannot execute UPDATE in a read-only transaction"),
    "idle": psycopg.errors.IdleInTransactionSessionTimeout("terminating connection"),
    "input or output": psycopg.errors.IoError("could not read block 7"),
    "deadlock": psycopg.errors.DeadlockDetected("deadlock detected"),
    "serialization": psycopg.errors.SerializationFailure("could not serialize access"),
    "no server": psycopg.OperationalError("connection failed: Connection refused"),
    "mysql lock timeout": pymysql.err.OperationalError(1205, "Lock wait timeout exceeded", sqlstate="HY000"),
    "mysql deadlock": pymysql.err.OperationalError(1213, "Deadlock found", sqlstate="40001"),
    "mysql statement timeout": pymysql.err.OperationalError(3024, "Query execution was interrupted", sqlstate="HY000"),
    "mysql disk full": pymysql.err.OperationalError(1021, "Disk full", sqlstate="HY000"),
    "mysql table full": pymysql.err.OperationalError(1114, "The table is full", sqlstate="HY000"),
    "mysql temporary file": pymysql.err.InternalError(3, "Error writing file (errno: 28)", sqlstate="HY000"),
    "mysql too many connections": pymysql.err.OperationalError(1040, "Too many connections", sqlstate="08004"),
    "mysql standby": pymysql.err.OperationalError(1290, "--read-only", sqlstate="HY000"),
    "mysql stopping": pymysql.err.OperationalError(1053, "Server shutdown in progress", sqlstate="08S01"),
}
FAULTS = {
    "no table": psycopg.errors.UndefinedTable("relation does not exist"),
    "no column": psycopg.errors.UndefinedColumn("column does not exist"),
    "no right": psycopg.errors.InsufficientPrivilege("permission denied for table"),
    "too long": psycopg.errors.StringDataRightTruncation("value too long"),
    "internal": psycopg.errors.InternalError_("tuple concurrently updated"),
    "mysql no column": pymysql.err.OperationalError(1054, "Unknown column", sqlstate="42S22"),
    "mysql no table": pymysql.err.ProgrammingError(1146, "Table doesn't exist", sqlstate="42S02"),
    "mysql no right": pymysql.err.OperationalError(1142, "UPDATE command denied", sqlstate="42000"),
    "mysql too long": pymysql.err.DataError(1406, "Data too long", sqlstate="22001"),
}


@pytest.mark.parametrize("dialect", ["postgres", "postgresql"])
def test_both_names_of_postgresql_lead_to_the_same_driver(dialect: str) -> None:
    address = url({"DATABASE_URL": f"{dialect}://user:password@host/name"})
    assert address.drivername == "postgresql+psycopg"
    assert Database(address).engine.dialect.name == "postgresql"


@pytest.mark.parametrize(
    "text",
    ["nothing", "psql://user:secret@host/name", "mysql+none://user:secret@host/name", "oracle://user:secret@host/name"],
)
def test_url_of_no_database_names_the_setting(text: str) -> None:
    with pytest.raises(BadSetting, match=r"^DATABASE_URL is not a valid .* postgresql, mysql or mariadb") as caught:
        url({"DATABASE_URL": text})
    assert "secret" not in str(caught.value)


def failing(database: Database, error: Exception) -> list[int]:
    """Runs a transaction that fails once, and returns its tries."""
    tries: list[int] = []

    def work(_: Connection) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise DBAPIError.instance("UPDATE", {}, error, Exception)

    database.run(work)
    return tries


@pytest.mark.parametrize("error", TEMPORARY.values(), ids=TEMPORARY.keys())
def test_transaction_runs_again_if_the_server_was_the_cause(tmp_path: Path, error: Exception) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    assert len(failing(database, error)) == 2
    database.close()


@pytest.mark.parametrize("error", FAULTS.values(), ids=FAULTS.keys())
def test_wrong_statement_is_a_fault_at_once(tmp_path: Path, error: Exception) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    with pytest.raises(DatabaseFault):
        failing(database, error)
    database.close()


@pytest.mark.parametrize("statement", ["SELECT absent FROM jobs", "SELECT id FROM absent", "SELECT id FORM WHERE"])
def test_wrong_statement_is_a_fault_of_sqlite_too(tmp_path: Path, statement: str) -> None:
    with sqlite(tmp_path) as database, pytest.raises(DatabaseFault) as caught:
        database.run(lambda connection: connection.execute(text(statement)))
    assert not isinstance(caught.value, DatabaseUnavailable)
    assert isinstance(caught.value.__cause__, DBAPIError)
    assert isinstance(caught.value.__cause__.orig, sqlite3.OperationalError)
