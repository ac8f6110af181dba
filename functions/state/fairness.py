"""Fairness among owners: which rows are worked on at once, and which row is next.

A place that works on a row cannot be taken back, so places are left free before anybody needs them: an owner's next row
starts if none of theirs is being worked on, or if fewer of theirs are than places are free. Somebody alone gets half of
the places, two get a third each, and a third of them stays free (docs/decisions/fairness.md).

A row that may not start is deferred: its event is settled, so that it occupies neither a place nor the broker. Whoever
claims a row or ends an attempt admits as many of the owner's deferred rows as may start. An admitted row has a place
kept for it until its event has arrived. Deferring and admitting lock the owner's row first, so an attempt that ends
while another row is being deferred finds that row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    func,
    not_,
    or_,
    select,
    update,
)

from functions.state.schema import UserId, blobs, jobs, now, pieces, users

#: The lease of an admitted row, which keeps a place for it and lets any worker claim it.
ADMITTED: Final = "admitted"
#: Milliseconds for which that place is kept, and after which sweep emits an event that the broker did not confirm.
_RESERVED: Final = 25_000
#: Rows that are admitted at a time if there is no limit.
_BATCH: Final = 500
#: Milliseconds until a deferred row is due. Sweep does not wait for that if none of the owner's rows is at work.
_DEFERRED: Final = 600_000
_LOCK_USER: Final = select(users.c.id).where(users.c.id == bindparam("owner")).with_for_update()


@dataclass(frozen=True, slots=True)
class Stage:
    """The rows that one function works on.

    Attributes:
        table: has the columns ``owner`` and ``deferred_at``.
        states: in which there is work to do.
        joined: the table, joined with what ``order`` needs.
        order: in which an owner's rows are admitted: short work first.
    """

    table: Table
    states: tuple[str, ...]
    joined: FromClause
    order: tuple[ColumnElement[Any], ...]


_JOBS: Final = jobs.outerjoin(blobs, blobs.c.id == jobs.c.video)
_JOBS_ORDER: Final = (blobs.c.size, jobs.c.created_at, jobs.c.id)
CONVERTING: Final = Stage(jobs, ("uploaded", "converting"), _JOBS, _JOBS_ORDER)
JOINING: Final = Stage(jobs, ("joining",), _JOBS, _JOBS_ORDER)
FETCHING: Final = Stage(jobs, ("fetching",), _JOBS, _JOBS_ORDER)
#: The state of a piece that is encoded from the stored track, and of one that is encoded from the video itself. Workers
#: of the version before leave the latter to their successors.
CUT: Final = "cut"
PLANNED: Final = "planned"
ENCODING: Final = Stage(
    pieces,
    (CUT, PLANNED),
    pieces.join(jobs, jobs.c.id == pieces.c.job),
    (jobs.c.total, pieces.c.created_at, pieces.c.job, pieces.c.n),
)
STAGES: Final = (FETCHING, CONVERTING, ENCODING, JOINING)


class Turns:
    """Decides which rows of a stage are worked on, and which is next."""

    def __init__(self, stage: Stage, places: int = 0) -> None:
        """Shares the places of a function.

        Args:
            stage: what the function works on.
            places: how many rows all its instances work on at once; 0 defers nothing.
        """
        table = stage.table
        self._table = table
        self._places = places
        self._key: tuple[Column[Any], ...] = tuple(table.primary_key)
        is_open = table.c.state.in_(stage.states)
        self._is_deferred = and_(is_open, table.c.deferred_at > 0)
        self._running = (
            select(table.c.owner, func.count())
            .where(is_open, table.c.lease.is_not(None), table.c.lease_until > now())
            .group_by(table.c.owner)
        )
        self._waiting = select(table.c.owner).where(self._is_deferred).distinct()
        self._next = (
            select(table)
            .select_from(stage.joined)
            .where(self._is_deferred, table.c.owner == bindparam("owner"))
            .order_by(*stage.order)
        )

    def may_start(self, connection: Connection, where: ColumnElement[bool]) -> bool:
        """Returns whether a free row may be worked on now; locks its owner's row, so that the answer stays true."""
        if not self._places:
            return True
        owner = connection.scalar(select(self._table.c.owner).where(where))
        if owner is None:
            return True  # the row was deleted, which its claim finds out
        connection.execute(_LOCK_USER, {"owner": owner})
        others = self._running.where(not_(where))
        return self._allowance(owner, _counts(connection, others)) > 0

    def deferral(self) -> dict[str, object]:
        """Returns the columns of a row that is deferred."""
        return {"deferred_at": now(), "due_at": now() + _DEFERRED, "lease": None, "lease_until": None}

    def admit(self, connection: Connection, owner: UserId) -> list[Row[Any]]:
        """Admits as many of the owner's deferred rows as may start, and returns them, short work first."""
        connection.execute(_LOCK_USER, {"owner": owner})
        if not connection.execute(self._next.limit(1), {"owner": owner}).all():
            return []
        return self._admit(connection, owner, self._allowance(owner, _counts(connection, self._running)))

    def admit_stalled(self, connection: Connection) -> list[Row[Any]]:
        """Admits a row of each owner who has deferred rows and none at work, whose end would admit one."""
        waiting = sorted(connection.scalars(self._waiting))
        running = _counts(connection, self._running) if waiting else {}
        return [row for owner in waiting if owner not in running for row in self._admit(connection, owner, 1)]

    def _admit(self, connection: Connection, owner: UserId, count: int) -> list[Row[Any]]:
        rows = connection.execute(self._next.limit(count), {"owner": owner}).all() if count else []
        admitted = self._locked(connection, rows)
        if admitted:
            until = now() + _RESERVED
            values = {"deferred_at": None, "due_at": until, "lease": ADMITTED, "lease_until": until}
            connection.execute(update(self._table).where(self._are(admitted)).values(values))
        return admitted

    def _locked(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[Row[Any]]:
        """Locks those of the rows that are still deferred, and returns them."""
        if not rows:
            return []
        query = select(*self._key).where(self._are(rows), self._is_deferred).with_for_update()
        deferred = {tuple(found) for found in connection.execute(query)}
        return [row for row in rows if self._key_of(row) in deferred]

    def _key_of(self, row: Row[Any]) -> tuple[Any, ...]:
        return tuple(getattr(row, column.name) for column in self._key)

    def _are(self, rows: Iterable[Row[Any]]) -> ColumnElement[bool]:
        """Returns the condition that selects these rows."""
        keys = (zip(self._key, self._key_of(row), strict=True) for row in rows)
        return or_(*(and_(*(column == value for column, value in key)) for key in keys))

    def _allowance(self, owner: UserId, running: Mapping[UserId, int]) -> int:
        """Returns how many more rows of the owner may start, given the numbers of rows at work."""
        if not self._places:
            return _BATCH
        own = running.get(owner, 0)
        free = self._places - sum(running.values())
        # Each that starts adds to the owner's and takes a free place.
        return max((free - own + 1) // 2, 0 if own else 1)


def _counts(connection: Connection, running: Select[tuple[Any, int]]) -> dict[UserId, int]:
    return {UserId(owner): count for owner, count in connection.execute(running)}
