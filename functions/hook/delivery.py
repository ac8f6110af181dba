"""Makes deliveries: CloudEvents in structured mode, signed by the rules of Standard Webhooks."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from functions.hook.slow import SlowReceivers
from functions.outgoing.addresses import AddressRefused, HostUnknown
from functions.outgoing.client import NoReply, Reply, call, retry_after
from functions.outgoing.handshake import Handshake, HandshakeRefused
from functions.outgoing.signatures import Signer
from functions.state.jobs import Job
from functions.state.leases import Lease, LeaseRenewer, Output, attempt
from functions.state.webhooks import Deliveries, Delivery

#: CloudEvents JSON format 1.0.
_CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
_GONE: Final = 410
_EXHAUSTED: Final = "No attempt at this delivery could be completed. Send it again."
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Courier:
    """What a delivery needs.

    Attributes:
        deliveries: the table.
        handshake: knows which addresses are allowed, and asks receivers where that is required.
        signer: signs.
        source: the CloudEvents source, the URL of the installation.
        slow: limits the calls of users whose receivers are slow.
    """

    deliveries: Deliveries
    handshake: Handshake
    signer: Signer
    source: str
    slow: SlowReceivers = field(default_factory=SlowReceivers)


def deliver(delivery: str, courier: Courier) -> None:
    """Makes one attempt at a delivery, unless it is over, not due yet, or another worker makes it.

    The receiver gets the event twice, under the same ``webhook-id``, if this worker is killed between its response and
    the record of it, or cannot reach the database from the call until then for longer than its lease lasts.

    Raises:
        TryAgain: a failure of our own, and the delivery has been released.
        LeaseLost: another worker has the delivery.
    """
    lease = courier.deliveries.claim(delivery)
    if lease is None:
        log.info("delivery %s: nothing to do now, or another worker is making it", delivery)
        return

    def work(renewer: LeaseRenewer) -> Output:
        return Output(_attempt(lease, renewer, courier), discard=lambda: None)

    attempt(courier.deliveries, lease, work, f"delivery {delivery}", _EXHAUSTED)


def _attempt(lease: Lease[Delivery], renewer: LeaseRenewer, courier: Courier) -> Callable[[], list[Any] | None]:
    """Makes the attempt; returns what records it."""
    table = courier.deliveries
    job = table.job(lease) if lease.row.job is not None else None
    if lease.row.job is not None and job is None:
        return lambda: table.fail(lease, "The job was deleted.")
    permission = table.permission(lease)
    if permission == "never":
        return lambda: table.fail(lease, "The receiver wants no more events.")
    if permission == "later":
        log.info("delivery %s is put off: its receiver allows no more calls in this minute", lease.row.id)
        return lambda: [] if table.put_off(lease) else None
    body = message(lease.row, job, courier.source)
    renewer.check()
    end = courier.slow.begin(lease.row.owner)
    if end is None:
        log.info("delivery %s is put off: its owner's receivers are slow", lease.row.id)
        return lambda: [] if table.put_off(lease) else None
    status = None
    wait = 0.0
    try:
        reply = _send(lease.row, body, courier, renewer)
    except (AddressRefused, HostUnknown, HandshakeRefused, NoReply) as failure:
        error = str(failure)
    else:
        status = reply.status
        error = f"The receiver answered {status}."
        wait = retry_after(reply.headers.get("Retry-After"))
    finally:
        end()
    log.info("delivery %s, attempt %d: %s", lease.row.id, lease.attempts, error)
    return lambda: [] if _record(lease, table, status, error, wait) else None


def _record(lease: Lease[Delivery], table: Deliveries, status: int | None, error: str, wait: float) -> bool:
    """Records how an attempt has ended; returns False if the lease is lost."""
    if status is not None and 200 <= status < 300:
        return table.delivered(lease, status)
    if status == _GONE:
        return table.gone(lease, status)
    return table.postpone(lease, status, error, wait)


def _send(delivery: Delivery, body: bytes, courier: Courier, renewer: LeaseRenewer) -> Reply:
    """Signs and sends a message; LeaseLost if another worker may send it, too."""
    target = courier.handshake.policy.parse(delivery.url)
    if delivery.webhook is None and courier.handshake.is_required:
        courier.handshake.ask(delivery.url)
    whose = delivery.webhook or delivery.owner
    headers = {"Content-Type": _CONTENT_TYPE, **courier.signer.headers(delivery.id, whose, body)}
    renewer.renew()
    return call("POST", target, courier.handshake.policy, headers, body)


def message(delivery: Delivery, job: Job | None, source: str) -> bytes:
    """Returns the CloudEvent; the same for each attempt."""
    at = (job.finished_at if job is not None else None) or delivery.created_at
    subject: dict[str, str] = {} if job is None else {"subject": job.id}
    event = {
        "specversion": "1.0",
        "id": delivery.id,
        "type": delivery.kind,
        "source": source,
        **subject,
        "time": datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {} if job is None else _data(job),
    }
    return msgspec.json.encode(event)


def _data(job: Job) -> dict[str, object]:
    return {
        "job": job.id,
        "fid": job.video,
        "filename": job.filename,
        "status": job.state,
        "mp3": job.mp3,
        "duration": job.duration,
        "error": job.error,
        "warning": job.warning,
    }
