"""The base classes of every media store: they count and hash the bytes, so that a store only has to store them.

Two checksums are kept for each blob. CRC-32C (Castagnoli) costs a reader next to nothing, so every complete read is
checked against it. SHA-256 costs as much as reading the blob itself; it is for anyone who has to rule out more than
accidental damage.

A blob that is written in one go has both. One that grows over many requests (``BlockAppender``) has only the CRC-32C:
its state is the checksum itself, so another process can continue it, which hashlib cannot do with SHA-256.
"""

import contextlib
import hashlib
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Final, Self

from events.errors import Mp3burstError
from functions.media.interface import BlobCorrupt, BlobExists, Checkpoint, Description, MediaUnavailable, Stat

#: Bytes of an appender's block, and of a GridFS chunk. GridFS's own default of 255 KiB dates from an older storage
#: engine. Clients send parts whose sizes are powers of two: a part that ends on a chunk boundary leaves no short chunk
#: that the next part would have to replace.
BLOCK_SIZE: Final = 256 * 1024

#: Blocks that an appender passes to the store together: 4 MB, which is fast enough, and all that it keeps in memory.
BLOCKS_PER_WRITE: Final = 16

#: Bytes of a file that arrives after which its progress is saved. A process that is killed loses up to this many and
#: two chunks, or what arrived within ``SAVE_INTERVAL``. Half of it made uploads take 15 to 19 % longer.
SAVE_SIZE: Final = 2 * BLOCKS_PER_WRITE * BLOCK_SIZE
#: Seconds after which progress is saved, however little it is.
SAVE_INTERVAL: Final = 2.0


class Crc32c:
    """Computes the CRC-32C (RFC 3720, appendix B.4) of consecutive bytes. It has the interface of a hashlib hash."""

    def __init__(self, value: int = 0) -> None:
        """Starts anew, or continues from the checksum of the bytes before."""
        self.value = value

    def update(self, data: bytes | memoryview) -> None:
        """Adds bytes."""
        from fastcrc import crc32

        self.value = crc32.iscsi(data, self.value)

    def hexdigest(self) -> str:
        """Returns the checksum as eight hexadecimal digits."""
        return f"{self.value:08x}"


class HashingWriter(ABC):
    """A ``Writer`` that computes both checksums, and finishes or discards the blob at the end of the ``with`` block.

    A store implements the four steps: ``_begin``, ``_append``, ``_finish`` and ``_discard``.
    """

    def __init__(self, description: Description) -> None:
        self._description = description
        self._sha256 = hashlib.sha256()
        self._crc32c = Crc32c()
        self._size = 0
        self._is_open = False
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._begin()
        self._is_open = True
        return self

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Appends bytes and returns how many. After one failure the blob can no longer be finished."""
        if not self._is_open:
            raise ValueError("A blob is written inside its with block.")
        with memoryview(data).cast("B") as view:
            try:
                self._append(view)
            except BaseException as error:
                self._failure = error
                raise
            self._sha256.update(view)
            self._crc32c.update(view)
            self._size += len(view)
            return len(view)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        try:
            if kind is None:
                if self._failure is not None:  # The block caught the error, but the bytes are missing nevertheless.
                    raise MediaUnavailable("The file could not be stored; try again later.") from self._failure
                sha256 = self._sha256.hexdigest()
                crc32c = self._crc32c.hexdigest()
                self._finish(Stat(self._size, sha256, crc32c, self._description))
        except BaseException as failure:
            self._abandon(self._failure or failure)
            raise
        if kind is not None:
            self._abandon(self._failure)

    def _abandon(self, failure: BaseException | None) -> None:
        if not isinstance(failure, BlobExists):  # In that case the blob is another writer's.
            self._discard()

    @abstractmethod
    def _begin(self) -> None:
        """Prepares the store for the blob, which stays invisible."""

    @abstractmethod
    def _append(self, data: memoryview) -> None:
        """Appends all of the bytes, or raises. The view is valid only until this returns."""

    @abstractmethod
    def _finish(self, stat: Stat) -> None:
        """Makes the blob durable, then visible."""

    @abstractmethod
    def _discard(self) -> None:
        """Deletes what was stored of the blob, as far as possible; ``delete`` can remove the rest. Never raises."""


class VerifyingReader(ABC):
    """A ``Reader`` that verifies the checksum whenever a series of reads covers the blob from start to end.

    Seeking alone does not affect the check: a read elsewhere ends it, and a read at 0 starts it again.
    A store implements ``_fetch`` and ``_close``.
    """

    def __init__(self, stat: Stat) -> None:
        self.stat = stat
        self._position = 0
        self._end = stat.size  # of what may be fetched in advance
        self._checksum = self._new_checksum()
        self._checked = 0  # bytes from the start that are in the checksum

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def read(self, size: int = -1, /) -> bytes:
        """Returns up to ``size`` bytes, fewer only at the end; BlobCorrupt if bytes are missing or were changed."""
        left = max(0, self.stat.size - self._position)
        wanted = left if size < 0 else min(size, left)
        if not wanted:
            return b""
        data = self._fetch(self._position, wanted)
        if len(data) != wanted:
            raise BlobCorrupt("Part of the file is missing in the media store: upload it again.")
        self._check(data)
        self._position += wanted
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves to a byte offset from the start (0), the current position (1) or the end (2), and returns it."""
        target = offset + {0: 0, 1: self._position, 2: self.stat.size}[whence]
        if target < 0:
            raise ValueError("The position is before the start of the blob.")
        self._position = target
        return target

    def tell(self) -> int:
        """Returns the byte offset of the next read."""
        return self._position

    def fetch_until(self, end: int) -> None:
        """Fetches nothing in advance from the byte offset ``end`` on: the caller will not read it."""
        self._end = end

    def _new_checksum(self) -> Any:
        return Crc32c() if self.stat.crc32c else hashlib.sha256()

    def _check(self, data: bytes) -> None:
        expected = self.stat.crc32c or self.stat.sha256
        if self._position == 0:
            self._checksum = self._new_checksum()
            self._checked = 0
        if self._position != self._checked or not expected:
            return
        self._checksum.update(data)
        self._checked += len(data)
        if self._checked == self.stat.size and self._checksum.hexdigest() != expected:
            raise BlobCorrupt

    @abstractmethod
    def _fetch(self, start: int, size: int) -> bytes:
        """Returns the ``size`` bytes from ``start`` on, all within the blob; fewer if some are missing."""

    @abstractmethod
    def _close(self) -> None:
        """Releases the resources of the reader."""


class BlockAppender(ABC):
    """An ``Appender`` that divides the bytes into blocks and passes them to the store a batch at a time.

    A store implements ``_begin``, ``_read_back``, ``_put``, ``_flush``, ``_finish``, ``_withdraw`` and ``_close``.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._next_block = checkpoint.size // BLOCK_SIZE  # the first block that the store does not have in full
        self._full: list[bytes] = []
        self._partial = bytearray()
        self._partial_changed = False  # whether the store lacks bytes of the partial block
        self._is_finished = False
        self._failure: Mp3burstError | None = None
        self._crc32c = Crc32c(int(checkpoint.crc32c, 16))
        self._crc32c_of_full: str | None = None  # at the end of the last full block that was written

    def __enter__(self) -> Self:
        self._is_finished = not self._begin()
        partial_size = self.checkpoint.size % BLOCK_SIZE
        if partial_size and not self._is_finished:
            self._partial += self._read_back(self._next_block, partial_size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and not isinstance(error, MediaUnavailable):  # which would make the client wait again
                with contextlib.suppress(Mp3burstError):
                    self._withdraw()
        finally:
            self._close()

    @property
    def tail(self) -> bytes:
        """The bytes after the last full block."""
        return bytes(self._partial)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Appends all of the bytes and returns how many they are. They may be lost until ``sync`` returns."""
        if self._is_finished:
            raise ValueError("The blob is finished.")
        with memoryview(data).cast("B") as view:
            start = 0
            while start < len(view):
                part = view[start : start + BLOCK_SIZE - len(self._partial)]
                self._partial += part
                self._crc32c.update(part)
                start += len(part)
                self._partial_changed = True
                if len(self._partial) == BLOCK_SIZE:
                    self._full.append(bytes(self._partial))
                    self._partial.clear()
                    self._partial_changed = False
                    self._crc32c_of_full = self._crc32c.hexdigest()
                if len(self._full) == BLOCKS_PER_WRITE:
                    self._pass_on(self._full)
            return len(view)

    def sync(self, *, full_blocks_only: bool = False) -> Checkpoint:
        """Makes what was written durable, and returns the new checkpoint.

        Args:
            full_blocks_only: leave out the last block if it is not full, which costs less.
        """
        if full_blocks_only and self._crc32c_of_full is not None:
            self._pass_on(self._full)
            self._flush()
            self.checkpoint = Checkpoint(self._next_block * BLOCK_SIZE, self._crc32c_of_full)
        elif not self._is_finished and not full_blocks_only:
            self._pass_on([*self._full, bytes(self._partial)] if self._partial_changed else self._full)
            self._partial_changed = False
            self._flush()
            size = self._next_block * BLOCK_SIZE + len(self._partial)
            self.checkpoint = Checkpoint(size, self._crc32c.hexdigest())
        return self.checkpoint

    def finish(self, description: Description) -> None:
        """Syncs, and makes the blob visible. It may be visible already."""
        size = self.sync().size
        if not self._is_finished:
            self._finish(Stat(size, "", self._crc32c.hexdigest(), description))
            self._is_finished = True

    def _pass_on(self, blocks: list[bytes]) -> None:
        """Passes blocks to the store: the full ones, perhaps followed by the partial one."""
        if self._failure is not None:
            raise self._failure
        try:
            if blocks:
                self._put(self._next_block, blocks)
        except Mp3burstError as error:
            self._failure = error
            raise
        self._next_block += len(self._full)
        self._full = []

    @abstractmethod
    def _begin(self) -> bool:
        """Shuts out earlier writers, and creates the blob, or empties it, if the checkpoint is at 0.

        Returns:
            False if the blob is finished.
        """

    @abstractmethod
    def _read_back(self, block: int, size: int) -> bytes:
        """Returns the first bytes of a block that is stored in part; BlobNotFound if they are gone."""

    @abstractmethod
    def _put(self, first: int, blocks: list[bytes]) -> None:
        """Stores blocks, numbered from ``first``, over what was there; the last one may be short.

        Raises:
            StaleWriter: a later writer has taken over the blob.
        """

    @abstractmethod
    def _flush(self) -> None:
        """Makes durable what was put."""

    @abstractmethod
    def _finish(self, stat: Stat) -> None:
        """Makes the blob visible, of exactly ``stat.size`` bytes. It may be visible already."""

    @abstractmethod
    def _withdraw(self) -> None:
        """Deletes what this writer has put behind the end of a blob that a later one has finished meanwhile."""

    @abstractmethod
    def _close(self) -> None:
        """Releases the resources of the appender; what was stored stays."""
