"""Mails: one row for each event that a user is notified of.

A mail is about a job, asks to confirm an address, or has the link that resets a password.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select, update

from events.schema import AddressUnconfirmed, ConversionFailed, Event, JobEvent, JobId, Mp3Ready, PasswordForgotten
from functions.state.counters import Series, count
from functions.state.database import Database
from functions.state.jobs import Job
from functions.state.leases import Lease, LeaseRenewer, Leases, LeaseTerms
from functions.state.schema import UserId, jobs, mails, now, users

#: The events about jobs that a mail is sent for, by the type in the row.
_JOB_KINDS: Final[dict[str, type[JobEvent]]] = {event.type: event for event in (Mp3Ready, ConversionFailed)}
#: The events about users that a mail is sent for.
_USER_KINDS: Final[dict[str, type[AddressUnconfirmed] | type[PasswordForgotten]]] = {
    event.type: event for event in (AddressUnconfirmed, PasswordForgotten)
}
#: Milliseconds after which a mail that could not be sent is abandoned.
MAX_AGE: Final = 86_400_000
#: Milliseconds that a mail waits at most because the mail service asks for it.
_MAX_WAIT: Final = 3_600_000


_ADDRESSEE: Final = select(
    users.c.id,
    users.c.name,
    users.c.email,
    users.c.token_version,
    users.c.confirmed_at,
    users.c.unsubscribed_at,
    users.c.locked_at,
).where(users.c.deleted_at.is_(None))


@dataclass(frozen=True, slots=True)
class MailRow:
    """A mail to send.

    Attributes:
        id: the id of its event.
        job: the job that it is about, unless it asks to confirm an address or to reset a password.
        owner: the user whom it asks for that.
        kind: the type of its event.
    """

    id: str
    job: JobId | None
    owner: UserId | None
    kind: str

    @classmethod
    def from_row(cls, row: Row[Any]) -> "MailRow":
        """Returns the mail of a row."""
        return cls(row.id, row.job, row.owner, row.kind)

    @property
    def event(self) -> Event:
        """The event that announces the mail."""
        if self.job is not None:
            return _JOB_KINDS[self.kind](self.job)
        return _USER_KINDS[self.kind](self.owner or "", int(self.id.rpartition(".")[2]))


@dataclass(frozen=True, slots=True)
class Addressee:
    """The user who gets a mail.

    Attributes:
        user: the user's id.
        name: the user's name.
        email: the user's address.
        job: the job that the mail is about, which the user owns; None if it is not about a job.
        token_version: of the user's tokens.
        is_confirmed: whether the user has confirmed the address.
        is_subscribed: whether the user wants mails about jobs.
        is_locked: whether an administrator keeps the user out.
    """

    user: UserId
    name: str
    email: str
    job: Job | None
    token_version: int
    is_confirmed: bool
    is_subscribed: bool
    is_locked: bool = False

    def why_not(self, kind: str) -> str | None:
        """Returns why a mail of this kind must not be sent, for the log; None if it may."""
        if self.is_locked:
            return "the user is locked"
        if kind == AddressUnconfirmed.type:
            return "the address is confirmed already" if self.is_confirmed else None
        if kind == PasswordForgotten.type:
            return None if self.is_confirmed else "the address is not confirmed"
        if not self.is_confirmed:
            return "the address is not confirmed"
        return None if self.is_subscribed else "the user has unsubscribed"


class Mails:
    """The mails table, as notify uses it."""

    def __init__(self, database: Database, terms: LeaseTerms | None = None) -> None:
        self._database = database
        # A mail is abandoned for its age (``Overdue.abandon_mails``), not for the number of its attempts.
        self._leases = Leases(database, mails, MailRow.from_row, ("due",), terms, max_attempts=None)

    def claim(self, mail: str) -> Lease[MailRow] | None:
        """Takes the mail to send it; None if it was sent or deleted, or another worker has it."""
        return self._leases.claim(mails.c.id == mail)

    def addressee(self, lease: Lease[MailRow]) -> Addressee | None:
        """Returns the user and the job of a mail; None if either was deleted."""

        def find(connection: Connection) -> Addressee | None:
            owner = lease.row.owner
            job = None
            if lease.row.job is not None:
                job = connection.execute(select(jobs).where(jobs.c.id == lease.row.job)).one_or_none()
                owner = job.owner if job is not None else None
            user = connection.execute(_ADDRESSEE.where(users.c.id == owner)).one_or_none()
            if user is None:
                return None
            return Addressee(
                user=user.id,
                name=user.name,
                email=user.email,
                job=Job.from_row(job) if job is not None else None,
                token_version=user.token_version,
                is_confirmed=user.confirmed_at is not None,
                is_subscribed=user.unsubscribed_at is None,
                is_locked=user.locked_at is not None,
            )

        return self._database.read(find)

    def renewing(self, lease: Lease[MailRow]) -> LeaseRenewer:
        """Renews the lease while the mail is being sent."""
        return self._leases.renewing(lease)

    def sent(self, lease: Lease[MailRow]) -> None:
        """Records that the mail server has accepted the mail."""
        self._close(lease, "sent")

    def skip(self, lease: Lease[MailRow]) -> None:
        """Records that the mail is not to be sent: its user has not confirmed the address, wants none, or is gone."""
        self._close(lease, "skipped")

    def fail(self, lease: Lease[MailRow], _: str = "") -> list[Event]:
        """Records that the mail was refused for good. No event follows: the mail was the notification.

        It is counted apart from what sweep abandons, because whoever types an address can have it refused.
        """
        self._close(lease, "abandoned", "refused")
        return []

    def release(self, lease: Lease[MailRow], error: Exception | None = None) -> None:
        """Gives the mail back after a temporary failure: for as long as the mail service asks, an hour at most."""
        seconds = getattr(error, "retry_after", None) or 0
        self._leases.release(lease, error, min(int(seconds * 1000), _MAX_WAIT))

    def _close(self, lease: Lease[MailRow], state: str, outcome: str | None = None) -> None:
        statement = (
            update(mails).where(self._leases.held(lease)).values(state=state, lease=None, lease_until=None, due_at=None)
        )

        def close(connection: Connection) -> None:
            if connection.execute(statement).rowcount:
                count(connection, {mail_series(lease.row.kind, outcome or state): 1})

        self._database.run(close)


def mail_series(kind: str, outcome: str) -> Series:
    """Returns what the mails of a kind are counted under that have ended in this way."""
    return Series.of("mails_finished", kind.removeprefix("dev.mp3burst."), outcome)


def ask_to_confirm(connection: Connection, user: UserId) -> AddressUnconfirmed:
    """Creates the mail that asks the user to confirm the address, within the caller's transaction.

    Two transactions that ask at once would give both mails the same number: the caller has locked a row of the user's,
    or the primary key refuses one of them.
    """
    prefix = AddressUnconfirmed(user, 0).id.removesuffix("0")
    asked = select(mails.c.id).where(mails.c.owner == user, mails.c.id.startswith(prefix))
    numbers = [int(mail.removeprefix(prefix)) for mail in connection.scalars(asked)]
    event = AddressUnconfirmed(user, max(numbers, default=-1) + 1)
    row = {"id": event.id, "owner": user, "kind": event.type, "state": "due"}
    connection.execute(insert(mails).values(**row, created_at=now(), due_at=now()))
    return event


def offer_reset(connection: Connection, event: PasswordForgotten) -> None:
    """Creates the mail with the link that resets a password, within the caller's transaction; once for each event."""
    row = {"id": event.id, "owner": event.user, "kind": event.type, "state": "due"}
    if connection.scalar(select(mails.c.id).where(mails.c.id == event.id)) is None:
        connection.execute(insert(mails).values(**row, created_at=now(), due_at=now()))
