"""Upgrades a database's tables to the schema that the functions expect."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from events.errors import Mp3burstError
from functions.state.database import Database
from infra.migrations import users

#: The key of the migrations' lock: an arbitrary number that nothing else uses.
_LOCK: Final = 0x6D703362
_LOCK_SECONDS: Final = 120


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
    except DBAPIError as error:
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


@contextmanager
def _exclusive(connection: Connection) -> Iterator[None]:
    """Locks the database against other migrations; the server releases the lock if this process dies."""
    match connection.dialect.name:
        case "postgresql":
            # Until the transaction ends. PostgreSQL's DDL is part of it, so a killed migration leaves no trace.
            # Statements of functions are limited to less than an index of a large table takes.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            yield
        case "mysql" | "mariadb":
            # PyMySQL has no other way to wait longer than the functions do.
            driver: Any = connection.connection.driver_connection
            driver._read_timeout = None
            if connection.scalar(text(f"SELECT GET_LOCK('mp3burst.migrations', {_LOCK_SECONDS})")) != 1:
                raise NotMigrated(
                    "Another migration has been running for two minutes: wait until it ends, then try again."
                )
            try:
                yield
            finally:
                connection.execute(text("SELECT RELEASE_LOCK('mp3burst.migrations')"))
        case _:
            # BEGIN IMMEDIATE has already locked the SQLite file.
            yield
