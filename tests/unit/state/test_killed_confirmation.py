"""Kills register, confirm and notify at each of their kill points; a user is asked to confirm the address once."""

from pathlib import Path
from typing import Any

import pytest

from events.schema import AddressUnconfirmed, Mp3Ready
from functions.auth.accounts import UsernameTaken
from functions.confirm.main import ask_again
from functions.notify.main import send_mail
from functions.register.main import add_user
from functions.state.schema import UserId
from tests.support.databases import make_past
from tests.support.kill_points import OWNER, System, new_system
from tests.unit.state.test_killed import change, converted, empty, kill_everywhere, prepare, uploaded

pytestmark = pytest.mark.usefixtures("memoized")
__all__ = ["converted", "empty", "uploaded"]  # fixtures

FORM = {"name": "Bob", "username": "bob", "password": "correct horse", "email": "bob@example.org"}


def register(system: System) -> Any:
    return add_user(FORM, "192.0.2.1", system.for_register())


def bob(system: System) -> Any:
    """The user who was registered, or None."""
    return next((row for row in system.rows("users") if row.username == "bob"), None)


@pytest.fixture(scope="module")
def registered(place: Path) -> Path:
    """A system with a user whose confirmation mail was sent eleven minutes ago."""

    def send(system: System) -> None:
        for event in system.published():
            system.deliver(event)
        make_past(system.database, "logins", "clears_at", 11 * 60_000)

    return prepare(new_system(place / "new"), place / "registered", register, send)


def test_killed_registration_is_a_user_with_one_mail_or_nothing(empty: Path, tmp_path: Path) -> None:
    seen = set()
    for where, system in kill_everywhere(empty, tmp_path, register):
        user = bob(system)
        seen.add(user is not None)
        assert system.count("mails") == (user is not None)
        system.let_days_pass()
        expected = [f"<{AddressUnconfirmed(user.id, 0).id}@mp3burst>"] if user else []
        assert system.accepted_mails() == expected
        try:  # the client got no answer and tries again
            register(system)
        except UsernameTaken:
            assert user is not None
        else:
            assert user is None
            assert where is not None
        for event in system.published():
            system.deliver(event)
        assert system.accepted_mails() == [f"<{AddressUnconfirmed(bob(system).id, 0).id}@mp3burst>"]
        system.assert_tidy()
    assert seen == {True, False}


def test_killed_request_for_another_mail_sends_at_most_one(registered: Path, tmp_path: Path) -> None:
    system = System(registered)
    user = UserId(bob(system).id)
    before = system.accepted_mails()
    system.close()
    assert before == [f"<{AddressUnconfirmed(user, 0).id}@mp3burst>"]
    for _, system in kill_everywhere(registered, tmp_path, lambda system: ask_again(user, system.for_confirm())):
        asked = system.count("mails") - 1
        assert asked in (0, 1)
        system.let_days_pass()
        assert system.accepted_mails() == before + [f"<{AddressUnconfirmed(user, 1).id}@mp3burst>"] * asked
        system.assert_tidy()


def test_mail_that_must_not_be_sent_is_skipped_wherever_notify_is_killed(converted: Path, tmp_path: Path) -> None:
    def unsubscribe(system: System) -> None:
        change(system, "users", OWNER, unsubscribed_at=1)

    template = prepare(converted, tmp_path / "unsubscribed", unsubscribe)
    system = System(template)
    [job] = system.rows("jobs")
    system.close()
    event = Mp3Ready(job.id)
    for _, system in kill_everywhere(
        template, tmp_path / "copies", lambda system: send_mail(event.id, system.for_notify())
    ):
        system.let_days_pass()
        system.deliver(event)
        assert [row.state for row in system.rows("mails")] == ["skipped"]
        assert system.accepted_mails() == []
        system.assert_tidy()
