"""Mails on record: one row for each event that somebody is to hear of."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select, update

from events.schema import ConversionFailed, Event, Mp3Ready
from functions.state.database import Database
from functions.state.leases import Lease, LeaseRenewer, Leases, LeaseTerms
from functions.state.schema import jobs, mails, now, users

#: The events that a mail tells of, by the type that the row keeps.
KINDS: Final[dict[str, type[Event]]] = {event.type: event for event in (Mp3Ready, ConversionFailed)}
#: Milliseconds after which a mail that could not be sent is given up.
GIVE_UP: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Addressee:
    """Whom a mail goes to and what it tells of: the user's and the job's columns."""

    user: Row[Any]
    job: Row[Any]


def insert_mail(connection: Connection, event: Event) -> None:
    """Put the event's mail on record within the caller's transaction."""
    connection.execute(
        insert(mails).values(id=event.id, job=event.job, kind=event.type, state="due", created_at=now(), due_at=now())
    )


class Mails:
    """The mails table, as notify uses it."""

    def __init__(self, database: Database, terms: LeaseTerms | None = None) -> None:
        self._database = database
        self._leases = Leases(database, mails, ("due",), terms or LeaseTerms())

    def claim(self, mail: str) -> Lease | None:
        """Take the mail to send it; None where it is sent, gone, or in another's hands."""
        return self._leases.claim(mails.c.id == mail)

    def addressee(self, lease: Lease) -> Addressee | None:
        """The user and the job of a mail; None where either is gone."""

        def find(connection: Connection) -> Addressee | None:
            job = connection.execute(select(jobs).where(jobs.c.id == lease.row.job)).one_or_none()
            if job is None:
                return None
            user = connection.execute(select(users).where(users.c.id == job.owner)).one_or_none()
            return None if user is None else Addressee(user, job)

        return self._database.run(find)

    def renewing(self, lease: Lease) -> LeaseRenewer:
        """Renew the lease while the mail is being sent."""
        return self._leases.renewing(lambda: self._leases.renew(mails.c.id == lease.row.id, lease.token))

    def sent(self, lease: Lease) -> None:
        """The server has taken the mail."""
        self._close(lease, "sent")

    def abandon(self, lease: Lease) -> None:
        """The mail can never be sent."""
        self._close(lease, "abandoned")

    def release(self, lease: Lease) -> None:
        """Give the mail back after a failure that may pass."""
        self._leases.release(mails.c.id == lease.row.id, lease)

    def _close(self, lease: Lease, state: str) -> None:
        statement = (
            update(mails)
            .where(self._leases.held(mails.c.id == lease.row.id, lease.token))
            .values(state=state, lease=None, lease_until=None, due_at=None)
        )
        self._database.run(lambda connection: connection.execute(statement))
