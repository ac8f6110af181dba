"""External logins, on every SQL database."""

import dataclasses

import pytest
from sqlalchemy import Connection, func, select

from functions.auth.accounts import Accounts, WrongCredentials
from functions.auth.external_logins import (
    AccountExists,
    ExternalLogins,
    LoginNotFound,
    OnlyLogin,
    OtherAddress,
    Person,
)
from functions.auth.profiles import Profiles
from functions.state.database import Conflict, Database
from functions.state.deleted_users import DeletedUsers
from functions.state.schema import external_logins, users
from tests.contract.test_jobs import at_once

ANN = Person("https://auth.example.org", "1", "ann@example.org", "Ann")


def count(database: Database) -> tuple[int, int]:
    """Returns the numbers of users and of external logins."""

    def counted(connection: Connection) -> tuple[int, int]:
        found = [connection.scalar(select(func.count()).select_from(table)) for table in (users, external_logins)]
        return found[0] or 0, found[1] or 0

    return database.read(counted)


def test_first_login_creates_a_user_without_a_password(database: Database) -> None:
    logins = ExternalLogins(database)
    assert logins.find(ANN) is None
    ann = logins.create(ANN)
    assert logins.find(ANN) == logins.create(ANN) == ann
    assert (ann.username, ann.role) == ("ann@example.org", "user")
    assert Profiles(database).get(ann.id).confirmed_at is not None
    for password in ("", "correct horse"):
        with pytest.raises(WrongCredentials):
            Accounts(database).authenticate("ann@example.org", password)


def test_only_issuer_and_subject_say_who_it_is(database: Database) -> None:
    logins = ExternalLogins(database)
    ann = logins.create(ANN)
    assert logins.find(dataclasses.replace(ANN, email="eve@example.org", name="Eve")) == ann
    for other in (
        dataclasses.replace(ANN, subject="1 "),
        dataclasses.replace(ANN, subject="2"),
        dataclasses.replace(ANN, provider="https://auth.example.org/"),
    ):
        assert logins.find(other) is None
        with pytest.raises(AccountExists):
            logins.create(other)


def test_simultaneous_first_logins_create_one_user(database: Database) -> None:
    found = at_once(6, lambda _: ExternalLogins(database).create(ANN).id)
    assert len(set(found)) == 1
    assert count(database) == (1, 1)


def test_user_who_has_confirmed_the_address_is_linked_and_not_replaced(database: Database) -> None:
    logins = ExternalLogins(database)
    ann = Accounts(database).add("Ann", "ann", "correct horse", "Ann@Example.org")
    with pytest.raises(AccountExists):
        logins.create(ANN)
    assert count(database) == (1, 0)
    for _ in range(2):
        logins.link(ANN, ann)
    assert logins.find(ANN) == logins.create(ANN)
    other = Accounts(database).add("Eve", "eve", "correct horse", "eve@example.org")
    with pytest.raises(Conflict):
        logins.link(ANN, other)
    found = logins.find(ANN)
    assert found is not None
    assert found.id == ann.id


def test_only_the_user_who_has_confirmed_the_address_is_linked(database: Database) -> None:
    """Whoever has found out Eve's password cannot keep a way into her account that outlives it."""
    logins = ExternalLogins(database)
    accounts = Accounts(database)
    accounts.add("Ann", "ann", "correct horse", "ann@example.org")
    eve = accounts.add("Eve", "eve", "correct horse", "eve@example.org")
    dan, _ = accounts.register("Dan", "dan", "correct horse", "ann@example.org")
    for other in (eve, dan):
        with pytest.raises(OtherAddress):
            logins.link(ANN, other)
    assert logins.find(ANN) is None


def test_user_whose_tokens_were_withdrawn_since_the_password_was_checked_is_not_linked(database: Database) -> None:
    """Otherwise a login with the old password could add a way into the account right after a reset."""
    logins = ExternalLogins(database)
    ann = Accounts(database).add("Ann", "ann", "correct horse", "ann@example.org")
    Profiles(database).withdraw_tokens(ann.id)
    with pytest.raises(Conflict, match="log in again"):
        logins.link(ANN, ann)
    assert logins.find(ANN) is None


def test_address_that_is_too_long_for_a_username_gets_another(database: Database) -> None:
    """Case folding makes three letters of one here."""
    domain = ".".join(["\ufb03" * 20] * 5)
    long = [dataclasses.replace(ANN, subject=str(n), email=f"{n}@{domain}.org") for n in range(2)]
    usernames = [ExternalLogins(database).create(person).username for person in long]
    assert all(username.startswith("#") for username in usernames)


def test_username_of_somebody_who_has_not_confirmed_the_address_is_not_in_the_way(database: Database) -> None:
    eve, _ = Accounts(database).register("Eve", "ann@example.org", "correct horse", "ann@example.org")
    ann = ExternalLogins(database).create(ANN)
    assert ann.id != eve.id
    assert ann.username.startswith("ann@example.org#")


def test_nobody_can_foresee_the_username_and_take_it(database: Database) -> None:
    usernames = set()
    for _ in range(2):
        Accounts(database).register("Eve", "ann@example.org", "correct horse", "ann@example.org")
        ann = ExternalLogins(database).create(ANN)
        usernames.add(ann.username)
        for user in database.run(lambda connection: list(connection.scalars(select(users.c.id)))):
            DeletedUsers(database).delete(user)
    assert len(usernames) == 2


def test_deleted_user_is_forgotten(database: Database) -> None:
    logins = ExternalLogins(database)
    ann = logins.create(ANN)
    DeletedUsers(database).delete(ann.id)
    assert logins.find(ANN) is None
    assert count(database)[1] == 0
    with pytest.raises(Conflict):
        logins.link(ANN, ann)
    assert logins.create(ANN).id != ann.id


def test_external_login_is_listed_and_removed_by_its_user_only(database: Database) -> None:
    logins = ExternalLogins(database)
    ann = Accounts(database).add("Ann", "ann", "correct horse", "ann@example.org")
    logins.link(ANN, ann)
    [listed] = logins.of(ann.id)
    assert (listed.id, listed.provider) == (ANN.id, "https://auth.example.org")
    eve = Accounts(database).add("Eve", "eve", "correct horse", "eve@example.org")
    assert logins.of(eve.id) == []
    for login, owner in ((ANN.id, eve.id), ("f" * 64, ann.id), ("x\0", ann.id)):
        with pytest.raises(LoginNotFound):
            logins.remove(login, owner)
    logins.remove(ANN.id, ann.id)
    assert logins.of(ann.id) == []
    assert logins.find(ANN) is None
    with pytest.raises(AccountExists):
        logins.create(ANN)


def test_last_way_to_log_in_stays(database: Database) -> None:
    logins = ExternalLogins(database)
    owner = logins.create(ANN)
    user = owner.id
    assert not Accounts(database).has_password(user)
    with pytest.raises(OnlyLogin):
        logins.remove(ANN.id, user)
    other = dataclasses.replace(ANN, provider="https://other.example.org")
    logins.link(other, owner)

    def remove(n: int) -> bool:
        try:
            logins.remove((ANN, other)[n].id, user)
        except OnlyLogin:
            return False
        return True

    assert sorted(at_once(2, remove)) == [False, True]
    assert len(logins.of(user)) == 1
