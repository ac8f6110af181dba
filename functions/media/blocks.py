"""Blobs that grow over many requests: what every store does alike to append.

The sum is CRC-32C, whose state is the sum itself, so that the next process goes on from it; hashlib has no such sum.
"""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Final, Self

from events.errors import Mp3burstError
from functions.media.integrity import Crc32c
from functions.media.interface import Description, Kept, Stat

#: Bytes of a block, and of a chunk of GridFS. Its default is 255 KiB, for a storage engine of old; clients send parts
#: of powers of two, and a part that ends where a chunk ends leaves no short one to be replaced by the next part.
BLOCK: Final = 256 * 1024

#: Blocks that are handed to the store at once. 4 MB are enough to be fast, and all that an appender holds.
BATCH: Final = 16


class BlockAppender(ABC):
    """An ``Appender``: cuts what is written into blocks, and hands them to the store a batch at a time."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self._first = kept.size // BLOCK  # the number of the first block that the store has not got whole
        self._full: list[bytes] = []
        self._partial = bytearray()
        self._changed = self._finished = False
        self._failure: Mp3burstError | None = None
        self._sum = Crc32c(int(kept.crc32c, 16))
        self._at_block: str | None = None  # the sum at the end of the last whole block that was written

    def __enter__(self) -> Self:
        self._finished = not self._begin()
        rest = self.kept.size % BLOCK
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
                part = view[start : start + BLOCK - len(self._partial)]
                self._partial += part
                self._sum.update(part)
                start += len(part)
                self._changed = True
                if len(self._partial) == BLOCK:
                    self._full.append(bytes(self._partial))
                    self._partial.clear()
                    self._changed = False
                    self._at_block = self._sum.hexdigest()
                if len(self._full) == BATCH:
                    self._hand_over(self._full)
            return len(view)

    def sync(self, *, whole_blocks: bool = False) -> Kept:
        """Make durable what was written, or the whole blocks of it, and return what is kept from now on."""
        if whole_blocks and self._at_block is not None:
            self._hand_over(self._full)
            self._settle()
            self.kept = Kept(self._first * BLOCK, self._at_block)
        elif not self._finished and not whole_blocks:
            self._hand_over([*self._full, bytes(self._partial)] if self._changed else self._full)
            self._changed = False
            self._settle()
            self.kept = Kept(self._first * BLOCK + len(self._partial), self._sum.hexdigest())
        return self.kept

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
