"""Users and failed logins, on every SQL database."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import inspect, select, text

from functions.auth.accounts import Accounts, User, UsernameTaken, WrongCredentials
from functions.auth.profiles import Profiles
from functions.auth.sessions import Sessions
from functions.auth.throttle import FORGIVEN_AFTER, KNOWN_FOR, Subject, Throttle, TooManyFailures, login_attempt
from functions.auth.tokens import Signer
from functions.login.main import Dependencies, log_in
from functions.state.database import Database
from functions.state.overdue import Overdue
from functions.state.schema import logins, now, users
from infra.migrations.schema import upgrade
from tests.support.databases import USERS_KEY, make_past, set_role
from tests.unit.auth.test_tokens import KEY, private_pem


def test_username_is_accepted_in_any_spelling(database: Database) -> None:
    accounts = Accounts(database)
    added = accounts.add("Zoë Ångström", "Zoe@Example.org", "correct horse", "zoe@example.org")
    assert added.username == "zoe@example.org"
    assert accounts.authenticate(" ZOE@example.org ", "correct horse") == added
    assert accounts.authenticate("zoe@example.org", "correct horse").name == "Zoë Ångström"


def test_passwords_are_stored_only_as_hashes(database: Database) -> None:
    Accounts(database).add("A", "a@example.org", "correct horse", "a@example.org")
    stored = database.run(lambda connection: connection.scalar(select(users.c.password_hash)))
    assert stored is not None
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert "correct" not in stored


@pytest.mark.parametrize(
    ("username", "password"), [("a@example.org", "wrong horse"), ("b@example.org", "correct horse")]
)
def test_wrong_password_and_unknown_user_look_the_same(database: Database, username: str, password: str) -> None:
    accounts = Accounts(database)
    accounts.add("A", "a@example.org", "correct horse", "a@example.org")
    with pytest.raises(WrongCredentials, match=r"^Wrong username or password: check both and try again\.$"):
        accounts.authenticate(username, password)


def test_outdated_hash_does_not_replace_that_of_a_new_password(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner changes the password while a login with the old one makes a hash by new parameters."""
    monkeypatch.setattr("functions.auth.accounts.PASSES", 1)
    user = Accounts(database).add("A", OWNER, "correct horse", OWNER)
    monkeypatch.undo()
    accounts = Accounts(database)
    make_hash = accounts.hash

    def change_first(password: str) -> str:
        Profiles(database).set_password(user.id, 0, make_hash("another horse"))
        return make_hash(password)

    monkeypatch.setattr(accounts, "hash", change_first)
    accounts.authenticate(OWNER, "correct horse")
    Accounts(database).authenticate(OWNER, "another horse")
    with pytest.raises(WrongCredentials):
        Accounts(database).authenticate(OWNER, "correct horse")


def test_simultaneous_registrations_of_a_username_admit_one(database: Database) -> None:
    barrier = threading.Barrier(4)

    def add(n: int) -> bool:
        barrier.wait(30)
        try:
            Accounts(database).add("A", "Same@example.org", f"password {n}", "a@example.org")
        except UsernameTaken:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(add, range(4))) == 1


def test_role_is_set_by_username(database: Database) -> None:
    accounts = Accounts(database)
    accounts.add("A", "a@example.org", "correct horse", "a@example.org")
    set_role(database, "A@example.org", "admin")
    assert accounts.authenticate("a@example.org", "correct horse").role == "admin"


OWNER = "a@example.org"


def fail(database: Database, username: str, address: str, times: int = 1) -> None:
    """Fails so many logins; each lock has ended before the next."""
    throttle = Throttle(database)
    attempt = login_attempt(username, address)
    for _ in range(times):
        if is_locked(database, username, address):
            make_past(database, "logins", "locked_until")
        throttle.record_failure(attempt, throttle.check(attempt))


def succeed(database: Database, username: str, address: str) -> None:
    throttle = Throttle(database)
    attempt = login_attempt(username, address)
    throttle.record_success(attempt, throttle.check(attempt))


def is_locked(database: Database, username: str, address: str) -> bool:
    try:
        Throttle(database).check(login_attempt(username, address))
    except TooManyFailures:
        return True
    return False


def rows(database: Database) -> set[str]:
    return set(database.run(lambda connection: list(connection.scalars(select(logins.c.subject)))))


def test_failures_lock_an_account_and_success_unlocks_it(database: Database) -> None:
    throttle = Throttle(database)
    attempt = login_attempt(OWNER, "192.0.2.1")
    fail(database, OWNER, "192.0.2.1", attempt.here.free)
    standing = throttle.check(attempt)
    throttle.record_failure(attempt, standing)
    with pytest.raises(TooManyFailures) as locked:
        throttle.check(attempt)
    assert 1 <= locked.value.retry_after <= 2
    assert not is_locked(database, "b@example.org", "192.0.2.1")
    make_past(database, "logins", "locked_until", 10_000)
    succeed(database, OWNER, "192.0.2.1")
    fail(database, OWNER, "192.0.2.1")
    assert not is_locked(database, OWNER, "192.0.2.1")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowers the limits that take many failures to reach."""
    monkeypatch.setattr("functions.auth.throttle._FREE_ACCOUNT", 20)
    monkeypatch.setattr("functions.auth.throttle._FREE_NETWORK", 10)
    monkeypatch.setattr("functions.auth.throttle._FREE_SITE", 15)


def test_failures_from_many_addresses_do_not_lock_out_the_owner(database: Database) -> None:
    accounts = Accounts(database)
    accounts.add("A", OWNER, "correct horse", OWNER)
    deps = Dependencies(accounts, Throttle(database), Signer(private_pem(KEY), 1), Sessions(database))
    for n in range(101):
        fail(database, OWNER, f"198.51.100.{n}")
    assert log_in(OWNER, "correct horse", "192.0.2.1", deps).token


@pytest.mark.usefixtures("few")
def test_guesses_from_any_number_of_addresses_are_limited(database: Database) -> None:
    """The account is closed to networks that it has never logged in from, and stays open to the others."""
    succeed(database, OWNER, "192.0.2.1")
    guesses = 0
    while not is_locked(database, OWNER, f"198.51.100.{guesses}"):
        fail(database, OWNER, f"198.51.100.{guesses}")
        guesses += 1
    assert guesses == login_attempt(OWNER, "192.0.2.1").account.free + 1
    assert is_locked(database, OWNER, "203.0.113.9")
    assert not is_locked(database, OWNER, "192.0.2.1")
    fail(database, OWNER, "192.0.2.1")
    assert not is_locked(database, OWNER, "192.0.2.1")


def test_a_known_network_is_locked_by_its_own_failures(database: Database) -> None:
    succeed(database, OWNER, "192.0.2.1")
    fail(database, OWNER, "192.0.2.1", 6)
    assert is_locked(database, OWNER, "192.0.2.1")


def test_a_network_is_known_for_a_limited_time(database: Database) -> None:
    throttle = Throttle(database)
    attempt = login_attempt(OWNER, "192.0.2.1")
    succeed(database, OWNER, "192.0.2.1")
    assert throttle.check(attempt).is_known
    assert not throttle.check(login_attempt(OWNER, "192.0.2.2")).is_known
    assert not throttle.check(login_attempt("b@example.org", "192.0.2.1")).is_known
    make_past(database, "logins", "clears_at", KNOWN_FOR)
    assert not throttle.check(attempt).is_known
    succeed(database, OWNER, "192.0.2.1")
    assert throttle.check(attempt).is_known


def test_only_the_first_login_of_a_day_writes(database: Database) -> None:
    throttle = Throttle(database)
    attempt = login_attempt(OWNER, "192.0.2.1")
    assert not throttle.check(attempt).is_fresh
    succeed(database, OWNER, "192.0.2.1")
    assert throttle.check(attempt).is_fresh
    make_past(database, "logins", "clears_at", 90_000_000)
    standing = throttle.check(attempt)
    assert standing.is_known
    assert not standing.is_fresh


@pytest.mark.usefixtures("few")
def test_success_forgives_only_the_failures_of_this_account_from_here(database: Database) -> None:
    """Logging in to an account of their own does not clear the address for an attacker."""
    here = "192.0.2.1"
    free = login_attempt(OWNER, here).networks[0].free
    for n in range(free):
        fail(database, "mine@example.org", here)
        succeed(database, "mine@example.org", here)
        fail(database, f"victim{n}@example.org", here)
    assert not is_locked(database, "mine@example.org", here)
    fail(database, "another@example.org", here)
    assert is_locked(database, "mine@example.org", here)


@pytest.mark.usefixtures("few")
def test_success_forgives_nothing_that_the_network_did_not_count(database: Database) -> None:
    """Wrong logins to accounts of an attacker's own, which were on their way when the network was locked."""
    here = "192.0.2.1"
    throttle = Throttle(database)
    mine = [login_attempt(f"mine{n}@example.org", here) for n in range(5)]
    fail(database, "victim@example.org", here, mine[0].networks[0].free)
    standings = [throttle.check(attempt) for attempt in mine]
    fail(database, "another@example.org", here)
    for attempt, standing in zip(mine, standings, strict=True):
        with pytest.raises(TooManyFailures):
            throttle.record_failure(attempt, standing)
    make_past(database, "logins", "locked_until")
    for attempt in mine:
        throttle.record_success(attempt, throttle.check(attempt))
    fail(database, "yet.another@example.org", here)
    assert is_locked(database, "mine0@example.org", here)


@pytest.mark.usefixtures("few")
def test_a_shared_address_is_not_locked_by_people_who_mistype(database: Database) -> None:
    for n in range(12):
        fail(database, f"colleague{n}@example.org", "192.0.2.1", 2)
        succeed(database, f"colleague{n}@example.org", "192.0.2.1")
    assert not is_locked(database, OWNER, "192.0.2.1")


@pytest.mark.usefixtures("few")
def test_one_guess_at_each_of_many_accounts_locks_the_address(database: Database) -> None:
    free = login_attempt(OWNER, "192.0.2.1").networks[0].free
    for n in range(free + 1):
        fail(database, f"victim{n}@example.org", "192.0.2.1")
    assert is_locked(database, OWNER, "192.0.2.1")
    assert not is_locked(database, OWNER, "192.0.2.2")


def test_failures_are_forgiven_one_by_one(database: Database) -> None:
    fail(database, OWNER, "192.0.2.1", 8)
    make_past(database, "logins", "clears_at", 3 * FORGIVEN_AFTER)
    fail(database, OWNER, "192.0.2.1")  # the sixth
    with pytest.raises(TooManyFailures) as locked:
        Throttle(database).check(login_attempt(OWNER, "192.0.2.1"))
    assert locked.value.retry_after <= 2


@pytest.mark.parametrize(
    ("address", "other", "counts_together"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("2001:db8:1:2::1", "2001:DB8:1:2:0:0:0:1", True),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("nonsense", "nonsense", True),
        ("", "", True),
    ],
)
def test_ipv6_is_counted_by_network(database: Database, address: str, other: str, counts_together: bool) -> None:
    fail(database, OWNER, address, 6)
    assert is_locked(database, OWNER, other) is counts_together


@pytest.mark.usefixtures("few")
def test_networks_of_one_ipv6_site_are_counted_together(database: Database) -> None:
    free = login_attempt(OWNER, "2001:db8:1::1").networks[1].free
    for n in range(free + 1):
        fail(database, f"victim{n}@example.org", f"2001:db8:1:{n:x}::1")
    assert is_locked(database, OWNER, "2001:db8:1:ffff::1")
    assert not is_locked(database, OWNER, "2001:db8:2::1")


def test_lock_doubles_up_to_a_limit(database: Database) -> None:
    throttle = Throttle(database)
    waits = []
    for n in range(17):
        fail(database, OWNER, "192.0.2.1")
        if n >= 5:
            with pytest.raises(TooManyFailures) as locked:
                throttle.check(login_attempt(OWNER, "192.0.2.1"))
            waits.append(locked.value.retry_after)
    assert waits[:3] == [2, 4, 8]
    assert waits[-1] == 900


def test_simultaneous_failures_are_all_counted(database: Database) -> None:
    throttle = Throttle(database)
    subject = Subject("x", 1000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: throttle.count(subject), range(80)))
    clears_in = database.run(lambda connection: connection.scalar(select(logins.c.clears_at - now())))
    assert clears_in is not None
    assert 79 * FORGIVEN_AFTER < clears_in <= 80 * FORGIVEN_AFTER
    # None locks it, not even until its own time: the statement of one that waits for the row has an earlier one.
    assert database.run(lambda connection: connection.scalar(select(logins.c.locked_until))) == 0


class SimultaneousAccounts(Accounts):
    """Checks passwords only once a number of logins have passed the throttle's first check."""

    def __init__(self, database: Database, size: int) -> None:
        super().__init__(database)
        self._barrier = threading.Barrier(size)

    def authenticate(self, username: str, password: str) -> User:
        self._barrier.wait(30)
        return super().authenticate(username, password)


def outcomes(database: Database, passwords: list[str]) -> Counter[str]:
    """Counts the outcomes of simultaneous logins."""
    deps = Dependencies(
        SimultaneousAccounts(database, len(passwords)),
        Throttle(database),
        Signer(private_pem(KEY), 1),
        Sessions(database),
    )

    def outcome(password: str) -> str:
        try:
            log_in("a@example.org", password, "192.0.2.1", deps)
        except (WrongCredentials, TooManyFailures) as error:
            return type(error).__name__
        return "token"

    with ThreadPoolExecutor(len(passwords)) as pool:
        return Counter(pool.map(outcome, passwords))


def test_simultaneous_guesses_reveal_no_more_than_sequential_ones(database: Database) -> None:
    Accounts(database).add("A", "a@example.org", "correct horse", "a@example.org")
    free = login_attempt(OWNER, "192.0.2.1").here.free
    # Sequentially, too, the first failure that is not free is the one that locks.
    assert outcomes(database, ["wrong"] * 16) == {"WrongCredentials": free + 1, "TooManyFailures": 15 - free}


def test_correct_password_is_not_confirmed_once_locked(database: Database) -> None:
    Accounts(database).add("A", "a@example.org", "correct horse", "a@example.org")
    attempt = login_attempt(OWNER, "192.0.2.1")
    throttle = Throttle(database)

    class SlowAccounts(Accounts):
        """Lets other logins fail while the password is checked."""

        def authenticate(self, username: str, password: str) -> User:
            found = super().authenticate(username, password)
            standing = throttle.check(attempt)
            for _ in range(attempt.here.free + 1):
                throttle.record_failure(attempt, standing)
            return found

    deps = Dependencies(SlowAccounts(database), Throttle(database), Signer(private_pem(KEY), 1), Sessions(database))
    with pytest.raises(TooManyFailures):
        log_in("a@example.org", "correct horse", "192.0.2.1", deps)
    make_past(database, "logins", "locked_until")
    deps = Dependencies(Accounts(database), Throttle(database), deps.signer, deps.sessions)
    assert log_in("a@example.org", "correct horse", "192.0.2.1", deps).token
    # The address keeps less than a second of each failure, and the account is gone from the counts.
    assert attempt.here.id not in rows(database)
    assert attempt.known in rows(database)


def test_old_failures_are_deleted(database: Database) -> None:
    fail(database, OWNER, "192.0.2.1")
    succeed(database, "b@example.org", "192.0.2.1")
    before = rows(database)
    Overdue(database).forget_logins(100)
    assert rows(database) == before
    make_past(database, "logins", "clears_at", FORGIVEN_AFTER + 1)
    Overdue(database).forget_logins(100)
    assert rows(database) == {login_attempt("b@example.org", "192.0.2.1").known}
    make_past(database, "logins", "clears_at", KNOWN_FOR)
    Overdue(database).forget_logins(100)
    assert not rows(database)


def change(database: Database, *statements: str) -> None:
    with database.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_migration_keeps_locks_and_may_be_repeated(database: Database) -> None:
    """MySQL commits every statement of a migration, so one that was killed has made some of its changes."""
    back = "UPDATE alembic_version SET version_num = '0003'"
    change(
        database,
        "DROP TABLE logins",
        "CREATE TABLE logins"
        " (subject VARCHAR(64) NOT NULL PRIMARY KEY, failures INTEGER NOT NULL, locked_until BIGINT NOT NULL)",
        "CREATE INDEX ix_logins_locked_until ON logins (locked_until)",
        "INSERT INTO logins (subject, failures, locked_until) VALUES ('x', 7, 1)",
        back,
    )
    upgrade(database, USERS_KEY)
    change(database, back)
    upgrade(database, USERS_KEY)
    with database.engine.connect() as connection:
        assert {column["name"] for column in inspect(connection).get_columns("logins")} == set(logins.c.keys())
        indexes = {index["name"] for index in inspect(connection).get_indexes("logins")}
        assert "ix_logins_clears_at" in indexes
        assert "ix_logins_locked_until" not in indexes
        assert [tuple(row) for row in connection.execute(select(logins))] == [("x", 7, 1, 0)]
    fail(database, OWNER, "192.0.2.1")
    assert login_attempt(OWNER, "192.0.2.1").here.id in rows(database)


def test_previous_version_counts_failures_during_a_rolling_update(database: Database) -> None:
    change(database, "ALTER TABLE logins DROP COLUMN failures", "UPDATE alembic_version SET version_num = '0006'")
    upgrade(database, USERS_KEY)
    change(
        database,
        "UPDATE logins SET failures=(logins.failures + 1) WHERE logins.subject = 'old' AND logins.locked_until <= 9",
        "INSERT INTO logins (subject, failures, locked_until) VALUES ('old', 1, 5)",
        "UPDATE logins SET failures=(logins.failures + 1) WHERE logins.subject = 'old' AND logins.locked_until <= 9",
    )
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT failures FROM logins WHERE subject = 'old'")) == 2
    Overdue(database).forget_logins(100)
    assert not rows(database)
