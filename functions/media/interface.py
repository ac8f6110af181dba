"""The interface of the media stores, which keep videos, encoded pieces and MP3s as blobs.

A blob is written once, under a fresh id that no other attempt uses, and becomes visible only when it is complete. No
store keeps a whole blob in memory.
"""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NewType, Protocol, Self

from events.errors import Mp3burstError, TryAgain

_BLOB_ID = re.compile(r"[0-9a-f]{24}")

#: The bytes that uploads leave free, unless MIN_FREE_BYTES says otherwise: a twentieth of the disk, at least 1 GB, but
#: no more than a quarter of a small disk.
_FLOOR_SHARE: Final = 0.05
_MIN_FLOOR: Final = 1_000_000_000
_MAX_FLOOR_SHARE: Final = 0.25

#: A blob's id: 24 lowercase hexadecimal digits, the form of a MongoDB ObjectId.
BlobId = NewType("BlobId", str)


class BlobNotFound(Mp3burstError):
    """There is no such blob: it was never written, is not finished, or was deleted."""

    status = 404

    def __init__(self, message: str = "There is no such file, or it was deleted: upload the video again.") -> None:
        """Uses the usual message, or a more precise one."""
        super().__init__(message)


class BlobExists(Mp3burstError):
    """The id is taken: every attempt must write under a fresh one."""

    def __init__(self) -> None:
        """Uses the only message there is for it."""
        super().__init__("This file id is already in use: write under a new id.")


class BlobCorrupt(Mp3burstError):
    """The bytes read are not the bytes that were written."""

    def __init__(self, message: str = "The file is damaged in the media store: upload it again.") -> None:
        """Uses the usual message, or a more precise one."""
        super().__init__(message)


class StaleWriter(Mp3burstError):
    """A later writer has taken over the blob: what this one has written since its last sync does not count."""

    status = 423

    def __init__(self) -> None:
        """Uses the only message there is for it."""
        super().__init__("Another request has taken over this upload. Ask for its offset before you resume.")


class MediaUnavailable(TryAgain):
    """The media store does not answer, or is full."""

    counts_as_attempt = False


class DiskFull(MediaUnavailable):
    """The media store has too little free space."""

    status = 507
    #: Seconds: about as long as a sweep takes to free what was deleted.
    retry_after = 300

    def __init__(self) -> None:
        """Uses the only message there is for it, whether the space was measured or a write failed."""
        super().__init__("The server has no space for this file at the moment: delete a job, or try again later.")


@dataclass(frozen=True, slots=True)
class Description:
    """What is stored with a blob's bytes."""

    owner: str
    job: str
    filename: str
    content_type: str


@dataclass(frozen=True, slots=True)
class Stat:
    """A finished blob.

    Attributes:
        size: in bytes.
        sha256: the SHA-256 of its bytes in hexadecimal. Empty for a blob that was appended to, since hashlib cannot
            save the state of a SHA-256 for the next process.
        crc32c: the CRC-32C of its bytes in hexadecimal. Both sums are empty if another GridFS client wrote the blob
            without them; reading then checks nothing.
        description: what was stored with it.
    """

    size: int
    sha256: str
    crc32c: str
    description: Description


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is durable of a blob that is being appended to.

    Attributes:
        size: how many bytes, counted from the start.
        crc32c: their CRC-32C in hexadecimal.
    """

    size: int = 0
    crc32c: str = "00000000"


class Writer(Protocol):
    """Writes one blob. Leaving the ``with`` block makes the blob visible; an exception leaves nothing behind.

    If the id is taken, BlobExists is raised on entry or at the latest on exit, and the other blob stays as it is.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Appends all of the bytes and returns how many they are.

        Raises:
            MediaUnavailable: the store does not answer, or is full.
        """


class Appender(Protocol):
    """Appends to an unfinished blob; a context manager. Bytes past the checkpoint are overwritten."""

    @property
    def checkpoint(self) -> Checkpoint:
        """What was durable at the last ``sync``."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Appends all of the bytes and returns how many they are.

        Raises:
            StaleWriter: a later writer has taken over the blob.
            MediaUnavailable: the store does not answer, or is full.
        """

    @property
    def tail(self) -> bytes:
        """The bytes after the last full block (``functions.media.integrity.BLOCK_SIZE``)."""

    def sync(self, *, full_blocks_only: bool = False) -> Checkpoint:
        """Makes what was written durable, and returns the new checkpoint.

        Args:
            full_blocks_only: leave out the last block if it is not full, which costs less.
        """

    def finish(self, description: Description) -> None:
        """Syncs, and makes the blob visible. It may be visible already."""


class Reader(Protocol):
    """Reads one blob; a context manager, seekable, with the usual meaning of read, seek and tell."""

    stat: Stat

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def read(self, size: int = -1, /) -> bytes:
        """Returns up to ``size`` bytes, fewer only at the end.

        Raises:
            BlobCorrupt: bytes are missing, or this read completes a pass from start to end and the checksum differs.
        """

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves to a byte offset, as ``io.IOBase.seek``."""

    def tell(self) -> int:
        """Returns the byte offset of the next read."""

    def fetch_until(self, end: int) -> None:
        """Fetches nothing in advance from the byte offset ``end`` on: the caller will not read it."""


class Store(Protocol):
    """Stores one kind of blob. Every method raises MediaUnavailable if the store does not answer."""

    def connect(self) -> None:
        """Connects before the first use, which would do so otherwise."""

    def create(self, blob: str, description: Description) -> Writer:
        """Returns a writer for a new blob; BlobNotFound if the id is malformed."""

    def append(self, blob: str, checkpoint: Checkpoint, writer: int) -> Appender:
        """Returns an appender to an unfinished blob, or to a new one if the checkpoint is at 0.

        At 0, what earlier writers have stored of the blob is deleted once the appender is entered.

        Args:
            blob: its id.
            checkpoint: what the last ``sync`` returned. If those bytes are gone, entering raises BlobNotFound.
            writer: the number of this attempt. Once the appender is entered, writers with smaller numbers can no longer
                change the blob: they get StaleWriter.
        """

    def open(self, blob: str) -> Reader:
        """Returns a reader of a finished blob; BlobNotFound if there is none or the id is malformed."""

    def delete(self, blob: str) -> None:
        """Deletes a blob, finished or not. Deleting one that does not exist is not an error."""

    def usage(self) -> "Usage":
        """Returns what is used, and the space of the disk if it is known."""


@dataclass(frozen=True, slots=True)
class Space:
    """The space of a media store, in bytes."""

    free: int
    total: int

    def floor(self, configured: int | None = None) -> int:
        """Returns the bytes that uploads leave free.

        Args:
            configured: MIN_FREE_BYTES; None for the default.
        """
        if configured is not None:
            return configured
        return int(min(max(self.total * _FLOOR_SHARE, _MIN_FLOOR), self.total * _MAX_FLOOR_SHARE))


@dataclass(frozen=True, slots=True)
class Usage:
    """What a disk has.

    Attributes:
        used: bytes; if the space is unknown, those of the store alone.
        space: None if the store's server does not tell.
    """

    used: int
    space: Space | None


def _unknown_space() -> Space | None:
    return None


@dataclass(frozen=True, slots=True)
class Media:
    """The three stores.

    Attributes:
        space: returns the space of the videos' disk; None if the store cannot tell.
        mp3_space: as ``space``, of the MP3s' disk if it is another.
        disks: the names of the stores on each disk.
    """

    videos: Store
    pieces: Store
    mp3s: Store
    space: Callable[[], Space | None] = _unknown_space
    mp3_space: Callable[[], Space | None] = _unknown_space
    disks: tuple[tuple[str, ...], ...] = (("videos", "pieces", "mp3s"),)

    def usage(self, stores: Sequence[str]) -> Usage:
        """Returns what the disk of these stores has.

        Raises:
            MediaUnavailable: a store does not answer.
        """
        used = 0
        for name in stores:
            usage = self[name].usage()
            if usage.space is not None:
                return usage
            used += usage.used
        return Usage(used, None)

    def __getitem__(self, name: str) -> Store:
        """Returns a store by its name in the blobs table: videos, pieces or mp3s."""
        stores: dict[str, Store] = {"videos": self.videos, "pieces": self.pieces, "mp3s": self.mp3s}
        return stores[name]


def new_blob_id() -> BlobId:
    """Returns a random id that cannot be guessed."""
    return BlobId(secrets.token_hex(12))


def is_blob_id(text: str) -> bool:
    """Returns whether the text has the form of a blob's id."""
    return _BLOB_ID.fullmatch(text) is not None
