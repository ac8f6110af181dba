"""Fakes of the media stores; tests/contract runs the same tests on them and on the real stores."""

from dataclasses import dataclass, field

from functions.media import (
    BlobExists,
    BlobNotFound,
    Checkpoint,
    Description,
    Media,
    MediaUnavailable,
    StaleWriter,
    Stat,
    Usage,
    is_blob_id,
)
from functions.media.integrity import BLOCK_SIZE, BlockAppender, HashingWriter, VerifyingReader


def memory_media() -> Media:
    """Three stores in memory."""
    return Media(MemoryStore(), MemoryStore(), MemoryStore())


@dataclass
class MemoryStore:
    """A media store in memory.

    Attributes:
        blobs: the finished blobs.
        parts: the blobs that are being written, or were left by a writer.
        writers: the number of the latest appender of each blob.
    """

    blobs: dict[str, tuple[Stat, bytes]] = field(default_factory=dict)
    parts: dict[str, bytearray] = field(default_factory=dict)
    writers: dict[str, int] = field(default_factory=dict)

    def connect(self) -> None: ...

    def create(self, blob: str, description: Description) -> "MemoryWriter":
        if not is_blob_id(blob):
            raise BlobNotFound
        return MemoryWriter(self, blob, description)

    def append(self, blob: str, checkpoint: Checkpoint, writer: int) -> "MemoryAppender":
        if not is_blob_id(blob):
            raise BlobNotFound
        return MemoryAppender(self, blob, checkpoint, writer)

    def open(self, blob: str) -> "MemoryReader":
        try:
            return MemoryReader(*self.blobs[blob])
        except KeyError as error:
            raise BlobNotFound from error

    def delete(self, blob: str) -> None:
        self.parts.pop(blob, None)
        self.blobs.pop(blob, None)

    def usage(self) -> Usage:
        return Usage(sum(len(content) for _, content in self.blobs.values()), None)


class MemoryWriter(HashingWriter):
    def __init__(self, store: MemoryStore, blob: str, description: Description) -> None:
        super().__init__(description)
        self._store = store
        self._blob = blob
        self._part = bytearray()

    def _begin(self) -> None:
        if self._blob in self._store.blobs or self._store.parts.setdefault(self._blob, self._part) is not self._part:
            raise BlobExists

    def _append(self, data: memoryview) -> None:
        self._part += data

    def _finish(self, stat: Stat) -> None:
        if self._store.parts.pop(self._blob, None) is not self._part:
            raise MediaUnavailable("The file was deleted while it was being written: try again.")
        self._store.blobs[self._blob] = (stat, bytes(self._part))

    def _discard(self) -> None:
        if self._store.parts.get(self._blob) is self._part:
            del self._store.parts[self._blob]


class MemoryAppender(BlockAppender):
    def __init__(self, store: MemoryStore, blob: str, checkpoint: Checkpoint, writer: int) -> None:
        super().__init__(checkpoint)
        self._store = store
        self._blob = blob
        self._writer = writer

    def _begin(self) -> bool:
        if self._blob in self._store.blobs:
            return False
        if len(self._store.parts.setdefault(self._blob, bytearray())) < self.checkpoint.size:
            raise BlobNotFound
        if self._store.writers.setdefault(self._blob, self._writer) > self._writer:
            raise StaleWriter
        self._store.writers[self._blob] = self._writer
        if self.checkpoint.size == 0:
            self._store.parts[self._blob].clear()
        return True

    def _read_back(self, block: int, size: int) -> bytes:
        return bytes(self._store.parts[self._blob][block * BLOCK_SIZE :][:size])

    def _put(self, first: int, blocks: list[bytes]) -> None:
        if self._store.writers[self._blob] != self._writer:
            raise StaleWriter
        data = b"".join(blocks)
        part = self._store.parts.setdefault(self._blob, bytearray())  # stored again after a deletion, as in GridFS
        part[first * BLOCK_SIZE : first * BLOCK_SIZE + len(data)] = data

    def _flush(self) -> None:
        pass

    def _finish(self, stat: Stat) -> None:
        if self._blob not in self._store.blobs:
            if self._store.writers[self._blob] != self._writer:
                raise StaleWriter
            self._store.blobs[self._blob] = stat, bytes(self._store.parts.pop(self._blob)[: stat.size])

    def _withdraw(self) -> None:
        pass

    def _close(self) -> None:
        pass


class MemoryReader(VerifyingReader):
    def __init__(self, stat: Stat, content: bytes) -> None:
        super().__init__(stat)
        self._content = content

    def _fetch(self, start: int, size: int) -> bytes:
        return self._content[start : start + size]

    def _close(self) -> None:
        pass
