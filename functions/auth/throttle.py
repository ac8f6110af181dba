"""Rate-limits failed logins per account and client address. The counts are in SQL, shared by all instances."""

import functools
import hashlib
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from events.errors import Mp3burstError
from functions.auth.accounts import normalize_username
from functions.state.database import Conflict, Database
from functions.state.schema import logins, now

#: The longest lock, in milliseconds.
MAX_LOCK: Final = 900_000
# Built once: building a statement costs SQLAlchemy as much time as running it.
_LOCKED_FOR: Final = select(logins.c.locked_until - now()).where(logins.c.subject.in_(bindparam("ids", expanding=True)))


class TooManyFailures(Mp3burstError):
    """Too many logins failed; the next one is allowed in ``retry_after`` seconds."""

    status = 429

    def __init__(self, milliseconds: int) -> None:
        retry_after = max(1, -(-milliseconds // 1000))
        super().__init__(f"Too many failed logins: wait {retry_after} s and try again.")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Subject:
    """An account, an address, or a pair of both, whose failures are counted; the first ``free`` cause no lock."""

    id: str
    free: int


def subjects(username: str, address: str) -> tuple[Subject, Subject, Subject]:
    """Returns the subjects of a login: the account from this address, the account from anywhere, and the address.

    The account on its own gets more free failures, so that a third party cannot easily lock its owner out. So does the
    address, which many people may share.
    """
    account = normalize_username(username)
    return (
        Subject(_hash("account", f"{account}\n{address}"), 5),
        Subject(_hash("account", account), 100),
        Subject(_hash("address", address), 50),
    )


def _hash(kind: str, text: str) -> str:
    # A hash has a fixed length, and keeps passwords typed into the username field out of the database.
    return hashlib.sha256(f"{kind}:{text}".encode()).hexdigest()


class Throttle:
    """The logins table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def check(self, *attempt: Subject) -> bool:
        """Returns whether failures are recorded for any of the subjects. Called before and after the password check.

        Raises:
            TooManyFailures: one of the subjects is locked.
        """
        ids = [subject.id for subject in attempt]
        remaining = self._database.run(lambda connection: list(connection.scalars(_LOCKED_FOR, {"ids": ids})))
        if remaining and (longest := max(remaining)) > 0:
            raise TooManyFailures(longest)
        return bool(remaining)

    def record_failure(self, *attempt: Subject) -> None:
        """Counts a failure of each subject. After the free ones, every further one doubles the lock: 2 s to 15 min.

        Raises:
            TooManyFailures: concurrent logins have locked a subject since ``check``. The caller must report this error
                and not whether the password was wrong.
        """
        for subject in attempt:
            count = functools.partial(_count_failure, subject=subject)
            try:
                remaining = self._database.run(count)
            except Conflict:
                # A concurrent login of the same subject inserted the row first, so this time it is updated.
                remaining = self._database.run(count)
            if remaining > 0:
                raise TooManyFailures(remaining)

    def forget_failures(self, *attempt: Subject) -> None:
        """Deletes the subjects' failures after a successful login.

        Not for the address: one successful login must not hide an attack on other accounts from there.
        """
        statement = delete(logins).where(logins.c.subject.in_([subject.id for subject in attempt]))
        self._database.run(lambda connection: connection.execute(statement))


def _count_failure(connection: Connection, subject: Subject) -> int:
    """Counts a failure unless the subject is locked. Returns the milliseconds that the lock still lasts, or 0."""
    row = logins.c.subject == subject.id
    # Checks and counts in one statement. Its row lock lasts until the login lock that may follow is set.
    unlocked = update(logins).where(row, logins.c.locked_until <= now())
    if not connection.execute(unlocked.values(failures=logins.c.failures + 1)).rowcount:
        remaining: int | None = connection.scalar(select(logins.c.locked_until - now()).where(row))
        if remaining is not None and remaining > 0:
            return remaining
        connection.execute(insert(logins).values(subject=subject.id, failures=1, locked_until=now()))
    failures = connection.scalar(select(logins.c.failures).where(row)) or 0
    if failures > subject.free:
        lock = min(1000 * 2 ** min(failures - subject.free, 20), MAX_LOCK)
        connection.execute(update(logins).where(row).values(locked_until=now() + lock))
    return 0
