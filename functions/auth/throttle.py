"""Slows down who guesses passwords: failed logins are counted in SQL for each account and each address."""

import functools
import hashlib
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from events.errors import Mp3burstError
from functions.auth.accounts import fold
from functions.state.database import Conflict, Database
from functions.state.schema import logins, now

#: The longest lock, in milliseconds.
LONGEST: Final = 900_000
# Made once: to build a statement costs SQLAlchemy as much as to run it.
_STANDING: Final = select(logins.c.locked_until - now()).where(logins.c.subject.in_(bindparam("ids", expanding=True)))


class TooManyFailures(Mp3burstError):
    """Too many failed logins; ``retry_after`` says in how many seconds the next may be tried."""

    status = 429

    def __init__(self, milliseconds: int) -> None:
        retry_after = max(1, -(-milliseconds // 1000))
        super().__init__(f"Too many failed logins: wait {retry_after} s and try again.")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is counted, and how many failures cost nothing."""

    id: str
    free: int


def subjects(username: str, address: str) -> tuple[Subject, Subject, Subject]:
    """Who is counted at a login: the account from this address, the account from anywhere, and the address.

    The account alone may fail more often, or anybody could lock its owner out; so may an address, which many people may
    share.
    """
    account = fold(username)
    return (
        Subject(_hash("account", f"{account}\n{address}"), 5),
        Subject(_hash("account", account), 100),
        Subject(_hash("address", address), 50),
    )


def _hash(kind: str, text: str) -> str:
    # Of fixed length, and it keeps what people type by mistake into the username field out of the database.
    return hashlib.sha256(f"{kind}:{text}".encode()).hexdigest()


class Throttle:
    """The logins table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def check(self, *who: Subject) -> bool:
        """Let the login be tried, or be known to have succeeded.

        Returns:
            Whether failures of any of them are on record.

        Raises:
            TooManyFailures: one of them is locked.
        """
        ids = [subject.id for subject in who]
        left = self._database.run(lambda connection: list(connection.scalars(_STANDING, {"ids": ids})))
        if left and (longest := max(left)) > 0:
            raise TooManyFailures(longest)
        return bool(left)

    def failed(self, *who: Subject) -> None:
        """Count a failure of each: after the free ones every further one doubles the lock, from 2 s to 15 min.

        Raises:
            TooManyFailures: one of them has been locked since the check, by others who guess at the same moment; nobody
                may be told what this failure has to say.
        """
        for subject in who:
            count = functools.partial(_count, subject=subject)
            try:
                left = self._database.run(count)
            except Conflict:
                # Another login of the same subject inserted the row first; now there is one to update.
                left = self._database.run(count)
            if left > 0:
                raise TooManyFailures(left)

    def succeeded(self, *who: Subject) -> None:
        """Forget the failures of an account. Not the address's: somebody may be trying its accounts in turn."""
        statement = delete(logins).where(logins.c.subject.in_([subject.id for subject in who]))
        self._database.run(lambda connection: connection.execute(statement))


def _count(connection: Connection, subject: Subject) -> int:
    """Count a failure, unless the subject is locked: the milliseconds that it is still, or 0."""
    mine = logins.c.subject == subject.id
    # One statement that looks and counts: it keeps the row to itself until the lock that may follow is set.
    free = update(logins).where(mine, logins.c.locked_until <= now())
    if not connection.execute(free.values(failures=logins.c.failures + 1)).rowcount:
        left: int | None = connection.scalar(select(logins.c.locked_until - now()).where(mine))
        if left is not None and left > 0:
            return left
        connection.execute(insert(logins).values(subject=subject.id, failures=1, locked_until=now()))
    failures = connection.scalar(select(logins.c.failures).where(mine)) or 0
    if failures > subject.free:
        lock = min(1000 * 2 ** min(failures - subject.free, 20), LONGEST)
        connection.execute(update(logins).where(mine).values(locked_until=now() + lock))
    return 0
