"""Brings a database's tables to the shape that the functions expect."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from events.errors import Mp3burstError
from functions.state.database import Database

#: Names the lock that migrations hold; any number will do, as long as nobody else uses it.
_LOCK: Final = 0x6D703362
_LOCK_SECONDS: Final = 120


class NotMigrated(Mp3burstError):
    """The tables could not be brought to their new shape; another try may do it."""


class DatabaseIsNewer(Mp3burstError):
    """The tables have a shape that these migrations do not know; no other try will change that."""


def upgrade(database: Database) -> None:
    """Run every migration that the database has not had. Any number of processes may do so at once.

    Raises:
        NotMigrated: the database is away, refused a statement, or another migration has held the lock for two minutes.
        DatabaseIsNewer: a newer version of mp3burst has migrated it.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    try:
        with database.engine.connect() as connection, _alone(connection):
            _refuse_newer(connection, config)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except DBAPIError as error:
        raise NotMigrated(
            "The database could not be prepared: check that it runs and that its user may create tables."
        ) from error


def _refuse_newer(connection: Connection, config: Config) -> None:
    known = {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}
    for unknown in set(MigrationContext.configure(connection).get_current_heads()) - known:
        raise DatabaseIsNewer(
            f"The database is of a newer version of mp3burst, whose migration {unknown} is unknown here: "
            "run that version or a later one, or restore a backup from before it."
        )


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Hold the database's migration lock: the server frees it if this process dies."""
    match connection.dialect.name:
        case "postgresql":
            # For the transaction; PostgreSQL's DDL is part of it, so that a killed migration never was.
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            yield
        case "mysql" | "mariadb":
            if connection.scalar(text(f"SELECT GET_LOCK('mp3burst.migrations', {_LOCK_SECONDS})")) != 1:
                raise NotMigrated("Another migration has been running for two minutes; look at it and try again.")
            try:
                yield
            finally:
                connection.execute(text("SELECT RELEASE_LOCK('mp3burst.migrations')"))
        case _:
            # BEGIN IMMEDIATE has locked the SQLite file already.
            yield
