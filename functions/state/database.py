"""The SQL database: its address from the environment, its connection pool, and transactions that are retried."""

import contextlib
import functools
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from events.errors import Mp3burstError, TryAgain
from functions.settings import BadSetting, number, required
from functions.state.reserve import Reserve

T = TypeVar("T")
log = logging.getLogger(__name__)

_MAX_TRIES: Final = 5
# PostgreSQL, appendix A: the beginnings of the SQLSTATEs that say nothing about the statement. 08: connection lost;
# 25006: read-only, as a standby is, or a managed server whose disk is full; 25P03: idle in a transaction for too long;
# 40: deadlock or serialization failure; 53: disk, memory or connections exhausted; 55P03: lock timeout; 57: statement
# timeout, or the server is starting or stopping; 58: error of the system, such as of its disk.
_POSTGRESQL_TEMPORARY: Final = ("08", "25006", "25P03", "40", "53", "55P03", "57", "58")
# PyMySQL calls every error an OperationalError for which it has no other class: a full disk (1021, 1114) and a
# read-only server (1290, 1836), but also an unknown column, and that a right on a table or column is missing.
_MYSQL_FAULTS: Final = {1054, 1142, 1143}
# Smaller ones are of the server's files and memory, such as EE_WRITE; PyMySQL calls them InternalErrors.
_MYSQL_FIRST_OF_SQL: Final = 1000
# A lock's timeout, and that of a statement: PostgreSQL, MySQL, MariaDB.
_TIMED_OUT: Final = {"55P03", "57014", 1205, 3024, 1969}
# sqlite.org/rescode.html: IOERR, FULL and CANTOPEN, which a full disk causes depending on the file that has to grow.
_SQLITE_UNWRITABLE: Final = {10, 13, 14}
_SQLITE_BUSY: Final = 5
# No such table or column, or a syntax error.
_SQLITE_ERROR: Final = 1
#: ``postgres`` is what many hosts of PostgreSQL hand out.
_DRIVERS: Final[Mapping[str, str]] = {
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}
#: The execution option of a connection whose transactions only read.
_READ_ONLY: Final = "mp3burst_read_only"
#: In seconds, where the option names no unit. A transaction waits 10 s for another one's locks: renewing a lease, which
#: lasts 20 s, is tried again before it ends.
_TIMEOUTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "sqlite": {"timeout": 10, "check_same_thread": False},
    "mysql": {
        "connect_timeout": 5,
        "read_timeout": 30,
        "write_timeout": 30,
        "init_command": "SET SESSION innodb_lock_wait_timeout = 10",
    },
    "postgresql": {"connect_timeout": 5, "options": "-c statement_timeout=30s -c lock_timeout=10s"},
}
_UNAVAILABLE: Final = "The database is temporarily unavailable: try again in a minute."


class DatabaseUnavailable(TryAgain):
    """The database is unavailable, or too busy to finish a transaction."""

    counts_as_attempt = False


class DatabaseFault(Mp3burstError):
    """The database rejected a statement: a bug in mp3burst, or the migrations have not run."""


class Conflict(Mp3burstError):
    """A row with the same unique key already exists."""

    status = 409


def url(environ: Mapping[str, str]) -> URL:
    """Returns the URL of the database that the environment names.

    Args:
        environ: ``DATABASE_URL``, or the tutorial systems' MYSQL_HOST, MYSQL_USER, MYSQL_PASSWORD, MYSQL_DB and
            MYSQL_PORT.

    Raises:
        BadSetting: it names none, or DATABASE_URL is not a valid URL, or has a dialect or driver that is not
            installed.
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
        parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
        parsed.get_dialect().import_dbapi()
    except (ArgumentError, ImportError) as error:
        raise BadSetting(
            "DATABASE_URL is not a valid database URL: use DIALECT://USER:PASSWORD@HOST/NAME, whose DIALECT is "
            "postgresql, mysql or mariadb, or sqlite:///FILE."
        ) from error
    return parsed


def shared(environ: Mapping[str, str]) -> "Database":
    """Returns the database that the environment names, with one connection pool per process.

    Raises:
        BadSetting: as ``url`` does.
    """
    return _opened(url(environ))


@functools.lru_cache(maxsize=1)
def _opened(address: URL) -> "Database":
    return Database(address)


class Database:
    """A connection pool. Cheap to create: it connects on first use."""

    def __init__(self, address: URL | str) -> None:
        address = make_url(address)
        backend = address.get_backend_name()
        options: dict[str, Any] = {} if backend == "sqlite" else {"isolation_level": "READ COMMITTED"}
        self.engine: Engine = create_engine(
            address,
            connect_args={**_TIMEOUTS.get(backend, {})},
            pool_size=5,
            max_overflow=15,
            pool_recycle=240,
            pool_use_lifo=True,
            hide_parameters=True,
            **options,
        )
        self._reserve: Reserve | None = None
        if backend == "sqlite":
            if address.database and address.database != ":memory:":
                self._reserve = Reserve(Path(address.database))
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    def connect(self) -> None:
        """Opens a connection for the first transaction.

        Raises:
            DatabaseUnavailable: the database is unavailable.
        """
        try:
            self.engine.connect().close()
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(_UNAVAILABLE) from error

    def run(self, work: Callable[[Connection], T]) -> T:
        """Runs ``work`` in one transaction and commits it.

        After a deadlock, a timeout or a lost connection, ``work`` runs again from its start. If the connection was lost
        during the commit, the transaction may have taken place, so ``work`` must recognize what it has already done.

        Raises:
            DatabaseUnavailable: the database is unavailable, or has kept the transaction waiting for 10 s; the
                transaction may or may not have taken place.
            Conflict: a unique key is taken; the transaction was rolled back.
            DatabaseFault: the database rejected a statement; the transaction was rolled back.
        """
        return self._run(work, self._begin)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Runs ``work``, which only reads, in one transaction; in SQLite it waits for no writer.

        Raises:
            DatabaseUnavailable: the database is unavailable.
            DatabaseFault: the database rejected a statement.
        """
        return self._run(work, self._begin_reading)

    @contextlib.contextmanager
    def _begin(self) -> Iterator[Connection]:
        with self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _begin_reading(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            connection.execution_options(**{_READ_ONLY: True})
            with connection.begin():
                yield connection

    def _run(self, work: Callable[[Connection], T], begin: Callable[[], AbstractContextManager[Connection]]) -> T:
        began = time.monotonic()
        for attempt in range(1, _MAX_TRIES + 1):
            try:
                with begin() as connection:
                    return work(connection)
            except IntegrityError as error:
                raise Conflict("This already exists.") from error
            except DBAPIError as error:
                if self._reserve is not None and _is_disk_full(error) and self._reserve.release():
                    log.error("The disk is full: the database's reserve was released. Free some space.")
                if not _is_temporary(error):
                    raise DatabaseFault("The database rejected a statement; the log has the cause.") from error
                if attempt == _MAX_TRIES or (_has_waited(error) and time.monotonic() - began >= _lock_seconds()):
                    raise DatabaseUnavailable(_UNAVAILABLE) from error
                log.warning("Retrying a database transaction after %s", type(error.orig).__name__)
            except SQLAlchemyError as error:
                raise DatabaseUnavailable(_UNAVAILABLE) from error
            time.sleep(random.uniform(0.02, 0.1) * 2**attempt)  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable")

    def restore_reserve(self) -> None:
        """Sets space aside for transactions on a full disk, if the database is a file; best effort."""
        if self._reserve is not None:
            self._reserve.restore()

    def close(self) -> None:
        """Closes every pooled connection."""
        self.engine.dispose()


def _is_temporary(error: DBAPIError) -> bool:
    """Returns whether the same transaction may succeed if it is retried."""
    if error.connection_invalidated:
        return True
    code = _code(error)
    if isinstance(code, int) and code < _MYSQL_FIRST_OF_SQL:
        return True
    if isinstance(code, str):
        return code.startswith(_POSTGRESQL_TEMPORARY)
    if code in _MYSQL_FAULTS or _sqlite_code(error) == _SQLITE_ERROR:
        return False
    # There is no server at that address yet, it is starting or stopping, or the SQLite file is locked.
    return type(error.orig).__name__ in {"OperationalError", "InterfaceError"}


def _has_waited(error: DBAPIError) -> bool:
    """Whether a transaction may have waited: for another one's lock, or for the end of a statement.

    SQLite's driver waits for its lock, too, except while the WAL begins or ends.
    """
    return _sqlite_code(error) == _SQLITE_BUSY or _code(error) in _TIMED_OUT


def _code(error: DBAPIError) -> int | str | None:
    """Returns a MySQL server's error number, or a PostgreSQL server's SQLSTATE; None if no server sent the error."""
    first = error.orig.args[0] if error.orig is not None and error.orig.args else None
    if isinstance(first, int):
        return first
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    return sqlstate


def _lock_seconds() -> float:
    return float(_TIMEOUTS["sqlite"]["timeout"])


def _is_disk_full(error: DBAPIError) -> bool:
    """Whether SQLite could not write: its primary result code is FULL, IOERR or CANTOPEN."""
    return _sqlite_code(error) in _SQLITE_UNWRITABLE


def _sqlite_code(error: DBAPIError) -> int | None:
    """Returns SQLite's primary result code; None if the error is not SQLite's."""
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _prepare_sqlite(connection: Any, _: object) -> None:
    # The driver begins a transaction only at the first write, so read-then-update would lose updates.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL").close()
    connection.execute("PRAGMA synchronous = FULL").close()


def _begin_sqlite(connection: Connection) -> None:
    # A write within a transaction that only reads is an error: its lock would be taken too late.
    is_read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql(f"PRAGMA query_only = {is_read_only:d}")
    connection.exec_driver_sql("BEGIN" if is_read_only else "BEGIN IMMEDIATE")
