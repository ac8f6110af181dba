"""Cleans up: emits the events of overdue rows again, deletes expired blobs and old jobs, handles dead letters."""

import functools
import logging
import os
import time
from dataclasses import dataclass
from typing import Final

import functions_framework
from cloudevents.http import CloudEvent

from events.errors import Mp3burstError
from events.publish import publisher
from functions.event_endpoint import handling, received
from functions.media import Media, Usage, connect
from functions.media.connect import min_free
from functions.settings import number
from functions.state.blobs import Blobs
from functions.state.database import shared
from functions.state.disks import Disks
from functions.state.outbox import Outbox
from functions.state.overdue import Overdue

#: Rows of a table, or blobs, that are handled at a time.
BATCH: Final = 500
#: Seconds after which a sweep leaves the rest to the next one.
BUDGET: Final = 240.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a sweep needs.

    Attributes:
        overdue: the queries.
        blobs: the records of the blobs to delete.
        media: the stores of these blobs.
        outbox: emits events.
        disks: the record of what the stores' disks have.
        keep_days: days after which ended jobs are deleted; 0 for never.
        min_free: MIN_FREE_BYTES; None for the default.
    """

    overdue: Overdue
    blobs: Blobs
    media: Media
    outbox: Outbox
    disks: Disks
    keep_days: float
    min_free: int | None = None


@functions_framework.cloud_event
def sweep(_: CloudEvent) -> None:
    """Handles the ping of a PingSource."""
    sweep_once()


@functions_framework.cloud_event
def bury(event: CloudEvent) -> None:
    """Handles dead letters, events whose delivery failed, by making their rows due, so that the next sweep decides."""
    log.error("dead letter %s: %s at %s", event["id"], event.get("knativeerrorcode"), event.get("knativeerrordest"))
    if (dead := received(event)) is not None:
        with handling(dead):
            Overdue(shared(os.environ)).wake(dead)


def sweep_once() -> None:
    """Runs one sweep with the dependencies of the environment."""
    sweep_up(dependencies())
    shared(os.environ).restore_reserve()


def sweep_up(deps: Dependencies) -> None:
    """Runs one sweep of at most ``BUDGET`` seconds; what it does not reach is left to the next.

    Events get half of it: however many rows are due, what has expired is deleted.
    """
    begin = time.monotonic()
    end = begin + BUDGET
    failed = deps.overdue.fail_exhausted()
    for event in failed:
        log.error("%s: its attempts are exhausted", event.about)
    deps.outbox.emit_all(failed)
    if abandoned := deps.overdue.abandon_mails():
        log.error("%d mails could not be sent for a day and were abandoned", abandoned)
    _emit_due(deps, begin + BUDGET / 2)
    deps.outbox.emit_all(deps.overdue.admit_stalled())
    if deps.keep_days:
        while time.monotonic() < end and deps.overdue.retire(deps.keep_days, BATCH) == BATCH:
            pass
    deps.overdue.purge_users(BATCH, end)
    _delete_expired(deps, end)
    overdue = deps.overdue
    for tidy in (overdue.forget_resets, overdue.forget_logins, overdue.forget_pings, overdue.add_up_counters):
        while tidy(BATCH) and time.monotonic() < end:
            pass
    measure_disks(deps)
    overdue.record_sweep()


def measure_disks(deps: Dependencies) -> None:
    """Records what the disks of the stores have now that expired blobs are deleted; asks each once."""
    found: dict[tuple[str, ...], Usage | None] = {}
    for stores in deps.media.disks:
        try:
            found[stores] = deps.media.usage(stores)
        except Mp3burstError:
            log.warning("the space of the stores %s is unknown", ", ".join(stores), exc_info=True)
            found[stores] = None
    deps.disks.record(found, deps.min_free)


def _emit_due(deps: Dependencies, end: float) -> None:
    """Emits the events of overdue rows; stops at the first that the broker does not accept."""
    while time.monotonic() < end and (due := deps.overdue.due(BATCH)):
        for row in due:
            if time.monotonic() > end:
                return
            if row.is_retry:
                log.info("%s: %s is due for another attempt", row.event.about, row.event.type)
            else:
                log.warning("%s: %s is overdue: emitting it again", row.event.about, row.event.type)
            if not deps.outbox.emit(row.event, seen=row.seen, is_repeated=not row.is_retry):
                return


def _delete_expired(deps: Dependencies, end: float) -> None:
    """Deletes expired blobs. One that cannot be deleted does not stop the others from being deleted."""
    while time.monotonic() < end and (expired := deps.blobs.expired(BATCH)):
        failures = 0
        for blob, store in expired:
            if time.monotonic() > end:  # a store that is unavailable takes seconds for each
                return
            try:
                deps.blobs.delete(deps.media, store, blob)
            except Mp3burstError:
                log.warning("blob %s could not be deleted; the next sweep will try again", blob, exc_info=True)
                deps.blobs.postpone(blob)
                failures += 1
        if failures == len(expired):
            return


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process."""
    database = shared(os.environ)
    outbox = Outbox(database, publisher(os.environ, "/mp3burst/sweep"))
    keep_days = number(os.environ, "KEEP_DAYS", 0)
    media = connect(os.environ)
    return Dependencies(
        Overdue(database), Blobs(database), media, outbox, Disks(database), keep_days, min_free(os.environ)
    )
