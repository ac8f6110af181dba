"""Database.run retries a transaction after a deadlock or a lost connection, so that it takes place exactly once."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, event, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError

from functions.state import database as module
from functions.state.database import Database, DatabaseUnavailable
from functions.state.leases import LeaseTerms
from functions.state.schema import logins, metadata
from infra.migrations import schema
from infra.migrations.schema import NotMigrated, upgrade
from scripts.deployment.manifests import migrations
from tests.support.paths import ROOT
from tests.support.servers.mariadb import MariaDB
from tests.support.servers.postgresql import PostgreSQL
from tests.support.servers.sql import SqlServer

SERVERS = pytest.mark.parametrize("server", [MariaDB, PostgreSQL], indirect=True, ids=["mariadb", "postgresql"])


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[SqlServer]:
    """A server for this module alone, because the tests kill it."""
    with request.param() as running:
        upgrade_and_close(running.url)
        yield running


@pytest.fixture
def own(server: SqlServer) -> Iterator[Database]:
    """A connection pool for this test alone."""
    database = Database(server.url)
    database.run(lambda connection: connection.execute(logins.delete()))
    for name in ("a", "b"):
        add(database, name)
    yield database
    database.close()


def upgrade_and_close(url: str) -> None:
    database = Database(url)
    upgrade(database)
    database.close()


def add(database: Database, name: str) -> None:
    row = insert(logins).values(subject=name, clears_at=0, locked_until=0)
    database.run(lambda connection: connection.execute(row))


def count_one(connection: Connection, name: str) -> None:
    connection.execute(update(logins).where(logins.c.subject == name).values(clears_at=logins.c.clears_at + 1))


def counts(database: Database) -> dict[str, int]:
    rows = select(logins.c.subject, logins.c.clears_at)
    return database.run(lambda connection: {row.subject: row.clears_at for row in connection.execute(rows)})


@SERVERS
def test_both_transactions_of_a_deadlock_take_place_once(own: Database) -> None:
    """Each locks the row that the other needs, until the server aborts one of them."""
    both_locked = threading.Barrier(2)
    runs: list[str] = []

    def lock(first: str, second: str) -> None:
        tries = 0

        def work(connection: Connection) -> None:
            nonlocal tries
            tries += 1
            runs.append(first)
            count_one(connection, first)
            if tries == 1:
                both_locked.wait(30)
            count_one(connection, second)

        own.run(work)

    with ThreadPoolExecutor(2) as threads:
        for ended in [threads.submit(lock, "a", "b"), threads.submit(lock, "b", "a")]:
            ended.result(60)
    assert len(runs) == 3  # one of them ran again
    assert counts(own) == {"a": 2, "b": 2}


@SERVERS
def test_server_restart_within_a_transaction_runs_it_again(server: SqlServer, own: Database) -> None:
    tries = 0

    def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        count_one(connection, "a")
        if tries == 1:
            server.kill()
            server.start()
        count_one(connection, "b")

    own.run(work)
    assert tries == 2
    assert counts(own) == {"a": 1, "b": 1}


@SERVERS
def test_pool_of_dead_connections_is_replaced(server: SqlServer, own: Database) -> None:
    """More dead connections than tries: the first that fails must invalidate all of them."""
    connected = threading.Barrier(8)

    def hold(_: int) -> None:
        own.run(lambda connection: (connection.execute(text("SELECT 1")), connected.wait(30)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(hold, range(8)))
    server.kill()
    server.start()
    own.run(lambda connection: count_one(connection, "a"))
    assert counts(own) == {"a": 1, "b": 0}


KILL = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
    "mysql": ("SELECT CONNECTION_ID()", "KILL {}"),
}


@SERVERS
def test_connection_killed_by_an_administrator_is_replaced(server: SqlServer, own: Database) -> None:
    which, kill = KILL[own.engine.dialect.name]
    other = create_engine(server.url)
    tries = 0

    def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        count_one(connection, "a")
        if tries == 1:
            with other.connect() as administrator:
                administrator.execute(text(kill.format(connection.scalar(text(which)))))
        count_one(connection, "b")

    own.run(work)
    other.dispose()
    assert tries == 2
    assert counts(own) == {"a": 1, "b": 1}


@SERVERS
def test_commit_with_lost_answer_runs_again(server: SqlServer, own: Database) -> None:
    """The work then runs twice, which is why each transition finds out whether it took place before."""
    tries = 0

    def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        count_one(connection, "a")

    def lose(connection: Connection) -> None:
        if tries == 1:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("SELECT 1")  # psycopg sends no second COMMIT otherwise
            server.kill()
            server.start()

    event.listen(own.engine, "commit", lose)
    own.run(work)
    assert tries == 2
    assert counts(own) == {"a": 2, "b": 0}


LOCK_TIMEOUT = {"postgresql": "SET LOCAL lock_timeout = '1s'", "mysql": "SET SESSION innodb_lock_wait_timeout = 1"}


@SERVERS
def test_transaction_whose_lock_times_out_runs_again(own: Database) -> None:
    tries = 0
    with own.engine.connect() as other:
        count_one(other, "a")

        def work(connection: Connection) -> None:
            nonlocal tries
            tries += 1
            if tries == 2:
                other.rollback()
            count_one(connection, "b")
            connection.execute(text(LOCK_TIMEOUT[connection.dialect.name]))
            count_one(connection, "a")

        own.run(work)
    assert tries == 2
    assert counts(own) == {"a": 1, "b": 1}


@SERVERS
def test_lock_that_is_held_for_long_counts_as_no_attempt(own: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_lock_seconds", lambda: 1.0)
    tries: list[int] = []

    def work(connection: Connection) -> None:
        tries.append(1)
        count_one(connection, "b")
        connection.execute(text(LOCK_TIMEOUT[connection.dialect.name]))
        count_one(connection, "a")

    with own.engine.connect() as other:
        count_one(other, "a")
        with pytest.raises(DatabaseUnavailable) as caught:
            own.run(work)
    assert (caught.value.status, caught.value.counts_as_attempt, len(tries)) == (503, False, 1)
    assert counts(own) == {"a": 0, "b": 0}


@SERVERS
def test_renewal_that_waits_for_a_lock_is_tried_again_within_the_lease(own: Database) -> None:
    query = {"postgresql": "SHOW lock_timeout", "mysql": "SELECT CONCAT(@@innodb_lock_wait_timeout, 's')"}
    with own.engine.connect() as connection:
        seconds = float(str(connection.scalar(text(query[connection.dialect.name]))).removesuffix("s"))
    terms = LeaseTerms()
    assert terms.renewal + seconds * 1000 + terms.renewal / 5 < terms.lease


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
def test_four_concurrent_migrations_make_the_tables_once(kind: str, tmp_path: Path) -> None:
    if kind == "sqlite":
        migrate_by_four(f"sqlite:///{tmp_path / 'test.db'}")
        return
    with {"mariadb": MariaDB, "postgresql": PostgreSQL}[kind]() as fresh:
        migrate_by_four(fresh.url)


def migrate_by_four(url: str) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATABASE_URL": url}
    running = [
        subprocess.Popen([sys.executable, "-m", "infra.migrations"], env=env, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in running] == [("", 0)] * 4
    database = Database(url)
    with database.engine.connect() as connection:
        assert {*inspect(connection).get_table_names()} == {*metadata.tables, "alembic_version"}
        assert len(connection.execute(text("SELECT version_num FROM alembic_version")).all()) == 1
    database.close()


@SERVERS
def test_migration_whose_connection_is_lost_names_the_cause(own: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(config: Config, _: str) -> None:
        connection = config.attributes["connection"]
        which, kill = KILL[connection.dialect.name]
        victim = connection.scalar(text(which))
        with own.engine.connect() as administrator:
            administrator.execute(text(kill.format(victim)))
        connection.execute(text("SELECT 1"))

    monkeypatch.setattr(command, "upgrade", lose)
    with pytest.raises(NotMigrated, match="check that it is running") as caught:
        upgrade(own)
    assert isinstance(caught.value.__cause__, DBAPIError)
    assert caught.value.__cause__.connection_invalidated
    monkeypatch.undo()
    upgrade(own)  # the lock is released


LOCK = {
    "postgresql": f"SELECT pg_advisory_xact_lock({schema._LOCK})",
    "mysql": "SELECT GET_LOCK('mp3burst.migrations', 0)",
}


@SERVERS
def test_migration_that_another_one_keeps_waiting_says_so(own: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_LOCK_SECONDS", 1)
    with own.engine.connect() as other:
        other.execute(text(LOCK[other.dialect.name]))
        with pytest.raises(NotMigrated, match="Another migration has been running"):
            upgrade(own)
        other.invalidate()
    upgrade(own)


@SERVERS
def test_migration_that_another_transaction_keeps_waiting_says_so(
    own: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_LOCK_SECONDS", 1)
    monkeypatch.setattr(command, "upgrade", lambda config, _: count_one(config.attributes["connection"], "a"))
    with own.engine.connect() as other:
        count_one(other, "a")
        with pytest.raises(NotMigrated, match="Another transaction has kept a table locked"):
            upgrade(own)
    assert counts(own) == {"a": 0, "b": 0}


TIMEOUTS = {
    "postgresql": "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')",
    "mysql": "SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout",
}


@SERVERS
def test_migration_waits_no_longer_for_a_table_that_is_only_read(
    own: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MySQL has another timeout for the locks of tables, a year by default, than for those of rows."""
    monkeypatch.setattr(schema, "_LOCK_SECONDS", 1)

    def alter(config: Config, _: str) -> None:
        config.attributes["connection"].execute(text("ALTER TABLE logins ADD COLUMN unexpected INTEGER"))

    monkeypatch.setattr(command, "upgrade", alter)

    def timeouts() -> tuple[object, ...]:
        with own.engine.connect() as connection:
            return tuple(connection.execute(text(TIMEOUTS[connection.dialect.name])).one())

    usual = timeouts()
    reader = Database(own.engine.url)
    with reader.engine.connect() as other:
        other.execute(select(logins.c.subject))
        # Ends the wait of a migration that would not.
        watchdog = threading.Timer(20, other.invalidate)
        watchdog.start()
        with pytest.raises(NotMigrated, match="Another transaction has kept a table locked"):
            upgrade(own)
        watchdog.cancel()
    reader.close()
    assert timeouts() == usual
    assert counts(own) == {"a": 0, "b": 0}


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
def test_older_version_leaves_a_newer_database_alone_and_is_not_retried(kind: str, tmp_path: Path) -> None:
    if kind == "sqlite":
        migrate_as_older(f"sqlite:///{tmp_path / 'test.db'}")
        return
    with {"mariadb": MariaDB, "postgresql": PostgreSQL}[kind]() as fresh:
        migrate_as_older(fresh.url)
        fresh.stop()
        failed = migrate(fresh.url)
        assert (failed.returncode, failed.stderr.startswith("Migrating the database failed: ")) == (1, True)


def migrate_as_older(url: str) -> None:
    database = Database(url)
    upgrade(database)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    done = migrate(url)
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    database.close()
    assert done.returncode == 2
    assert done.stderr == (
        "The database was migrated by a newer version of mp3burst; its migration 9999 is unknown here: "
        "run that version or a later one, or restore an older backup.\n"
    )
    # The cluster's Job stops retrying at this status only.
    (rule,) = migrations("image", "stamp", "tables")["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [done.returncode])


def migrate(url: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATABASE_URL": url}
    return subprocess.run(
        [sys.executable, "-m", "infra.migrations"], env=env, stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
