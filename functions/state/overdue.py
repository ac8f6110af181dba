"""The queries of sweep and bury: rows that are overdue, and rows that are old enough to delete."""

import time
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Row, Table, and_, delete, func, select, update

from events.schema import ConversionFailed, Event, PasswordForgotten
from functions.state.counters import Counters, Series, count
from functions.state.database import Database
from functions.state.deleted_users import DeletedUsers
from functions.state.fairness import FETCHING, STAGES, Turns
from functions.state.jobs import FINISHED, delete_jobs, end_job
from functions.state.leases import ATTEMPTS_EXHAUSTED, MAX_ATTEMPTS, is_free
from functions.state.mails import MAX_AGE, mail_series
from functions.state.outbox import CONFIRMED, event_of, queue_of_event, row_of
from functions.state.schema import (
    deliveries,
    ended_tokens,
    jobs,
    logins,
    mails,
    now,
    pieces,
    sessions,
    shared_links,
)

_DAY: Final = 86_400_000
_WEEK: Final = 7 * _DAY


@dataclass(frozen=True, slots=True)
class Due:
    """An event to emit again.

    Attributes:
        event: the event.
        seen: the ``due_at`` of its row.
        is_retry: whether a worker has given the row back, to be tried again at this time.
    """

    event: Event
    seen: int
    is_retry: bool = False


class Overdue:
    """The queries of sweep and bury. Each may run in any number of processes at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, limit: int) -> list[Due]:
        """Returns the events of due rows that no worker has, oldest first, at most ``limit`` per table.

        Deferred rows are left to the end of their owners' other rows, and to ``admit_stalled``.
        """

        def is_retry(row: Row[Any]) -> bool:
            # Once sweep has emitted its event, it is due later than that: then nobody has come.
            is_postponed = row.lease is None and row.lease_until is not None
            return is_postponed and row.due_at < row.lease_until + CONFIRMED

        def rows(connection: Connection, table: Table) -> list[Due]:
            due = and_(is_free(table), table.c.due_at <= now())
            if "deferred_at" in table.c:
                due = and_(due, table.c.deferred_at.is_(None))
            query = select(table).where(due).order_by(table.c.due_at).limit(limit)
            return [Due(event_of(table, row), row.due_at, is_retry(row)) for row in connection.execute(query)]

        return self._database.read(
            lambda connection: [due for table in (jobs, pieces, mails, deliveries) for due in rows(connection, table)]
        )

    def admit_stalled(self) -> list[Event]:
        """Admits a deferred row of each owner none of whose rows is at work; returns the events to emit."""

        def admit(connection: Connection) -> list[Event]:
            return [event_of(stage.table, row) for stage in STAGES for row in Turns(stage).admit_stalled(connection)]

        return self._database.run(admit)

    def fail_exhausted(self) -> list[Event]:
        """Fails the jobs whose attempts, or those of one of their pieces, are exhausted; returns the events to emit."""

        def fail(connection: Connection) -> list[Event]:
            # Which attempts at a fetch count, its source says: whoever claims it fails it.
            mine = select(jobs.c.id).where(_is_exhausted(jobs), jobs.c.state.not_in(FETCHING.states))
            of_piece = select(pieces.c.job).where(_is_exhausted(pieces))
            unfinished = and_(is_free(jobs), jobs.c.state.not_in(FINISHED))
            # One that has just fallen back is converted anew, without the piece.
            encoding = and_(is_free(jobs), jobs.c.state == "encoding")
            events: list[Event] = []
            for query, where in ((mine, unfinished), (of_piece, encoding)):
                for event in (ConversionFailed(job) for job in sorted({*connection.scalars(query)})):
                    values = {"state": "failed", "error": ATTEMPTS_EXHAUSTED, "lease": None}
                    events += end_job(connection, where, event, values)
            return events

        return self._database.run(fail)

    def abandon_mails(self) -> int:
        """Abandons the mails that could not be sent for a day; returns how many.

        A mail with fewer than MAX_ATTEMPTS attempts is kept: the installation was probably off for a day.
        """
        old = and_(
            is_free(mails),
            mails.c.state == "due",
            mails.c.created_at < now() - MAX_AGE,
            mails.c.attempts >= MAX_ATTEMPTS,
        )
        settled = {"state": "abandoned", "due_at": None, "lease": None, "lease_until": None}

        def abandon(connection: Connection) -> int:
            abandoned = 0
            for kind in list(connection.scalars(select(mails.c.kind).where(old).distinct())):
                statement = update(mails).where(old, mails.c.kind == kind).values(settled)
                rows = connection.execute(statement).rowcount
                count(connection, {mail_series(kind, "abandoned"): rows})
                abandoned += rows
            return abandoned

        return self._database.run(abandon)

    def forget_resets(self, limit: int) -> bool:
        """Deletes mails to reset a password that were sent, skipped or abandoned, a day after they were asked for.

        Anybody may ask for them, also for users who do not exist.

        Args:
            limit: rows in one call.

        Returns:
            Whether there may be more.
        """
        old = and_(mails.c.kind == PasswordForgotten.type, mails.c.state != "due", mails.c.created_at < now() - _DAY)
        return self._delete(mails.c.id, old, limit) == limit

    def retire(self, keep_days: float, limit: int) -> int:
        """Deletes up to ``limit`` jobs that ended more than ``keep_days`` days ago; returns how many."""
        old = and_(jobs.c.state.in_(FINISHED), jobs.c.finished_at < now() - int(keep_days * _DAY))

        def retire(connection: Connection) -> int:
            ids = list(connection.scalars(select(jobs.c.id).where(old).order_by(jobs.c.finished_at).limit(limit)))
            return delete_jobs(connection, jobs.c.id.in_(ids)) if ids else 0

        return self._database.run(retire)

    def purge_users(self, limit: int, end: float) -> None:
        """Goes on deleting what up to ``limit`` deleted accounts have left, until ``end`` of the monotonic clock."""
        deleted = DeletedUsers(self._database)
        for user in deleted.pending(limit):
            while deleted.purge(user) and time.monotonic() < end:
                pass
            deleted.forget(user)

    def forget_pings(self, limit: int) -> bool:
        """Deletes up to ``limit`` deliveries without a job that have been over for a week.

        Returns:
            Whether there may be more.
        """
        # Earlier versions left ``tried_at`` empty if the receiver answered 410.
        over = func.coalesce(deliveries.c.tried_at, deliveries.c.created_at)
        old = and_(deliveries.c.job.is_(None), deliveries.c.due_at.is_(None), over < now() - _WEEK)
        return self._delete(deliveries.c.id, old, limit) == limit

    def forget_logins(self, limit: int) -> bool:
        """Deletes failed logins that no longer count, networks that are no longer known, expired sessions and links.

        Args:
            limit: rows of each table in one call.

        Returns:
            Whether there may be more.
        """
        expired = [
            (logins.c.subject, and_(logins.c.clears_at < now(), logins.c.locked_until < now())),
            *((table.c.id, table.c.expires_at < now()) for table in (ended_tokens, sessions, shared_links)),
        ]
        return limit in [self._delete(key, where, limit) for key, where in expired]

    def _delete(self, key: Column[str], where: ColumnElement[bool], limit: int) -> int:
        """Deletes up to ``limit`` rows of the key's table; returns how many were chosen."""

        def forget(connection: Connection) -> int:
            chosen = list(connection.scalars(select(key).where(where).limit(limit)))
            if chosen:
                connection.execute(delete(key.table).where(key.in_(chosen), where))
            return len(chosen)

        return self._database.run(forget)

    def wake(self, event: Event) -> bool:
        """Makes the row of a dead letter due at once, unless a worker has it; returns whether it did.

        Each dead letter is counted, also if its row is due already. One that is delivered again is counted twice, which
        happens if bury is killed after its transaction and before its answer. Its id does not tell: an event that
        sweep emits again has the same.
        """
        table, row = row_of(event)
        wake = update(table).where(row, is_free(table), table.c.due_at.is_not(None)).values(due_at=now())
        dead = Series.of("dead_letters", queue_of_event(event))

        def run(connection: Connection) -> bool:
            woken = connection.execute(wake).rowcount
            count(connection, {dead: woken})
            return woken == 1

        return self._database.run(run)

    def add_up_counters(self, limit: int) -> bool:
        """Keeps the table of counters small: replaces up to ``limit`` of its rows by their sums.

        Returns:
            Whether there may be more.
        """
        return Counters(self._database).add_up(limit)

    def record_sweep(self) -> None:
        """Counts a sweep that has come to its end."""
        Counters(self._database).record_sweep()


def _is_exhausted(table: Table) -> ColumnElement[bool]:
    return and_(is_free(table), table.c.attempts >= MAX_ATTEMPTS, table.c.due_at <= now())
