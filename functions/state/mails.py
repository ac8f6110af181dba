"""Mails: one row for each event that a job's owner is notified of."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, select, update

from events.schema import ConversionFailed, Event, JobId, Mp3Ready
from functions.state.database import Database
from functions.state.jobs import Job
from functions.state.leases import Lease, LeaseRenewer, Leases, LeaseTerms
from functions.state.schema import jobs, mails, users

#: The events that a mail is sent for, by the type in the row.
KINDS: Final[dict[str, type[Event]]] = {event.type: event for event in (Mp3Ready, ConversionFailed)}
#: Milliseconds after which a mail that could not be sent is abandoned.
MAX_AGE: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class MailRow:
    """A mail to send.

    Attributes:
        id: the id of its event.
        job: the job that it is about.
        kind: the type of its event.
    """

    id: str
    job: JobId
    kind: str

    @classmethod
    def from_row(cls, row: Row[Any]) -> "MailRow":
        """Returns the mail of a row."""
        return cls(row.id, row.job, row.kind)


@dataclass(frozen=True, slots=True)
class Addressee:
    """The user who gets a mail, and the job that it is about, which this user owns."""

    name: str
    email: str
    job: Job


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
            job = connection.execute(select(jobs).where(jobs.c.id == lease.row.job)).one_or_none()
            if job is None:
                return None
            query = select(users.c.name, users.c.email).where(users.c.id == job.owner)
            user = connection.execute(query).one_or_none()
            return None if user is None else Addressee(user.name, user.email, Job.from_row(job))

        return self._database.read(find)

    def renewing(self, lease: Lease[MailRow]) -> LeaseRenewer:
        """Renews the lease while the mail is being sent."""
        return self._leases.renewing(lease)

    def sent(self, lease: Lease[MailRow]) -> None:
        """Records that the mail server has accepted the mail."""
        self._close(lease, "sent")

    def fail(self, lease: Lease[MailRow], _: str = "") -> None:
        """Records that the mail can never be sent. No event follows: the mail was the notification."""
        self._close(lease, "abandoned")

    def release(self, lease: Lease[MailRow], error: Exception | None = None) -> None:
        """Gives the mail back after a temporary failure."""
        self._leases.release(lease, error)

    def _close(self, lease: Lease[MailRow], state: str) -> None:
        statement = (
            update(mails).where(self._leases.held(lease)).values(state=state, lease=None, lease_until=None, due_at=None)
        )
        self._database.run(lambda connection: connection.execute(statement))
