"""The deliveries of an event to its job's owner's webhooks, as the transaction that ends the job records them."""

import secrets
from typing import Final

from sqlalchemy import Connection, insert, select

from events.schema import DeliveryDue, JobEvent
from functions.state.schema import deliveries, jobs, now, webhooks

#: The states of a webhook.
ACTIVE: Final = "active"
GONE: Final = "gone"


def add_deliveries(connection: Connection, event: JobEvent) -> list[DeliveryDue]:
    """Records one delivery for each webhook of the job's owner and one for the job's callback; returns their events."""
    job = connection.execute(select(jobs.c.owner, jobs.c.callback).where(jobs.c.id == event.job)).one()
    mine = select(webhooks.c.id, webhooks.c.url).where(webhooks.c.owner == job.owner, webhooks.c.state == ACTIVE)
    targets: list[tuple[str | None, str]] = [(row.id, row.url) for row in connection.execute(mine)]
    if job.callback is not None:
        targets.append((None, job.callback))
    rows = [
        {"id": new_delivery_id(), "webhook": webhook, "owner": job.owner, "job": event.job, "url": url}
        for webhook, url in targets
    ]
    if rows:
        values = {"kind": event.type, "state": "due", "created_at": now(), "due_at": now()}
        connection.execute(insert(deliveries).values(**values), rows)
    return [DeliveryDue(str(row["id"])) for row in rows]


def new_delivery_id() -> str:
    """Returns a fresh id for a delivery."""
    return secrets.token_hex(16)
