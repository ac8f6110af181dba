"""Pieces of a job that was split: encoded by many workers at once, in any order, and joined when all are done.

A piece is ``cut`` if its worker encodes a range of the stored track, and ``planned`` if it reads its part of the video
itself. If that does not give the MP3 of one encoder, the job falls back: it is converted again, with a track.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, insert, select, update

from events.schema import ConversionFailed, Event, JobId, PieceCut, PiecesEncoded
from functions.media import BlobId
from functions.state import blobs as blob_records
from functions.state.blobs import BlobExpired
from functions.state.database import Database
from functions.state.fairness import CUT, ENCODING, PLANNED, Turns
from functions.state.jobs import Job, Usage, convert_again, end_job
from functions.state.leases import Lease, LeaseRenewer, Leases, LeaseTerms
from functions.state.schema import UserId, jobs, now, pieces


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """How a job was split.

    Attributes:
        audio: the blob of the audio track, or of the index from which workers learn what to read of the video.
        head: the blob of what precedes the frames in the MP3.
        plan: how the job is encoded, as JSON.
        pieces: what the row of each piece starts with, as JSON.
        reserved: bytes of the owner's quota that are reserved for the MP3.
        usage: what the attempt has used.
        is_track: whether ``audio`` is the track. The job's row names no other blob: workers of the version before would
            take it for the track.
    """

    audio: BlobId
    head: BlobId
    plan: str
    pieces: tuple[str, ...]
    reserved: int = 0
    usage: Usage = field(default_factory=Usage)
    is_track: bool = True


@dataclass(frozen=True, slots=True)
class PieceRow:
    """Piece ``n`` (from 0) of a job."""

    job: JobId
    n: int
    owner: UserId

    @classmethod
    def from_row(cls, row: Row[Any]) -> "PieceRow":
        """Returns the piece of a row."""
        return cls(row.job, row.n, row.owner)


@dataclass(frozen=True, slots=True)
class PieceOutput:
    """An encoded piece.

    Attributes:
        blob: of its frames.
        plan: what the join needs to know of them, as JSON.
        excess: bytes beyond its share of what is reserved for the job.
        usage: what the attempt has used.
    """

    blob: BlobId
    plan: str
    excess: int = 0
    usage: Usage = field(default_factory=Usage)


class Pieces:
    """The pieces table, as convert, encode and join use it."""

    def __init__(self, database: Database, terms: LeaseTerms | None = None, places: int = 0) -> None:
        """Creates the access to the table; owners share the ``places`` in which pieces are encoded, as in ``Jobs``."""
        self._database = database
        self._jobs = Leases(database, jobs, Job.from_row, ("converting",), terms)
        self._turns = Turns(ENCODING, places)
        self._leases = Leases(database, pieces, PieceRow.from_row, ENCODING.states, terms, turns=self._turns)

    def split(self, lease: Lease[Job], record: SplitRecord) -> list[Event] | None:
        """Records that the audio track is stored: creates the pieces and retains the blobs that they need.

        All pieces but the first are deferred: whoever claims the first admits as many as may start.

        Args:
            lease: on the job; it ends with this.
            record: how the job is to be encoded.

        Returns:
            The events to emit (that of the first piece), or None if another worker has the job or it was deleted: then
            discard the blobs.
        """
        job = lease.row.id
        state = CUT if record.is_track else PLANNED
        rows = [
            {"job": job, "n": n, "owner": lease.row.owner, "plan": plan, "state": state, "attempts": 0}
            for n, plan in enumerate(record.pieces)
        ]
        events: list[Event] = [PieceCut(job, 0)]

        def split(connection: Connection) -> list[Event] | None:
            moved = connection.execute(
                update(jobs)
                .where(self._jobs.held(lease))
                .values(
                    state="encoding",
                    audio=record.audio if record.is_track else None,
                    plan=record.plan,
                    total=len(rows),
                    done=0,
                    attempts=0,
                    lease=None,
                    lease_until=None,
                    due_at=None,
                    stage_at=now(),
                    read_at=now(),
                    cpu_ms=jobs.c.cpu_ms + record.usage.cpu_ms,
                    pod=record.usage.pod,
                )
            )
            if not moved.rowcount:
                # It is ours if an earlier try was committed and its answer was lost.
                mine = and_(jobs.c.id == job, jobs.c.state == "encoding", jobs.c.plan == record.plan)
                return events if connection.scalar(select(jobs.c.id).where(mine)) is not None else None
            retained = (
                blob_records.retain(connection, record.audio),
                blob_records.retain(connection, record.head, record.reserved),
            )
            if not all(retained):
                raise BlobExpired("Storing the audio track took too long.")
            connection.execute(insert(pieces).values(created_at=now(), due_at=now()), rows)
            connection.execute(update(pieces).where(pieces.c.job == job, pieces.c.n > 0).values(self._turns.deferral()))
            return events

        return self._database.run(split)

    def claim(self, job: JobId, n: int) -> Lease[PieceRow] | None:
        """Takes a piece to encode it; None if it is done or was deleted or deferred, or another worker has it."""
        return self._leases.claim(_is_piece(job, n))

    def admit(self, owner: UserId) -> list[Event]:
        """Admits as many of the owner's deferred pieces as may start; returns their events, which nobody else gets."""
        return self._database.run(
            lambda connection: [PieceCut(row.job, row.n) for row in self._turns.admit(connection, owner)]
        )

    def job(self, lease: Lease[PieceRow]) -> Job | None:
        """Returns the job of the piece; None if it was deleted or is no longer encoding."""
        query = select(jobs).where(jobs.c.id == lease.row.job, jobs.c.state == "encoding")
        row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else Job.from_row(row)

    def renewing(self, lease: Lease[PieceRow]) -> LeaseRenewer:
        """Renews the lease while encoding."""
        return self._leases.renewing(lease)

    def encoded(self, lease: Lease[PieceRow], output: PieceOutput) -> list[Event] | None:
        """Records that the piece's frames are stored: retains them and counts the piece.

        Args:
            lease: on the piece.
            output: its frames.

        Returns:
            The events to emit (one if this piece was the last), or None if another worker has done the piece or its job
            was deleted: then discard the frames.
        """
        job = lease.row.job

        def encoded(connection: Connection) -> list[Event] | None:
            # Locks the job's row before anything else, so the worker of the last piece sees every other piece counted.
            counted = connection.execute(
                select(jobs.c.done, jobs.c.total).where(jobs.c.id == job, jobs.c.state == "encoding").with_for_update()
            ).one_or_none()
            done = connection.execute(
                update(pieces)
                .where(self._leases.held(lease))
                .values(
                    state="done",
                    output=output.blob,
                    plan=output.plan,
                    pod=output.usage.pod,
                    lease=None,
                    lease_until=None,
                    due_at=None,
                )
            )
            if not done.rowcount or counted is None:
                mine = select(pieces.c.n).where(lease.where, pieces.c.output == output.blob)
                if connection.scalar(mine) is None:
                    return None
                joining = select(jobs.c.id).where(jobs.c.id == job, jobs.c.state == "joining", jobs.c.attempts == 0)
                return [PiecesEncoded(job)] if connection.scalar(joining) is not None else []
            if not blob_records.retain(connection, output.blob, output.excess):
                raise BlobExpired("Storing the piece took too long.")
            is_last = counted.done + 1 == counted.total
            values = {"state": "joining", "due_at": now(), "stage_at": now(), "encoded_at": now()} if is_last else {}
            cpu_ms = jobs.c.cpu_ms + output.usage.cpu_ms
            counting = update(jobs).where(jobs.c.id == job).values(done=counted.done + 1, cpu_ms=cpu_ms, **values)
            connection.execute(counting)
            return [PiecesEncoded(job)] if is_last else []

        return self._database.run(encoded)

    def fail(self, lease: Lease[PieceRow], error: str) -> list[Event]:
        """Records that the piece can never be encoded, which fails its job.

        Returns:
            The events to emit; none if the job has ended, or another worker has the piece and may succeed.
        """
        event = ConversionFailed(lease.row.job)
        values: dict[str, object] = {"state": "failed", "error": error}
        mine = select(pieces.c.n).where(self._leases.held(lease)).exists()

        return self._database.run(
            lambda connection: end_job(connection, and_(jobs.c.state == "encoding", mine), event, values)
        )

    def fall_back(self, lease: Lease[PieceRow]) -> list[Event] | None:
        """Records that the piece cannot be encoded from its part of the video: the job is converted again.

        Returns:
            The events to emit, or None if another worker has the piece, or the job no longer encodes.
        """
        mine = select(pieces.c.n).where(self._leases.held(lease)).exists()
        where = and_(jobs.c.id == lease.row.job, jobs.c.state == "encoding", mine)
        return self._database.run(lambda connection: convert_again(connection, lease.row.job, where))

    def release(self, lease: Lease[PieceRow], error: Exception | None = None) -> None:
        """Gives the piece back after a temporary failure."""
        self._leases.release(lease, error)

    def outputs(self, job: JobId) -> list[PieceOutput]:
        """Returns the encoded pieces of a job, in order."""
        query = select(pieces.c.output, pieces.c.plan).where(pieces.c.job == job).order_by(pieces.c.n)
        return self._database.read(
            lambda connection: [PieceOutput(row.output, row.plan) for row in connection.execute(query)]
        )


def _is_piece(job: JobId, n: int) -> ColumnElement[bool]:
    return and_(pieces.c.job == job, pieces.c.n == n)
