"""Each function's database user has the rights of its row in ``RIGHTS`` and no others, on PostgreSQL and MariaDB."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import Connection, make_url, text

from functions.auth.accounts import Accounts
from functions.auth.administration import Administration, Search
from functions.auth.feeds import Feeds
from functions.auth.keys import ApiKeys
from functions.metrics.readings import Totals, read, read_totals
from functions.settings import BadSetting
from functions.state.counters import Counters, Series, count
from functions.state.database import Database, DatabaseFault, DatabaseUnavailable
from functions.state.deleted_users import DeletedUsers
from functions.state.jobs import Outcome
from functions.state.leases import LeaseTerms
from functions.state.overdue import Overdue
from functions.state.overview import GivenUp, Overview
from functions.state.parts import NewPart, Parts, part_id
from functions.state.quota import usages
from infra.migrations.rights import RIGHTS, connection_of, parse, users
from infra.migrations.schema import upgrade
from tests.contract.test_jobs import Records
from tests.support.databases import USERS_KEY, set_role
from tests.support.paths import ROOT

on_servers = pytest.mark.parametrize("database", ["mariadb", "postgresql"], indirect=True)

#: Statements that a function has no right to, and why it matters.
FORBIDDEN = {
    "convert": "SELECT password_hash FROM users",
    "encode": "SELECT email FROM users",
    "join": "UPDATE users SET role = 'admin'",
    "download": "UPDATE users SET role = 'admin'",
    "edit": "UPDATE jobs SET owner = 'eve'",
    "status": "SELECT email FROM users",
    "confirm": "UPDATE users SET email = 'eve@example.org'",
    "upload": "SELECT password_hash FROM users",
    "account": "UPDATE users SET role = 'admin'",
    "validate": "SELECT password_hash FROM users",
    "notify": "SELECT password_hash FROM users",
    "register": "SELECT password_hash FROM users",
    "login": "UPDATE users SET role = 'admin'",
    "sweep": "SELECT email FROM users",
    "bury": "DELETE FROM jobs",
    "webhooks": "SELECT email FROM users",
    "admin": "SELECT filename FROM jobs",
    "metrics": "SELECT owner FROM jobs",
    "hook": "SELECT id FROM users",
    "fetch": "UPDATE jobs SET owner = 'eve'",
}


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


@pytest.fixture
def as_function(database: Database) -> Iterator[Callable[[str], Database]]:
    """Opens the database as the user of a function."""
    owner = {"DATABASE_URL": url_of(database), "DATABASE_USERS_KEY": USERS_KEY}
    with ExitStack() as stack:

        def opened(function: str) -> Database:
            pool = Database(connection_of(function, owner)["DATABASE_URL"])
            stack.callback(pool.close)
            return pool

        yield opened


def run(database: Database, statement: str) -> Any:
    return database.run(lambda connection: connection.execute(text(statement)).rowcount)


def granted(connection: Connection, function: str) -> set[tuple[str, str, str]]:
    """Returns a function's rights as (table, verb, column), column by column where it lacks some."""
    (name,) = (
        user.name for user in users(connection.engine.url.database or "", USERS_KEY) if user.function == function
    )
    grantee = name if connection.dialect.name == "postgresql" else f"'{name}'@'%'"
    query = "SELECT table_name, privilege_type{} FROM information_schema.{} WHERE grantee = :grantee"
    tables = {
        (*row, "") for row in connection.execute(text(query.format("", "table_privileges")), {"grantee": grantee})
    }
    columns = connection.execute(text(query.format(", column_name", "column_privileges")), {"grantee": grantee})
    return tables | {(*row,) for row in columns if (row[0], row[1], "") not in tables}


def listed(function: str) -> set[tuple[str, str, str]]:
    return {
        (table, right.verb, column)
        for table, rights in RIGHTS[function].items()
        for right in parse(rights)
        for column in right.columns or ("",)
    }


def test_every_function_is_tried() -> None:
    assert FORBIDDEN.keys() == RIGHTS.keys()


@on_servers
@pytest.mark.parametrize("function", FORBIDDEN)
def test_a_function_can_do_no_more_than_its_work(as_function: Callable[[str], Database], function: str) -> None:
    database = as_function(function)
    table = next(iter(RIGHTS[function]))
    column = parse(RIGHTS[function][table])[0].columns[:1]
    run(database, f"SELECT {column[0] if column else '*'} FROM {table}")  # noqa: S608
    for statement in (FORBIDDEN[function], "SELECT * FROM alembic_version", "CREATE TABLE mine (n INT)"):
        with pytest.raises(DatabaseFault) as refused:
            run(database, statement)
        assert re.search("denied|must be owner", str(refused.value.__cause__)), refused.value.__cause__


@on_servers
def test_account_deletes_a_user_whose_mp3_was_split(database: Database, as_function: Callable[[str], Database]) -> None:
    ann = Accounts(database).add("Ann", "ann", "correct horse", "ann@example.org").id
    records = Records(database, LeaseTerms())
    lease = records.jobs.claim(records.job(owner=ann).id)
    assert lease is not None
    mp3 = records.blob("mp3s", lease.row.id, ann)
    assert records.jobs.finish(lease, Outcome(mp3, 1.0, None, 5))
    part = part_id(lease.row.id, 0, 1152)
    head = records.blob("mp3s", part, ann)
    source = records.jobs.get(lease.row.id, ann)
    assert Parts(database).add(source, [NewPart(part, "a.mp3", head, 1, mp3, 0, 4, "00000000", 1.0)])
    DeletedUsers(as_function("account")).delete(ann)
    assert records.count("jobs") == 0


@on_servers
def test_admin_administers_and_sweep_deletes_whom_it_has_deleted(
    database: Database, as_function: Callable[[str], Database]
) -> None:
    root, ann = (
        Accounts(database).add(name, name, "correct horse", f"{name}@example.org").id for name in ("root", "ann")
    )
    set_role(database, "root", "admin")
    ApiKeys(database).create(ann, "backup", ["read"])
    Feeds(database).create(ann)
    records = Records(database, LeaseTerms())
    records.job(owner=ann)
    users_of_admin = Administration(as_function("admin"))
    assert [user.username for user in users_of_admin.page(Search("EXAMPLE"), 10)] == ["ann", "root"]
    for change in ({"role": "admin"}, {"role": "user"}, {"is_locked": True}, {"is_locked": False}):
        users_of_admin.change(ann, root, **change)
    users_of_admin.set_quota(ann, root, 1, 1)
    users_of_admin.withdraw_tokens(ann, root)
    overview = Overview(as_function("admin"))
    assert [job.username for job in overview.jobs(5, owner=ann, state="uploaded")] == ["ann"]
    assert sum(queue.waiting for queue in overview.queues()) == 1
    assert sum(overview.retry(queue.name) for queue in overview.queues()) == 0
    assert overview.given_up() == GivenUp(0, 0, 0)
    assert overview.storage()[0].blobs == 1
    overview.largest_users(5)
    assert usages(as_function("admin"), [ann])[ann].jobs == 1
    totals = read_totals(as_function("metrics"))
    assert (totals.stores["videos"].blobs, totals.users) == (1, 2)
    assert read(as_function("metrics"), totals).jobs == {"uploaded": 1}
    users_of_admin.delete(ann, root)
    Overdue(as_function("sweep")).purge_users(10, math.inf)
    assert [records.count(table) for table in ("api_keys", "feeds", "jobs")] == [0, 0, 0]


@on_servers
def test_whoever_counts_can_do_nothing_else_to_counters_and_sweep_adds_them_up(
    as_function: Callable[[str], Database],
) -> None:
    counting = [function for function, rights in RIGHTS.items() if rights.get("counters") == "INSERT"]
    assert {"convert", "encode", "join", "fetch", "edit", "notify", "hook", "bury"} == {*counting}
    for function in counting:
        as_function(function).run(lambda connection: count(connection, {Series.of("videos_fetched"): 1}))
        with pytest.raises(DatabaseFault):
            run(as_function(function), "DELETE FROM counters")
    Counters(as_function("sweep")).add_up(500)
    Counters(as_function("sweep")).record_sweep()
    counted = read(as_function("metrics"), Totals({}, 0)).counts
    assert {series: each.amount for series, each in counted.items()} == {
        Series.of("videos_fetched"): len(counting),
        Series.of("sweeps"): 1,
    }


@on_servers
def test_users_have_the_rights_of_the_table(database: Database) -> None:
    assert {name: database.run(lambda c, name=name: granted(c, name)) for name in RIGHTS} == {  # type: ignore[misc]
        name: listed(name) for name in RIGHTS
    }


@on_servers
def test_rights_that_the_table_no_longer_has_are_revoked(
    database: Database, as_function: Callable[[str], Database]
) -> None:
    is_postgresql = database.engine.dialect.name == "postgresql"
    (user,) = (user for user in users(database.engine.url.database or "", USERS_KEY) if user.function == "convert")
    account = user.name if is_postgresql else f"'{user.name}'@'%'"
    everything = "ALL TABLES IN SCHEMA public" if is_postgresql else f"{database.engine.url.database}.*"
    by_table = [
        f"GRANT SELECT (password_hash), UPDATE (role) ON users TO {account}",
        f"GRANT DELETE ON logins TO {account}",
    ]
    for surplus in (by_table, [f"GRANT SELECT ON {everything} TO {account}"]):
        for statement in surplus:
            run(database, statement)
        run(as_function("convert"), "SELECT password_hash FROM users")
        upgrade(database, USERS_KEY)
        assert database.run(lambda connection: granted(connection, "convert")) == listed("convert")
        for statement in ("SELECT password_hash FROM users", "DELETE FROM logins", "SELECT * FROM logins"):
            with pytest.raises(DatabaseFault):
                run(as_function("convert"), statement)


@on_servers
def test_second_run_disturbs_no_function_that_is_at_work(
    database: Database, as_function: Callable[[str], Database]
) -> None:
    upload = as_function("upload")
    with upload.engine.connect() as connection:
        connection.execute(text("SELECT id FROM jobs"))
        connection.rollback()
        upgrade(database, USERS_KEY)
        connection.execute(text("SELECT id FROM jobs"))
    run(upload, "SELECT id FROM jobs")


@on_servers
def test_password_is_needed_and_follows_the_key(database: Database) -> None:
    other_key = "o" * 32
    owner = {"DATABASE_URL": url_of(database)}

    def log_in(key: str) -> None:
        pool = Database(connection_of("status", {**owner, "DATABASE_USERS_KEY": key})["DATABASE_URL"])
        try:
            with pool.engine.connect() as connection:
                connection.execute(text("SELECT id FROM jobs"))
        finally:
            pool.close()

    log_in(USERS_KEY)
    upgrade(database, other_key)
    try:
        log_in(other_key)
        with pytest.raises(Exception, match=r"(?i)access denied|password authentication failed"):
            log_in(USERS_KEY)
    finally:
        upgrade(database, USERS_KEY)


def migrations(url: str, key: str = USERS_KEY) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATABASE_URL": url, "DATABASE_USERS_KEY": key}
    command = [sys.executable, "-m", "infra.migrations"]
    return subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)


@on_servers
def test_owner_who_may_not_create_users_is_told_what_to_do(database: Database) -> None:
    is_postgresql = database.engine.dialect.name == "postgresql"
    password = "not-for-the-log"
    account = "weak" if is_postgresql else "'weak'@'%'"
    name = database.engine.url.database
    if is_postgresql:
        statements = [f"CREATE ROLE weak LOGIN PASSWORD '{password}'"]
        statements += ["GRANT ALL ON ALL TABLES IN SCHEMA public TO weak", "GRANT ALL ON SCHEMA public TO weak"]
    else:
        statements = [f"CREATE USER {account} IDENTIFIED BY '{password}'", f"GRANT ALL ON {name}.* TO {account}"]
    for statement in statements:
        run(database, statement)
    try:
        url = make_url(url_of(database)).set(username="weak", password=password)
        done = migrations(url.render_as_string(hide_password=False))
        assert done.returncode == 2, done.stderr
        assert "DATABASE_USERS_KEY=off" in done.stderr
        secrets = [password, USERS_KEY, *(user.password for user in users(name or "", USERS_KEY)), "SCRAM-SHA-256$"]
        assert not [secret for secret in secrets if secret in done.stderr]
        assert migrations(url.render_as_string(hide_password=False), "off").returncode == 0
    finally:
        if is_postgresql:
            run(database, "DROP OWNED BY weak")
        run(database, f"DROP USER {account}")


@on_servers
def test_missing_right_is_not_taken_for_an_outage(as_function: Callable[[str], Database]) -> None:
    """An outage is retried for ever; a missing right would never be found."""
    with pytest.raises(DatabaseFault) as refused:
        run(as_function("download"), "DELETE FROM blobs")
    assert not isinstance(refused.value, DatabaseUnavailable)


@on_servers
@pytest.mark.parametrize("key", ["short", "k" * 31])
def test_short_key_is_refused(database: Database, key: str) -> None:
    with pytest.raises(BadSetting, match="DATABASE_USERS_KEY has fewer than 32"):
        upgrade(database, key)
