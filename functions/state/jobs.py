"""Jobs: from an uploaded video to its MP3, move by move. Each move is one transaction whose outcome is looked at."""

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, or_, select, update

from events.errors import Mp3burstError
from events.schema import ConversionFailed, Event, Mp3Ready
from functions.options import Options
from functions.state import blobs as blobs_record
from functions.state.blobs import BlobExpired
from functions.state.database import Conflict, Database
from functions.state.leases import Lease, LeaseRenewer, Leases, LeaseTerms
from functions.state.mails import insert_mail
from functions.state.schema import blobs, jobs, mails, now, pieces

#: Progress of one encoder is kept in this many steps; with pieces it is counted in pieces.
STEPS: Final = 1000
_JOB_ID: Final = re.compile("[0-9a-f]{32}")
FINISHED: Final = ("done", "failed")
ATTEMPTS_EXHAUSTED: Final = (
    "The conversion was tried several times and did not come to an end. Try again later; "
    "if it fails again, this file cannot be converted here."
)


class JobNotFound(Mp3burstError):
    """No such job, or somebody else's."""

    status = 404


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its row has it; times in milliseconds, duration in seconds."""

    id: str
    owner: str
    filename: str
    options: Options
    state: str
    video: str
    mp3: str | None
    total: int
    done: int
    error: str | None
    warning: str | None
    duration: float | None
    created_at: int
    finished_at: int | None

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """The job of a row."""
        values = {name: getattr(row, name) for name in cls.__dataclass_fields__}
        return cls(**{**values, "options": Options.from_json(row.options)})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a conversion made: the MP3's blob, its length in seconds, a word for the user, and its size in bytes."""

    mp3: str
    duration: float
    warning: str | None
    size: int = 0


def is_job_id(text: str) -> bool:
    """Whether the text has the form of a job's id; another never reaches the database."""
    return _JOB_ID.fullmatch(text) is not None


def new_job_id() -> str:
    """A fresh id for a job."""
    return secrets.token_hex(16)


class Jobs:
    """The jobs table, as upload, convert, join, status and download use it."""

    def __init__(self, database: Database, terms: LeaseTerms | None = None, stage: str = "converting") -> None:
        """Jobs, of which ``claim`` takes those to convert, or with the stage ``joining`` those to join."""
        self._database, self._stage = database, stage
        states = ("uploaded", "converting") if stage == "converting" else (stage,)
        self._leases = Leases(database, jobs, states, terms or LeaseTerms())

    def add(
        self, job: str, owner: str, video: str, filename: str, options: Options, key: str | None = None, size: int = 0
    ) -> Job:
        """Put a new job on record and keep its video of ``size`` bytes, or find the job that has this key already.

        Raises:
            BlobExpired: the video was swept in the meantime.
        """
        row = insert(jobs).values(
            id=job,
            owner=owner,
            key=key,
            filename=filename[:255],
            options=options.to_json(),
            state="uploaded",
            video=video,
            created_at=now(),
            due_at=now(),
        )

        def add(connection: Connection) -> None:
            connection.execute(row)
            if not blobs_record.retain(connection, video, size):
                raise BlobExpired("Storing the file took too long; send it again.")

        try:
            self._database.run(add)
        except Conflict:
            # By the key: another upload was first. By the id: our own commit took place and its answer was lost.
            existing = self.with_key(owner, key) if key is not None else None
            return existing or self.get(job, owner)
        return self.get(job, owner)

    def with_key(self, owner: str, key: str) -> Job | None:
        """The owner's job with this idempotency key."""
        return self._one(and_(jobs.c.owner == owner, jobs.c.key == key))

    def get(self, job: str, owner: str) -> Job:
        """The owner's job.

        Raises:
            JobNotFound: there is none, or it is somebody else's.
        """
        found = self._one(and_(jobs.c.id == job, jobs.c.owner == owner)) if is_job_id(job) else None
        if found is None:
            raise JobNotFound("There is no such job; GET /jobs lists yours.")
        return found

    def with_mp3(self, mp3: str, owner: str) -> Job | None:
        """The owner's job whose MP3 this is."""
        return self._one(and_(jobs.c.mp3 == mp3, jobs.c.owner == owner, jobs.c.state == "done"))

    def page(self, owner: str, limit: int, after: str | None = None) -> list[Job]:
        """The owner's jobs, newest first, that come after the given one.

        Raises:
            JobNotFound: there is no job ``after``.
        """
        where = jobs.c.owner == owner
        if after is not None:
            last = self.get(after, owner)
            older = or_(
                jobs.c.created_at < last.created_at,
                and_(jobs.c.created_at == last.created_at, jobs.c.id < last.id),
            )
            where = and_(where, older)
        query = select(jobs).where(where).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        return self._database.run(lambda connection: [Job.of(row) for row in connection.execute(query)])

    def delete(self, job: str, owner: str) -> None:
        """Delete the owner's job with all that belongs to it; a worker notices at its next renewal.

        Raises:
            JobNotFound: there is none, or it is somebody else's.
        """
        mine = and_(jobs.c.id == job, jobs.c.owner == owner)
        removed = []  # in the first of two runs, where the answer to its commit was lost
        if is_job_id(job):
            self._database.run(lambda connection: removed.append(remove(connection, mine)))
        if not any(removed):
            raise JobNotFound("There is no such job; GET /jobs lists yours.")

    def claim(self, job: str) -> Lease | None:
        """Take the job to work on it; None where it is over, gone, or in another worker's hands."""
        return self._leases.claim(jobs.c.id == job, state=self._stage)

    def renewing(self, lease: Lease, progress: Callable[[], float] | None = None) -> LeaseRenewer:
        """Renew the lease while working; ``progress`` is asked each time how far the work is, 0 to 1."""

        def renew() -> bool:
            how_far = {"done": int(progress() * STEPS), "total": STEPS} if progress else {}
            return self._leases.renew(jobs.c.id == lease.row.id, lease.token, **how_far)

        return self._leases.renewing(renew)

    def finish(self, lease: Lease, outcome: Outcome) -> Event | None:
        """The MP3 is stored: keep it, and put its mail on record.

        Returns:
            The event to emit, or None where another worker has the job or it is gone: the MP3 is then nobody's.
        """
        values = {
            "state": "done",
            "mp3": outcome.mp3,
            "duration": outcome.duration,
            "warning": outcome.warning,
        }
        return self._end(lease, Mp3Ready(lease.row.id), values, outcome.size)

    def fail(self, lease: Lease, error: str) -> Event | None:
        """The job can never be done; ``error`` is the sentence that its owner reads. Returns as ``finish``."""
        return self._end(lease, ConversionFailed(lease.row.id), {"state": "failed", "error": error})

    def release(self, lease: Lease, error: Exception | None = None) -> None:
        """Give the job back after a failure that may pass."""
        self._leases.release(jobs.c.id == lease.row.id, lease, error)

    def _end(self, lease: Lease, event: Event, values: Mapping[str, object], size: int = 0) -> Event | None:
        job = lease.row.id

        def end(connection: Connection) -> Event | None:
            if close(connection, self._leases.held(jobs.c.id == job, lease.token), event, values):
                if (mp3 := values.get("mp3")) is not None and not blobs_record.retain(connection, str(mp3), size):
                    raise BlobExpired("Storing the MP3 took too long.")
                return event
            # The lease's token stays on an ended row: a commit whose answer was lost is known by it.
            mine = select(jobs.c.id).where(jobs.c.id == job, jobs.c.lease == lease.token, jobs.c.state.in_(FINISHED))
            return event if connection.scalar(mine) is not None else None

        return self._database.run(end)

    def _one(self, where: ColumnElement[bool]) -> Job | None:
        row = self._database.run(lambda connection: connection.execute(select(jobs).where(where)).one_or_none())
        return None if row is None else Job.of(row)


def close(connection: Connection, which: ColumnElement[bool], event: Event, values: Mapping[str, object]) -> bool:
    """End the event's job within the caller's transaction, with its mail; what its pieces needed expires.

    False where the condition holds for no job: it has ended, is gone, or another worker has it.
    """
    statement = update(jobs).where(jobs.c.id == event.job, which)
    ended = connection.execute(statement.values(lease_until=None, due_at=None, finished_at=now(), **values)).rowcount
    if ended:
        connection.execute(delete(pieces).where(pieces.c.job == event.job))
        blobs_record.expire(connection, and_(blobs.c.job == event.job, blobs.c.store == "pieces"))
        insert_mail(connection, event)
    return bool(ended)


def remove(connection: Connection, which: ColumnElement[bool]) -> int:
    """Delete jobs with their pieces and mails within the caller's transaction; their blobs expire at once."""
    ids = list(connection.scalars(select(jobs.c.id).where(which).with_for_update()))
    if ids:
        connection.execute(delete(pieces).where(pieces.c.job.in_(ids)))
        connection.execute(delete(mails).where(mails.c.job.in_(ids)))
        blobs_record.expire(connection, blobs.c.job.in_(ids))
        connection.execute(delete(jobs).where(jobs.c.id.in_(ids)))
    return len(ids)
