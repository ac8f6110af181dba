"""Emits the event of a row that is due, and puts the row's alarm off once the broker has the event."""

import logging
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Table, and_, update

from events.errors import NotPublished
from events.publish import Publish
from events.schema import Event, PieceCut, PiecesEncoded, VideoUploaded
from functions.state.database import Database, DatabaseUnavailable
from functions.state.mails import KINDS
from functions.state.schema import jobs, mails, now, pieces

#: Milliseconds that the broker gets to bring an event about before sweep emits it again.
CONFIRMED: Final = 600_000
log = logging.getLogger(__name__)


class Outbox:
    """Publishes events whose rows are on record already, so that one that gets lost is emitted again by sweep."""

    def __init__(self, database: Database, publish: Publish) -> None:
        self._database, self._publish = database, publish

    def emit_all(self, events: Iterable[Event], budget: float = 5.0) -> None:
        """Publish one after the other; a broker that does not take one is not asked to take the rest."""
        all(self.emit(event, budget) for event in events)

    def emit(self, event: Event, budget: float = 5.0, seen: int | None = None) -> bool:
        """Publish within the budget, in seconds; False where the broker did not take the event.

        Args:
            event: what the row has to say.
            budget: seconds for the broker.
            seen: the ``due_at`` that made sweep emit it; without it, the row must not have been tried yet.
        """
        try:
            self._publish(event, budget)
        except NotPublished as error:
            log.warning("job %s: %s is left for sweep: %r", event.job, event.type, error.__cause__ or error)
            return False
        table, row = row_of(event)
        untouched = table.c.due_at == seen if seen is not None else table.c.attempts == 0
        statement = update(table).where(row, untouched, table.c.due_at.is_not(None)).values(due_at=now() + CONFIRMED)
        try:
            self._database.run(lambda connection: connection.execute(statement))
        except DatabaseUnavailable:
            # The event is out; the row stays due and sweep emits it once more, which costs one look.
            log.warning("job %s: %s is out, its row stays due", event.job, event.type)
        return True


def row_of(event: Event) -> tuple[Table, ColumnElement[bool]]:
    """The row that waits for the event."""
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
    """The event that brings word of an unfinished row."""
    if table is mails:
        return KINDS[row.kind](row.job)
    if table is pieces:
        return PieceCut(row.job, row.n)
    return PiecesEncoded(row.id) if row.state == "joining" else VideoUploaded(row.id)
