"""What every SQL database must do with users and failed logins."""

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


def test_a_user_can_log_in_with_the_name_in_any_spelling(database: Database) -> None:
    accounts = Accounts(database)
    added = accounts.add("Zoë Ångström", "Zoe@Example.org", "correct horse", "zoe@example.org")
    assert added.username == "zoe@example.org"
    assert accounts.authenticate(" ZOE@example.org ", "correct horse") == added
    assert accounts.authenticate("zoe@example.org", "correct horse").name == "Zoë Ångström"


def test_passwords_are_not_kept(database: Database) -> None:
    Accounts(database).add("A", "a@example.org", "correct horse", "a@example.org")
    kept = database.run(lambda connection: connection.scalar(select(users.c.password_hash)))
    assert kept is not None
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert "correct" not in kept


@pytest.mark.parametrize(
    ("username", "password"), [("a@example.org", "wrong horse"), ("b@example.org", "correct horse")]
)
def test_a_wrong_password_and_an_unknown_user_say_the_same(database: Database, username: str, password: str) -> None:
    accounts = Accounts(database)
    accounts.add("A", "a@example.org", "correct horse", "a@example.org")
    with pytest.raises(WrongCredentials, match=r"^Wrong username or password: check both and try again\.$"):
        accounts.authenticate(username, password)


def test_of_two_who_want_a_name_at_once_one_gets_it(database: Database) -> None:
    gate = threading.Barrier(4)

    def add(n: int) -> bool:
        gate.wait(30)
        try:
            Accounts(database).add("A", "Same@example.org", f"password {n}", "a@example.org")
        except UsernameTaken:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(add, range(4))) == 1


def test_a_role_is_given_by_name(database: Database) -> None:
    accounts = Accounts(database)
    accounts.add("A", "a@example.org", "correct horse", "a@example.org")
    assert accounts.set_role("A@example.org", "admin")
    assert not accounts.set_role("b@example.org", "admin")
    assert accounts.authenticate("a@example.org", "correct horse").role == "admin"


def test_failures_lock_an_account_and_success_opens_it(database: Database) -> None:
    throttle = Throttle(database)
    here, account, _ = who = subjects("a@example.org", "192.0.2.1")
    for _ in range(here.free):
        throttle.check(*who)
        throttle.record_failure(*who)
    throttle.check(*who)
    throttle.record_failure(*who)
    with pytest.raises(TooManyFailures) as refused:
        throttle.check(*who)
    assert 1 <= refused.value.retry_after <= 2
    throttle.check(*subjects("b@example.org", "192.0.2.1"))
    make_past(database, "logins", "locked_until", 10_000)
    throttle.check(*who)
    throttle.forget_failures(here, account)
    throttle.record_failure(*who)
    throttle.check(*who)


def test_a_stranger_who_fails_does_not_lock_the_owner_out(database: Database) -> None:
    throttle = Throttle(database)
    for _ in range(20):
        make_past(database, "logins", "locked_until")
        throttle.record_failure(*subjects("a@example.org", "198.51.100.7"))
    with pytest.raises(TooManyFailures):
        throttle.check(*subjects("a@example.org", "198.51.100.7"))
    throttle.check(*subjects("a@example.org", "192.0.2.1"))


def test_the_lock_grows_and_has_an_end(database: Database) -> None:
    throttle, who = Throttle(database), Subject("x", 0)
    waits = []
    for _ in range(12):
        make_past(database, "logins", "locked_until")
        throttle.record_failure(who)
        with pytest.raises(TooManyFailures) as refused:
            throttle.check(who)
        waits.append(refused.value.retry_after)
    assert waits[:3] == [2, 4, 8]
    assert waits[-1] == 900


def test_failures_at_the_same_moment_are_all_counted(database: Database) -> None:
    throttle, who = Throttle(database), Subject("x", 1000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: throttle.record_failure(who), range(80)))
    assert database.run(lambda connection: connection.scalar(select(logins.c.failures))) == 80


class Crowd(Accounts):
    """Looks at passwords when so many logins wait for it, all of which the throttle has let pass."""

    def __init__(self, database: Database, size: int) -> None:
        super().__init__(database)
        self._gate = threading.Barrier(size)

    def authenticate(self, username: str, password: str) -> User:
        self._gate.wait(30)
        return super().authenticate(username, password)


def attempts(database: Database, passwords: list[str]) -> Counter[str]:
    """What so many logins at the same moment are told."""
    desk = Dependencies(Crowd(database, len(passwords)), Throttle(database), Signer(private_pem(KEY), 1))

    def sign(password: str) -> str:
        try:
            log_in("a@example.org", password, "192.0.2.1", desk)
        except (WrongCredentials, TooManyFailures) as error:
            return type(error).__name__
        return "token"

    with ThreadPoolExecutor(len(passwords)) as pool:
        return Counter(pool.map(sign, passwords))


def test_who_guesses_at_the_same_moment_learns_no_more_than_who_guesses_in_turn(database: Database) -> None:
    Accounts(database).add("A", "a@example.org", "correct horse", "a@example.org")
    free = subjects("a@example.org", "192.0.2.1")[0].free
    # In turn, too, the failure that locks is the first that is not free.
    assert attempts(database, ["wrong"] * 16) == {"WrongCredentials": free + 1, "TooManyFailures": 15 - free}


def test_a_right_password_among_too_many_is_not_told_from_a_wrong_one(database: Database) -> None:
    Accounts(database).add("A", "a@example.org", "correct horse", "a@example.org")
    who = subjects("a@example.org", "192.0.2.1")

    class Late(Accounts):
        """Meanwhile others fail."""

        def authenticate(self, username: str, password: str) -> User:
            found = super().authenticate(username, password)
            for _ in range(who[0].free + 1):
                Throttle(database).record_failure(*who)
            return found

    desk = Dependencies(Late(database), Throttle(database), Signer(private_pem(KEY), 1))
    with pytest.raises(TooManyFailures):
        log_in("a@example.org", "correct horse", "192.0.2.1", desk)
    make_past(database, "logins", "locked_until")
    desk = Dependencies(Accounts(database), Throttle(database), desk.signer)
    assert log_in("a@example.org", "correct horse", "192.0.2.1", desk)["token"]
    left = select(logins.c.subject)  # the address's alone
    assert database.run(lambda connection: list(connection.scalars(left))) == [who[2].id]


def test_old_failures_are_forgotten(database: Database) -> None:
    Throttle(database).record_failure(Subject("x", 1))
    Overdue(database).forget_logins()
    assert database.run(lambda connection: connection.scalar(select(logins.c.failures))) == 1
    make_past(database, "logins", "locked_until", 3_700_000)
    Overdue(database).forget_logins()
    assert database.run(lambda connection: connection.scalar(select(logins.c.failures))) is None
