"""Users and failed logins, on every SQL database."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from functions.auth.accounts import Accounts, User, UsernameTaken, WrongCredentials
from functions.auth.throttle import Subject, Throttle, TooManyFailures, subjects
from functions.auth.tokens import Signer
from functions.login.main import Dependencies, log_in
from functions.state.database import Database
from functions.state.overdue import Overdue
from functions.state.schema import logins, users
from tests.support.databases import make_past
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
    assert accounts.set_role("A@example.org", "admin")
    assert not accounts.set_role("b@example.org", "admin")
    assert accounts.authenticate("a@example.org", "correct horse").role == "admin"


def test_failures_lock_an_account_and_success_unlocks_it(database: Database) -> None:
    throttle = Throttle(database)
    account_here, account, _ = attempt = subjects("a@example.org", "192.0.2.1")
    for _ in range(account_here.free):
        throttle.check(*attempt)
        throttle.record_failure(*attempt)
    throttle.check(*attempt)
    throttle.record_failure(*attempt)
    with pytest.raises(TooManyFailures) as locked:
        throttle.check(*attempt)
    assert 1 <= locked.value.retry_after <= 2
    throttle.check(*subjects("b@example.org", "192.0.2.1"))
    make_past(database, "logins", "locked_until", 10_000)
    throttle.check(*attempt)
    throttle.forget_failures(account_here, account)
    throttle.record_failure(*attempt)
    throttle.check(*attempt)


def test_failures_from_elsewhere_do_not_lock_out_the_owner(database: Database) -> None:
    throttle = Throttle(database)
    for _ in range(20):
        make_past(database, "logins", "locked_until")
        throttle.record_failure(*subjects("a@example.org", "198.51.100.7"))
    with pytest.raises(TooManyFailures):
        throttle.check(*subjects("a@example.org", "198.51.100.7"))
    throttle.check(*subjects("a@example.org", "192.0.2.1"))


def test_lock_doubles_up_to_a_limit(database: Database) -> None:
    throttle = Throttle(database)
    subject = Subject("x", 0)
    waits = []
    for _ in range(12):
        make_past(database, "logins", "locked_until")
        throttle.record_failure(subject)
        with pytest.raises(TooManyFailures) as locked:
            throttle.check(subject)
        waits.append(locked.value.retry_after)
    assert waits[:3] == [2, 4, 8]
    assert waits[-1] == 900


def test_simultaneous_failures_are_all_counted(database: Database) -> None:
    throttle = Throttle(database)
    subject = Subject("x", 1000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: throttle.record_failure(subject), range(80)))
    assert database.run(lambda connection: connection.scalar(select(logins.c.failures))) == 80


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
    deps = Dependencies(SimultaneousAccounts(database, len(passwords)), Throttle(database), Signer(private_pem(KEY), 1))

    def attempt(password: str) -> str:
        try:
            log_in("a@example.org", password, "192.0.2.1", deps)
        except (WrongCredentials, TooManyFailures) as error:
            return type(error).__name__
        return "token"

    with ThreadPoolExecutor(len(passwords)) as pool:
        return Counter(pool.map(attempt, passwords))


def test_simultaneous_guesses_reveal_no_more_than_sequential_ones(database: Database) -> None:
    Accounts(database).add("A", "a@example.org", "correct horse", "a@example.org")
    free = subjects("a@example.org", "192.0.2.1")[0].free
    # Sequentially, too, the first failure that is not free is the one that locks.
    assert outcomes(database, ["wrong"] * 16) == {"WrongCredentials": free + 1, "TooManyFailures": 15 - free}


def test_correct_password_is_not_confirmed_once_locked(database: Database) -> None:
    Accounts(database).add("A", "a@example.org", "correct horse", "a@example.org")
    attempt = subjects("a@example.org", "192.0.2.1")

    class SlowAccounts(Accounts):
        """Lets other logins fail while the password is checked."""

        def authenticate(self, username: str, password: str) -> User:
            found = super().authenticate(username, password)
            for _ in range(attempt[0].free + 1):
                Throttle(database).record_failure(*attempt)
            return found

    deps = Dependencies(SlowAccounts(database), Throttle(database), Signer(private_pem(KEY), 1))
    with pytest.raises(TooManyFailures):
        log_in("a@example.org", "correct horse", "192.0.2.1", deps)
    make_past(database, "logins", "locked_until")
    deps = Dependencies(Accounts(database), Throttle(database), deps.signer)
    assert log_in("a@example.org", "correct horse", "192.0.2.1", deps)["token"]
    remaining = select(logins.c.subject)  # only the address
    assert database.run(lambda connection: list(connection.scalars(remaining))) == [attempt[2].id]


def test_old_failures_are_deleted(database: Database) -> None:
    Throttle(database).record_failure(Subject("x", 1))
    Overdue(database).forget_logins()
    assert database.run(lambda connection: connection.scalar(select(logins.c.failures))) == 1
    make_past(database, "logins", "locked_until", 3_700_000)
    Overdue(database).forget_logins()
    assert database.run(lambda connection: connection.scalar(select(logins.c.failures))) is None
