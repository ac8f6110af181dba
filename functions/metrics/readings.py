"""Reads from the database what the metrics are made of, in transactions that only read.

Nothing is read that says whose a job is or what it is about: the database user of metrics has no right to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select

from functions.state.counters import Count, Series, counts
from functions.state.database import Database
from functions.state.disks import Disk
from functions.state.disks import read as read_disks
from functions.state.fairness import ADMITTED
from functions.state.leases import is_free
from functions.state.overview import QUEUES, QueueName, phase_of
from functions.state.schema import blobs, deliveries, jobs, mails, now, pieces, users

#: Milliseconds: a row that nobody works on is late if it has been due for longer. Sweep, every 5 minutes, emits the
#: events of due rows, those that a worker has put off for a while among them.
LATE: Final = 360_000
#: Since when a row of each queue may have been worked on.
_SINCE: Final[dict[QueueName, ColumnElement[Any]]] = {
    "fetch": jobs.c.created_at,
    # A job that was split and fell back has a time of its stage.
    "convert": func.coalesce(jobs.c.stage_at, jobs.c.fetched_at, jobs.c.created_at),
    "encode": pieces.c.created_at,
    "join": func.coalesce(jobs.c.stage_at, jobs.c.created_at),
    "notify": mails.c.created_at,
    "hook": deliveries.c.created_at,
}


@dataclass(frozen=True, slots=True)
class QueueReading:
    """The unfinished rows that one function works on.

    Attributes:
        phases: how many there are, by where they are; see ``functions.state.overview.PHASES``.
        late: that have been due for more than LATE, and nobody works on them.
        oldest: milliseconds that one has been waiting for its first attempt, and not for its owner's turn.
    """

    phases: Mapping[str, int]
    late: int
    oldest: int


@dataclass(frozen=True, slots=True)
class StoreReading:
    """What one media store has, as the records of blobs say.

    Attributes:
        blobs: how many there are.
        size: bytes, with what is reserved for uploads and conversions in progress.
        expired: blobs that the next sweep deletes.
    """

    blobs: int
    size: int
    expired: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What takes a scan of whole tables, and so is not read for each scrape.

    Attributes:
        stores: the media stores that have anything.
        users: how many there are.
    """

    stores: Mapping[str, StoreReading]
    users: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of the installation at one time.

    Attributes:
        jobs: unfinished jobs by state.
        queues: the work of each function.
        totals: what is stored, and the number of users; may be older than the rest.
        disks: what sweep has measured last.
        counts: the counters.
    """

    jobs: Mapping[str, int]
    queues: Mapping[QueueName, QueueReading]
    totals: Totals
    disks: Sequence[Disk]
    counts: Mapping[Series, Count]


def read_totals(database: Database) -> Totals:
    """Reads what is stored, and the number of users.

    Raises:
        DatabaseUnavailable: the database is unavailable.
    """
    number = select(func.count(users.c.id)).where(users.c.deleted_at.is_(None))
    return database.read(lambda connection: Totals(_stores(connection), connection.scalar(number) or 0))


def read(database: Database, totals: Totals) -> Reading:
    """Reads the rest of the state of the installation.

    Raises:
        DatabaseUnavailable: the database is unavailable.
    """
    return database.read(
        lambda connection: Reading(
            jobs=_jobs(connection),
            queues={name: _queue(connection, name) for name in get_args(QueueName)},
            totals=totals,
            disks=read_disks(connection),
            counts=counts(connection),
        )
    )


def _jobs(connection: Connection) -> dict[str, int]:
    query = select(jobs.c.state, func.count()).where(jobs.c.finished_at.is_(None)).group_by(jobs.c.state)
    return {row[0]: row[1] for row in connection.execute(query)}


def _queue(connection: Connection, name: QueueName) -> QueueReading:
    table, is_its = QUEUES[name]
    is_late = and_(is_free(table), table.c.due_at <= now() - LATE)
    if "deferred_at" in table.c:
        is_late = and_(is_late, table.c.deferred_at.is_(None))
    # A row whose turn it is has a place kept for it: until then it did not wait for a worker.
    since = case((table.c.lease == ADMITTED, table.c.lease_until), else_=_SINCE[name])
    rows = (
        select(
            phase_of(table).label("phase"),
            case((is_late, 1), else_=0).label("late"),
            (now() - since).label("age"),
        )
        .where(table.c.due_at.is_not(None), is_its)
        .subquery()
    )
    query = select(rows.c.phase, func.count(), func.sum(rows.c.late), func.max(rows.c.age)).group_by(rows.c.phase)
    found = {phase: (count, int(late), int(age)) for phase, count, late, age in connection.execute(query)}
    return QueueReading(
        {phase: count for phase, (count, _, _) in found.items()},
        sum(late for _, late, _ in found.values()),
        max(found.get("waiting", (0, 0, 0))[2], 0),
    )


def _stores(connection: Connection) -> dict[str, StoreReading]:
    is_alive = or_(blobs.c.expires_at.is_(None), blobs.c.expires_at > now())
    query = select(
        blobs.c.store,
        func.count(),
        func.coalesce(func.sum(blobs.c.size), 0),
        func.coalesce(func.sum(case((is_alive, 0), else_=1)), 0),
    ).group_by(blobs.c.store)
    return {
        store: StoreReading(count, int(size), int(expired)) for store, count, size, expired in connection.execute(query)
    }
