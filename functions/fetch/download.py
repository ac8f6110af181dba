"""Fetches the video of a job from its address into the media store: one attempt, which continues those before it.

An attempt ends when the file is there, when it cannot be fetched, when its server has to be left alone for a while, or
after ``SECONDS``, which is less than a platform lets an event function run. Then the job is handed on: the next
attempt, on any instance, asks for the rest of the file.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from events.schema import Event, JobId
from functions.fetch.remote import Arrival, FetchFailed, RangeRefused, SourceUnavailable, arriving
from functions.file_checks import MAX_BYTES, StreamChecks, TooLarge
from functions.http_endpoint import Unprocessable
from functions.media import Appender, BlobNotFound, Checkpoint, Description, Media, StaleWriter
from functions.media.integrity import SAVE_INTERVAL, SAVE_SIZE
from functions.media.space import FreeSpace
from functions.outgoing.addresses import Policy
from functions.outgoing.client import HEAD_SECONDS, Limits, NoReply, TimedOut, retry_after
from functions.sniff import HEAD_SIZE, NotMedia
from functions.state.admission import admit, admitting
from functions.state.blobs import BlobExpired, Blobs
from functions.state.fetches import HOURS, Fetch, Fetches
from functions.state.leases import MAX_ATTEMPTS, Lease, LeaseLost, LeaseRenewer, Output, attempt
from functions.state.outbox import Outbox
from functions.state.quota import Quota, QuotaFull, Reservation
from functions.state.schema import HOUR

#: Seconds of one attempt. The manifest lets it run for 600.
SECONDS: Final = 540.0
#: Seconds within which further bytes must arrive.
IDLE_SECONDS: Final = 30.0
#: Seconds before a lost connection is opened again, as long as nothing more arrives.
_PAUSES: Final = (1.0, 2.0, 4.0)
#: Seconds for which a server is left alone that cannot send the file now; sweep emits the event of the next attempt.
_WAITS: Final = (30, 120, 600, 1800)
_MAX_WAIT: Final = 3600.0
#: Bytes that are read at a time.
_CHUNK: Final = 256 << 10
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The stores, records and limits that a fetch needs.

    Attributes:
        policy: the addresses that are allowed.
        max_bytes: bytes of a file.
        quota: what a user may store.
        space: what the media stores have left.
        seconds: of one attempt.
        idle_seconds: within which further bytes must arrive.
        head_seconds: within which the head of each response must be there.
        pause: waits for so many seconds.
        clock: returns the seconds since some moment.
    """

    media: Media
    blobs: Blobs
    fetches: Fetches
    outbox: Outbox
    policy: Policy
    max_bytes: int = MAX_BYTES
    quota: Quota = field(default_factory=Quota)
    space: FreeSpace = field(default_factory=lambda: FreeSpace(lambda: None))
    seconds: float = SECONDS
    idle_seconds: float = IDLE_SECONDS
    head_seconds: float = HEAD_SECONDS
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


def fetch(job: JobId, deps: Dependencies) -> None:
    """Fetches the job's video, or some of it, and emits the events that follow.

    Raises:
        TryAgain: the failure is temporary and ours, and the job has been released.
        LeaseLost: another worker has the job.
    """
    lease = deps.fetches.claim(job)
    if lease is None:
        log.info("job %s: nothing to fetch now, or another worker is fetching it", job)
        admit(deps.fetches, deps.fetches.owner(job), deps.outbox)
        return

    def work(renewer: LeaseRenewer) -> Output:
        return Output(_attempt(lease, renewer, deps), discard=lambda: _delete_unwanted(lease, deps))

    with admitting(deps.fetches, lease.row.owner, deps.outbox):
        try:
            deps.outbox.emit_all(attempt(deps.fetches, lease, work, f"job {job}"))
        except Exception as error:
            _delete_unwanted(lease, deps)
            if isinstance(error, LeaseLost | StaleWriter | BlobExpired):
                raise LeaseLost("Another worker is fetching the file, or the job was deleted.") from error
            raise


def _delete_unwanted(lease: Lease[Fetch], deps: Dependencies) -> None:
    """Deletes what is there if the job was deleted or has failed: sweep may have deleted the file before its last byte.

    If another worker has the job, the file is its file, too.
    """
    deps.blobs.delete_unwanted(deps.media, "videos", lease.row.video)


def _attempt(lease: Lease[Fetch], renewer: LeaseRenewer, deps: Dependencies) -> Callable[[], list[Event] | None]:
    """Makes the attempt; returns what records how it has ended."""
    fetches = deps.fetches
    fetching = _Fetching(lease, renewer, deps)
    try:
        is_complete = fetching.run()
    except SourceUnavailable as error:
        log.info("job %s, attempt %d: %s", lease.row.job, fetching.tried, error)
        return _leave_alone(lease, fetching.tried, error, deps)
    except FetchFailed as error:
        failure = error
    except TooLarge as error:
        failure = FetchFailed("too-large", str(error))
    except QuotaFull as error:
        failure = FetchFailed("quota-full", str(error))
    else:
        size = fetching.source.received
        return lambda: fetches.finish(lease, size) if is_complete else fetches.hand_on(lease)
    log.info("job %s cannot be fetched (%s): %s", lease.row.job, failure.code, failure)
    return lambda: fetches.fail(lease, str(failure), failure.code) or None


def _leave_alone(
    lease: Lease[Fetch], tried: int, error: SourceUnavailable, deps: Dependencies
) -> Callable[[], list[Event] | None]:
    """Returns what records that the server cannot send the file now: the next attempt comes later, if there is one."""
    if tried >= MAX_ATTEMPTS:
        return lambda: deps.fetches.fail(lease, str(error), error.code) or None
    wait = max(_WAITS[max(tried - 1, 0)], min(retry_after(error.retry_after), _MAX_WAIT))
    return lambda: deps.fetches.postpone(lease, int(wait * 1000))


class _Fetching:
    """One attempt.

    Attributes:
        source: the file, and what is durable of it.
    """

    def __init__(self, lease: Lease[Fetch], renewer: LeaseRenewer, deps: Dependencies) -> None:
        self.source = lease.row.source
        self._lease = lease
        self._renewer = renewer
        self._deps = deps
        self._filename = lease.row.filename
        self._furthest = self._recorded = self.source.received
        self._until = deps.clock() + deps.seconds
        self._saved_at = deps.clock()
        self._is_at_end = False

    @property
    def tried(self) -> int:
        """How many attempts there were since there was progress; 0 if this one has made some."""
        return self._lease.attempts - self.source.counted_from

    def run(self) -> bool:
        """Fetches the file, and makes it visible in the media store; returns False if some of it is left to fetch.

        Raises:
            FetchFailed, TooLarge, QuotaFull: the file cannot be fetched.
            SourceUnavailable: its server cannot send it now.
            LeaseLost, StaleWriter: another worker has the job, or it was deleted.
            BlobExpired: the job was deleted.
            MediaUnavailable: the media store is full or unavailable.
        """
        if self.tried > MAX_ATTEMPTS:
            raise FetchFailed("internal", "The file could not be fetched in several attempts: upload it yourself.")
        if self._lease.age > HOURS * HOUR:
            raise FetchFailed("timed-out", f"The file could not be fetched within {HOURS} hours: upload it yourself.")
        self._renewer.report(self.source.progress)
        failures = 0
        while not self.source.is_complete:
            before = self._furthest
            try:
                self._request()
            except NoReply as error:
                failures = 1 if self._furthest > before else failures + 1
                self._wait(failures, error)
            if not self.source.is_complete and self._deps.clock() >= self._until:
                return self._stop()
        self._make_visible()
        return True

    def _wait(self, failures: int, error: NoReply) -> None:
        """Waits a little before the next request; SourceUnavailable if that has been done often enough."""
        self._renewer.check()
        log.info("job %s: %s", self._lease.row.job, error)
        if failures > len(_PAUSES):
            code = "timed-out" if isinstance(error, TimedOut) else "source-unavailable"
            raise SourceUnavailable(code, f"{str(error).removesuffix('.')}: try again later.") from error
        self._deps.pause(_PAUSES[failures - 1])
        self._renewer.check()

    def _stop(self) -> bool:
        """Ends an attempt that has had its time; another one continues the file.

        Raises:
            FetchFailed: none can.
            SourceUnavailable: this one has brought nothing.
        """
        minutes = f"{self._deps.seconds / 60:.3g}"
        if self.source.received and not self.source.validator:
            raise FetchFailed(
                "timed-out",
                f"The server took more than {minutes} minutes, and it cannot continue a file that was interrupted: "
                "download the file and upload it.",
            )
        if self.tried:
            raise SourceUnavailable(
                "timed-out", f"The server has sent nothing more of the file for {minutes} minutes: try again later."
            )
        return False

    def _request(self) -> None:
        """Makes one request, and stores what it brings.

        Raises:
            NoReply: there was no answer, or the connection was lost; what has arrived is durable.
        """
        deps = self._deps
        seconds = max(self._until - deps.clock(), 1.0) + deps.idle_seconds
        limits = Limits("server", seconds, deps.idle_seconds, deps.head_seconds, self._renewer.interrupting)
        if not self.source.validator:
            self._begin_again()
        try:
            with arriving(self.source, deps.policy, limits) as arrival:
                self._renewer.check()  # The connection was shut down if the lease is lost, perhaps within the head.
                self._take(arrival)
        except (RangeRefused, BlobNotFound) as error:
            if not self.source.received:
                raise FetchFailed("source-error", "The server sends no complete file: check the address.") from error
            self._begin_again()

    def _begin_again(self) -> None:
        self.source = replace(self.source.at(Checkpoint()), length=None, validator="")

    def _take(self, arrival: Arrival) -> None:
        """Stores what arrives."""
        if not arrival.start:
            self._begin_again()
        self.source = replace(self.source, length=arrival.length, validator=arrival.validator)
        if arrival.filename and not self.source.is_named:
            self._filename = arrival.filename
        if (arrival.length or 0) > self._deps.max_bytes:
            raise TooLarge(self._deps.max_bytes)
        if self._recorded > self.source.received:
            # On record before anything is overwritten: bytes of two versions must never count as one file.
            self._save(self.source.checkpoint)
        videos = self._deps.media.videos
        with videos.append(self._lease.row.video, self.source.checkpoint, self._lease.attempts) as appender:
            self._append(appender, arrival)

    def _append(self, appender: Appender, arrival: Arrival) -> None:
        checks = self._checks(appender)
        self._is_at_end = False
        try:
            with _failing_on_other_files(arrival):
                for chunk in checks.apply(self._chunks(arrival)):
                    appender.write(chunk)
                    self._save_now_and_then(appender, checks.received)
                is_complete = checks.received == arrival.length or (arrival.length is None and self._is_at_end)
                if is_complete:
                    checks.finish()
        except NoReply:
            self._save(appender.sync())
            raise
        self._save(appender.sync(), is_complete=is_complete)
        if self._is_at_end and not is_complete:
            raise NoReply("The connection to the server was lost.")

    def _checks(self, appender: Appender) -> StreamChecks:
        """Returns the checks of what arrives next. All of a file of known length is reserved before it is read."""
        deps = self._deps
        owner = deps.fetches.quota_owner(self._lease.row.owner)
        reservation = Reservation(deps.blobs, self._lease.row.video, 0, functools.partial(deps.quota.grow, owner))
        if self.source.length:
            reservation.require(self.source.length)
        return StreamChecks(
            reservation,
            limit=deps.max_bytes,
            received=self.source.received,
            head=appender.tail if self.source.received < HEAD_SIZE else None,
            space=deps.space,
        )

    def _chunks(self, arrival: Arrival) -> Iterator[bytes]:
        """Yields what arrives until the file ends, the connection is lost, or the attempt has had its time."""
        while self._deps.clock() < self._until:
            chunk = arrival.response.read(_CHUNK)
            self._renewer.check()
            if not chunk:
                self._is_at_end = True
                return
            yield chunk

    def _save_now_and_then(self, appender: Appender, received: int) -> None:
        unsaved = received - self.source.received
        if self.source.length:
            self._renewer.report(min(received / self.source.length, 1.0))
        is_due = unsaved >= SAVE_SIZE or self._deps.clock() - self._saved_at > SAVE_INTERVAL
        if is_due and received != self.source.length:  # or the file is complete, which is recorded with its last byte
            self._save(appender.sync(full_blocks_only=unsaved >= SAVE_SIZE))

    def _save(self, checkpoint: Checkpoint, *, is_complete: bool = False) -> None:
        """Records what is durable."""
        source = replace(self.source.at(checkpoint), is_complete=is_complete)
        if checkpoint.size > self._furthest:
            self._furthest = checkpoint.size
            source = replace(source, counted_from=self._lease.attempts)
        self._deps.fetches.save(self._lease, source, self._filename)
        self.source = source
        self._recorded = source.received
        self._saved_at = self._deps.clock()

    def _make_visible(self) -> None:
        row = self._lease.row
        description = Description(row.owner, row.job, self._filename, "application/octet-stream")
        with self._deps.media.videos.append(row.video, self.source.checkpoint, self._lease.attempts) as appender:
            appender.finish(description)


@contextlib.contextmanager
def _failing_on_other_files(arrival: Arrival) -> Iterator[None]:
    """Fails the job if what arrives is neither audio nor video."""
    try:
        yield
    except NotMedia as error:
        kind = "a web page" if arrival.is_page and error.kind == "a text file" else error.kind
        raise FetchFailed(
            "not-media",
            f"The address leads to {kind}, not to an audio or video file: use the address of the file itself.",
        ) from error
    except Unprocessable as error:
        raise FetchFailed("not-media", "The file at the address is empty: check the address.") from error
