"""Replaces the ID3 tag of a finished MP3: a blob of its own, in front of the sound that stays where it is."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select, update

from functions.media import BlobId
from functions.state import blobs as blob_records
from functions.state.blobs import TTL, BlobExpired
from functions.state.database import Database
from functions.state.jobs import Job
from functions.state.schema import blobs, jobs, now

#: Milliseconds that a replaced tag stays for the downloads that have begun with it; a request takes 600 s at most.
#: Until then it counts towards the quota: otherwise changes could fill the disk.
_GRACE: Final = TTL


@dataclass(frozen=True, slots=True)
class NewTag:
    """A tag that is to replace another.

    Attributes:
        blob: its blob.
        size: its bytes.
        sound_at: bytes before the sound in the MP3's blob.
        mp3_size: bytes of the MP3 with this tag.
        mp3_crc32: the CRC-32 of the MP3 with this tag in hexadecimal, if it is known.
    """

    blob: BlobId
    size: int
    sound_at: int
    mp3_size: int
    mp3_crc32: str | None = None


class Tags:
    """The tags of finished MP3s."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def replace(self, job: Job, tag: NewTag) -> bool:
        """Records a new tag, retains its blob, and lets that of the tag before expire in an hour.

        Args:
            job: as it was read; its tag is the one that is replaced.
            tag: the new one.

        Returns:
            False if another request has replaced the tag, or the job was deleted: then discard the blob.

        Raises:
            BlobExpired: storing the tag took too long.
        """
        is_same = jobs.c.tag.is_(None) if job.tag is None else jobs.c.tag == job.tag
        seen = update(jobs).where(jobs.c.id == job.id, jobs.c.owner == job.owner, jobs.c.state == "done", is_same)
        values = {"sound_at": tag.sound_at, "mp3_size": tag.mp3_size, "mp3_crc32": tag.mp3_crc32}
        changed = seen.values(tag=tag.blob, **values)
        kept = update(blobs).where(blobs.c.id == job.tag).values(expires_at=now() + _GRACE)

        def replace(connection: Connection) -> bool:
            if not connection.execute(changed).rowcount:
                # An earlier try was committed, and its answer was lost.
                mine = select(jobs.c.id).where(jobs.c.id == job.id, jobs.c.tag == tag.blob)
                return connection.scalar(mine) is not None
            if not blob_records.retain(connection, tag.blob, tag.size):
                raise BlobExpired("Storing the tags took too long: try again.")
            if job.tag is not None:
                connection.execute(kept)
            return True

        return self._database.run(replace)
