"""The SQL database: which one, how to reach it, and a transaction that is tried again where that is right."""

import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from events.errors import Mp3burstError, TryAgain
from functions.settings import BadSetting, number, required

T = TypeVar("T")
log = logging.getLogger(__name__)

_TRIES: Final = 5
# Deadlock and lock time-out of MySQL; serialization failure and deadlock of PostgreSQL.
_MYSQL_CONFLICTS: Final = {1205, 1213}
_POSTGRESQL_CONFLICTS: Final = {"40001", "40P01"}
_SECONDS: Final = {
    "sqlite": {"timeout": 30, "check_same_thread": False},
    "mysql": {"connect_timeout": 5, "read_timeout": 30, "write_timeout": 30},
    "postgresql": {"connect_timeout": 5, "options": "-c statement_timeout=30s -c lock_timeout=20s"},
}


class DatabaseUnavailable(TryAgain):
    """The database is away, or too busy to finish a transaction."""


class DatabaseFault(Mp3burstError):
    """The database refused a statement: a fault of ours or of its schema."""


class Conflict(Mp3burstError):
    """A row with the same unique key is there already."""

    status = 409


def url(environ: Mapping[str, str]) -> URL:
    """The database that the environment names.

    Args:
        environ: ``DATABASE_URL``, or the tutorial systems' MYSQL_HOST, MYSQL_USER, MYSQL_PASSWORD, MYSQL_DB and
            MYSQL_PORT.

    Raises:
        BadSetting: it names none, or the URL is no database URL.
    """
    if environ.get("MYSQL_HOST") and not environ.get("DATABASE_URL"):
        return URL.create(
            "mysql+pymysql",
            environ.get("MYSQL_USER") or "root",
            environ.get("MYSQL_PASSWORD") or None,
            environ["MYSQL_HOST"],
            int(number(environ, "MYSQL_PORT", 3306, 1)),
            required(environ, "MYSQL_DB", "the name of the MySQL database"),
        )
    text = required(environ, "DATABASE_URL", "a URL such as postgresql://user:password@host/name")
    try:
        parsed = make_url(text)
    except ArgumentError as error:
        raise BadSetting("DATABASE_URL is no database URL: write DIALECT://USER:PASSWORD@HOST/NAME.") from error
    drivers = {"mysql": "mysql+pymysql", "mariadb": "mysql+pymysql", "postgresql": "postgresql+psycopg"}
    return parsed.set(drivername=drivers.get(parsed.drivername, parsed.drivername))


class Database:
    """A connection pool. Cheap to make: it connects when it is first used."""

    def __init__(self, where: URL | str) -> None:
        where = make_url(where)
        backend = where.get_backend_name()
        options: dict[str, Any] = {} if backend == "sqlite" else {"isolation_level": "READ COMMITTED"}
        self.engine: Engine = create_engine(
            where,
            connect_args=_SECONDS.get(backend, {}),
            pool_size=5,
            max_overflow=15,
            pool_recycle=240,
            pool_use_lifo=True,
            hide_parameters=True,
            **options,
        )
        if backend == "sqlite":
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_immediate)

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in one transaction and commit it.

        After a deadlock or a lost connection the whole of it runs again, also where the connection was lost during the
        commit and nobody knows whether that took place. So ``work`` must find out when it has already been done.

        Raises:
            DatabaseUnavailable: the database is away; whether the transaction took place is not known.
            Conflict: a unique key is taken; nothing took place.
            DatabaseFault: the database refused a statement; nothing took place.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                with self.engine.begin() as connection:
                    return work(connection)
            except IntegrityError as error:
                raise Conflict("That is there already.") from error
            except DBAPIError as error:
                if not _may_pass(error):
                    raise DatabaseFault("The database refused a statement; the log has the cause.") from error
                if attempt == _TRIES:
                    raise DatabaseUnavailable(
                        "The database is not available just now; try again in a minute."
                    ) from error
                log.warning("The database transaction is tried again: %s", type(error.orig).__name__)
            except SQLAlchemyError as error:
                raise DatabaseUnavailable("The database is not available just now; try again in a minute.") from error
            time.sleep(random.uniform(0.02, 0.1) * 2**attempt)  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _may_pass(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed if it is tried again."""
    if error.connection_invalidated:
        return True
    code = error.orig.args[0] if error.orig is not None and error.orig.args else None
    if code in _MYSQL_CONFLICTS or getattr(error.orig, "sqlstate", None) in _POSTGRESQL_CONFLICTS:
        return True
    # No server at that address yet, a server that is starting or stopping, a locked SQLite file.
    return type(error.orig).__name__ in {"OperationalError", "InterfaceError"} and "no such" not in str(code)


def _prepare_sqlite(connection: Any, _: object) -> None:
    # SQLAlchemy's own handling begins a transaction at the first write only, so that read-then-update loses updates.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL").close()
    connection.execute("PRAGMA synchronous = FULL").close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
