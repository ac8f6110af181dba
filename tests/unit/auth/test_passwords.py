"""Which passwords are refused for a new account."""

import subprocess
import sys

import pytest

from functions.auth.limits import MAX_PASSWORD, MIN_PASSWORD
from functions.auth.passwords import _most_used, password_fault

ANN = ("ann.lovelace@example.org", "Ann Lovelace")


@pytest.mark.parametrize(
    "password",
    [
        "correct horse",
        "r7kq-9wz",
        "x" * MAX_PASSWORD,
        "pass wörd",
        "日本語のパスワード",
        "a channel of mine",  # "ann" is too short to be refused
        "\U0001f3b5" * MIN_PASSWORD,
        "\ufdfa" * MAX_PASSWORD,
    ],
)
def test_accepted(password: str) -> None:
    assert password_fault(password, ANN) is None


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("r7kq-9w", "8 to 128"),
        ("", "8 to 128"),
        ("x" * (MAX_PASSWORD + 1), "8 to 128"),
        ("12345678", "most used"),
        ("password", "most used"),
        ("PassWord1", "most used"),
        ("qwertyuiop", "most used"),
        (" 12345678 ", "most used"),
        ("\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18", "most used"),  # full-width digits
        (" " * 8, "visible"),
        ("\t\n" * 8, "visible"),
        ("\u00a0\u3000" * 8, "visible"),
        ("\u200b" * 8, "visible"),
        ("lovelace-1815", "your name"),
        ("My LOVELACE!", "your name"),
        ("annlovelace", "your name"),
        ("x.ann.lovelace@example.org", "your name"),
        ("I like mp3burst", "mp3burst"),
        ("\ud800" * 8, "must be text"),
    ],
)
def test_refused(password: str, reason: str) -> None:
    assert reason in (password_fault(password, ANN) or "")


def test_short_names_are_not_searched_for() -> None:
    assert password_fault("r7kq-9wz-a", ("a", "", "Bo", "___")) is None


def test_most_of_the_list_are_long_enough_to_be_chosen() -> None:
    """OWASP ASVS 6.2.4 asks for the 3,000 most used ones that the other rules allow."""
    passwords = _most_used()
    assert isinstance(passwords, dict)
    assert len(passwords) >= 10_000
    assert sum(len(password) >= MIN_PASSWORD for password in passwords) >= 3_000
    assert all(password == password.casefold() for password in passwords)


def test_a_start_of_register_does_not_read_the_list() -> None:
    code = "import sys, functions.register.main; sys.exit('zxcvbn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
