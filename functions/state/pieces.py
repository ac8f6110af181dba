"""Pieces of a job: cut by convert, encoded by many workers at once in any order, joined when the last one is done."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, insert, select, update

from events.schema import ConversionFailed, Event, PieceCut, PiecesEncoded
from functions.state import blobs as blobs_record
from functions.state.blobs import BlobExpired
from functions.state.database import Database
from functions.state.jobs import close
from functions.state.leases import Lease, LeaseRenewer, Leases, LeaseTerms
from functions.state.schema import jobs, now, pieces


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """A job's audio track and how it is to be encoded.

    Attributes:
        audio: the blob of the audio track.
        head: the blob of what comes before the sound in the MP3.
        plan: for the whole job, JSON.
        pieces: for each piece, JSON.
    """

    audio: str
    head: str
    plan: str
    pieces: tuple[str, ...]


class Pieces:
    """The pieces table, as convert, encode and join use it."""

    def __init__(self, database: Database, terms: LeaseTerms | None = None) -> None:
        self._database = database
        self._jobs = Leases(database, jobs, ("converting",), terms or LeaseTerms())
        self._leases = Leases(database, pieces, ("cut",), terms or LeaseTerms())

    def split(self, lease: Lease, record: SplitRecord) -> list[Event]:
        """The track is stored: put the pieces on record, and keep the blobs that they need.

        Args:
            lease: of the job, which is given up with this.
            record: what is to be encoded, and how.

        Returns:
            The events to emit; none where another worker has the job or it is gone: the blobs are then nobody's.
        """
        job = lease.row.id
        rows = [
            {"job": job, "n": n, "plan": plan, "state": "cut", "attempts": 0} for n, plan in enumerate(record.pieces)
        ]
        events: list[Event] = [PieceCut(job, n) for n in range(len(rows))]

        def move(connection: Connection) -> list[Event]:
            moved = connection.execute(
                update(jobs)
                .where(self._jobs.held(jobs.c.id == job, lease.token))
                .values(
                    {"state": "encoding", "audio": record.audio, "plan": record.plan, "total": len(rows), "done": 0}
                    | {"attempts": 0, "lease": None, "lease_until": None, "due_at": None}
                )
            )
            if not moved.rowcount:
                # Ours all the same, if the answer to our commit was lost.
                mine = and_(jobs.c.id == job, jobs.c.state == "encoding", jobs.c.audio == record.audio)
                return events if connection.scalar(select(jobs.c.id).where(mine)) is not None else []
            if not all(blobs_record.retain(connection, blob) for blob in (record.audio, record.head)):
                raise BlobExpired("Storing the audio track took too long.")
            connection.execute(insert(pieces).values(created_at=now(), due_at=now()), rows)
            return events

        return self._database.run(move)

    def claim(self, job: str, n: int) -> Lease | None:
        """Take a piece to encode it; None where it is done, gone, or in another worker's hands."""
        return self._leases.claim(_piece(job, n))

    def job(self, lease: Lease) -> Any:
        """The row of the piece's job; None where it is gone or no longer encoding."""
        query = select(jobs).where(jobs.c.id == lease.row.job, jobs.c.state == "encoding")
        return self._database.run(lambda connection: connection.execute(query).one_or_none())

    def renewing(self, lease: Lease) -> LeaseRenewer:
        """Renew the lease while encoding."""
        return self._leases.renewing(lambda: self._leases.renew(_piece(lease.row.job, lease.row.n), lease.token))

    def encoded(self, lease: Lease, output: str, plan: str) -> list[Event] | None:
        """The piece's frames are stored: keep them and count the piece.

        Args:
            lease: of the piece.
            output: the blob of its frames.
            plan: the piece's plan, with what the join must know of it.

        Returns:
            The events to emit, one where this piece was the last; None where another worker has done the piece or its
            job is gone: the blob is then nobody's.
        """
        job, n = lease.row.job, lease.row.n

        def move(connection: Connection) -> list[Event] | None:
            # The job's row first, and locked: whoever completes the set sees every other piece counted.
            counted = connection.execute(
                select(jobs.c.done, jobs.c.total).where(jobs.c.id == job, jobs.c.state == "encoding").with_for_update()
            ).one_or_none()
            done = connection.execute(
                update(pieces)
                .where(self._leases.held(_piece(job, n), lease.token))
                .values(state="done", output=output, plan=plan, lease=None, lease_until=None, due_at=None)
            )
            if not done.rowcount or counted is None:
                mine = select(pieces.c.n).where(_piece(job, n), pieces.c.output == output)
                if connection.scalar(mine) is None:
                    return None
                joining = select(jobs.c.id).where(jobs.c.id == job, jobs.c.state == "joining", jobs.c.attempts == 0)
                return [PiecesEncoded(job)] if connection.scalar(joining) is not None else []
            if not blobs_record.retain(connection, output):
                raise BlobExpired("Storing the piece took too long.")
            complete = counted.done + 1 == counted.total
            values = {"state": "joining", "due_at": now()} if complete else {}
            connection.execute(update(jobs).where(jobs.c.id == job).values(done=counted.done + 1, **values))
            return [PiecesEncoded(job)] if complete else []

        return self._database.run(move)

    def fail(self, lease: Lease, error: str) -> Event | None:
        """The piece can never be encoded, and so its job has failed.

        Returns:
            The event to emit, or None where it is over, or another worker has the piece: that one may manage it.
        """
        job, n = lease.row.job, lease.row.n
        event = ConversionFailed(job)
        values: dict[str, object] = {"state": "failed", "error": error}
        mine = select(pieces.c.n).where(self._leases.held(_piece(job, n), lease.token)).exists()

        def move(connection: Connection) -> Event | None:
            return event if close(connection, and_(jobs.c.state == "encoding", mine), event, values) else None

        return self._database.run(move)

    def release(self, lease: Lease, error: Exception | None = None) -> None:
        """Give the piece back after a failure that may pass."""
        self._leases.release(_piece(lease.row.job, lease.row.n), lease, error)

    def outputs(self, job: str) -> list[tuple[str, str]]:
        """(output, plan) of each piece of a job, in order."""
        query = select(pieces.c.output, pieces.c.plan).where(pieces.c.job == job).order_by(pieces.c.n)
        return self._database.run(lambda connection: [(row.output, row.plan) for row in connection.execute(query)])


def _piece(job: str, n: int) -> Any:
    return and_(pieces.c.job == job, pieces.c.n == n)
