"""MP3s that are cut out of another one: finished jobs that share its sound."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, insert, select, update

from events.errors import Mp3burstError
from events.schema import JobId
from functions.media import BlobId
from functions.state import blobs as blob_records
from functions.state.blobs import BlobExpired
from functions.state.counters import Series, count
from functions.state.database import Conflict, Database
from functions.state.jobs import Job
from functions.state.schema import blobs, jobs, now
from functions.waveform import Waveform

#: Parts that share one sound, those of parts included. Each is a row, and lists and downloads of its owner have it.
MAX_PARTS: Final = 1000


class TooManyParts(Mp3burstError):
    """The sound of an MP3 has as many parts as it may have."""

    status = 422


@dataclass(frozen=True, slots=True)
class NewPart:
    """A part of a job's MP3.

    Attributes:
        id: of the job that it becomes, by ``part_id``.
        filename: its name.
        head: the blob of its tags and its first frames.
        head_size: bytes of that.
        sound: the blob that has its other frames.
        sound_from: where they begin, in bytes.
        sound_to: where they end.
        crc32: the CRC-32 of the complete MP3 in hexadecimal.
        duration: its seconds.
        waveform: of the complete MP3, if that of its source is known.
    """

    id: JobId
    filename: str
    head: BlobId
    head_size: int
    sound: BlobId
    sound_from: int
    sound_to: int
    crc32: str
    duration: float
    waveform: Waveform | None = None


def part_id(source: JobId, first: int, last: int) -> JobId:
    """Returns the id of the job of a part: the same samples of the same MP3 are the same part.

    Args:
        source: the job whose MP3 is cut.
        first: the first sample of the part.
        last: the sample after its last one.
    """
    return JobId(hashlib.sha256(f"{source} {first} {last}".encode()).hexdigest()[:32])


class Parts:
    """The parts of finished MP3s."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def require_room(self, sound: BlobId, parts: Sequence[JobId]) -> None:
        """Checks, before anything is stored, that a sound may have these parts.

        Raises:
            TooManyParts: it would have more than ``MAX_PARTS``.
        """
        self._database.read(lambda connection: _require_room(connection, [sound], parts))

    def add(self, source: Job, parts: Sequence[NewPart]) -> bool:
        """Records parts of a job's MP3, and retains their heads; all of them or none.

        From then on the sound belongs to no single job: it is deleted with the last one that has it.

        Args:
            source: the job, as it was read.
            parts: in order.

        Returns:
            False if the job was deleted or one of the parts is on record: then discard the heads.

        Raises:
            BlobExpired: storing the heads took too long.
            TooManyParts: the sound would have more than ``MAX_PARTS``.
        """
        seen = select(jobs.c.id).where(jobs.c.id == source.id, jobs.c.mp3 == source.mp3).with_for_update()
        rows = [_row(source, number, part) for number, part in enumerate(parts)]
        sounds = {part.sound for part in parts}
        share = update(blobs).where(blobs.c.id.in_(sounds), blobs.c.expires_at.is_(None)).values(job=blobs.c.id)

        def add(connection: Connection) -> bool:
            if connection.scalar(seen) is None:
                return False
            if connection.execute(share).rowcount != len(sounds):
                return False
            _require_room(connection, sounds, [part.id for part in parts])
            connection.execute(insert(jobs).values(rows))
            for part in parts:
                if not blob_records.retain(connection, part.head, part.head_size):
                    raise BlobExpired("Storing the parts took too long: try again.")
            count(connection, {Series.of("jobs_finished", "done", "part", ""): len(parts)})
            return True

        try:
            return self._database.run(add)
        except Conflict:
            # Another request was first, or the first try was committed and only its answer was lost.
            heads = select(jobs.c.mp3).where(jobs.c.id.in_([part.id for part in parts]))
            found = self._database.read(lambda connection: {*connection.scalars(heads)})
            return found == {part.head for part in parts}

    def rename(self, part: JobId, filename: str) -> None:
        """Records another file name of a part, unless it was deleted."""
        renamed = update(jobs).where(jobs.c.id == part).values(filename=filename[:255])
        self._database.run(lambda connection: connection.execute(renamed))


def _require_room(connection: Connection, sounds: Collection[BlobId], parts: Sequence[JobId]) -> None:
    """Counts the parts of sounds, without those that are to be added: another request may have added them already."""
    is_other = jobs.c.sound.in_(sounds), jobs.c.id.not_in(parts)
    others = connection.scalar(select(func.count()).where(*is_other)) or 0
    if others + len(parts) > MAX_PARTS:
        raise TooManyParts(
            f"This sound has {others} parts and may have {MAX_PARTS:,}: make fewer, or delete some before."
        )


def _row(source: Job, number: int, part: NewPart) -> dict[str, object]:
    size = part.head_size + part.sound_to - part.sound_from
    return {
        "id": part.id,
        "owner": source.owner,
        "filename": part.filename[:255],
        "options": source.options.to_json(),
        "state": "done",
        "video": source.video,
        "mp3": part.head,
        "mp3_size": size,
        "mp3_crc32": part.crc32,
        "source": source.id,
        "sound": part.sound,
        "sound_from": part.sound_from,
        "sound_to": part.sound_to,
        "waveform": None if part.waveform is None else part.waveform.to_bytes(),
        "duration": part.duration,
        "created_at": now() - number,
        "finished_at": now(),
    }
