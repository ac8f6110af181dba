"""Publishes the event of a row that is due, and postpones the row once the broker has confirmed the event."""

import itertools
import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, or_, update

from events.errors import NotPublished
from events.publish import Publish
from events.schema import DeliveryDue, Event, FetchDue, PieceCut, PiecesEncoded, VideoUploaded
from functions.state.counters import Series, count, queue_of
from functions.state.database import Database, DatabaseUnavailable
from functions.state.fairness import ADMITTED
from functions.state.mails import MailRow
from functions.state.schema import deliveries, jobs, mails, now, pieces

#: Seconds that a request waits for the broker. Sweep emits what could not be published in that time.
REQUEST_BUDGET: Final = 1.0
#: Milliseconds that the broker has to deliver a confirmed event before sweep emits it again.
CONFIRMED: Final = 600_000
#: Events that are published at the same time. A broker confirms one in 1 to 5 ms, and a job may have 256 pieces.
_AT_ONCE: Final = 8
#: Rows that one statement postpones.
_ROWS_PER_UPDATE: Final = 100
#: The state of the job that an event announces, if it is not to be converted.
_STATES: Final[dict[type[Event], str]] = {FetchDue: "fetching", PiecesEncoded: "joining"}
log = logging.getLogger(__name__)


class Outbox:
    """Publishes events of rows that are already committed, so that sweep can emit a lost one again."""

    def __init__(self, database: Database, publish: Publish) -> None:
        self._database = database
        self._publish = publish

    def emit_all(self, events: Iterable[Event], budget: float = 5.0) -> None:
        """Publishes the events, many of them several at a time; begins no more after one that is not accepted.

        Args:
            events: the events that their rows wait for.
            budget: seconds that the broker has to accept each of them.
        """
        ordered = list(events)
        if len(ordered) <= _AT_ONCE:
            published = list(itertools.takewhile(lambda event: self._try_to_publish(event, budget), ordered))
        else:
            published = self._publish_at_once(ordered, budget)
        for start in range(0, len(published), _ROWS_PER_UPDATE):
            self._postpone(published[start : start + _ROWS_PER_UPDATE])

    def emit(self, event: Event, budget: float = 5.0, seen: int | None = None, *, is_repeated: bool = False) -> bool:
        """Publishes the event.

        Args:
            event: the event that the row waits for.
            budget: seconds that the broker has to accept it.
            seen: the ``due_at`` for which sweep emits it; if None, the row is postponed only if it was never tried, and
                is due or admitted.
            is_repeated: whether to count it as one that sweep repeats because nobody works on its row.

        Returns:
            False if the broker did not accept the event in time; sweep emits it again.
        """
        is_published = self._try_to_publish(event, budget)
        if is_published:
            self._postpone([event], seen, is_repeated=is_repeated)
        return is_published

    def _publish_at_once(self, events: Sequence[Event], budget: float) -> list[Event]:
        """Publishes the events on several threads, and returns those that the broker accepted."""
        refused = threading.Event()

        def publish(event: Event) -> bool:
            if refused.is_set():
                return False
            is_published = self._try_to_publish(event, budget)
            if not is_published:
                refused.set()
            return is_published

        with ThreadPoolExecutor(_AT_ONCE, "outbox") as workers:
            outcomes = list(workers.map(publish, events))
        return [event for event, is_published in zip(events, outcomes, strict=True) if is_published]

    def _try_to_publish(self, event: Event, budget: float) -> bool:
        try:
            self._publish(event, budget)
        except NotPublished as error:
            cause = error.__cause__ or error
            log.warning("%s: %s was not published, sweep will emit it: %r", event.about, event.type, cause)
            return False
        return True

    def _postpone(self, events: Sequence[Event], seen: int | None = None, *, is_repeated: bool = False) -> None:
        """Postpones the rows of published events."""
        rows: dict[Table, list[ColumnElement[bool]]] = {}
        for event in events:
            table, row = row_of(event)
            rows.setdefault(table, []).append(row)

        def postpone(connection: Connection) -> None:
            for table, those in rows.items():
                # A fast worker that gave the row back has said when it is due.
                is_due = table.c.due_at <= now()
                if "deferred_at" in table.c:
                    is_due = or_(is_due, table.c.lease == ADMITTED)
                untouched = and_(table.c.attempts == 0, is_due) if seen is None else table.c.due_at == seen
                due = and_(or_(*those), untouched, table.c.due_at.is_not(None))
                postponed = connection.execute(update(table).where(due).values(due_at=now() + CONFIRMED)).rowcount
                if is_repeated:
                    count(connection, {Series.of("events_repeated", queue_of_event(events[0])): postponed})

        try:
            self._database.run(postpone)
        except DatabaseUnavailable:
            # The rows stay due, so sweep emits the events once more; their handlers find nothing to do.
            for event in events:
                log.warning("%s: %s was published, but its row is still due", event.about, event.type)


def queue_of_event(event: Event) -> str:
    """Returns the function that handles the event."""
    table, _ = row_of(event)
    return queue_of(table.name, _STATES.get(type(event), ""))


def row_of(event: Event) -> tuple[Table, ColumnElement[bool]]:
    """Returns the table of the row that waits for the event, and the condition that selects the row."""
    match event:
        case VideoUploaded():
            return jobs, and_(jobs.c.id == event.job, jobs.c.state.in_(("uploaded", "converting")))
        case FetchDue():
            return jobs, and_(jobs.c.id == event.job, jobs.c.state == "fetching")
        case PiecesEncoded():
            return jobs, and_(jobs.c.id == event.job, jobs.c.state == "joining")
        case PieceCut():
            return pieces, and_(pieces.c.job == event.job, pieces.c.n == event.n)
        case DeliveryDue():
            return deliveries, deliveries.c.id == event.delivery
        case _:
            return mails, mails.c.id == event.id


def event_of(table: Table, row: Row[Any]) -> Event:
    """Returns the event that an unfinished row of the table waits for."""
    if table is mails:
        return MailRow.from_row(row).event
    if table is deliveries:
        return DeliveryDue(row.id)
    if table is pieces:
        return PieceCut(row.job, row.n)
    event = {"fetching": FetchDue, "joining": PiecesEncoded}.get(row.state, VideoUploaded)
    return event(row.id)
