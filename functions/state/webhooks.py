"""Webhooks and their deliveries: what users register, and what hook delivers."""

import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from sqlalchemy import ColumnElement, Connection, Row, and_, case, delete, func, insert, or_, select, update

from events.errors import Mp3burstError
from events.schema import PREFIX, DeliveryDue, Event, JobId
from functions.state.counters import Series, count
from functions.state.database import Database
from functions.state.deliveries import ACTIVE, GONE, new_delivery_id
from functions.state.jobs import Job
from functions.state.leases import Lease, LeaseRenewer, Leases, LeaseTerms
from functions.state.owners import lock_owner
from functions.state.schema import UserId, deliveries, is_id, jobs, now, webhooks

#: Webhooks that a user may have.
MAX_WEBHOOKS: Final = 10
#: Pings of one webhook that are due: a receiver may allow fewer calls than its owner asks for.
MAX_PINGS: Final = 100
#: The kind of a delivery that its owner has asked for, to try a webhook.
PING: Final = PREFIX + "ping"
#: Milliseconds before each further attempt, 75 hours and a half in all: the schedule that Standard Webhooks suggests.
SCHEDULE: Final = tuple(1000 * seconds for seconds in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400))
#: By how much each of these is made longer at random, so that a receiver that was away is not called by all at once.
_JITTER: Final = 0.2
#: Milliseconds that a receiver can ask to wait at most.
_MAX_RETRY_AFTER: Final = 86_400_000
#: Milliseconds that a delivery is put off whose owner has too many in progress, or whose receiver allows no more now.
_PUT_OFF: Final = 30_000
_MINUTE: Final = 60_000
#: When a receiver may be called.
Permission = Literal["now", "later", "never"]
_MAX_ERROR: Final = 500  # characters
_IS_OVER: Final = ("delivered", "failed")
#: What the deliveries that are over are counted under.
_FINISHED: Final = {state: Series.of("deliveries_finished", state) for state in _IS_OVER}


class WebhookNotFound(Mp3burstError):
    """There is no such webhook or delivery, or it is another user's."""

    status = 404
    security_event = "object.refused"


class TooManyWebhooks(Mp3burstError):
    """The user has as many webhooks as a user may have."""

    status = 409

    def __init__(self) -> None:
        """Uses the one message there is for it."""
        super().__init__(f"You have {MAX_WEBHOOKS} webhooks: delete one first.")


class TooManyPings(Mp3burstError):
    """So many pings of the webhook are due that another one tries nothing."""

    status = 409

    def __init__(self) -> None:
        """Uses the one message there is for it."""
        super().__init__(f"{MAX_PINGS} pings of this webhook are due: wait until its receiver has got them.")


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook of a user.

    Attributes:
        id: 32 hexadecimal digits.
        url: its address.
        state: ``active``, or ``gone`` once its receiver has answered 410.
        created_at: milliseconds since 1970.
    """

    id: str
    url: str
    state: Literal["active", "gone"]
    created_at: int

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Returns the webhook of a row."""
        return cls(row.id, row.url, row.state, row.created_at)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery.

    Attributes:
        id: 32 hexadecimal digits; the ``webhook-id`` of each attempt.
        webhook: the id of the webhook; None if it is to the callback of a job.
        owner: the user.
        job: the job that it is about; None if it is a ping.
        kind: the type of the event.
        url: the address.
        state: ``due``, ``delivered`` or ``failed``.
        attempts: how many there were.
        status: of the last response.
        error: what went wrong at the last attempt.
        created_at: milliseconds since 1970.
        tried_at: when the last attempt ended.
        due_at: when the next one is due.
    """

    id: str
    webhook: str | None
    owner: UserId
    job: JobId | None
    kind: str
    url: str
    state: Literal["due", "delivered", "failed"]
    attempts: int
    status: int | None
    error: str | None
    created_at: int
    tried_at: int | None
    due_at: int | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Returns the delivery of a row."""
        return cls(*(getattr(row, name) for name in cls.__dataclass_fields__))


class Webhooks:
    """The webhooks of users, as the function webhooks uses them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, owner: UserId, url: str, rate: int | None = None, version: int | None = None, key: str | None = None
    ) -> Webhook:
        """Creates a webhook.

        Args:
            owner: the user.
            url: its address.
            rate: calls a minute that its receiver allows; None for any number.
            version: of the token that the request was sent with; None for an API key.
            key: the id of the API key that it was sent with, as ``lock_owner`` has it.

        Raises:
            TooManyWebhooks: the user has as many as a user may have.
            OwnerChanged: the owner or the key was deleted, or the token was withdrawn.
        """
        new = secrets.token_hex(16)
        mine = select(func.count()).select_from(webhooks).where(webhooks.c.owner == owner, webhooks.c.id != new)
        created = select(webhooks).where(webhooks.c.id == new)
        row = insert(webhooks).values(id=new, owner=owner, url=url, state=ACTIVE, created_at=now(), rate=rate)

        def add(connection: Connection) -> Row[Any]:
            lock_owner(connection, owner, version, key)
            if (connection.scalar(mine) or 0) >= MAX_WEBHOOKS:
                raise TooManyWebhooks
            if connection.execute(created).one_or_none() is None:  # it is there if the answer to a commit was lost
                connection.execute(row)
            return connection.execute(created).one()

        return Webhook.from_row(self._database.run(add))

    def of(self, owner: UserId) -> list[Webhook]:
        """Returns a user's webhooks, newest first."""
        query = select(webhooks).where(webhooks.c.owner == owner).order_by(webhooks.c.created_at.desc(), webhooks.c.id)
        return self._database.read(lambda connection: [Webhook.from_row(row) for row in connection.execute(query)])

    def delete(self, webhook: str, owner: UserId) -> None:
        """Deletes a webhook and its deliveries; an attempt in progress may still reach its receiver.

        Raises:
            WebhookNotFound: there is none, or it is another user's.
        """
        mine = and_(webhooks.c.id == webhook, webhooks.c.owner == owner)
        deleted = []  # one entry per run: after a lost answer to the commit, only the first run found it

        def run(connection: Connection) -> None:
            deleted.append(connection.execute(delete(webhooks).where(mine)).rowcount)
            if deleted[-1]:
                connection.execute(delete(deliveries).where(deliveries.c.webhook == webhook))

        if is_id(webhook):
            self._database.run(run)
        if not any(deleted):
            raise _not_found("webhook", "GET /webhooks")

    def ping(self, webhook: str, owner: UserId) -> DeliveryDue:
        """Records a delivery that tries the webhook, also one that is gone, which makes it active; returns its event.

        Raises:
            WebhookNotFound: there is none, or it is another user's.
            TooManyPings: MAX_PINGS of them are due.
        """
        new = new_delivery_id()
        mine = and_(webhooks.c.id == webhook, webhooks.c.owner == owner)
        values = {"id": new, "webhook": webhook, "owner": owner, "kind": PING, "state": "due"}
        is_due = deliveries.c.webhook == webhook, deliveries.c.kind == PING, deliveries.c.state == "due"
        due = select(func.count()).select_from(deliveries).where(*is_due, deliveries.c.id != new)

        def add(connection: Connection) -> bool:
            if connection.execute(update(webhooks).where(mine).values(state=ACTIVE)).rowcount != 1:
                return False
            if (connection.scalar(due) or 0) >= MAX_PINGS:
                raise TooManyPings
            if connection.scalar(select(deliveries.c.id).where(deliveries.c.id == new)) is None:
                url = connection.scalar(select(webhooks.c.url).where(mine))
                connection.execute(insert(deliveries).values(**values, url=url, created_at=now(), due_at=now()))
            return True

        if not is_id(webhook) or not self._database.run(add):
            raise _not_found("webhook", "GET /webhooks")
        return DeliveryDue(new)

    def deliveries(self, owner: UserId, limit: int, after: str | None = None) -> list[Delivery]:
        """Returns a user's deliveries, newest first, starting after the delivery ``after``.

        Raises:
            WebhookNotFound: there is no delivery ``after``.
        """
        where: ColumnElement[bool] = deliveries.c.owner == owner
        if after is not None:
            last = self._delivery(after, owner)
            older = or_(
                deliveries.c.created_at < last.created_at,
                and_(deliveries.c.created_at == last.created_at, deliveries.c.id < last.id),
            )
            where = and_(where, older)
        order = deliveries.c.created_at.desc(), deliveries.c.id.desc()
        query = select(deliveries).where(where).order_by(*order).limit(limit)
        return self._database.read(lambda connection: [Delivery.from_row(row) for row in connection.execute(query)])

    def resend(self, delivery: str, owner: UserId) -> DeliveryDue:
        """Makes a delivery due again that is over, under the same id; returns its event.

        Raises:
            WebhookNotFound: there is none, or it is another user's.
        """
        self._delivery(delivery, owner)
        mine = and_(deliveries.c.id == delivery, deliveries.c.owner == owner, deliveries.c.state.in_(_IS_OVER))
        again = {"state": "due", "attempts": 0, "due_at": now(), "lease": None, "lease_until": None}
        statement = update(deliveries).where(mine).values(**again)
        self._database.run(lambda connection: connection.execute(statement))
        return DeliveryDue(delivery)

    def _delivery(self, delivery: str, owner: UserId) -> Delivery:
        query = select(deliveries).where(deliveries.c.id == delivery, deliveries.c.owner == owner)
        row = None
        if is_id(delivery):
            row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise _not_found("delivery", "GET /webhooks/deliveries")
        return Delivery.from_row(row)


class Deliveries:
    """The deliveries, as hook uses them."""

    def __init__(self, database: Database, terms: LeaseTerms | None = None) -> None:
        self._database = database
        attempts = len(SCHEDULE) + 1
        self._leases = Leases(database, deliveries, Delivery.from_row, ("due",), terms, max_attempts=attempts)

    def claim(self, delivery: str) -> Lease[Delivery] | None:
        """Takes the delivery; None if it is over, deleted or not due yet, or another worker has it."""
        return self._leases.claim(deliveries.c.id == delivery)

    def job(self, lease: Lease[Delivery]) -> Job | None:
        """Returns the job that a delivery is about; None if it was deleted."""
        query = select(jobs).where(jobs.c.id == lease.row.job)
        row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else Job.from_row(row)

    def permission(self, lease: Lease[Delivery]) -> Permission:
        """Returns when the receiver may be called; now counts as a call. That of a callback always may.

        Of one that allows N calls a minute, N calls in a row count, and the next ones a minute after the last of them:
        so there are never more in a minute.
        """
        if lease.row.webhook is None:
            return "now"
        mine = webhooks.c.id == lease.row.webhook
        query = select(webhooks.c.state, webhooks.c.rate).where(mine)
        row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None or row.state != ACTIVE:
            return "never"
        if row.rate is None:
            return "now"
        is_free = or_(webhooks.c.free_at.is_(None), webhooks.c.free_at <= now())
        # MySQL uses values that were set before in the same statement.
        count = update(webhooks).where(mine, or_(is_free, webhooks.c.calls < webhooks.c.rate))
        count = count.ordered_values(
            (webhooks.c.calls, case((is_free, 1), else_=webhooks.c.calls + 1)), (webhooks.c.free_at, now() + _MINUTE)
        )
        is_counted = self._database.run(lambda connection: connection.execute(count).rowcount == 1)
        return "now" if is_counted else "later"

    def renewing(self, lease: Lease[Delivery]) -> LeaseRenewer:
        """Renews the lease while the receiver is called."""
        return self._leases.renewing(lease)

    def delivered(self, lease: Lease[Delivery], status: int) -> bool:
        """Records that the receiver has accepted it; returns False if the lease is lost."""
        return self._close(lease, {"state": "delivered", "status": status, "error": None})

    def postpone(self, lease: Lease[Delivery], status: int | None, error: str, retry_after: float = 0) -> bool:
        """Records an attempt that failed, and when the next one is due; after the last, the delivery has failed.

        Args:
            lease: on the delivery.
            status: of the response, if there was one.
            error: what went wrong, for the owner.
            retry_after: seconds that the receiver has asked to wait.

        Returns:
            False if the lease is lost.
        """
        outcome = {"status": status, "error": error[:_MAX_ERROR]}
        if lease.attempts > len(SCHEDULE):
            return self._close(lease, {**outcome, "state": "failed"})
        jitter = 1 + random.uniform(0, _JITTER)  # noqa: S311 - no secret
        wait = int(max(SCHEDULE[lease.attempts - 1] * jitter, min(retry_after * 1000, _MAX_RETRY_AFTER)))
        # Nobody may claim the row before: the broker may deliver its event again within seconds.
        return self._update(lease, {**outcome, "due_at": now() + wait, "lease": None, "lease_until": now() + wait})

    def put_off(self, lease: Lease[Delivery]) -> bool:
        """Takes back an attempt that was not made, and lets the next one wait; returns False if the lease is lost."""
        due = now() + _PUT_OFF
        values = {"attempts": lease.attempts - 1, "due_at": due, "lease": None, "lease_until": due}
        statement = update(deliveries).where(self._leases.held(lease)).values(**values)
        return self._database.run(lambda connection: connection.execute(statement).rowcount == 1)

    def gone(self, lease: Lease[Delivery], status: int) -> bool:
        """Records that the receiver wants no more events: its webhook gets none until its owner pings it."""
        outcome = {"state": "failed", "status": status, "error": "The receiver wants no more events."}
        values = {**outcome, **_settled(), "tried_at": now()}
        webhook = update(webhooks).where(webhooks.c.id == lease.row.webhook).values(state=GONE)

        def gone(connection: Connection) -> bool:
            held = update(deliveries).where(self._leases.held(lease)).values(values)
            if not connection.execute(held).rowcount:
                return False
            connection.execute(webhook)
            count(connection, {_FINISHED["failed"]: 1})
            return True

        return self._database.run(gone)

    def fail(self, lease: Lease[Delivery], error: str) -> list[Event]:
        """Records that the event can never be delivered. No event follows."""
        self._close(lease, {"state": "failed", "error": error})
        return []

    def release(self, lease: Lease[Delivery], error: Exception | None = None) -> None:
        """Gives the delivery back after a failure of our own."""
        self._leases.release(lease, error)

    def _close(self, lease: Lease[Delivery], values: Mapping[str, object]) -> bool:
        return self._update(lease, {**values, **_settled()})

    def _update(self, lease: Lease[Delivery], values: Mapping[str, object]) -> bool:
        statement = update(deliveries).where(self._leases.held(lease)).values(**values, tried_at=now())
        series = _FINISHED.get(str(values.get("state")), Series.of("attempts_failed", "hook"))

        def run(connection: Connection) -> bool:
            is_held = connection.execute(statement).rowcount == 1
            if is_held:
                count(connection, {series: 1})
            return is_held

        return self._database.run(run)


def delete_webhooks(connection: Connection, owner: UserId, *, with_callbacks: bool = True) -> None:
    """Deletes a user's webhooks and their deliveries within the caller's transaction.

    Args:
        connection: the caller's.
        owner: the user.
        with_callbacks: whether deliveries to the callbacks of jobs are deleted, too.
    """
    unwanted = deliveries.c.owner == owner
    if not with_callbacks:
        unwanted &= deliveries.c.webhook.is_not(None)
    connection.execute(delete(deliveries).where(unwanted))
    connection.execute(delete(webhooks).where(webhooks.c.owner == owner))


def _settled() -> dict[str, object]:
    return {"lease": None, "lease_until": None, "due_at": None}


def _not_found(what: str, call: str) -> WebhookNotFound:
    return WebhookNotFound(f"There is no such {what}: {call} lists yours.")
