"""Blobs on record: every blob has a row before its first byte, so that what a killed writer leaves is found.

A row that expires is on its way out: nothing brings it back, so sweep may delete first the bytes and then the row.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from events.errors import Mp3burstError, TryAgain
from functions.media import Description, Media, Writer, new_blob_id
from functions.state.database import Conflict, Database
from functions.state.schema import blobs, now, uploads

#: Milliseconds that a blob may stay without a job that keeps it.
TTL: Final = 3_600_000
#: Asked within the transaction that puts a blob on record, or lets it grow: how many bytes it may have. May refuse.
Grant = Callable[[Connection, str], int]
_RENEWAL_SECONDS: Final = 600.0
log = logging.getLogger(__name__)


class BlobExpired(TryAgain):
    """The blob took too long to write and was swept."""


class RenewingWriter:
    """A writer that keeps its blob's row from expiring while bytes come in, however slowly."""

    def __init__(self, blob: str, writer: Writer, record: "Blobs", room: int) -> None:
        self.blob = blob
        self.room = room
        self.size = 0
        self._writer, self._record = writer, record
        self._renewed = time.monotonic()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes.

        Raises:
            BlobExpired: the blob was swept before it was whole.
            MediaUnavailable: the store is full or away.
        """
        if time.monotonic() - self._renewed > _RENEWAL_SECONDS:
            self._record.renew(self.blob)
            self._renewed = time.monotonic()
        self.size += len(data)
        return self._writer.write(data)


class Blobs:
    """The record of blobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def writing(
        self, media: Media, store: str, description: Description, admit: Grant | None = None
    ) -> Iterator[RenewingWriter]:
        """Write a new blob under a fresh id; it expires in an hour unless a job keeps it.

        Where the block raises, the blob is deleted, or left for sweep where the store does not answer. Raises what
        ``admit`` does before anything is on record.
        """
        blob = new_blob_id()
        room = self._reserve(blob, store, description, admit)
        try:
            with media[store].create(blob, description) as writer:
                yield RenewingWriter(blob, writer, self, room)
        except BaseException:
            self.discard(media, store, blob)
            raise

    def _reserve(self, blob: str, store: str, description: Description, admit: Grant | None) -> int:
        owner, job, room = description.owner, description.job, 0

        def reserve(connection: Connection) -> None:
            nonlocal room
            room = admit(connection, blob) if admit is not None else 0
            row = {"id": blob, "store": store, "owner": owner, "job": job, "size": room, "expires_at": now() + TTL}
            connection.execute(insert(blobs).values(row))

        try:
            self._database.run(reserve)
        except Conflict:
            # The first commit took place although its answer was lost: ids are never drawn twice.
            log.info("blob %s was on record already", blob)
        return room

    def grow(self, blob: str, admit: Grant) -> int:
        """Let a blob that is being written become as large as ``admit`` says, or raise what it raises.

        Raises:
            BlobExpired: it was swept in the meantime.
        """

        def grow(connection: Connection) -> int:
            room = admit(connection, blob)
            alive = update(blobs).where(blobs.c.id == blob, blobs.c.expires_at > now())
            return room if connection.execute(alive.values(size=room)).rowcount else -1

        if (room := self._database.run(grow)) < 0:
            raise BlobExpired("Storing the file took too long; send it again.")
        return room

    def renew(self, blob: str) -> None:
        """Put off the blob's expiry; BlobExpired where that is over."""
        statement = update(blobs).where(blobs.c.id == blob, blobs.c.expires_at > now()).values(expires_at=now() + TTL)
        if not self._database.run(lambda connection: connection.execute(statement).rowcount):
            raise BlobExpired("Storing the file took too long; send it again.")

    def discard(self, media: Media, store: str, blob: str) -> None:
        """Delete a blob of one's own, unless a job keeps it. What cannot be deleted now is left for sweep."""
        unkept = update(blobs).where(blobs.c.id == blob, blobs.c.expires_at.is_not(None)).values(expires_at=now() - 1)
        try:
            if self._database.run(lambda connection: connection.execute(unkept).rowcount):
                self.delete(media, store, blob)
        except Mp3burstError:
            log.warning("blob %s is left for sweep", blob, exc_info=True)

    def delete(self, media: Media, store: str, blob: str) -> None:
        """Delete an expired blob: first the bytes, then the row that tells of them, and that of its upload."""
        media[store].delete(blob)

        def forget(connection: Connection) -> None:
            connection.execute(delete(uploads).where(uploads.c.blob == blob))
            connection.execute(delete(blobs).where(blobs.c.id == blob))

        self._database.run(forget)

    def postpone(self, blob: str) -> None:
        """Let an expired blob that could not be deleted wait behind those that have not been tried."""
        later = update(blobs).where(blobs.c.id == blob, blobs.c.expires_at < now()).values(expires_at=now() - 1)
        self._database.run(lambda connection: connection.execute(later))

    def expired(self, most: int) -> list[tuple[str, str]]:
        """(id, store) of blobs whose time is past, oldest first."""
        query = (
            select(blobs.c.id, blobs.c.store).where(blobs.c.expires_at < now()).order_by(blobs.c.expires_at).limit(most)
        )
        return self._database.run(lambda connection: [(row.id, row.store) for row in connection.execute(query)])


def retain(connection: Connection, blob: str, size: int = 0) -> bool:
    """Keep the blob, of so many bytes, for good, within the caller's transaction; False where it has expired."""
    kept = blobs.c.expires_at.is_(None) | (blobs.c.expires_at > now())
    connection.execute(update(blobs).where(blobs.c.id == blob, kept).values(expires_at=None, size=size))
    # Asked, not counted: on a second try the row is kept already.
    return connection.scalar(select(blobs.c.id).where(blobs.c.id == blob, blobs.c.expires_at.is_(None))) is not None


def expire(connection: Connection, which: ColumnElement[bool]) -> None:
    """Let blobs expire now, those too that a job kept, within the caller's transaction."""
    connection.execute(update(blobs).where(which).values(expires_at=now() - 1))
