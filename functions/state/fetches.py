"""Fetches: jobs whose videos come from an address. Each is a job in the state ``fetching``, before ``uploaded``.

Its row has the address and what is durable of the file, so that any worker continues what another one began. The blob
of the video is recorded with the job. It expires after the time that a fetch may take, unless the job retains it.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

from sqlalchemy import Connection, Row, and_, insert, select, update

from events.errors import Mp3burstError
from events.schema import ConversionFailed, Event, FetchDue, JobId, VideoUploaded
from functions.media import BlobId, Checkpoint
from functions.state import blobs as blob_records
from functions.state.blobs import BlobExpired, Grant
from functions.state.counters import Series, count
from functions.state.database import Conflict, Database
from functions.state.fairness import FETCHING, Turns
from functions.state.jobs import FINISHED, STEPS, Job, Jobs, NewJob, end_job, new_row
from functions.state.leases import Lease, LeaseLost, LeaseRenewer, Leases, LeaseTerms, backoff
from functions.state.schema import HOUR, UserId, blobs, jobs, now, users

#: Hours from the request until the file must be there.
HOURS: Final = 12


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is being fetched, and what is there of it.

    Attributes:
        url: its address.
        is_named: whether the user has named the file; otherwise its server may.
        received: bytes that are durable.
        crc32c: the CRC-32C of those bytes in hexadecimal.
        length: bytes of the whole file; None while they are not known.
        validator: what the server calls this version of the file, a strong ETag or a date; empty if it has neither, and
            then nobody can continue it.
        is_complete: whether all of the file is durable.
        counted_from: how many attempts there were when there was progress last; those before no longer count.
    """

    url: str
    is_named: bool = False
    received: int = 0
    crc32c: str = Checkpoint().crc32c
    length: int | None = None
    validator: str = ""
    is_complete: bool = False
    counted_from: int = 0

    @property
    def checkpoint(self) -> Checkpoint:
        """What is durable."""
        return Checkpoint(self.received, self.crc32c)

    @property
    def progress(self) -> float:
        """How much of the file is there, 0 to 1; 0 if its length is not known."""
        return min(self.received / self.length, 1.0) if self.length else 0.0

    def at(self, checkpoint: Checkpoint) -> Self:
        """Returns the source with other bytes durable."""
        return replace(self, received=checkpoint.size, crc32c=checkpoint.crc32c)

    def to_json(self) -> str:
        """Returns it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parses the output of ``to_json``."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Fetch:
    """A fetch, as it was claimed.

    Attributes:
        job: the id of its job.
        owner: who uploads the file.
        video: the blob that the file becomes.
        filename: its name so far.
        source: where it comes from.
    """

    job: JobId
    owner: UserId
    video: BlobId
    filename: str
    source: Source

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Returns the fetch of a job's row."""
        return cls(row.id, row.owner, row.video, row.filename, Source.from_json(row.fetching))


@dataclass(frozen=True, slots=True)
class FetchOwner:
    """The owner of a fetch (``functions.state.quota.Owner``)."""

    user: UserId
    role: str


class Fetches:
    """The jobs that are being fetched, as upload and fetch use them."""

    def __init__(self, database: Database, terms: LeaseTerms | None = None, places: int = 0) -> None:
        """Creates the access to the jobs.

        Args:
            database: where they are.
            terms: how long a lease lasts.
            places: how many files are fetched at once, which their owners share; 0 defers none.
        """
        self._database = database
        self._turns = Turns(FETCHING, places)
        # Attempts number the writers of the blob and are never reset; which of them count, the source says.
        self._leases = Leases(
            database, jobs, Fetch.from_row, FETCHING.states, terms, max_attempts=None, turns=self._turns
        )

    def add(self, job: NewJob, source: Source, grant: Grant) -> Job:
        """Creates the job and the record of its video, or returns the job that already has its Idempotency-Key.

        Args:
            job: the job; its video has a fresh id.
            source: where the video is.
            grant: reserves bytes in the owner's quota; what it raises is raised.
        """
        expiry = now() + (HOURS + 1) * HOUR
        blob = {"id": job.video, "store": "videos", "owner": job.owner, "job": job.id, "expires_at": expiry}
        row = {**new_row(job), "state": "fetching", "size": None, "fetching": source.to_json()}

        def add(connection: Connection) -> None:
            connection.execute(insert(blobs).values(**blob, size=grant(connection, job.video)))
            connection.execute(insert(jobs).values(**row))

        known = Jobs(self._database)
        try:
            self._database.run(add)
        except Conflict:
            # Another request with this key was first, or the first try was committed and only its answer was lost.
            existing = known.with_key(job.owner, job.key) if job.key is not None else None
            return existing or known.get(job.id, job.owner)
        return known.get(job.id, job.owner)

    def claim(self, job: JobId) -> Lease[Fetch] | None:
        """Takes the job to fetch its video; None if that is done, postponed or deferred, or another worker does it."""
        return self._leases.claim(jobs.c.id == job, stage_at=now())

    def owner(self, job: JobId) -> UserId | None:
        """Returns the job's owner; None if it was deleted."""
        return Jobs(self._database).owner(job)

    def quota_owner(self, owner: UserId) -> FetchOwner:
        """Returns the owner with the role that decides whether there is a quota."""
        query = select(users.c.role).where(users.c.id == owner)
        return FetchOwner(owner, self._database.read(lambda connection: connection.scalar(query)) or "")

    def admit(self, owner: UserId) -> list[Event]:
        """Admits as many of the owner's deferred fetches as may start; returns their events."""
        return self._database.run(lambda connection: [FetchDue(row.id) for row in self._turns.admit(connection, owner)])

    def renewing(self, lease: Lease[Fetch]) -> LeaseRenewer:
        """Renews the lease while working; each renewal also records the progress."""
        return self._leases.renewing(lease, _progress)

    def save(self, lease: Lease[Fetch], source: Source, filename: str) -> None:
        """Records what is durable of the file, and its name.

        Raises:
            LeaseLost: another worker has the job, or it was deleted.
        """
        changes = {"fetching": source.to_json(), "filename": filename[:255], **_progress(source.progress)}
        if not self._leases.renew(lease, **changes):
            raise LeaseLost("Another worker is fetching the file, or the job was deleted.")

    def finish(self, lease: Lease[Fetch], size: int) -> list[Event] | None:
        """Records that the video is stored, and retains it: the job is as if it had been uploaded.

        Returns:
            The events to emit, or None if another worker has the job or it was deleted.

        Raises:
            BlobExpired: the video was swept in the meantime.
        """
        values = {"state": "uploaded", "fetching": None, "fetched_at": now(), "size": size, "total": 0, "done": 0}
        free = {"attempts": 0, "lease": None, "lease_until": None, "due_at": now(), "deferred_at": None}
        statement = update(jobs).where(self._leases.held(lease)).values(**values, **free, stage_at=None)

        def finish(connection: Connection) -> list[Event] | None:
            if not connection.execute(statement).rowcount:
                return None
            if not blob_records.retain(connection, lease.row.video, size):
                raise BlobExpired("Fetching the file took too long.")
            count(connection, {Series.of("videos_fetched"): 1, Series.of("fetched_bytes"): size})
            return [VideoUploaded(lease.row.job)]

        return self._database.run(finish)

    def hand_on(self, lease: Lease[Fetch]) -> list[Event] | None:
        """Gives the job back to be continued at once by whoever is next; returns the events to emit, or None."""
        values = {"lease": None, "lease_until": None, "due_at": now()}
        statement = update(jobs).where(self._leases.held(lease)).values(values)
        is_held = self._database.run(lambda connection: connection.execute(statement).rowcount == 1)
        return [FetchDue(lease.row.job)] if is_held else None

    def postpone(self, lease: Lease[Fetch], wait: int) -> list[Event] | None:
        """Gives the job back; nobody can claim it for ``wait`` milliseconds, after which sweep emits its event.

        Returns:
            No events, or None if another worker has the job or it was deleted.
        """
        due = now() + wait
        statement = update(jobs).where(self._leases.held(lease)).values(lease=None, lease_until=due, due_at=due)

        def postpone(connection: Connection) -> int:
            postponed = connection.execute(statement).rowcount
            count(connection, {Series.of("attempts_failed", "fetch"): postponed})
            return postponed

        return [] if self._database.run(postpone) else None

    def fail(self, lease: Lease[Fetch], error: str, code: str = "internal") -> list[Event]:
        """Records that the video cannot be fetched, and lets what is there of it expire.

        Args:
            lease: the lease on it.
            error: the message for the owner.
            code: the same for programs.

        Returns:
            The events to emit; none if another worker has the job or it was deleted.
        """
        event = ConversionFailed(lease.row.job)
        values = {"state": "failed", "error": error, "error_code": code, "fetching": None}

        def fail(connection: Connection) -> list[Event]:
            if events := end_job(connection, self._leases.held(lease), event, values):
                blob_records.expire(connection, blobs.c.id == lease.row.video)
                return events
            # An ended row keeps its lease's token: a first try was committed and its answer was lost.
            mine = and_(lease.where, jobs.c.lease == lease.token, jobs.c.state.in_(FINISHED))
            return [event] if connection.scalar(select(jobs.c.id).where(mine)) is not None else []

        return self._database.run(fail)

    def release(self, lease: Lease[Fetch], error: Exception | None = None) -> None:
        """Gives the job back after a failure of ours: it is due again after a backoff.

        The attempt does not count if a service was unavailable. The time that a fetch may take limits those. After a
        second one that counts, nobody may claim the job before it is due, as in ``Leases.release``.
        """
        held = self._leases.held(lease)
        counts = not isinstance(error, Mp3burstError) or error.counts_as_attempt

        def release(connection: Connection) -> None:
            text = connection.scalar(select(jobs.c.fetching).where(held))
            if text is None:
                return
            source = Source.from_json(text)
            tried = lease.attempts - source.counted_from
            due = now() + backoff(tried)
            if not counts:
                source = replace(source, counted_from=source.counted_from + 1)
            values = {
                "fetching": source.to_json(),
                "lease": None,
                "lease_until": due if counts and tried > 1 else None,
                "due_at": due,
            }
            if connection.execute(update(jobs).where(held).values(values)).rowcount:
                count(connection, {Series.of("attempts_failed", "fetch"): 1})

        self._database.run(release)


def _progress(part: float) -> dict[str, object]:
    return {"done": int(part * STEPS), "total": STEPS}
