"""Limits how often something is done for a network or an address. The counts are rows of ``logins``, shared by all.

An allowance is a leaky bucket: so many at once, and then one each time that an interval has passed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Row, insert, select, update

from events.errors import Mp3burstError
from functions.email_address import mailbox
from functions.networks import networks
from functions.rate_limits import RateLimit
from functions.state.database import Conflict, Database
from functions.state.schema import HOUR, logins, now

_MINUTE: Final = 60_000
#: A /48 of IPv6 may register as many users as this number of its networks.
_NETWORKS_OF_A_SITE: Final = 4
#: Mails of one kind (to confirm an address, to reset a password) to one mailbox, whatever the number of users who name
#: it: ten minutes lie between two, and in any 24 hours there are at most five (three at once, then one every 12 hours).
_MAILS: Final = ((1, 10 * _MINUTE), (3, 12 * HOUR))
#: Calls of webhooks that a user may ask for at once, and milliseconds after which there is one more. Anybody may be
#: called, and each of these calls may be followed by nine attempts.
_CALLS: Final = 100
_CALL_INTERVAL: Final = 2_000
#: Files that a user may have fetched from addresses at once, and milliseconds after which there is one more: any server
#: may be named, and each is asked a few times.
_FETCHES: Final = 200
_FETCH_INTERVAL: Final = 10_000


class AllowanceUsedUp(Mp3burstError):
    """An allowance is used up; the next request is allowed in ``retry_after`` seconds."""

    status = 429

    def __init__(self, message: str, milliseconds: int, name: str, allowances: Sequence["Allowance"]) -> None:
        """Describes the refusal.

        Args:
            message: the first part of the message.
            milliseconds: until the next request is allowed, at most the interval of the allowance that is used up.
            name: that of the limit, for the client.
            allowances: of which at least one is used up.
        """
        self.retry_after = max(1, -(-milliseconds // 1000))
        super().__init__(f"{message}: wait {self.retry_after} s and try again.")
        used_up = min(allowances, key=lambda each: (each.interval < milliseconds, each.interval))
        window = used_up.size * used_up.interval // 1000
        self.limits = (RateLimit(name, used_up.size, 0, window=window, reset=self.retry_after),)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one subject may do.

    Attributes:
        subject: the row of ``logins``, of ``subject_id``.
        size: how many at once.
        interval: milliseconds after which there is one more.
    """

    subject: str
    size: int
    interval: int


def by_network(kind: str, address: str, per_hour: float) -> list[Allowance]:
    """Returns the allowances that a request of a kind from this client's address uses; none if ``per_hour`` is 0."""
    if not per_hour:
        return []
    sizes = (1, _NETWORKS_OF_A_SITE)
    return [
        Allowance(subject_id(kind, network), max(1, int(per_hour * size)), int(HOUR / (per_hour * size)))
        for network, size in zip(networks(address), sizes, strict=False)
    ]


def confirmations(email: str) -> list[Allowance]:
    """Returns the allowances that a mail uses that asks to confirm this address."""
    return _by_mailbox("confirmations", email)


def resets(email: str) -> list[Allowance]:
    """Returns the allowances that a mail to this address uses with the link that resets a password."""
    return _by_mailbox("resets", email)


def _by_mailbox(kind: str, email: str) -> list[Allowance]:
    box = mailbox(email)
    return [Allowance(subject_id(f"{kind}{size}", box), size, interval) for size, interval in _MAILS]


def use(connection: Connection, allowances: Sequence[Allowance], *, is_uniform: bool = False) -> int:
    """Uses one of each allowance within the caller's transaction, or none if one of them is used up.

    Args:
        connection: the caller's.
        allowances: what to use.
        is_uniform: whether the same statements run if one is used up, so that their time tells nobody that it is.

    Returns:
        The milliseconds until all of them have one left; 0 if they had and it was used.
    """
    rows = [(each, locked_row(connection, each.subject)) for each in allowances]
    waits = [
        max(row.clears_at, row.time) - row.time - (each.size - 1) * each.interval
        for each, row in rows
        if row is not None
    ]
    wait = max(0, *waits) if waits else 0
    if wait and not is_uniform:
        return wait
    for each, row in rows:
        used = 0 if wait else each.interval
        if row is None:
            values = {"subject": each.subject, "locked_until": now(), "clears_at": now() + used}
            connection.execute(insert(logins).values(values))
        else:
            changed = {"locked_until": row.time, "clears_at": max(row.clears_at, row.time) + used}
            connection.execute(update(logins).where(logins.c.subject == each.subject).values(changed))
    return wait


class RegistrationLimit:
    """Limits the registrations from a client's network, and for IPv6 from its site."""

    def __init__(self, database: Database, per_hour: float) -> None:
        """Creates the limit: ``per_hour`` registrations at once, and as many in every further hour; 0 for none."""
        self._database = database
        self._per_hour = per_hour

    def use(self, address: str) -> RateLimit | None:
        """Counts a registration from this address; returns what is left for its network, None if there is no limit.

        Raises:
            AllowanceUsedUp: there were too many.
        """
        allowances = by_network("registrations", address, self._per_hour)
        if not allowances:
            return None
        _use(self._database, allowances, "registrations", "Too many registrations from your network")
        return self._database.read(lambda connection: _left(connection, "registrations", allowances))


class WebhookLimit:
    """Limits the calls to receivers that a user asks for: handshakes, pings and repeated deliveries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def use(self, user: str) -> None:
        """Counts a call.

        Raises:
            AllowanceUsedUp: there were too many.
        """
        allowances = [Allowance(subject_id("webhook-calls", user), _CALLS, _CALL_INTERVAL)]
        _use(self._database, allowances, "webhook-calls", "You have called webhooks too often")


class FetchLimit:
    """Limits the files that a user has fetched from addresses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def use(self, user: str) -> None:
        """Counts a file.

        Raises:
            AllowanceUsedUp: there were too many.
        """
        allowances = [Allowance(subject_id("fetches", user), _FETCHES, _FETCH_INTERVAL)]
        _use(self._database, allowances, "fetches", "You have had too many files fetched from addresses")


def _use(database: Database, allowances: Sequence[Allowance], name: str, message: str) -> None:
    try:
        wait = database.run(lambda connection: use(connection, allowances))
    except Conflict:
        # A concurrent request inserted the row first, so this time it is updated.
        wait = database.run(lambda connection: use(connection, allowances))
    if wait:
        raise AllowanceUsedUp(message, wait, name, allowances)


def _left(connection: Connection, name: str, allowances: Sequence[Allowance]) -> RateLimit:
    """Returns what is left of the allowance of which the least is left."""
    limits = []
    for each in allowances:
        query = select(logins.c.clears_at - now()).where(logins.c.subject == each.subject)
        level = max(connection.scalar(query) or 0, 0)
        left = each.size - -(-level // each.interval)
        limits.append(RateLimit(name, each.size, max(0, left), window=each.size * each.interval // 1000))
    return min(limits, key=lambda limit: limit.left)


def subject_id(kind: str, text: str) -> str:
    """Returns the key of a row of ``logins``: a fixed length, and no password typed as a username in the database."""
    return hashlib.sha256(f"{kind}:{text}".encode()).hexdigest()


def locked_row(connection: Connection, subject: str) -> Row[tuple[int, int, int]] | None:
    """Returns the subject's row with the time now; it stays locked until the transaction ends."""
    query = select(logins.c.locked_until, logins.c.clears_at, now().label("time"))
    return connection.execute(query.where(logins.c.subject == subject).with_for_update()).one_or_none()
