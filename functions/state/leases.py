"""Who works on a row: claiming it, keeping it, giving it back.

A lease is the token of one attempt. It lasts 20 s and is renewed every 5 s, so a worker that is killed is replaced
within half a minute, and one that was only slow finds at its next renewal that it has been fenced off.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, or_, select, update

from events.errors import Mp3burstError
from functions.media import MediaUnavailable
from functions.state.database import Database, DatabaseUnavailable
from functions.state.schema import now

#: Attempts that a row gets before it is given up.
MAX_ATTEMPTS: Final = 5
_DAY: Final = 86_400_000
log = logging.getLogger(__name__)


class LeaseLost(Mp3burstError):
    """Another worker has the row now, or the row is gone: stop, delete what is yours, and say nothing."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a lease lasts, in milliseconds. A row falls due a little after its lease, so that sweep comes last."""

    lease: int = 20_000
    renewal: int = 5_000
    due: int = 25_000


@dataclass(frozen=True, slots=True)
class Lease:
    """One attempt's hold on one row."""

    token: str
    row: Row[Any]

    @property
    def exhausted(self) -> bool:
        """Whether this attempt is one too many: the row is to be failed, not worked on."""
        return bool(self.row.attempts > MAX_ATTEMPTS)


def backoff(attempts: int) -> int:
    """Milliseconds until sweep looks at a row again that failed for now: 30 s, doubled each time, 10 min at most."""
    return int(min(30_000 * 2 ** max(attempts - 1, 0), 600_000))


class Leases:
    """The leases on the rows of one table."""

    def __init__(self, database: Database, table: Table, open_states: tuple[str, ...], terms: LeaseTerms) -> None:
        self._database, self._table, self._terms = database, table, terms
        self._open = table.c.state.in_(open_states)
        self._open_states = open_states

    def claim(self, row: ColumnElement[bool], **changes: object) -> Lease | None:
        """Take the row, if it is anybody's to take.

        Where another holds it, wait until that lease is renewed (its owner lives) or past (its owner died).

        Args:
            row: the condition that names one row.
            changes: columns to set with the claim.

        Returns:
            The lease, or None: the work is over, the row is gone or put off, or another works on it.
        """
        token = secrets.token_hex(16)
        patience = time.monotonic() + self._terms.due / 1000
        seen: int | None = None
        while True:
            found = self._database.run(lambda connection: self._take(connection, row, token, changes))
            if found is None or found.state not in self._open_states:
                return None
            if found.lease == token:
                return Lease(token, found)
            if found.lease is None and found.lease_until is not None:
                return None  # put off by ``release``: sweep brings it when its time has come
            if (seen is not None and found.lease_until != seen) or time.monotonic() > patience:
                return None
            seen = found.lease_until
            time.sleep(min(self._terms.renewal / 1000 / 5, 0.5))

    def _take(
        self, connection: Connection, row: ColumnElement[bool], token: str, changes: dict[str, object]
    ) -> Row[Any] | None:
        table = self._table
        free = or_(table.c.lease_until.is_(None), table.c.lease_until < now())
        connection.execute(
            update(table)
            .where(row, self._open, free)
            .values(
                lease=token,
                lease_until=now() + self._terms.lease,
                due_at=now() + self._terms.due,
                attempts=table.c.attempts + 1,
                **changes,
            )
        )
        return connection.execute(select(table).where(row)).one_or_none()

    def renew(self, row: ColumnElement[bool], token: str, **changes: object) -> bool:
        """Hold the row for another while; False where it is no longer ours."""
        values = {"lease_until": now() + self._terms.lease, "due_at": now() + self._terms.due, **changes}
        statement = update(self._table).where(self.held(row, token)).values(values)
        return self._database.run(lambda connection: connection.execute(statement).rowcount == 1)

    def release(self, row: ColumnElement[bool], lease: Lease, error: Exception | None = None) -> None:
        """Give the row back after a failure that may pass: it is due again after a while that grows.

        Args:
            row: the condition that names the row.
            lease: the hold on it.
            error: what went wrong. Where a service was away the attempt does not count, since that says nothing of the
                work; not so a day after the row was made, or a store that is full for good would repeat it for ever.
                From then on nobody may claim the row before it is due: the broker's tries follow each other in seconds,
                and would spend all attempts on a store that takes a minute to start.
        """
        attempts: int = lease.row.attempts
        old = lease.row.due_at - lease.row.created_at >= _DAY
        uncounted = isinstance(error, DatabaseUnavailable | MediaUnavailable) and not old
        due = now() + backoff(attempts)
        values = {"attempts": attempts - 1 if uncounted else attempts, "due_at": due}
        statement = update(self._table).where(self.held(row, lease.token))
        statement = statement.values(lease=None, lease_until=due if old else None, **values)
        self._database.run(lambda connection: connection.execute(statement))

    def held(self, row: ColumnElement[bool], token: str) -> ColumnElement[bool]:
        """The condition under which a worker may change the row: it is still its own."""
        return and_(row, self._table.c.lease == token, self._open)

    def renewing(self, renew: Callable[[], bool]) -> "LeaseRenewer":
        """Renew from a thread of its own, until the ``with`` block is left."""
        return LeaseRenewer(renew, self._terms)


class LeaseRenewer:
    """Renews a lease every few seconds while its owner works."""

    def __init__(self, renew: Callable[[], bool], terms: LeaseTerms) -> None:
        self._renew, self._terms = renew, terms
        self._over, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> "LeaseRenewer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        """Raise LeaseLost if the lease is lost; call it often while working."""
        if self._lost.is_set():
            raise LeaseLost("Another worker has taken this over.")

    def _run(self) -> None:
        held_until = time.monotonic() + self._terms.lease / 1000
        while not self._over.wait(self._terms.renewal / 1000):
            asked = time.monotonic()
            try:
                held = self._renew()
            except DatabaseUnavailable:
                # The lease may hold a while longer; past its end another may have the row.
                held = time.monotonic() < held_until
                log.warning("A lease could not be renewed; the database is away.")
            except Mp3burstError:
                log.exception("A lease could not be renewed.")
                held = False
            else:
                held_until = asked + self._terms.lease / 1000
            if not held:
                self._lost.set()
                return
