"""Publishes the event of a row that is due, and postpones the row once the broker has confirmed the event."""

import logging
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Table, and_, update

from events.errors import NotPublished
from events.publish import Publish
from events.schema import Event, PieceCut, PiecesEncoded, VideoUploaded
from functions.state.database import Database, DatabaseUnavailable
from functions.state.mails import MailRow
from functions.state.schema import jobs, mails, now, pieces

#: Seconds that a request waits for the broker. Sweep emits what could not be published in that time.
REQUEST_BUDGET: Final = 1.0
#: Milliseconds that the broker has to deliver a confirmed event before sweep emits it again.
CONFIRMED: Final = 600_000
log = logging.getLogger(__name__)


class Outbox:
    """Publishes events of rows that are already committed, so that sweep can emit a lost one again."""

    def __init__(self, database: Database, publish: Publish) -> None:
        self._database = database
        self._publish = publish

    def emit_all(self, events: Iterable[Event], budget: float = 5.0) -> None:
        """Publishes the events in order; stops at the first that the broker does not accept."""
        all(self.emit(event, budget) for event in events)

    def emit(self, event: Event, budget: float = 5.0, seen: int | None = None) -> bool:
        """Publishes the event.

        Args:
            event: the event that the row waits for.
            budget: seconds that the broker has to accept it.
            seen: the ``due_at`` for which sweep emits it; if None, the row is postponed only if it was never tried.

        Returns:
            False if the broker did not accept the event in time; sweep emits it again.
        """
        try:
            self._publish(event, budget)
        except NotPublished as error:
            cause = error.__cause__ or error
            log.warning("%s: %s was not published, sweep will emit it: %r", event.about, event.type, cause)
            return False
        table, row = row_of(event)
        untouched = table.c.due_at == seen if seen is not None else table.c.attempts == 0
        statement = update(table).where(row, untouched, table.c.due_at.is_not(None)).values(due_at=now() + CONFIRMED)
        try:
            self._database.run(lambda connection: connection.execute(statement))
        except DatabaseUnavailable:
            # The row stays due, so sweep emits the event once more; its handler finds nothing to do.
            log.warning("%s: %s was published, but its row is still due", event.about, event.type)
        return True


def row_of(event: Event) -> tuple[Table, ColumnElement[bool]]:
    """Returns the table of the row that waits for the event, and the condition that selects the row."""
    match event:
        case VideoUploaded():
            return jobs, and_(jobs.c.id == event.job, jobs.c.state.in_(("uploaded", "converting")))
        case PiecesEncoded():
            return jobs, and_(jobs.c.id == event.job, jobs.c.state == "joining")
        case PieceCut():
            return pieces, and_(pieces.c.job == event.job, pieces.c.n == event.n)
        case _:
            return mails, mails.c.id == event.id


def event_of(table: Table, row: Row[Any]) -> Event:
    """Returns the event that an unfinished row of the table waits for."""
    if table is mails:
        return MailRow.from_row(row).event
    if table is pieces:
        return PieceCut(row.job, row.n)
    return PiecesEncoded(row.id) if row.state == "joining" else VideoUploaded(row.id)
