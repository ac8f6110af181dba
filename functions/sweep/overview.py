"""``python -m functions.sweep.overview``: prints what is under way or late, free disk space, and how many events wait.

A Job of Kubernetes runs it on demand (docs/kn.md), with the database user of bury, which deletes nothing.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from sqlalchemy import ColumnElement, Connection, Table, and_, case, func, literal_column, or_, select

from events.errors import Mp3burstError
from functions.state.database import Database, url
from functions.state.disks import read
from functions.state.leases import is_free
from functions.state.outbox import event_of
from functions.state.schema import deliveries, jobs, mails, now, pieces
from functions.sweep.queues import queue_depths

#: Late rows that are listed, of each table.
_LISTED: Final = 20
#: Milliseconds: a row that nobody works on is late if it has been due for longer. Sweep comes every 5 minutes.
_LATE: Final = 60_000
_DAY: Final = 86_400_000
#: What is wrong with a disk, by its level.
_LEVELS: Final = {"low": ": nearly full", "full": ": full, uploads are refused"}


def main() -> int:
    """Returns the exit status: 1 if the database or RabbitMQ does not answer."""
    try:
        for line in overview(Database(url(os.environ)), os.environ):
            print(line)  # noqa: T201 - the answer to a command
    except Mp3burstError as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
        return 1
    return 0


def overview(database: Database, environ: Mapping[str, str]) -> Iterator[str]:
    """Yields the lines: rows under way by table and state, late rows, failures of a day, disks, and queues.

    Args:
        database: is only read.
        environ: of the management API of RabbitMQ, ``RABBITMQ_URL``, ``RABBITMQ_USER`` and ``RABBITMQ_PASSWORD``, and
            the broker's ``NAMESPACE``. Without the URL the queues are left out.

    Raises:
        DatabaseUnavailable, DatabaseFault, QueuesUnknown: something does not answer.
    """
    yield from database.read(_rows)
    if address := environ.get("RABBITMQ_URL"):
        parts = urlsplit(address)
        user, password = (quote(environ.get(name, ""), safe="") for name in ("RABBITMQ_USER", "RABBITMQ_PASSWORD"))
        found = queue_depths(parts._replace(netloc=f"{user}:{password}@{parts.netloc}").geturl(), environ["NAMESPACE"])
        for name, count in sorted(found.items()):
            yield f"{'queue':12}{name:24}{count:8}"


def _rows(connection: Connection) -> list[str]:
    lines: list[str] = []
    for table in (jobs, pieces, mails, deliveries):
        state: ColumnElement[str] = table.c.state
        if "deferred_at" in table.c:
            state = case((table.c.deferred_at.is_not(None), literal_column("'deferred'")), else_=state)
        counted = (
            select(state, func.count(), now() - func.min(table.c.created_at))
            .where(table.c.due_at.is_not(None))
            .group_by(state)
        )
        rows: list[Any] = sorted(connection.execute(counted).all())
        for name, count, age in rows:
            lines.append(f"{table.name:12}{name:24}{count:8}  the oldest is {_duration(age)} old")
    for table in (jobs, pieces, mails, deliveries):
        lines += _late(connection, table)
    failed = select(func.count()).where(jobs.c.state == "failed", jobs.c.finished_at > now() - _DAY)
    if failures := connection.scalar(failed):
        lines.append(f"{'jobs':12}{'failed within a day':24}{failures:8}")
    return [*(lines or ["Nothing is under way."]), *_disks(connection)]


def _disks(connection: Connection) -> Iterator[str]:
    for disk in read(connection):
        if disk.silent_since is not None:
            level = "does not answer"
        elif disk.free is None or disk.total is None:
            level = f"{_gigabytes(disk.used)} used"
        else:
            level = f"{_gigabytes(disk.free)} free of {_gigabytes(disk.total)}{_LEVELS.get(disk.level, '')}"
        yield f"{'disk':12}{', '.join(disk.stores):24}  {level}"


def _late(connection: Connection, table: Table) -> Iterator[str]:
    waits = and_(is_free(table), table.c.due_at <= now() - _LATE)
    if "deferred_at" in table.c:
        waits = and_(waits, table.c.deferred_at.is_(None))
    late = or_(waits, and_(table.c.due_at.is_not(None), table.c.attempts > 1))
    seconds = (now() - table.c.due_at).label("ago")
    for row in connection.execute(select(table, seconds).where(late).order_by(table.c.due_at).limit(_LISTED)):
        due = f"due for {_duration(row.ago)}" if row.ago > 0 else f"due in {_duration(-row.ago)}"
        yield f"{'late':12}{event_of(table, row).about}: {row.state}, {row.attempts} attempts, {due}"


def _gigabytes(size: int | None) -> str:
    return f"{(size or 0) / 1e9:.1f} GB"


def _duration(milliseconds: int) -> str:
    seconds = int(milliseconds) // 1000
    units = ((3600, "h"), (60, "min"), (1, "s"))
    return next(f"{seconds // unit} {name}" for unit, name in units if seconds >= unit or unit == 1)


if __name__ == "__main__":
    sys.exit(main())
