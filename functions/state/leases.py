"""Leases: which worker has a row, and the one way in which an attempt at its work begins and ends.

A lease is the token of one attempt. It lasts 20 s and is renewed every 5 s, so a worker that is killed is replaced
within half a minute, and one that was merely slow learns at its next renewal that it has lost the row.
"""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, or_, select, update

from events.errors import Mp3burstError, PermanentFailure, with_cause
from events.schema import Event
from functions.state.counters import Series, count, queue_of
from functions.state.database import Database, DatabaseUnavailable
from functions.state.fairness import ADMITTED, Turns
from functions.state.schema import now

RowT = TypeVar("RowT")

#: Attempts that a job or a piece gets before it fails.
MAX_ATTEMPTS: Final = 5
#: The message for the user when the attempts are exhausted.
ATTEMPTS_EXHAUSTED: Final = (
    "The conversion failed after several attempts. Try again later; "
    "if it fails again, this file cannot be converted here."
)
_DAY: Final = 86_400_000
log = logging.getLogger(__name__)


class LeaseLost(Mp3burstError):
    """Another worker has the row now, or the row was deleted: discard this attempt's output and return."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a lease lasts and how often it is renewed, in milliseconds.

    A row is due a little after its lease ends, so that a waiting worker takes it before sweep does.
    """

    lease: int = 20_000
    renewal: int = 5_000
    due: int = 25_000


@dataclass(frozen=True, slots=True)
class Lease(Generic[RowT]):
    """One attempt's lease on one row.

    Attributes:
        token: identifies the attempt; it is in the row while the lease lasts.
        where: the condition that selects the row.
        row: the row as it was claimed.
        attempts: how many there have been, this one included.
        exhausted: whether this attempt is one too many: fail the row instead of working on it.
        age: milliseconds from the row's creation until it is due next.
        claimed: when it was claimed, on this process's monotonic clock.
    """

    token: str
    where: ColumnElement[bool]
    row: RowT
    attempts: int
    exhausted: bool
    age: int
    claimed: float = field(default_factory=time.monotonic, compare=False)


def backoff(attempts: int) -> int:
    """Returns the milliseconds until a row that failed temporarily is due: 30 s, doubled each time, up to 10 min."""
    return int(min(30_000 * 2 ** max(attempts - 1, 0), 600_000))


def is_free(table: Table) -> ColumnElement[bool]:
    """Returns the condition that no worker has a lease on the row."""
    return or_(table.c.lease_until.is_(None), table.c.lease_until < now(), table.c.lease == ADMITTED)


class Leases(Generic[RowT]):
    """The leases on the rows of one table."""

    def __init__(
        self,
        database: Database,
        table: Table,
        read: Callable[[Row[Any]], RowT],
        open_states: tuple[str, ...],
        terms: LeaseTerms | None = None,
        max_attempts: int | None = MAX_ATTEMPTS,
        turns: Turns | None = None,
    ) -> None:
        """Creates leases on the rows that are in one of ``open_states``.

        Args:
            database: where the table is.
            table: has the columns that ``functions.state.schema`` gives to rows that workers lease.
            read: converts a row of the table to what a lease carries.
            open_states: the states in which there is work to do.
            terms: how long a lease lasts.
            max_attempts: after how many a lease is exhausted; None for never.
            turns: decides which rows wait for their owner's turn; None if none does.
        """
        self._database = database
        self._table = table
        self._read = read
        self._open_states = open_states
        self._open = table.c.state.in_(open_states)
        self._terms = terms or LeaseTerms()
        self._max_attempts = max_attempts
        self._turns = turns

    def claim(self, where: ColumnElement[bool], **changes: object) -> Lease[RowT] | None:
        """Takes the row if it is free and it is its owner's turn; otherwise the row is deferred.

        If another worker has it, waits until that lease is renewed (its worker lives) or has expired (its worker died).

        Args:
            where: the condition that selects one row.
            changes: columns to set with the claim.

        Returns:
            The lease, or None: the work is done, the row was deleted, deferred or postponed, or another worker has it.
        """
        token = secrets.token_hex(16)
        deadline = time.monotonic() + self._terms.due / 1000
        seen: int | None = None
        while True:
            began = time.monotonic()
            row = self._database.run(lambda connection: self._take(connection, where, token, changes))
            if row is None or row.state not in self._open_states:
                return None
            if row.lease == token:
                exhausted = self._max_attempts is not None and row.attempts > self._max_attempts
                age = row.due_at - row.created_at
                return Lease(token, where, self._read(row), row.attempts, exhausted, age, began)
            if row.lease is None and row.lease_until is not None:
                return None  # postponed by ``release``: sweep emits its event when it is due
            if self._turns is not None and row.deferred_at is not None:
                return None  # its event is emitted when it is its turn
            if (seen is not None and row.lease_until != seen) or time.monotonic() > deadline:
                return None
            seen = row.lease_until
            time.sleep(min(self._terms.renewal / 1000 / 5, 0.5))

    def _take(
        self, connection: Connection, where: ColumnElement[bool], token: str, changes: dict[str, object]
    ) -> Row[Any] | None:
        if self._turns is not None and not self._turns.may_start(connection, where):
            values = self._turns.deferral()
        else:
            values = {
                "lease": token,
                "lease_until": now() + self._terms.lease,
                "due_at": now() + self._terms.due,
                "attempts": self._table.c.attempts + 1,
                **({} if self._turns is None else {"deferred_at": None}),
                **changes,
            }
        connection.execute(update(self._table).where(where, self._open, is_free(self._table)).values(values))
        return connection.execute(select(self._table).where(where)).one_or_none()

    def held(self, lease: Lease[RowT]) -> ColumnElement[bool]:
        """Returns the condition that the lease's worker still has the row, and so may change it."""
        return and_(lease.where, self._table.c.lease == lease.token, self._open)

    def renew(self, lease: Lease[RowT], /, **changes: object) -> bool:
        """Extends the lease and sets the columns in ``changes``; returns False if the lease is lost."""
        values = {"lease_until": now() + self._terms.lease, "due_at": now() + self._terms.due, **changes}
        statement = update(self._table).where(self.held(lease)).values(values)
        return self._database.run(lambda connection: connection.execute(statement).rowcount == 1)

    def renewing(
        self, lease: Lease[RowT], columns: Callable[[float], Mapping[str, object]] | None = None
    ) -> "LeaseRenewer":
        """Renews from a thread of its own until the ``with`` block ends.

        Args:
            lease: the lease.
            columns: given the attempt's progress (0 to 1), returns the columns that each renewal sets.
        """

        def renew(progress: float) -> bool:
            return self.renew(lease, **(columns(progress) if columns is not None else {}))

        return LeaseRenewer(renew, self._terms, lease.claimed)

    def release(self, lease: Lease[RowT], error: Exception | None = None, wait: int = 0) -> None:
        """Gives the row back after a temporary failure: it is due again after a backoff.

        Args:
            lease: the lease on it.
            error: what went wrong. If a service was unavailable, the attempt does not count, because it says nothing
                about the work. A day after the row was created, every attempt counts, or a store that is permanently
                full would repeat it forever. After a second attempt that counts, or an old row's first, nobody may
                claim the row before it is due: the broker retries within seconds, and would use up all attempts on a
                disk that is full for a quarter of a minute.
            wait: milliseconds for which nobody may claim the row, if that is longer than the backoff.
        """
        is_old = lease.age >= _DAY
        counts = is_old or not isinstance(error, Mp3burstError) or error.counts_as_attempt
        is_limited = self._max_attempts is not None
        is_postponed = is_old or wait > 0 or (counts and is_limited and lease.attempts > 1)
        due = now() + max(backoff(lease.attempts), wait)
        statement = (
            update(self._table)
            .where(self.held(lease))
            .values(
                attempts=lease.attempts if counts else lease.attempts - 1,
                due_at=due,
                lease=None,
                lease_until=due if is_postponed else None,
            )
        )

        def release(connection: Connection) -> None:
            if connection.execute(statement).rowcount:
                queue = queue_of(self._table.name, self._open_states[0])
                count(connection, {Series.of("attempts_failed", queue): 1})

        self._database.run(release)


class LeaseRenewer:
    """Renews a lease every few seconds while its worker works.

    Attributes:
        progress: how much of the work is done, 0 to 1; each renewal passes it to ``renew``.
    """

    def __init__(self, renew: Callable[[float], bool], terms: LeaseTerms, claimed: float | None = None) -> None:
        """Prepares the renewer; the ``with`` statement starts it.

        Args:
            renew: extends the lease; returns False if it is lost.
            terms: how often.
            claimed: when the lease began, on the monotonic clock; now if None.
        """
        self.progress = 0.0
        self._renew = renew
        self._terms = terms
        self._renewed = time.monotonic() if claimed is None else claimed  # since when the lease has lasted for certain
        self._stopped = threading.Event()
        self._lost = threading.Event()
        self._actions: list[Callable[[], None]] = []
        self._lock = threading.Lock()  # of the actions
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def check(self) -> None:
        """Raises LeaseLost if the lease is lost; call it often while working."""
        if self._lost.is_set():
            raise LeaseLost("Another worker has taken over this work.")

    def renew(self) -> None:
        """Renews the lease now; call it right before what cannot be undone.

        Raises:
            LeaseLost: another worker has the row, or it was deleted.
            DatabaseUnavailable: that is not known.
        """
        self.check()
        if not self._renewed_now():
            self._lose()
            self.check()

    def report(self, progress: float) -> None:
        """Checks the lease and notes how much of the work is done, 0 to 1."""
        self.check()
        self.progress = progress

    @contextlib.contextmanager
    def interrupting(self, action: Callable[[], None]) -> Iterator[None]:
        """Calls the action if the lease is lost during the ``with`` block, or was before: it ends what waits there.

        Args:
            action: is short, may be called from another thread, and never after the block.
        """
        with self._lock:
            self._actions.append(action)
            if self._lost.is_set():
                action()
        try:
            yield
        finally:
            with self._lock:
                self._actions.remove(action)

    def _lose(self) -> None:
        with self._lock:
            self._lost.set()
            for action in self._actions:
                action()

    def _renewed_now(self) -> bool:
        """Renews the lease; returns whether this worker has it."""
        began = time.monotonic()
        is_held = self._renew(self.progress)
        if is_held:
            self._renewed = began
        return is_held

    def _run(self) -> None:
        renewal = self._terms.renewal / 1000
        pause = max(self._renewed + renewal - time.monotonic(), 0.0)
        while not self._stopped.wait(pause):
            pause = renewal
            try:
                is_held = self._renewed_now()
            except DatabaseUnavailable:
                # The lease may last a while longer; once it has expired, another worker may have the row.
                is_held = time.monotonic() < self._renewed + self._terms.lease / 1000
                pause = renewal / 5
                log.warning("A lease could not be renewed: the database is unavailable.")
            except Mp3burstError:
                log.exception("A lease could not be renewed.")
                is_held = False
            if not is_held:
                self._lose()
                return


@dataclass(frozen=True, slots=True)
class Output:
    """What an attempt has made and stored, before it is on record.

    Attributes:
        record: puts it on record; returns the events to emit, or None if another worker has the row now or the row was
            deleted.
        discard: deletes what was stored; called after ``record`` returned None.
    """

    record: Callable[[], list[Event] | None]
    discard: Callable[[], None]


class LeasedTable(Protocol[RowT]):
    """What ``attempt`` uses of Jobs, Pieces, Mails and Deliveries."""

    def renewing(self, lease: Lease[RowT], /) -> LeaseRenewer:
        """Renews the lease until the ``with`` block ends."""

    def fail(self, lease: Lease[RowT], error: str, /) -> list[Event]:
        """Records that the work can never succeed; returns the events to emit, none if the lease is lost."""

    def release(self, lease: Lease[RowT], error: Exception | None = None, /) -> None:
        """Gives the row back after a temporary failure."""


def attempt(
    table: LeasedTable[RowT],
    lease: Lease[RowT],
    work: Callable[[LeaseRenewer], Output | None],
    subject: str,
    exhausted: str = ATTEMPTS_EXHAUSTED,
) -> list[Event]:
    """Makes one attempt at the work of a claimed row, and records how it ended.

    ===============================  ===================================================================
    The attempt                      and then
    ===============================  ===================================================================
    is exhausted                     the row fails with this message; ``work`` is not called
    returns its output               the output is recorded, or discarded if the lease was lost meanwhile
    returns None                     nothing
    raises PermanentFailure          the row fails with that error's message
    raises any other exception       the row is released, due again after a backoff; the error is re-raised
    is killed                        the lease expires; the next claim is a new attempt
    ===============================  ===================================================================

    Args:
        table: Jobs, Pieces, Mails or Deliveries.
        lease: from its ``claim``.
        work: does the work under a lease that is being renewed.
        subject: names the work in the log, such as "job 0123...".
        exhausted: what the user is told when there are no attempts left.

    Returns:
        The events to emit.

    Raises:
        TryAgain: the failure is temporary.
        LeaseLost: another worker has the row.
    """
    output = None
    events = None
    try:
        if lease.exhausted:
            raise PermanentFailure(exhausted)
        with table.renewing(lease) as renewer:
            output = work(renewer)
            events = output.record() if output is not None else None
    except PermanentFailure as error:
        log.info("%s: %s", subject, with_cause(error))
        return table.fail(lease, str(error))
    except Exception as error:
        table.release(lease, error)
        raise
    if output is not None and events is None:
        output.discard()
    return events or []
