"""Upgrades a database's tables to the schema that the functions expect."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from events.errors import Mp3burstError
from functions.state.database import Database
from infra.migrations import users

#: The key of the migrations' lock: an arbitrary number that nothing else uses.
_LOCK: Final = 0x6D703362
_LOCK_SECONDS: Final = 120
_IS_RUNNING: Final = "Another migration has been running for two minutes: wait until it ends, then try again."
#: PostgreSQL's SQLSTATE, and MySQL's number, of a lock's timeout.
_LOCK_TIMEOUTS: Final = ("55P03", 1205)


class NotMigrated(Mp3burstError):
    """The migration failed; another attempt may succeed."""


class DatabaseIsNewer(Mp3burstError):
    """The tables have a schema that these migrations do not know; another attempt will not change that."""


def upgrade(database: Database, users_key: str | None = None) -> None:
    """Runs every pending migration, then makes the functions' users. Any number of processes may call it at once.

    Args:
        database: opened by its owner.
        users_key: DATABASE_USERS_KEY; without it no users are made.

    Raises:
        BadSetting, UsersRefused, UsersNotCreated: as ``infra.migrations.users.provide`` does.
        NotMigrated: the database is unavailable or rejected a statement, or another migration has held the lock for
            two minutes.
        DatabaseIsNewer: a newer version of mp3burst has migrated it.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    try:
        with database.engine.connect() as connection, _exclusive(connection):
            _refuse_newer(connection, config)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            if users_key is not None:
                users.provide(connection, users_key)
            connection.commit()
    except SQLAlchemyError as error:
        if _is_lock_timeout(error):
            raise NotMigrated(
                "Another transaction has kept a table locked for two minutes: wait until it ends, or end it, "
                "then try again."
            ) from error
        raise NotMigrated(
            "Migrating the database failed: check that it is running and that its user may create tables."
        ) from error


def _refuse_newer(connection: Connection, config: Config) -> None:
    known = {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}
    for unknown in set(MigrationContext.configure(connection).get_current_heads()) - known:
        raise DatabaseIsNewer(
            f"The database was migrated by a newer version of mp3burst; its migration {unknown} is unknown here: "
            "run that version or a later one, or restore an older backup."
        )


@contextlib.contextmanager
def _exclusive(connection: Connection) -> Iterator[None]:
    """Locks the database against other migrations; the server releases the lock if this process dies."""
    match connection.dialect.name:
        case "postgresql":
            # Until the transaction ends. PostgreSQL's DDL is part of it, so a killed migration leaves no trace.
            # Statements of functions are limited to less than an index of a large table takes.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
            try:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            except DBAPIError as error:
                if _is_lock_timeout(error):
                    raise NotMigrated(_IS_RUNNING) from error
                raise
            yield
        case "mysql" | "mariadb":
            # PyMySQL has no other way to wait longer than the functions do.
            driver: Any = connection.connection.driver_connection
            driver._read_timeout = None
            if connection.scalar(text(f"SELECT GET_LOCK('mp3burst.migrations', {_LOCK_SECONDS})")) != 1:
                raise NotMigrated(_IS_RUNNING)
            # Of rows and, a year by default, of tables.
            usual = connection.execute(text("SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout")).one()
            _set_lock_timeouts(connection, _LOCK_SECONDS, _LOCK_SECONDS)
            try:
                yield
            finally:
                # If the connection is lost, the server has released the lock, and the error that says so is on its way.
                with contextlib.suppress(SQLAlchemyError):
                    _set_lock_timeouts(connection, *usual)
                    connection.execute(text("SELECT RELEASE_LOCK('mp3burst.migrations')"))
        case _:
            # BEGIN IMMEDIATE has already locked the SQLite file.
            yield


def _set_lock_timeouts(connection: Connection, rows: int, tables: int) -> None:
    """Sets how many seconds a MySQL session waits for locks."""
    connection.execute(text(f"SET SESSION innodb_lock_wait_timeout = {rows}, lock_wait_timeout = {tables}"))


def _is_lock_timeout(error: SQLAlchemyError) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else None
    code = cause.args[0] if cause is not None and cause.args else None
    return code in _LOCK_TIMEOUTS or getattr(cause, "sqlstate", None) in _LOCK_TIMEOUTS
