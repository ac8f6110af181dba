"""Validation of registrations: every field at its limits."""

from typing import Any

import pytest

from functions.auth.accounts import Accounts, User
from functions.auth.allowance import RegistrationLimit
from functions.http_endpoint import Unprocessable
from functions.register.main import Dependencies, add_user
from functions.state.schema import UserId

GOOD = {"name": "Ada", "username": "ada", "password": "r7kq-9wz", "email": "ada@example.org"}
NOT_TEXT: tuple[object, ...] = (1, True, [], {}, 1.5)


class FakeAccounts(Accounts):
    """Accepts every user."""

    def __init__(self) -> None:
        self.users: list[tuple[str, str, str, str]] = []

    def add(self, name: str, username: str, password: str, email: str, role: str = "user") -> User:
        assert role == "user"
        self.users.append((name, username, password, email))
        return User(UserId("1"), username, email, name, role)


class CountingLimit(RegistrationLimit):
    """Counts the registrations by address; allows all of them."""

    def __init__(self) -> None:
        self.used: list[str] = []

    def use(self, address: str) -> None:
        self.used.append(address)


def register(form: dict[str, Any], accounts: Accounts, limit: RegistrationLimit | None = None) -> User:
    """Registers a user whose address counts as confirmed."""
    return add_user(form, "192.0.2.1", Dependencies(accounts, limit or CountingLimit(), outbox=None))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"name": "x"},
        {"name": "x" * 200},
        {"name": "日本 «<b>»"},
        {"username": "x" * 254},
        {"password": "x" * 128},
        {"password": "pass wörd"},
        {"password": "r7kq-9w\n"},
        {"email": "a@b.co"},
        {"email": "gruesse@bücher.example"},
        {"email": " ada@example.org "},
        {"role": "admin", "id": 7},
    ],
)
def test_valid_registration(change: dict[str, Any]) -> None:
    accounts = FakeAccounts()
    user = register(GOOD | change, accounts)
    form = GOOD | change
    assert accounts.users == [(form["name"], form["username"], form["password"], form["email"].strip())]
    assert user.role == "user"


def test_username_is_the_default_address() -> None:
    accounts = FakeAccounts()
    for email in ({}, {"email": ""}, {"email": None}):
        register({"name": "Ada", "username": "ada@example.org", "password": "r7kq-9wz", **email}, accounts)
    assert {user[3] for user in accounts.users} == {"ada@example.org"}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        *((name, None, "") for name in ("name", "password")),
        *((name, "", "") for name in ("name", "username", "password")),
        *((name, value, "must be text") for name in GOOD for value in NOT_TEXT),
        ("name", "  ", "1 to 200"),
        ("name", "x" * 201, "1 to 200"),
        ("name", "a\nb", "control"),
        ("name", "a\x00", "control"),
        ("name", "\ud800", "control"),
        ("username", " ", "1 to 254"),
        ("username", "x" * 255, "1 to 254"),
        ("username", "a\r\nb", "control"),
        ("password", "1234567", "8 to 128"),
        ("password", "x" * 129, "8 to 128"),
        ("password", "\ud800" * 8, "must be text"),
        ("email", "ada", "email address"),
        ("email", "ada@", "email address"),
        ("email", "@example.org", "email address"),
        ("email", "ada@example", "email address"),
        ("email", "ada@example.", "email address"),
        ("email", "a b@example.org", "email address"),
        ("email", "a@b@example.org", "email address"),
        ("email", "Ada <ada@example.org>", "email address"),
        ("email", "a@example.org,b@example.org", "email address"),
        ("email", "a@example.org\nBcc: b@example.org", ""),
        ("email", "x" * 250 + "@b.co", "email address"),
        # Addresses that our mails cannot be sent to: the mail would be dropped without the user noticing.
        ("email", "grüße@bücher.example", "email address"),
        ("email", "ada.@example.org", "email address"),
        ("email", "ada@example..org", "email address"),
        ("email", f"ada@{'x' * 64}.org", "email address"),
        ("email", "ada@example.org\x7f", "email address"),
        ("email", "ada@[127.0.0.1]", "email address"),
        ("email", "ada@mail.internal", "email address"),
        ("email", None, "email address"),
    ],
)
def test_invalid_field_is_named(field: str, value: object, reason: str) -> None:
    accounts = FakeAccounts()
    limit = CountingLimit()
    with pytest.raises(Unprocessable) as rejected:
        register(GOOD | {field: value}, accounts, limit)
    assert rejected.value.fields.keys() == {field}
    assert reason in rejected.value.fields[field]
    assert field in str(rejected.value)
    assert not accounts.users
    assert not limit.used, "people may correct what they have entered"


def test_all_invalid_fields_are_named_at_once() -> None:
    with pytest.raises(Unprocessable) as rejected:
        register({}, FakeAccounts())
    assert rejected.value.fields.keys() == GOOD.keys()
