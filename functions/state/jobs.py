"""Jobs: from an uploaded video to its MP3. Each transition is one transaction that reports whether it took place."""

import functools
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from events.errors import Mp3burstError
from events.schema import ConversionFailed, Event, JobEvent, JobId, Mp3Ready, PiecesEncoded, VideoUploaded
from functions.media import BlobId, BlobNotFound, StoredMp3
from functions.options import Options
from functions.state import blobs as blob_records
from functions.state.blobs import BlobExpired
from functions.state.counters import Series, count, count_time
from functions.state.database import Conflict, Database
from functions.state.deliveries import add_deliveries
from functions.state.fairness import CONVERTING, JOINING, Turns
from functions.state.leases import ATTEMPTS_EXHAUSTED, Lease, LeaseRenewer, Leases, LeaseTerms
from functions.state.schema import UserId, blobs, deliveries, is_id, jobs, mails, now, pieces
from functions.waveform import Waveform

#: The progress of a job that is not split is recorded in this many steps; that of a split job in pieces.
STEPS: Final = 1000
#: Ids in one query: PostgreSQL and SQLite allow 32,767 parameters and more.
_IDS_PER_QUERY: Final = 1000
#: Milliseconds: finished jobs are not looked for further back.
RECENT: Final = 3_600_000
FINISHED: Final = ("done", "failed")
#: The plan of a job that is converted again, with a track: its pieces could not be encoded from parts of its video.
FELL_BACK: Final = "fell back"


class JobNotFound(Mp3burstError):
    """There is no such job, or it is another user's."""

    status = 404
    security_event = "object.refused"


class NoMp3(Mp3burstError):
    """The job has no MP3: it is not done."""

    status = 409


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to create.

    Attributes:
        id: a fresh id.
        owner: the user who uploaded the video.
        video: the blob of the video.
        filename: the video's name; truncated to 255 characters.
        options: of the conversion.
        key: the Idempotency-Key of the upload, if it had one.
        size: bytes of the video.
        callback: the address that is told of its end, besides its owner's webhooks.
    """

    id: JobId
    owner: UserId
    video: BlobId
    filename: str
    options: Options
    key: str | None = None
    size: int = 0
    callback: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a successful attempt has used.

    Attributes:
        cpu_ms: milliseconds of CPU, those of its children included.
        pod: the process that made the attempt.
        read_ago: milliseconds since the video had been read, if this attempt has read it.
    """

    cpu_ms: int = 0
    pod: str = ""
    read_ago: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """What a job's receipt is made from. Times are milliseconds since 1970; what is not known is None.

    Attributes:
        size: bytes of the video.
        mp3_size: bytes of the MP3.
        fetched_at: when the video had been fetched; None if it was uploaded.
        started_at: when a converter claimed the job first.
        stage_at: since when it is in its stage: claimed last, split, or all its pieces encoded.
        read_at: when the video had been read.
        encoded_at: when all pieces were encoded, if the job was split.
        cpu_ms: milliseconds of CPU of the attempts that succeeded.
        pods: how many processes made these attempts.
    """

    size: int | None = None
    mp3_size: int | None = None
    fetched_at: int | None = None
    started_at: int | None = None
    stage_at: int | None = None
    read_at: int | None = None
    encoded_at: int | None = None
    cpu_ms: int = 0
    pods: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job.

    Attributes:
        id: 32 hexadecimal digits.
        owner: the user who uploaded the video.
        filename: the video's name.
        options: of the conversion.
        state: fetching, uploaded, converting, encoding, joining, done or failed.
        video: the blob of the video.
        mp3: the blob of the MP3, once it is done.
        tag: the blob of the ID3 tag that has replaced the one in the MP3's blob; None if none has.
        sound_at: bytes of the tag in the MP3's blob, once it was replaced.
        mp3_crc32: the CRC-32 of the MP3 in hexadecimal; None of MP3s from before migration 0015.
        source: the job whose MP3 this one was cut out of; None if it was converted.
        sound: the blob that has the rest of its frames; None if the MP3's blob has all of them.
        sound_from: where they begin in it, in bytes.
        sound_to: where they end in it.
        total: steps or pieces in all.
        done: steps or pieces that are done.
        error: the message for the user, if it failed.
        error_code: what went wrong, for programs; None unless its video could not be fetched.
        warning: the message for the user, if something is missing from the MP3.
        duration: seconds of the MP3.
        created_at: milliseconds since 1970.
        finished_at: milliseconds since 1970.
        audio: the blob of the audio track, if the job was split and its pieces are encoded from that.
        plan: how its pieces are encoded, as JSON, if the job was split; ``FELL_BACK`` if it is converted again.
        tracks: the audio tracks of the video, as JSON, once they are known.
        is_deferred: whether it waits for its owner's turn.
        is_leased: whether a worker has it, or had it when it ended.
        record: what its receipt is made from.
        seen_at: when it was read, by the database's clock; None if it was read in order to change it.
    """

    id: JobId
    owner: UserId
    filename: str
    options: Options
    state: str
    video: BlobId
    mp3: BlobId | None
    total: int
    done: int
    error: str | None
    warning: str | None
    duration: float | None
    created_at: int
    finished_at: int | None
    audio: BlobId | None = None
    plan: str | None = None
    tracks: str | None = None
    tag: BlobId | None = None
    sound_at: int | None = None
    mp3_crc32: str | None = None
    source: JobId | None = None
    sound: BlobId | None = None
    sound_from: int | None = None
    sound_to: int | None = None
    is_deferred: bool = False
    is_leased: bool = False
    record: Record = field(default_factory=Record)
    error_code: str | None = None
    seen_at: int | None = field(default=None, compare=False)

    @property
    def stored(self) -> StoredMp3:
        """The blobs of its MP3.

        Raises:
            BlobNotFound: it has none.
        """
        if self.mp3 is None:
            raise BlobNotFound
        crc32 = None if self.mp3_crc32 is None else int(self.mp3_crc32, 16)
        sound = self.sound, self.sound_from or 0, self.sound_to or 0
        return StoredMp3(self.mp3, self.tag, self.sound_at, *sound, crc32)

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Returns the job of a row."""
        values = {name: getattr(row, name) for name in _PLAIN_FIELDS}
        return cls(
            **values,
            options=_options(row.options),
            is_deferred=row.deferred_at is not None,
            is_leased=row.lease is not None,
            record=Record(*(getattr(row, name) for name in _RECORD_FIELDS)),
            seen_at=getattr(row, "seen_at", None),
        )


@functools.lru_cache(1024)
def _options(text: str) -> Options:
    """Returns the options of a row; most jobs have the same few, and many rows are read again and again."""
    return Options.from_json(text)


#: The fields of Job that its row has under the same name.
_PLAIN_FIELDS: Final = tuple(
    Job.__dataclass_fields__.keys() - {"options", "is_deferred", "is_leased", "record", "seen_at"}
)
_RECORD_FIELDS: Final = tuple(Record.__dataclass_fields__)
#: What is counted of a job that has ended.
_ENDED: Final = select(
    jobs.c.state,
    jobs.c.error,
    jobs.c.error_code,
    jobs.c.created_at,
    jobs.c.fetched_at,
    jobs.c.started_at,
    jobs.c.finished_at,
    jobs.c.duration,
    jobs.c.cpu_ms,
    jobs.c.size,
    jobs.c.mp3_size,
)
#: A job as users see it: with the time, and without the plan, the waveform and the address of the video, which may be
#: long.
_SEEN: Final[tuple[Any, ...]] = (
    now().label("seen_at"),
    null().label("plan"),
    *(column for column in jobs.c if column.name not in ("plan", "key", "fetching", "waveform")),
)


@dataclass(frozen=True, slots=True)
class Recent:
    """The jobs of some owners that are unfinished or have just finished.

    Attributes:
        at: when they were read, by the database's clock, in milliseconds since 1970.
        jobs: in no order.
    """

    at: int
    jobs: list[Job]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a conversion has made.

    Attributes:
        mp3: the blob of the MP3.
        duration: its seconds.
        warning: a message for the user, if something is missing from it.
        size: its bytes.
        usage: what the attempt has used.
        crc32: its CRC-32 in hexadecimal, if it is known.
        waveform: of the MP3, if it was measured.
    """

    mp3: BlobId
    duration: float
    warning: str | None
    size: int = 0
    usage: Usage = field(default_factory=Usage)
    crc32: str | None = None
    waveform: Waveform | None = None


def new_job_id() -> JobId:
    """Returns a fresh id for a job."""
    return JobId(secrets.token_hex(16))


class Jobs:
    """The jobs table, as upload, convert, join, status and download use it."""

    def __init__(
        self,
        database: Database,
        terms: LeaseTerms | None = None,
        stage: Literal["converting", "joining"] = "converting",
        places: int = 0,
    ) -> None:
        """Creates the access to the table.

        Args:
            database: where the table is.
            terms: how long a lease lasts.
            stage: what ``claim`` takes jobs for: to convert them, or to join their pieces.
            places: how many jobs are worked on at once in this stage, which their owners share; 0 defers none.
        """
        self._database = database
        self._stage = stage
        rows = CONVERTING if stage == "converting" else JOINING
        self._turns = Turns(rows, places)
        self._leases = Leases(database, jobs, Job.from_row, rows.states, terms, turns=self._turns)

    def add(self, job: NewJob) -> Job:
        """Creates the job and retains its video, or returns the job that already has its Idempotency-Key.

        Raises:
            BlobExpired: the video was swept in the meantime.
        """
        row = new_row(job)

        def add(connection: Connection) -> None:
            connection.execute(insert(jobs).values(row))
            if not blob_records.retain(connection, job.video, job.size):
                raise BlobExpired("Storing the file took too long: send it again.")

        try:
            self._database.run(add)
        except Conflict:
            # Another upload with this key was first, or the first try was committed and only its answer was lost.
            existing = self.with_key(job.owner, job.key) if job.key is not None else None
            return existing or self.get(job.id, job.owner)
        return self.get(job.id, job.owner)

    def with_key(self, owner: UserId, key: str) -> Job | None:
        """Returns the owner's job with this Idempotency-Key."""
        return self._one(and_(jobs.c.owner == owner, jobs.c.key == key))

    def get(self, job: str, owner: UserId) -> Job:
        """Returns the owner's job.

        Raises:
            JobNotFound: there is none, or it is another user's.
        """
        found = self._one(and_(jobs.c.id == job, jobs.c.owner == owner)) if is_id(job) else None
        if found is None:
            raise JobNotFound("There is no such job: GET /jobs lists yours.")
        return found

    def finished(self, job: str, owner: UserId) -> Job:
        """Returns the owner's job, which is done.

        Raises:
            JobNotFound: there is none, or it is another user's.
            NoMp3: it is not done.
        """
        found = self.get(job, owner)
        if found.mp3 is None or found.state != "done":
            raise NoMp3("This job has no MP3: wait until it is done.")
        return found

    def waveform(self, job: Job) -> Waveform | None:
        """Returns the waveform of the job's MP3; None if it has none, or was deleted."""
        query = select(jobs.c.waveform).where(jobs.c.id == job.id)
        stored = self._database.read(lambda connection: connection.scalar(query))
        return None if stored is None else Waveform.from_bytes(stored)

    def with_ids(self, ids: Collection[JobId]) -> dict[JobId, Job]:
        """Returns those of the jobs that exist, of any owner."""
        ordered = list(ids)
        parts = [ordered[start : start + _IDS_PER_QUERY] for start in range(0, len(ordered), _IDS_PER_QUERY)]

        def read(connection: Connection) -> list[Row[Any]]:
            return [row for part in parts for row in connection.execute(select(*_SEEN).where(jobs.c.id.in_(part)))]

        return {row.id: Job.from_row(row) for row in self._database.read(read)}

    def recent(self, owners: Collection[UserId], since: int | None) -> Recent:
        """Returns the owners' jobs that are unfinished, and those that have finished.

        Args:
            owners: whose jobs.
            since: the time since when, by the database's clock; not more than RECENT before now. None for no finished
                jobs.
        """
        ordered = list(owners)
        parts = [ordered[start : start + _IDS_PER_QUERY] for start in range(0, len(ordered), _IDS_PER_QUERY)]
        is_recent: ColumnElement[bool] = jobs.c.finished_at.is_(None)
        if since is not None:
            is_recent = or_(is_recent, and_(jobs.c.finished_at >= since, jobs.c.finished_at >= now() - RECENT))
        # There is always a row, which has the time.
        clock = select(literal(1).label("one")).subquery()

        def read(connection: Connection) -> list[Row[Any]]:
            rows: list[Row[Any]] = []
            for part in parts:
                joined = clock.outerjoin(jobs, and_(jobs.c.owner.in_(part), is_recent))
                rows += connection.execute(select(*_SEEN).select_from(joined))
            return rows

        rows = self._database.read(read)
        return Recent(rows[0].seen_at, [Job.from_row(row) for row in rows if row.id is not None])

    def with_mp3(self, mp3: str, owner: UserId) -> Job | None:
        """Returns the owner's job that made this MP3."""
        return self._one(and_(jobs.c.mp3 == mp3, jobs.c.owner == owner, jobs.c.state == "done"))

    def page(self, owner: UserId, limit: int, after: str | None = None) -> list[Job]:
        """Returns the owner's jobs, newest first, starting after the job ``after``.

        Raises:
            JobNotFound: there is no job ``after``.
        """
        return self.older(owner, limit, None if after is None else self.get(after, owner))

    def older(self, owner: UserId, limit: int, last: Job | None) -> list[Job]:
        """Returns the owner's jobs, newest first, starting after ``last``, which may have been deleted meanwhile."""
        where = jobs.c.owner == owner
        if last is not None:
            older = or_(
                jobs.c.created_at < last.created_at,
                and_(jobs.c.created_at == last.created_at, jobs.c.id < last.id),
            )
            where = and_(where, older)
        query = select(*_SEEN).where(where).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        return self._database.read(lambda connection: [Job.from_row(row) for row in connection.execute(query)])

    def delete(self, job: str, owner: UserId) -> None:
        """Deletes the owner's job and everything that belongs to it; its worker notices at the next renewal.

        Raises:
            JobNotFound: there is none, or it is another user's.
        """
        mine = and_(jobs.c.id == job, jobs.c.owner == owner)
        deleted = []  # one entry per run: after a lost answer to the commit, only the first run found the job
        if is_id(job):
            self._database.run(lambda connection: deleted.append(delete_jobs(connection, mine)))
        if not any(deleted):
            raise JobNotFound("There is no such job: GET /jobs lists yours.")

    def claim(self, job: JobId) -> Lease[Job] | None:
        """Takes the job to work on it; None if it has ended or was deleted or deferred, or another worker has it."""
        started = {"started_at": func.coalesce(jobs.c.started_at, now()), "stage_at": now()}
        changes = started if self._stage == "converting" else {}
        return self._leases.claim(jobs.c.id == job, state=self._stage, **changes)

    def owner(self, job: JobId) -> UserId | None:
        """Returns the job's owner; None if it was deleted."""
        return self._database.read(lambda connection: connection.scalar(select(jobs.c.owner).where(jobs.c.id == job)))

    def admit(self, owner: UserId) -> list[Event]:
        """Admits as many of the owner's deferred jobs as may start; returns their events, which nobody else gets."""
        event = PiecesEncoded if self._stage == "joining" else VideoUploaded
        return self._database.run(lambda connection: [event(row.id) for row in self._turns.admit(connection, owner)])

    def renewing(self, lease: Lease[Job]) -> LeaseRenewer:
        """Renews the lease while working; while converting, each renewal also records the progress."""
        if self._stage == "converting":
            return self._leases.renewing(lease, lambda progress: {"done": int(progress * STEPS), "total": STEPS})
        return self._leases.renewing(lease)

    def fall_back(self, lease: Lease[Job]) -> list[Event] | None:
        """Records that the job's pieces do not make the MP3 of one encoder: the job is converted again.

        Returns:
            The events to emit, or None if another worker has the job or it was deleted.
        """
        where = self._leases.held(lease)
        return self._database.run(lambda connection: convert_again(connection, lease.row.id, where))

    def record_tracks(self, lease: Lease[Job], tracks: str) -> bool:
        """Records the audio tracks of the video, as JSON; returns False if the lease is lost."""
        return self._leases.renew(lease, tracks=tracks)

    def finish(self, lease: Lease[Job], outcome: Outcome) -> list[Event] | None:
        """Records that the MP3 is stored: retains it and creates its mail and its deliveries.

        Returns:
            The events to emit, or None if another worker has the job or it was deleted: then discard the MP3.
        """
        usage = outcome.usage
        values = {
            "state": "done",
            "mp3": outcome.mp3,
            "mp3_size": outcome.size,
            "mp3_crc32": outcome.crc32,
            "duration": outcome.duration,
            "warning": outcome.warning,
            "waveform": None if outcome.waveform is None else outcome.waveform.to_bytes(),
            "read_at": func.coalesce(jobs.c.read_at, now() - usage.read_ago),
            "cpu_ms": jobs.c.cpu_ms + usage.cpu_ms,
        }
        return self._end(lease, Mp3Ready(lease.row.id), values, outcome) or None

    def fail(self, lease: Lease[Job], error: str) -> list[Event]:
        """Records that the job can never succeed, with the message for its owner.

        Returns:
            The events to emit; none if another worker has the job or it was deleted.
        """
        return self._end(lease, ConversionFailed(lease.row.id), {"state": "failed", "error": error})

    def release(self, lease: Lease[Job], error: Exception | None = None) -> None:
        """Gives the job back after a temporary failure."""
        self._leases.release(lease, error)

    def _end(
        self, lease: Lease[Job], event: JobEvent, values: Mapping[str, object], outcome: Outcome | None = None
    ) -> list[Event]:
        def end(connection: Connection) -> list[Event]:
            pods = {} if outcome is None else {"pods": _count_pods(connection, event.job, outcome.usage.pod)}
            if events := end_job(connection, self._leases.held(lease), event, {**values, **pods}):
                if outcome is not None and not blob_records.retain(connection, outcome.mp3, outcome.size):
                    raise BlobExpired("Storing the MP3 took too long.")
                return events
            # An ended row keeps its lease's token, which shows that a first try was committed and its answer was lost.
            # Then sweep emits the events of the deliveries.
            mine = select(jobs.c.id).where(lease.where, jobs.c.lease == lease.token, jobs.c.state.in_(FINISHED))
            return [event] if connection.scalar(mine) is not None else []

        return self._database.run(end)

    def _one(self, where: ColumnElement[bool]) -> Job | None:
        row = self._database.read(lambda connection: connection.execute(select(*_SEEN).where(where)).one_or_none())
        return None if row is None else Job.from_row(row)


def new_row(job: NewJob) -> dict[str, object]:
    """Returns the columns of a new job."""
    return {
        "id": job.id,
        "owner": job.owner,
        "key": job.key,
        "filename": job.filename[:255],
        "options": job.options.to_json(),
        "state": "uploaded",
        "video": job.video,
        "size": job.size,
        "callback": job.callback,
        "created_at": now(),
        "due_at": now(),
    }


def _count_pods(connection: Connection, job: JobId, last: str) -> int:
    """Returns how many processes have worked on the job: ``last``, the one that split it, those of its pieces."""
    split = select(jobs.c.pod).where(jobs.c.id == job)
    encoded = select(pieces.c.pod).where(pieces.c.job == job)
    return len({last, *connection.scalars(split), *connection.scalars(encoded)} - {None})


def end_job(
    connection: Connection, where: ColumnElement[bool], event: JobEvent, values: Mapping[str, object]
) -> list[Event]:
    """Ends the event's job, creates its mail and deliveries in the caller's transaction; blobs of its pieces expire.

    Returns:
        The events to emit; none if the job does not match ``where``: it has ended or was deleted, or another worker has
        it.
    """
    statement = update(jobs).where(jobs.c.id == event.job, where)
    settled = {"lease_until": None, "due_at": None, "deferred_at": None, "finished_at": now()}
    if not connection.execute(statement.values(**settled, **values)).rowcount:
        return []
    _count_end(connection, event.job)
    connection.execute(delete(pieces).where(pieces.c.job == event.job))
    blob_records.expire(connection, and_(blobs.c.job == event.job, blobs.c.store == "pieces"))
    mail = {"id": event.id, "job": event.job, "kind": event.type, "state": "due"}
    connection.execute(insert(mails).values(**mail, created_at=now(), due_at=now()))
    return [event, *add_deliveries(connection, event)]


def _count_end(connection: Connection, job: JobId) -> None:
    """Counts a job that has just ended."""
    row = connection.execute(_ENDED.where(jobs.c.id == job)).one()
    # A job with a code has failed while it was being fetched.
    source = "upload" if row.fetched_at is None and row.error_code is None else "fetch"
    if row.state == "failed":
        reason = row.error_code or ("exhausted" if row.error == ATTEMPTS_EXHAUSTED else "refused")
        count(connection, {Series.of("jobs_finished", "failed", source, reason): 1})
        return
    uploaded_at = row.created_at if row.fetched_at is None else row.fetched_at
    started_at = row.finished_at if row.started_at is None else row.started_at
    amounts = {
        Series.of("jobs_finished", "done", source, ""): 1,
        **count_time("job_wait_seconds", max(started_at - uploaded_at, 0)),
        **count_time("job_conversion_seconds", max(row.finished_at - started_at, 0)),
        Series.of("audio_seconds"): int((row.duration or 0) * 1000),
        Series.of("cpu_seconds"): row.cpu_ms,
        Series.of("video_bytes"): row.size or 0,
        Series.of("mp3_bytes"): row.mp3_size or 0,
    }
    count(connection, amounts)


def convert_again(connection: Connection, job: JobId, where: ColumnElement[bool]) -> list[Event] | None:
    """Returns a job that was split to convert within the caller's transaction, for good: its pieces are deleted.

    Returns:
        The events to emit, or None if the job does not match ``where``.
    """
    values = {"state": "uploaded", "audio": None, "plan": FELL_BACK, "total": 0, "done": 0}
    times = {"stage_at": now(), "read_at": None, "encoded_at": None}
    free = {"attempts": 0, "lease": None, "lease_until": None, "due_at": now(), "deferred_at": None}
    moved = connection.execute(update(jobs).where(jobs.c.id == job, where).values(**values, **times, **free)).rowcount
    if moved:
        connection.execute(delete(pieces).where(pieces.c.job == job))
        blob_records.expire(connection, and_(blobs.c.job == job, blobs.c.store == "pieces"))
        return [VideoUploaded(job)]
    # An earlier try was committed, and its answer was lost.
    fell = and_(jobs.c.id == job, jobs.c.state == "uploaded", jobs.c.plan == FELL_BACK)
    return [VideoUploaded(job)] if connection.scalar(select(jobs.c.id).where(fell)) is not None else None


def delete_jobs(connection: Connection, where: ColumnElement[bool]) -> int:
    """Deletes jobs with their pieces, mails and deliveries in the caller's transaction; their blobs expire at once.

    Sound that other jobs share stays until the last of them is deleted.
    """
    found = connection.execute(select(jobs.c.id, jobs.c.mp3, jobs.c.sound).where(where).with_for_update()).all()
    ids = [row.id for row in found]
    if ids:
        # Locked, so that of two deletions at once the later one knows of the other.
        candidates = {blob for row in found for blob in (row.mp3, row.sound)} - {None}
        is_shared = and_(blobs.c.id.in_(candidates), blobs.c.job == blobs.c.id)
        shared = list(connection.scalars(select(blobs.c.id).where(is_shared).order_by(blobs.c.id).with_for_update()))
        connection.execute(delete(pieces).where(pieces.c.job.in_(ids)))
        connection.execute(delete(mails).where(mails.c.job.in_(ids)))
        connection.execute(delete(deliveries).where(deliveries.c.job.in_(ids)))
        blob_records.expire(connection, blobs.c.job.in_(ids))
        connection.execute(delete(jobs).where(jobs.c.id.in_(ids)))
        if shared:
            # PostgreSQL would want the right to every column for the * of exists().
            has_it = or_(jobs.c.sound == blobs.c.id, jobs.c.mp3 == blobs.c.id)
            is_used = select(jobs.c.id).where(has_it).exists()
            blob_records.expire(connection, and_(blobs.c.id.in_(shared), ~is_used))
    return len(ids)
