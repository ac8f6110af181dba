"""The media stores: where videos, pieces and MP3s lie.

A blob is written once, under an id of its own that no other attempt shares, and is there either whole or not at
all. Ids are 24 hexadecimal digits, the form of a MongoDB ObjectId. Nothing here keeps a blob in memory.
"""

import re
import secrets
from dataclasses import dataclass
from types import TracebackType
from typing import NewType, Protocol, Self

from events.errors import Mp3burstError, TryAgain

_BLOB_ID = re.compile(r"[0-9a-f]{24}")

#: A blob's id: 24 lowercase hexadecimal digits, the form of a MongoDB ObjectId.
BlobId = NewType("BlobId", str)


class BlobNotFound(Mp3burstError):
    """No such blob: never written, not finished, or deleted."""

    status = 404


class BlobExists(Mp3burstError):
    """The id is taken: every attempt must write under a fresh one."""


class BlobCorrupt(Mp3burstError):
    """The bytes read are not the bytes that were written."""


class StaleWriter(Mp3burstError):
    """A later writer goes on with the blob: what this one wrote since it last asked does not count."""

    status = 423


class MediaUnavailable(TryAgain):
    """The media store is unavailable, or full."""

    counts_as_attempt = False


@dataclass(frozen=True, slots=True)
class Description:
    """What is kept beside a blob's bytes."""

    owner: str
    job: str
    filename: str
    content_type: str


@dataclass(frozen=True, slots=True)
class Stat:
    """A finished blob: its size in bytes, SHA-256 and CRC-32C of its bytes in hexadecimal, and its description.

    A sum is empty where another GridFS client wrote the blob and left none; nothing is checked where both are. A blob
    that was appended to has no SHA-256, whose state nobody can hand on from one process to the next.
    """

    size: int
    sha256: str
    crc32c: str
    description: Description


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is durable of a blob that grows: its first ``size`` bytes, and their CRC-32C in hexadecimal."""

    size: int = 0
    crc32c: str = "00000000"


class Writer(Protocol):
    """Writes one blob. Leaving the ``with`` block well makes the blob visible, an exception leaves nothing.

    BlobExists, where the id is taken, comes when it is entered or at the latest when it is left, and does no harm to
    the other blob.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes and return how many, always all; MediaUnavailable where the store is full or away."""


class Appender(Protocol):
    """Appends to an unfinished blob; a context manager. What lies behind what was kept is overwritten."""

    @property
    def checkpoint(self) -> Checkpoint:
        """What was durable at the last ``sync``."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes and return how many, always all; StaleWriter where a later writer has the blob."""

    @property
    def tail(self) -> bytes:
        """The bytes so far of the last block, which is not full (``functions.media.integrity``)."""

    def sync(self, *, whole_blocks: bool = False) -> Checkpoint:
        """Make durable what was written, wherever it ends, or only the whole blocks of it, which costs less.

        Returns:
            What is kept.
        """

    def finish(self, description: Description) -> None:
        """Sync, and make the blob visible; it may be so already."""


class Reader(Protocol):
    """Reads one blob; a context manager, seekable, with the usual meaning of read, seek and tell."""

    stat: Stat

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, fewer only at the end.

        Where the reads went from start to end and found other bytes than were written, the last one raises
        BlobCorrupt; so does every read of bytes that are missing.
        """

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a byte offset, as ``io.IOBase.seek``."""

    def tell(self) -> int:
        """The byte offset of the next read."""


class Store(Protocol):
    """One kind of blobs. Every method raises MediaUnavailable where the store is away."""

    def create(self, blob: str, description: Description) -> Writer:
        """A writer for a new blob; BlobNotFound where the id is malformed."""

    def append(self, blob: str, checkpoint: Checkpoint, writer: int) -> Appender:
        """An appender to a blob that was begun, or that begins now, where nothing is kept.

        Args:
            blob: its id.
            checkpoint: what ``sync`` told last. BlobNotFound comes when it is entered, where that is gone.
            writer: the number of this attempt. From when it is entered none with a smaller number changes what this
                one writes: it gets StaleWriter.
        """

    def open(self, blob: str) -> Reader:
        """A reader of a finished blob; BlobNotFound where there is none, also for a malformed id."""

    def delete(self, blob: str) -> None:
        """Delete a blob, finished or not, and everything of it. One that is not there is no error."""


@dataclass(frozen=True, slots=True)
class Media:
    """The three stores."""

    videos: Store
    pieces: Store
    mp3s: Store

    def __getitem__(self, name: str) -> Store:
        """The store by the name that the blobs table has for it: videos, pieces or mp3s."""
        stores: dict[str, Store] = {"videos": self.videos, "pieces": self.pieces, "mp3s": self.mp3s}
        return stores[name]


def new_blob_id() -> BlobId:
    """A new random id, impossible to guess."""
    return BlobId(secrets.token_hex(12))


def is_blob_id(text: str) -> bool:
    """Whether the text has the form of a blob's id."""
    return _BLOB_ID.fullmatch(text) is not None
