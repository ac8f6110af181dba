"""Forgotten passwords, on every SQL database."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import event as sql_event
from sqlalchemy import select, update

from events.schema import Event, PasswordForgotten
from functions.auth.accounts import Accounts
from functions.auth.allowance import AllowanceUsedUp
from functions.auth.links import Links
from functions.auth.resets import Resets
from functions.notify.main import Dependencies, send_mail
from functions.notify.transports import Mail
from functions.state.database import Database
from functions.state.deleted_users import DeletedUsers
from functions.state.mails import Mails
from functions.state.outbox import Outbox
from functions.state.overdue import Overdue
from functions.state.schema import UserId, mails, users
from tests.contract.test_jobs import at_once
from tests.support.databases import make_past

ADDRESS = "192.0.2.1"
LINKS = Links(["k" * 32], "https://mp3.example")
_MINUTE = 60_000
_HOUR = 60 * _MINUTE


@pytest.fixture
def ann(database: Database) -> UserId:
    return Accounts(database).add("Ann", "ann", "correct horse", "ann@example.org").id


def rows(database: Database) -> list[Any]:
    return database.run(lambda connection: list(connection.execute(select(mails))))


def send(database: Database, event: Event) -> list[Mail]:
    """Does what notify does with the event; returns the mails that the mail server has accepted."""
    sent: list[Mail] = []
    send_mail(event.id, Dependencies(Mails(database), LINKS, sent.append))
    return sent


def test_mail_has_a_link_for_the_version_of_the_tokens(database: Database, ann: UserId) -> None:
    database.run(lambda connection: connection.execute(update(users).values(token_version=7)))
    event = Resets(database).offer(" ANN ", ADDRESS)
    assert event.user == ann
    [mail] = send(database, event)
    assert (mail.to, mail.subject) == ("ann@example.org", "Reset your password")
    [url] = [
        line for line in mail.text.splitlines() if line.startswith("https://mp3.example/password-reset/new?token=")
    ]
    reset = LINKS.verify_reset(url.partition("token=")[2])
    assert (reset.user, reset.version) == (ann, 7)
    assert reset.is_for(7, "ann@example.org")
    assert not reset.is_for(8, "ann@example.org")
    assert not reset.is_for(7, "ann@example.com"), "whoever reads the old address must not take over the account"
    assert send(database, event) == []
    assert rows(database)[0].state == "sent"


def test_lost_event_is_emitted_again(database: Database, ann: UserId) -> None:
    event = Resets(database).offer("ann", ADDRESS)
    assert [due.event for due in Overdue(database).due(10)] == [event]
    published: list[Event] = []
    assert event.user == ann
    Outbox(database, lambda each, _: published.append(each)).emit(event)
    assert published == [event]
    assert Overdue(database).due(10) == []


def statements(database: Database, username: str) -> list[str]:
    """Returns the statements of a request."""
    seen: list[str] = []

    def note(*args: Any) -> None:
        seen.append(args[2])

    sql_event.listen(database.engine, "before_cursor_execute", note)
    try:
        Resets(database).offer(username, ADDRESS)
    finally:
        sql_event.remove(database.engine, "before_cursor_execute", note)
    return seen


def test_unknown_user_costs_the_same_statements_and_gets_no_mail(database: Database, ann: UserId) -> None:
    assert ann
    statements(database, "somebody")  # the first request inserts what the network uses of its allowance
    assert statements(database, "ann") == statements(database, "nobody") == statements(database, "x\0y")
    assert len(rows(database)) == 4
    for row in rows(database):
        if row.owner != ann:
            assert send(database, PasswordForgotten(row.owner, int(row.id.rpartition(".")[2]))) == []
    assert Counter(row.state for row in rows(database)) == {"due": 1, "skipped": 3}


def test_address_that_is_not_confirmed_gets_no_mail(database: Database, ann: UserId) -> None:
    database.run(lambda connection: connection.execute(update(users).values(confirmed_at=None)))
    event = Resets(database).offer("ann", ADDRESS)
    assert event == PasswordForgotten(ann, event.n)
    assert send(database, event) == []
    assert rows(database)[0].state == "skipped"


def test_deleted_user_gets_no_mail(database: Database, ann: UserId) -> None:
    event = Resets(database).offer("ann", ADDRESS)
    DeletedUsers(database).delete(ann)
    assert send(database, event) == []
    assert rows(database) == []


def test_one_mailbox_gets_few_mails(database: Database, ann: UserId) -> None:
    resets = Resets(database)
    assert resets.offer("ann", ADDRESS).user == ann
    assert resets.offer("ann", "192.0.2.2").user != ann
    make_past(database, "logins", "clears_at", 10 * _MINUTE)
    assert resets.offer("ann", ADDRESS).user == ann
    make_past(database, "logins", "clears_at", 10 * _MINUTE)
    assert resets.offer("ann", ADDRESS).user == ann
    make_past(database, "logins", "clears_at", 10 * _MINUTE)
    refused = resets.offer("ann", ADDRESS)
    assert refused.user != ann, "three at once, then one every twelve hours"
    assert send(database, refused) == []


def test_request_for_a_mailbox_that_got_too_many_mails_costs_the_same_statements(
    database: Database, ann: UserId
) -> None:
    assert ann
    statements(database, "ann")
    make_past(database, "logins", "clears_at", 10 * _MINUTE)
    allowed = statements(database, "ann")
    # If the time of a request for her address differed, it would tell that the address belongs to this username.
    assert allowed == statements(database, "ann") == statements(database, "ann@example.org")
    assert len(rows(database)) == 4


def test_requests_from_one_network_are_limited(database: Database) -> None:
    resets = Resets(database)
    for n in range(10):
        resets.offer(f"user{n}", ADDRESS)
    with pytest.raises(AllowanceUsedUp, match="Too many requests from your network"):
        resets.offer("another", ADDRESS)
    resets.offer("another", "192.0.2.2")
    make_past(database, "logins", "clears_at", 6 * _MINUTE)
    resets.offer("one more", ADDRESS)


def test_simultaneous_requests_make_one_mail(database: Database, ann: UserId) -> None:
    events = at_once(4, lambda n: Resets(database).offer("ann", f"192.0.2.{n}"))
    assert [event.user for event in events].count(ann) == 1
    assert len(rows(database)) == 4


def test_old_mails_are_deleted(database: Database, ann: UserId) -> None:
    assert ann
    event = Resets(database).offer("nobody", ADDRESS)
    send(database, event)
    Resets(database).offer("ann", ADDRESS)
    Overdue(database).forget_resets(100)
    assert len(rows(database)) == 2
    make_past(database, "mails", "created_at", 25 * _HOUR)
    Overdue(database).forget_resets(100)
    assert [row.state for row in rows(database)] == ["due"]
