"""The record of blobs: each has a row before its first byte is written, so sweep finds what a killed writer leaves.

A blob whose row has expired can never be retained again, so sweep can safely delete its bytes and then its row.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from events.errors import Mp3burstError, TryAgain
from functions.media import BlobId, Description, Media, Writer, new_blob_id
from functions.state.database import Conflict, Database
from functions.state.schema import blobs, now, uploads

#: Milliseconds that a blob lives until a job retains it.
TTL: Final = 3_600_000
#: Called inside the transaction that records a new blob, or lets it grow; returns the bytes granted, or raises.
Grant = Callable[[Connection, BlobId], int]
#: Seconds after which a writer renews its blob's row; UPLOAD_HOURS is longer.
RENEWAL_SECONDS: Final = 600.0
log = logging.getLogger(__name__)


class BlobExpired(TryAgain):
    """Writing the blob took too long, so it was swept."""


class RenewingWriter:
    """A writer that renews its blob's row while bytes arrive, however slowly.

    Attributes:
        blob: the blob's id.
        granted: bytes that it may have, as ``Grant`` returned them; 0 without one.
        size: bytes written so far.
    """

    def __init__(self, blob: BlobId, writer: Writer, blobs: "Blobs", granted: int) -> None:
        self.blob = blob
        self.granted = granted
        self.size = 0
        self._writer = writer
        self._blobs = blobs
        self._renewed = time.monotonic()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Appends bytes.

        Raises:
            BlobExpired: the blob was swept before it was complete.
            MediaUnavailable: the store is full or unavailable.
        """
        self.renew()
        self.size += len(data)
        return self._writer.write(data)

    def renew(self) -> None:
        """Renews the blob's row if that is due; call it often while no bytes are written.

        Raises:
            BlobExpired: the blob was swept.
        """
        if time.monotonic() - self._renewed > RENEWAL_SECONDS:
            self._blobs.renew(self.blob)
            self._renewed = time.monotonic()


class Blobs:
    """The blobs table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def writing(
        self, media: Media, store: str, description: Description, grant: Grant | None = None
    ) -> Iterator[RenewingWriter]:
        """Writes a new blob under a fresh id; it expires in an hour unless a job retains it.

        If the block raises, the blob is deleted, or left for sweep if the store is unavailable. If ``grant`` raises,
        nothing has been recorded.
        """
        blob = new_blob_id()
        granted = self._reserve(blob, store, description, grant)
        try:
            with media[store].create(blob, description) as writer:
                yield RenewingWriter(blob, writer, self, granted)
        except BaseException:
            self.discard(media, store, blob)
            raise

    def _reserve(self, blob: BlobId, store: str, description: Description, grant: Grant | None) -> int:
        granted = 0

        def reserve(connection: Connection) -> None:
            nonlocal granted
            granted = grant(connection, blob) if grant is not None else 0
            connection.execute(
                insert(blobs).values(
                    id=blob,
                    store=store,
                    owner=description.owner,
                    job=description.job,
                    size=granted,
                    expires_at=now() + TTL,
                )
            )

        try:
            self._database.run(reserve)
        except Conflict:
            # Ids are never reused, so the first try was committed and only its answer was lost.
            log.info("blob %s was already on record", blob)
        return granted

    def grow(self, blob: BlobId, grant: Grant) -> int:
        """Lets a blob that is being written grow to what ``grant`` returns, or raises what it raises.

        Raises:
            BlobExpired: the blob was swept in the meantime.
        """

        def grow(connection: Connection) -> int | None:
            granted = grant(connection, blob)
            alive = update(blobs).where(blobs.c.id == blob, blobs.c.expires_at > now())
            return granted if connection.execute(alive.values(size=granted)).rowcount else None

        granted = self._database.run(grow)
        if granted is None:
            raise BlobExpired("Storing the file took too long: send it again.")
        return granted

    def renew(self, blob: BlobId) -> None:
        """Postpones the blob's expiry; raises BlobExpired if it has expired already."""
        statement = update(blobs).where(blobs.c.id == blob, blobs.c.expires_at > now()).values(expires_at=now() + TTL)
        if not self._database.run(lambda connection: connection.execute(statement).rowcount):
            raise BlobExpired("Storing the file took too long: send it again.")

    def discard(self, media: Media, store: str, blob: BlobId) -> None:
        """Deletes a blob that this caller wrote, unless a job retains it; leaves it for sweep if that fails."""
        unretained = (
            update(blobs).where(blobs.c.id == blob, blobs.c.expires_at.is_not(None)).values(expires_at=now() - 1)
        )
        try:
            if self._database.run(lambda connection: connection.execute(unretained).rowcount):
                self.delete(media, store, blob)
        except Mp3burstError:
            log.warning("blob %s is left for sweep", blob, exc_info=True)

    def delete_unwanted(self, media: Media, store: str, blob: BlobId) -> None:
        """Deletes what a writer has stored of a blob that was deleted or has expired, even if it was deleted before.

        A blob that is alive belongs to another writer by now, or to a job.
        """
        alive = blobs.c.expires_at.is_(None) | (blobs.c.expires_at > now())
        query = select(blobs.c.id).where(blobs.c.id == blob, alive)
        try:
            if self._database.read(lambda connection: connection.scalar(query)) is None:
                media[store].delete(blob)
        except Mp3burstError:
            log.warning("some of blob %s may be left, which was deleted while it was written", blob, exc_info=True)

    def delete(self, media: Media, store: str, blob: BlobId) -> None:
        """Deletes an expired blob: first its bytes, then its row and that of its upload."""
        media[store].delete(blob)

        def forget(connection: Connection) -> None:
            if store == "videos":
                connection.execute(delete(uploads).where(uploads.c.blob == blob))
            connection.execute(delete(blobs).where(blobs.c.id == blob))

        self._database.run(forget)

    def postpone(self, blob: BlobId) -> None:
        """Moves an expired blob that could not be deleted behind those that have not been tried."""
        later = update(blobs).where(blobs.c.id == blob, blobs.c.expires_at < now()).values(expires_at=now() - 1)
        self._database.run(lambda connection: connection.execute(later))

    def expired(self, limit: int) -> list[tuple[BlobId, str]]:
        """Returns up to ``limit`` expired blobs as (id, store), oldest first."""
        query = (
            select(blobs.c.id, blobs.c.store)
            .where(blobs.c.expires_at < now())
            .order_by(blobs.c.expires_at)
            .limit(limit)
        )
        return self._database.read(lambda connection: [(row.id, row.store) for row in connection.execute(query)])


def retain(connection: Connection, blob: BlobId, size: int = 0) -> bool:
    """Retains the blob for a job within the caller's transaction.

    Args:
        connection: of the transaction.
        blob: the blob.
        size: its bytes.

    Returns:
        False if it has expired.
    """
    is_alive = blobs.c.expires_at.is_(None) | (blobs.c.expires_at > now())
    connection.execute(update(blobs).where(blobs.c.id == blob, is_alive).values(expires_at=None, size=size))
    # Not the row count: on a second try the blob is retained already.
    return connection.scalar(select(blobs.c.id).where(blobs.c.id == blob, blobs.c.expires_at.is_(None))) is not None


def expire(connection: Connection, where: ColumnElement[bool]) -> None:
    """Lets blobs expire now, retained ones too, within the caller's transaction."""
    connection.execute(update(blobs).where(where).values(expires_at=now() - 1))
