"""Rate-limits failed logins per account and client address. The counts are in SQL, shared by all instances.

docs/decisions/login-throttle.md has the reasons and what an attacker can still do.
"""

import functools
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from events.errors import Mp3burstError
from functions.auth.accounts import normalize_username
from functions.auth.allowance import locked_row, subject_id
from functions.networks import networks
from functions.rate_limits import RateLimit
from functions.state.database import Conflict, Database
from functions.state.schema import logins, now

#: The longest lock, in milliseconds.
MAX_LOCK: Final = 900_000
#: Milliseconds after which one failure is forgiven: nobody gets more than 96 guesses a day beyond the free ones.
FORGIVEN_AFTER: Final = MAX_LOCK
#: Milliseconds for which a network stays known to an account that has logged in from there.
KNOWN_FOR: Final = 30 * 24 * 60 * 60 * 1000
#: Milliseconds before its end at which a login renews a known network, so that few logins write.
_RENEWED_BEFORE: Final = KNOWN_FOR - 24 * 60 * 60 * 1000
#: Failures that cause no lock.
_FREE_HERE: Final = 5
_FREE_ACCOUNT: Final = 300
_FREE_NETWORK: Final = 50
_FREE_SITE: Final = 200
# Built once: building a statement costs SQLAlchemy as much time as running it.
_STATE: Final = select(
    logins.c.subject,
    (logins.c.locked_until - now()).label("locked_for"),
    (logins.c.clears_at - now()).label("clears_in"),
).where(logins.c.subject.in_(bindparam("ids", expanding=True)))


class TooManyFailures(Mp3burstError):
    """Too many logins failed; the next one is allowed in ``retry_after`` seconds."""

    status = 429

    def __init__(self, milliseconds: int) -> None:
        retry_after = max(1, -(-milliseconds // 1000))
        super().__init__(f"Too many failed logins: wait {retry_after} s and try again.")
        self.retry_after = retry_after
        self.limits = (failed_logins(0, retry_after),)


@dataclass(frozen=True, slots=True)
class Subject:
    """An account or a network with counted failures; the first ``free`` cause no lock. ``name`` is for the log."""

    id: str
    free: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """One login, and what its failure counts for.

    Attributes:
        here: the account from this network.
        account: the account from everywhere. Its lock does not apply to a network that is known to the account.
        networks: the network of the address: the address itself, or of IPv6 its /64 and its /48.
        known: the id of the row that exists if the account has logged in from this network.
    """

    here: Subject
    account: Subject
    networks: tuple[Subject, ...]
    known: str

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Everything that the failure counts for.

        The account from this network is the last: what a success forgives of it was counted for the others before.
        """
        return (*self.networks, self.account, self.here)

    @property
    def ids(self) -> list[str]:
        """The rows of the attempt."""
        return [self.known, *(subject.id for subject in self.subjects)]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is recorded about an attempt that is not refused.

    Attributes:
        is_known: whether the account has logged in from this network.
        has_failures: whether the account has failed from this network.
        is_fresh: whether a login has renewed the known network within the last day.
        free: how many failures of the account from this network cause no lock.
    """

    is_known: bool
    has_failures: bool
    is_fresh: bool
    free: int = _FREE_HERE


@dataclass(frozen=True, slots=True)
class Count:
    """The result of counting a failure, in milliseconds.

    Attributes:
        refused_for: how long the subject is locked; then the failure was not counted.
        lock: how long the failure has locked it.
    """

    refused_for: int = 0
    lock: int = 0


def failed_logins(left: int, reset: int | None = None) -> RateLimit:
    """Returns the limit of failed logins of an account from one network, as clients are told of it."""
    return RateLimit("failed-logins", _FREE_HERE, left, window=_FREE_HERE * FORGIVEN_AFTER // 1000, reset=reset)


def login_attempt(username: str, address: str) -> LoginAttempt:
    """Returns the login of this user from this address."""
    account = normalize_username(username)
    network, *sites = networks(address)
    return LoginAttempt(
        here=Subject(subject_id("account", f"{account}\n{network}"), _FREE_HERE, "account_here"),
        account=Subject(subject_id("account", account), _FREE_ACCOUNT, "account"),
        networks=(
            Subject(subject_id("address", network), _FREE_NETWORK, "network"),
            *(Subject(subject_id("address", site), _FREE_SITE, "site") for site in sites),
        ),
        known=subject_id("known", f"{account}\n{network}"),
    )


class Throttle:
    """The logins table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def check(self, attempt: LoginAttempt) -> Standing:
        """Returns what is recorded about the attempt. Called before and after the password check.

        Raises:
            TooManyFailures: a network is locked, or the account is, for this network.
        """
        rows = self._database.read(lambda connection: connection.execute(_STATE, {"ids": attempt.ids}).all())
        clears_in = {row.subject: row.clears_in for row in rows}
        known_for = clears_in.get(attempt.known, 0)
        exempt = attempt.account.id if known_for > 0 else None
        longest = max((row.locked_for for row in rows if row.subject != exempt), default=0)
        if longest > 0:
            raise TooManyFailures(longest)
        failures = -(-max(clears_in.get(attempt.here.id, 0), 0) // FORGIVEN_AFTER)
        free = max(0, attempt.here.free - failures)
        return Standing(known_for > 0, failures > 0, known_for > _RENEWED_BEFORE, free)

    def record_failure(self, attempt: LoginAttempt, standing: Standing) -> dict[str, int]:
        """Counts a failure. After the free ones, every further one doubles the lock: 2 s to 15 min.

        Returns:
            The milliseconds of each lock that it has set, by the subject's name.

        Raises:
            TooManyFailures: concurrent logins have locked the attempt since ``check``. The caller must report this
                error and not whether the password was wrong.
        """
        locks = {}
        for subject in attempt.subjects:
            counted = self.count(subject)
            if counted.refused_for > 0 and not (standing.is_known and subject == attempt.account):
                raise TooManyFailures(counted.refused_for)
            if counted.lock > 0:
                locks[subject.name] = counted.lock
        return locks

    def count(self, subject: Subject) -> Count:
        """Counts a failure of the subject unless it is locked."""
        count = functools.partial(_count_failure, subject=subject)
        try:
            return self._database.run(count)
        except Conflict:
            # A concurrent login of the same subject inserted the row first, so this time it is updated.
            return self._database.run(count)

    def record_success(self, attempt: LoginAttempt, standing: Standing) -> None:
        """Forgives the account's failures from this network, and makes the network known to the account.

        The failures of others stay counted: a successful login must not hide an attack on other accounts from there,
        nor one on this account from elsewhere (NIST SP 800-63B, 5.2.2: "for that user from the same IP address").
        """
        if standing.is_fresh and not standing.has_failures:
            return
        forget = functools.partial(_forgive, attempt=attempt)
        try:
            self._database.run(forget)
        except Conflict:
            self._database.run(forget)


def _count_failure(connection: Connection, subject: Subject) -> Count:
    row = locked_row(connection, subject.id)
    time = row.time if row is not None else connection.scalar(select(now())) or 0
    clears_at = row.clears_at if row is not None else time
    if row is not None and row.locked_until > time:
        return Count(refused_for=int(row.locked_until - time))
    clears_at = max(clears_at, time) + FORGIVEN_AFTER
    failures = -(-(clears_at - time) // FORGIVEN_AFTER)
    lock = min(1000 * 2 ** min(failures - subject.free, 20), MAX_LOCK) if failures > subject.free else 0
    # Not ``time`` without a lock: the statement of a failure that waited for this row has an earlier one, and would be
    # refused as if it were locked, uncounted.
    values = {"locked_until": time + lock if lock else 0, "clears_at": clears_at}
    if row is None:
        connection.execute(insert(logins).values(subject=subject.id, **values))
    else:
        connection.execute(update(logins).where(logins.c.subject == subject.id).values(values))
    return Count(lock=lock)


def _forgive(connection: Connection, *, attempt: LoginAttempt) -> None:
    here = locked_row(connection, attempt.here.id)
    if here is not None:
        counted = max(0, here.clears_at - here.time)
        others = logins.c.subject.in_([subject.id for subject in attempt.subjects if subject != attempt.here])
        connection.execute(update(logins).where(others).values(clears_at=logins.c.clears_at - counted))
        connection.execute(delete(logins).where(logins.c.subject == attempt.here.id))
    renewed = {"locked_until": now(), "clears_at": now() + KNOWN_FOR}
    if not connection.execute(update(logins).where(logins.c.subject == attempt.known).values(renewed)).rowcount:
        connection.execute(insert(logins).values(subject=attempt.known, **renewed))
