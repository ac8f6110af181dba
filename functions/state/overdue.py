"""What sweep and bury look for: rows whose alarm has gone off, and rows whose time is over."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, or_, select, update

from events.schema import ConversionFailed, Event
from functions.state.database import Database
from functions.state.jobs import ATTEMPTS_EXHAUSTED, FINISHED, close, remove
from functions.state.leases import MAX_ATTEMPTS
from functions.state.mails import GIVE_UP
from functions.state.outbox import event_of, row_of
from functions.state.schema import jobs, logins, mails, now, pieces

_DAY: Final = 86_400_000
#: Milliseconds that failed logins are remembered after the last lock is over.
_LOGINS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Due:
    """An event to emit again, and the ``due_at`` that asks for it."""

    event: Event
    seen: int


class Overdue:
    """The queries of sweep and bury. Each may run in any number of processes at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, most: int) -> list[Due]:
        """What is past due and in nobody's hands, oldest first, at most so many of each kind."""

        def rows(connection: Connection, table: Table) -> list[Due]:
            query = select(table).where(_free(table), table.c.due_at <= now()).order_by(table.c.due_at).limit(most)
            return [Due(event_of(table, row), row.due_at) for row in connection.execute(query)]

        return self._database.run(
            lambda connection: [due for table in (jobs, pieces, mails) for due in rows(connection, table)]
        )

    def fail_exhausted(self) -> list[Event]:
        """Fail the jobs whose attempts, or those of one of their pieces, are spent; the events to emit."""

        def fail(connection: Connection) -> list[Event]:
            ids = {*connection.scalars(select(jobs.c.id).where(_spent(jobs)))}
            ids |= {*connection.scalars(select(pieces.c.job).where(_spent(pieces)))}
            events: list[Event] = []
            for event in (ConversionFailed(job) for job in sorted(ids)):
                values = {"state": "failed", "error": ATTEMPTS_EXHAUSTED, "lease": None}
                if close(connection, and_(_free(jobs), jobs.c.state.not_in(FINISHED)), event, values):
                    events.append(event)
            return events

        return self._database.run(fail)

    def abandon_mails(self) -> int:
        """Give up mails that could not be sent for a day; how many.

        One that was hardly tried waits on: it is the whole installation that was off for a day.
        """
        old = and_(
            _free(mails),
            mails.c.state == "due",
            mails.c.created_at < now() - GIVE_UP,
            mails.c.attempts >= MAX_ATTEMPTS,
        )
        values = {"state": "abandoned", "due_at": None, "lease": None, "lease_until": None}
        return self._database.run(
            lambda connection: connection.execute(update(mails).where(old).values(**values)).rowcount
        )

    def retire(self, keep_days: float, most: int) -> int:
        """Delete jobs that ended more than so many days ago; how many."""
        old = and_(jobs.c.state.in_(FINISHED), jobs.c.finished_at < now() - int(keep_days * _DAY))

        def retire(connection: Connection) -> int:
            ids = list(connection.scalars(select(jobs.c.id).where(old).order_by(jobs.c.finished_at).limit(most)))
            return remove(connection, jobs.c.id.in_(ids)) if ids else 0

        return self._database.run(retire)

    def forget_logins(self) -> None:
        """Forget failed logins that no longer matter."""
        old = delete(logins).where(logins.c.locked_until < now() - _LOGINS)
        self._database.run(lambda connection: connection.execute(old))

    def wake(self, event: Event) -> bool:
        """A dead letter came in: make its row due at once, unless somebody works on it. True where there was one."""
        table, row = row_of(event)
        statement = update(table).where(row, _free(table), table.c.due_at.is_not(None)).values(due_at=now())
        return self._database.run(lambda connection: connection.execute(statement).rowcount == 1)


def _spent(table: Table) -> ColumnElement[bool]:
    return and_(_free(table), table.c.attempts >= MAX_ATTEMPTS, table.c.due_at <= now())


def _free(table: Table) -> ColumnElement[bool]:
    return or_(table.c.lease_until.is_(None), table.c.lease_until < now())
