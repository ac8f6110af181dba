"""Databases for tests, created by the real migrations and emptied for each test."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import event, update

from functions.auth.accounts import Accounts
from functions.auth.administration import Administration
from functions.state.database import Database
from functions.state.leases import LeaseTerms
from functions.state.schema import metadata
from infra.migrations.schema import upgrade

#: DATABASE_USERS_KEY.
USERS_KEY = "k" * 32
#: Leases that expire within a test, after the many renewals that a busy machine may miss.
SHORT = LeaseTerms(lease=1500, renewal=150, due=1800)


@contextmanager
def sqlite(directory: Path) -> Iterator[Database]:
    """Creates a SQLite database in the directory."""
    database = Database(f"sqlite:///{directory / 'test.db'}")
    upgrade(database)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def queries(database: Database) -> Iterator[list[str]]:
    """Collects the queries that are executed."""
    executed: list[str] = []

    def collect(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("SELECT"):
            executed.append(statement)

    event.listen(database.engine, "before_cursor_execute", collect)
    try:
        yield executed
    finally:
        event.remove(database.engine, "before_cursor_execute", collect)


def empty(database: Database) -> None:
    """Deletes every row."""
    with database.engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(table.delete())


def make_past(database: Database, table: str, column: str, milliseconds: int = 1_000_000_000) -> None:
    """Moves a time in every row of a table into the past, as if that much time had passed."""
    target = metadata.tables[table]
    statement = update(target).where(target.c[column].is_not(None))
    with database.engine.begin() as connection:
        connection.execute(statement.values({column: target.c[column] - milliseconds}))


def set_role(database: Database, username: str, role: str) -> None:
    """Makes the user with this name an administrator, or an ordinary user again, as the operator does."""
    user = Accounts(database).id_of(username)
    assert user is not None
    Administration(database).change(user, None, role=role)
