"""What every media store does alike: a writer that sums up what passes, and a reader that checks it.

Two sums are kept of a blob. CRC-32C (Castagnoli) costs a reader next to nothing, so every read to the end is checked
by it; SHA-256 costs as much as reading the blob does, and is there for whoever wants to be sure of more than chance.

A store brings the four steps of writing, or the one of reading, and says nothing of hashes, positions or
half-written blobs.
"""

import hashlib
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Final, Self

from events.errors import Mp3burstError
from functions.media.interface import BlobCorrupt, BlobExists, Checkpoint, Description, MediaUnavailable, Stat

#: Bytes of a block, and of a chunk of GridFS. Its default is 255 KiB, for a storage engine of old; clients send parts
#: of powers of two, and a part that ends where a chunk ends leaves no short one to be replaced by the next part.
BLOCK_SIZE: Final = 256 * 1024

#: Blocks that are handed to the store at once. 4 MB are enough to be fast, and all that an appender holds.
BLOCKS_PER_WRITE: Final = 16


class Crc32c:
    """CRC-32C (RFC 3720, appendix B.4) of bytes that come one after the other, as hashlib has its sums."""

    def __init__(self, value: int = 0) -> None:
        """Go on from the sum of what came before."""
        self.value = value

    def update(self, data: bytes | memoryview) -> None:
        """Take in more bytes."""
        from fastcrc import crc32

        self.value = crc32.iscsi(data, self.value)

    def hexdigest(self) -> str:
        """Eight hexadecimal digits."""
        return f"{self.value:08x}"


class HashingWriter(ABC):
    """A ``Writer``: nothing is begun before the ``with``, and the blob is finished or discarded at its end."""

    def __init__(self, description: Description) -> None:
        self._description = description
        self._hash = hashlib.sha256()
        self._crc = Crc32c()
        self._size = 0
        self._writable = False
        self._broken: BaseException | None = None

    def __enter__(self) -> Self:
        self._begin()
        self._writable = True
        return self

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes and return how many; after one failure the blob cannot be finished any more."""
        if not self._writable:
            raise ValueError("A blob is written inside its with block.")
        with memoryview(data).cast("B") as view:
            try:
                self._append(view)
            except BaseException as error:
                self._broken = error
                raise
            self._hash.update(view)
            self._crc.update(view)
            self._size += len(view)
            return len(view)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writable = False
        try:
            if kind is None:
                if self._broken is not None:  # caught in the block, but the bytes are not there all the same
                    raise MediaUnavailable("The file could not be stored; try again later.") from self._broken
                sums = self._hash.hexdigest(), self._crc.hexdigest()
                self._finish(Stat(self._size, *sums, self._description))
        except BaseException as failure:
            self._give_up(self._broken or failure)
            raise
        if kind is not None:
            self._give_up(self._broken)

    def _give_up(self, failure: BaseException | None) -> None:
        if not isinstance(failure, BlobExists):  # else what is there is somebody else's
            self._discard()

    @abstractmethod
    def _begin(self) -> None:
        """Make room for the blob, invisibly."""

    @abstractmethod
    def _append(self, data: memoryview) -> None:
        """Append all of the bytes, or raise; the view is only good until this returns."""

    @abstractmethod
    def _finish(self, stat: Stat) -> None:
        """Make the blob durable, then visible."""

    @abstractmethod
    def _discard(self) -> None:
        """Take away whatever there is of the blob, and leave what cannot be to ``delete``. Never raises."""


class VerifyingReader(ABC):
    """A ``Reader`` that checks the blob's sum whenever the reads went from the start to the end without a gap.

    Seeking about costs nothing of that by itself: it is a read elsewhere that gives the check up, and a read at 0
    that begins it anew.
    """

    def __init__(self, stat: Stat) -> None:
        self.stat = stat
        self._position = 0
        self._sum = self._new_sum()
        self._summed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; BlobCorrupt where some are missing or not those written."""
        left = max(0, self.stat.size - self._position)
        wanted = left if size < 0 else min(size, left)
        if not wanted:
            return b""
        data = self._fetch(self._position, wanted)
        if len(data) != wanted:
            raise BlobCorrupt("A part of the file is missing in the media store; upload it again.")
        self._check(data)
        self._position += wanted
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a byte offset from the start (0), from here (1) or from the end (2), and return it."""
        target = offset + {0: 0, 1: self._position, 2: self.stat.size}[whence]
        if target < 0:
            raise ValueError("There is nothing before the start of a blob.")
        self._position = target
        return target

    def tell(self) -> int:
        """The byte offset of the next read."""
        return self._position

    def _new_sum(self) -> Any:
        return Crc32c() if self.stat.crc32c else hashlib.sha256()

    def _check(self, data: bytes) -> None:
        expected = self.stat.crc32c or self.stat.sha256
        if self._position == 0:
            self._sum, self._summed = self._new_sum(), 0
        if self._position != self._summed or not expected:
            return
        self._sum.update(data)
        self._summed += len(data)
        if self._summed == self.stat.size and self._sum.hexdigest() != expected:
            raise BlobCorrupt("The file is damaged in the media store; upload it again.")

    @abstractmethod
    def _fetch(self, start: int, size: int) -> bytes:
        """The ``size`` bytes from ``start`` on, all within the blob; fewer where some are missing."""

    @abstractmethod
    def _close(self) -> None:
        """Let go of what the reading holds."""


class BlockAppender(ABC):
    """An ``Appender``: cuts what is written into blocks, and hands them to the store a batch at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._first = checkpoint.size // BLOCK_SIZE  # the number of the first block that the store has not got whole
        self._full: list[bytes] = []
        self._partial = bytearray()
        self._changed = self._finished = False
        self._failure: Mp3burstError | None = None
        self._sum = Crc32c(int(checkpoint.crc32c, 16))
        self._at_block: str | None = None  # the sum at the end of the last whole block that was written

    def __enter__(self) -> Self:
        self._finished = not self._begin()
        rest = self.checkpoint.size % BLOCK_SIZE
        if rest and not self._finished:
            self._partial += self._read_back(self._first, rest)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def tail(self) -> bytes:
        """The bytes so far of the last block, which is not full."""
        return bytes(self._partial)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes and return how many, always all; what ``sync`` has not seen may be lost."""
        if self._finished:
            raise ValueError("The blob is finished.")
        with memoryview(data).cast("B") as view:
            start = 0
            while start < len(view):
                part = view[start : start + BLOCK_SIZE - len(self._partial)]
                self._partial += part
                self._sum.update(part)
                start += len(part)
                self._changed = True
                if len(self._partial) == BLOCK_SIZE:
                    self._full.append(bytes(self._partial))
                    self._partial.clear()
                    self._changed = False
                    self._at_block = self._sum.hexdigest()
                if len(self._full) == BLOCKS_PER_WRITE:
                    self._hand_over(self._full)
            return len(view)

    def sync(self, *, whole_blocks: bool = False) -> Checkpoint:
        """Make durable what was written, or the whole blocks of it, and return what is kept from now on."""
        if whole_blocks and self._at_block is not None:
            self._hand_over(self._full)
            self._settle()
            self.checkpoint = Checkpoint(self._first * BLOCK_SIZE, self._at_block)
        elif not self._finished and not whole_blocks:
            self._hand_over([*self._full, bytes(self._partial)] if self._changed else self._full)
            self._changed = False
            self._settle()
            self.checkpoint = Checkpoint(self._first * BLOCK_SIZE + len(self._partial), self._sum.hexdigest())
        return self.checkpoint

    def finish(self, description: Description) -> None:
        """The blob is whole: make it visible. It may be finished already."""
        size = self.sync().size
        if not self._finished:
            self._finish(Stat(size, "", self._sum.hexdigest(), description))
            self._finished = True

    def _hand_over(self, blocks: list[bytes]) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            if blocks:
                self._put(self._first, blocks)
        except Mp3burstError as error:
            self._failure = error
            raise
        self._first += len(self._full)
        self._full = []

    @abstractmethod
    def _begin(self) -> bool:
        """Shut out earlier writers, and make room where there is none; False where the blob is finished."""

    @abstractmethod
    def _read_back(self, block: int, size: int) -> bytes:
        """The first bytes of a block that was kept in part; BlobNotFound where they are gone."""

    @abstractmethod
    def _put(self, first: int, blocks: list[bytes]) -> None:
        """Store blocks by number, in place of what was there; the last may be short. StaleWriter if shut out."""

    @abstractmethod
    def _settle(self) -> None:
        """Make durable what was put."""

    @abstractmethod
    def _finish(self, stat: Stat) -> None:
        """Make the blob visible, of exactly ``stat.size`` bytes. It may be visible already."""

    @abstractmethod
    def _close(self) -> None:
        """Let go of what the appending holds; what was stored stays."""
