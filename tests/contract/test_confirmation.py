"""Confirmed addresses, the mails that ask for it, and the limits of registrations, on every SQL database."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import insert, inspect, select, text

from events.schema import AddressUnconfirmed, Event, Mp3Ready
from functions.auth.accounts import Accounts, User, UsernameTaken
from functions.auth.allowance import AllowanceUsedUp, RegistrationLimit
from functions.auth.confirmation import Confirmations
from functions.auth.links import BadLink, Confirmation, Links
from functions.auth.resets import Resets
from functions.auth.tokens import NotAuthenticated
from functions.notify.main import Dependencies, send_mail
from functions.notify.transports import Mail
from functions.state.database import Database
from functions.state.deleted_users import DeletedUsers
from functions.state.jobs import Outcome
from functions.state.leases import LeaseTerms
from functions.state.mails import Mails
from functions.state.outbox import Outbox
from functions.state.overdue import Overdue
from functions.state.schema import UserId, mails, users
from infra.migrations.schema import upgrade
from tests.contract.test_jobs import Records, at_once
from tests.support.databases import USERS_KEY, make_past

ADDRESS = "ann@example.org"
LINKS = Links(["k" * 32], "https://mp3.example")
_MINUTE = 60_000
_HOUR = 60 * _MINUTE


def register(database: Database, username: str = "ann", email: str = ADDRESS) -> tuple[User, AddressUnconfirmed | None]:
    return Accounts(database).register("Ann", username, "correct horse", email)


def rows(database: Database, table: Any = mails) -> list[Any]:
    return database.run(lambda connection: list(connection.execute(select(table))))


def confirm(database: Database, user: User) -> None:
    token = LINKS.make_confirmation(user.id, user.email).partition("token=")[2]
    Confirmations(database).confirm(LINKS.verify_confirmation(token))


def send(database: Database, event: Event) -> list[Mail]:
    """Does what notify does with the event; returns the mails that the mail server has accepted."""
    sent: list[Mail] = []
    send_mail(event.id, Dependencies(Mails(database), LINKS, sent.append))
    return sent


def test_registration_creates_a_user_and_the_mail_that_asks_to_confirm(database: Database) -> None:
    user, event = register(database)
    assert event == AddressUnconfirmed(user.id, 0)
    [mail] = rows(database)
    assert (mail.id, mail.kind, mail.job, mail.owner, mail.state) == (event.id, event.type, None, user.id, "due")
    [row] = rows(database, users)
    assert (row.confirmed_at, row.unsubscribed_at) == (None, None)
    [mail] = send(database, event)
    assert (mail.to, mail.subject) == (ADDRESS, "Confirm your address")
    assert send(database, event) == []
    assert rows(database)[0].state == "sent"


def test_lost_event_of_a_confirmation_is_emitted_again(database: Database) -> None:
    _, event = register(database)
    published: list[Event] = []
    outbox = Outbox(database, lambda event, _: published.append(event))
    [due] = Overdue(database).due(10)
    assert due.event == event
    assert outbox.emit(due.event, seen=due.seen)
    assert published == [event]
    assert Overdue(database).due(10) == []
    assert Overdue(database).wake(due.event), "a dead letter makes it due again"
    assert [each.event for each in Overdue(database).due(10)] == [event]


def test_taken_username_sends_no_mail(database: Database) -> None:
    register(database)
    with pytest.raises(UsernameTaken):
        register(database, email="bob@example.org")
    assert len(rows(database)) == len(rows(database, users)) == 1


def test_confirming_happens_once(database: Database) -> None:
    user, _ = register(database)
    confirm(database, user)
    [first] = rows(database, users)
    make_past(database, "users", "confirmed_at", _HOUR)
    confirm(database, user)
    [again] = rows(database, users)
    assert first.confirmed_at - again.confirmed_at == _HOUR


def test_confirmation_of_another_address_is_refused(database: Database) -> None:
    user, _ = register(database)
    for other in (user.id, "eve@example.org"), (UserId("e" * 32), ADDRESS):
        token = LINKS.make_confirmation(*other).partition("token=")[2]
        with pytest.raises(BadLink, match="no longer in use"):
            Confirmations(database).confirm(LINKS.verify_confirmation(token))
    assert rows(database, users)[0].confirmed_at is None


def test_asking_again_takes_ten_minutes(database: Database) -> None:
    user, _ = register(database)
    with pytest.raises(AllowanceUsedUp) as refused:
        Confirmations(database).ask_again(user.id)
    assert 590 <= refused.value.retry_after <= 600
    make_past(database, "logins", "clears_at", 10 * _MINUTE)
    assert Confirmations(database).ask_again(user.id) == AddressUnconfirmed(user.id, 1)
    assert [mail.id for mail in rows(database)] == [AddressUnconfirmed(user.id, n).id for n in (0, 1)]
    confirm(database, user)
    make_past(database, "logins", "clears_at", 10 * _MINUTE)
    assert Confirmations(database).ask_again(user.id) is None
    assert len(rows(database)) == 2
    assert send(database, AddressUnconfirmed(user.id, 1)) == [], "nothing is left to confirm"
    assert Counter(mail.state for mail in rows(database)) == {"due": 1, "skipped": 1}


def test_mails_that_reset_a_password_do_not_count(database: Database) -> None:
    """They are deleted after a day, and the next number must not be one that was given."""
    user, _ = register(database)
    send(database, Resets(database).offer("ann", "192.0.2.1"))
    make_past(database, "logins", "clears_at", 10 * _MINUTE)
    assert Confirmations(database).ask_again(user.id) == AddressUnconfirmed(user.id, 1)
    make_past(database, "mails", "created_at", 48 * _HOUR)
    Overdue(database).forget_resets(10)
    assert len(rows(database)) == 2
    make_past(database, "logins", "clears_at", 10 * _MINUTE)
    assert Confirmations(database).ask_again(user.id) == AddressUnconfirmed(user.id, 2)


def test_deleted_user_is_asked_nothing(database: Database) -> None:
    user, _ = register(database)
    make_past(database, "logins", "clears_at", 10 * _MINUTE)
    DeletedUsers(database).mark(user.id)
    for each in (user.id, UserId("d" * 32)):
        with pytest.raises(NotAuthenticated):
            Confirmations(database).ask_again(each)
    assert rows(database) == []


def test_one_mailbox_gets_few_confirmations_however_many_users_name_it(database: Database) -> None:
    """Someone registers a user for the same mailbox every two hours, for two days."""
    spellings = [ADDRESS, "ANN@example.org", "ann+1@example.org", "a.n.n@example.org"]
    asked: list[int] = []
    for hour in range(0, 48, 2):
        _, event = register(database, f"user{hour}", spellings[hour // 2 % 4])
        if event is not None:
            asked.append(hour)
        make_past(database, "logins", "clears_at", 2 * _HOUR)
    assert len(rows(database, users)) == 24
    assert len(rows(database)) == len(asked) >= 5
    assert max(sum(begin <= hour < begin + 24 for hour in asked) for begin in asked) <= 5
    _, event = register(database, "bob", "bob@example.org")
    assert event is not None


def test_simultaneous_registrations_of_one_address_send_one_mail(database: Database) -> None:
    events = at_once(4, lambda n: register(database, f"user{n}")[1])
    assert len(rows(database, users)) == 4
    assert len([event for event in events if event is not None]) == len(rows(database)) == 1


def test_simultaneous_requests_for_another_mail_send_one(database: Database) -> None:
    user, _ = register(database)
    make_past(database, "logins", "clears_at", 10 * _MINUTE)

    def ask(_: int) -> bool:
        try:
            return Confirmations(database).ask_again(user.id) is not None
        except AllowanceUsedUp:
            return False

    assert sum(at_once(4, ask)) == 1
    assert len(rows(database)) == 2


def use(database: Database, address: str, times: int, per_hour: float = 10) -> int:
    """Registers so many times from an address; returns how often that was allowed."""
    allowed = 0
    for _ in range(times):
        try:
            RegistrationLimit(database, per_hour).use(address)
        except AllowanceUsedUp:
            continue
        allowed += 1
    return allowed


def test_registrations_are_limited_by_network_and_site(database: Database) -> None:
    limit = RegistrationLimit(database, 10).use("192.0.2.1")
    assert limit is not None
    assert (limit.name, limit.quota, limit.left, limit.window) == ("registrations", 10, 9, 3600)
    assert use(database, "192.0.2.1", 12) == 9
    with pytest.raises(AllowanceUsedUp, match=r"^Too many registrations from your network: wait 3.. s") as refused:
        RegistrationLimit(database, 10).use("192.0.2.1")
    assert 350 <= refused.value.retry_after <= 360
    assert use(database, "192.0.2.2", 1) == 1
    make_past(database, "logins", "clears_at", 6 * _MINUTE)
    assert use(database, "192.0.2.1", 2) == 1, "ten an hour are one in six minutes"
    assert use(database, "2001:db8:1:1::1", 6) + use(database, "2001:db8:1:1::2", 6) == 10, "a /64 is one network"
    assert sum(use(database, f"2001:db8:1:{n:x}::1", 10) for n in range(2, 8)) == 30, "40 for the whole /48"
    assert use(database, "2001:db8:2:1::1", 1) == 1
    assert use(database, "192.0.2.3", 50, per_hour=0) == 50
    assert use(database, "192.0.2.4", 2, per_hour=0.5) == 1


def test_simultaneous_registrations_are_all_counted(database: Database) -> None:
    assert sum(at_once(8, lambda _: use(database, "192.0.2.1", 2))) == 10


def test_used_allowances_are_forgotten(database: Database) -> None:
    register(database)
    use(database, "192.0.2.1", 3)
    make_past(database, "logins", "clears_at", 24 * _HOUR)
    make_past(database, "logins", "locked_until", 24 * _HOUR)
    Overdue(database).forget_logins(100)
    assert use(database, "192.0.2.1", 12) == 10


class Owner:
    """A user with jobs whose mails have not been sent."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.user, _ = register(database)
        self.records = Records(database, LeaseTerms())

    def mail(self) -> list[Mail]:
        """Finishes a job and does what notify does; returns the mails that were sent."""
        job = self.records.job(owner=self.user.id)
        lease = self.records.jobs.claim(job.id)
        assert lease is not None
        events = self.records.jobs.finish(lease, Outcome(self.records.blob("mp3s", job.id), 1.0, None))
        assert events == [Mp3Ready(job.id)]
        sent = send(self.database, events[0])
        assert send(self.database, events[0]) == []
        return sent


def test_mails_about_jobs_go_to_confirmed_addresses_until_the_user_unsubscribes(database: Database) -> None:
    owner = Owner(database)
    confirmations = Confirmations(database)
    assert owner.mail() == []
    confirm(database, owner.user)
    [mail] = owner.mail()
    assert mail.subject == "Your MP3 is ready"
    user = LINKS.verify_unsubscription(mail.unsubscribe.partition("token=")[2])
    for _ in range(2):
        assert confirmations.set_subscribed(user, False) == "ann"
        assert owner.mail() == []
    for _ in range(2):
        assert confirmations.set_subscribed(user, True) == "ann"
        assert len(owner.mail()) == 1
    assert Counter(mail.state for mail in rows(database)) == {"due": 1, "skipped": 3, "sent": 3}
    assert [due.event for due in Overdue(database).due(10)] == [AddressUnconfirmed(owner.user.id, 0)]


def test_digest_is_of_the_address_alone() -> None:
    confirmation = LINKS.verify_confirmation(LINKS.make_confirmation(UserId("a" * 32), ADDRESS).partition("token=")[2])
    assert isinstance(confirmation, Confirmation)
    assert confirmation.is_for(ADDRESS)
    assert not confirmation.is_for("Ann@example.org")
    assert ADDRESS not in LINKS.make_confirmation(UserId("a" * 32), ADDRESS)


def test_migration_confirms_users_from_before_and_may_be_repeated(database: Database) -> None:
    """MySQL commits every statement of a migration, so one that was killed has made some of its changes."""
    register(database)
    on_table = " ON mails" if database.engine.dialect.name in ("mysql", "mariadb") else ""
    undo = (
        "DELETE FROM mails",
        f"DROP INDEX ix_mails_owner{on_table}",
        "ALTER TABLE mails DROP COLUMN owner",
        "ALTER TABLE users DROP COLUMN unsubscribed_at",
    )
    back = "UPDATE alembic_version SET version_num = '0004'"
    old = {"id": "m", "job": "f" * 32, "kind": Mp3Ready.type, "state": "sent", "created_at": 1}
    with database.engine.begin() as connection:
        for statement in (*undo, back):
            connection.execute(text(statement))
        table = mails.c.id.table  # without its new column
        connection.execute(insert(table).values(old))
    upgrade(database, USERS_KEY)
    with database.engine.begin() as connection:
        connection.execute(text(back))
    upgrade(database, USERS_KEY)
    [row] = rows(database, users)
    assert row.confirmed_at > 0
    [mail] = rows(database)
    assert (mail.id, mail.job, mail.owner, mail.state) == ("m", "f" * 32, None, "sent")
    with database.engine.connect() as connection:
        columns = {column["name"]: column["nullable"] for column in inspect(connection).get_columns("mails")}
    assert columns["job"]
