"""Reads an MP3 whose ID3 tag was replaced: the new tag from a blob of its own, the sound from the MP3's first blob."""

from types import TracebackType
from typing import Final, Self

from functions.media.interface import Reader, Stat, Store

_CHUNK: Final = 256 << 10  # bytes


def open_mp3(store: Store, mp3: str, tag: str | None, sound_at: int | None) -> Reader:
    """Returns a reader of an MP3.

    Args:
        store: the media store of MP3s.
        mp3: the blob that was made by the conversion.
        tag: the blob of the tag that has replaced the one in it; None if it has its first one.
        sound_at: bytes of the tag that was replaced.

    Raises:
        BlobNotFound: one of the blobs does not exist, or its id is malformed.
    """
    if tag is None:
        return store.open(mp3)
    new = store.open(tag)
    try:
        return TaggedReader(new, store.open(mp3), sound_at or 0)
    except BaseException:
        new.__exit__(None, None, None)
        raise


class TaggedReader:
    """Reads a tag and, after it, a blob from the end of its own tag on.

    Whoever reads all of it reads the replaced tag, too, which is dropped: so the blob's checksum is verified.
    """

    def __init__(self, tag: Reader, mp3: Reader, sound_at: int) -> None:
        """Reads ``tag``, then ``mp3`` without its first ``sound_at`` bytes."""
        size = tag.stat.size + mp3.stat.size - sound_at
        self.stat = Stat(size, "", "", mp3.stat.description)
        self._tag = tag
        self._mp3 = mp3
        self._sound_at = sound_at
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._tag.__exit__(kind, error, trace)
        finally:
            self._mp3.__exit__(kind, error, trace)

    def read(self, size: int = -1, /) -> bytes:
        """Returns up to ``size`` bytes, fewer only at the end; BlobCorrupt if bytes are missing or were changed."""
        left = max(0, self.stat.size - self._position)
        wanted = left if size < 0 else min(size, left)
        of_tag = min(wanted, max(0, self._tag.stat.size - self._position))
        data = b""
        if of_tag:
            self._tag.seek(self._position)
            data = self._tag.read(of_tag)
        if wanted > of_tag:
            self._move_to(self._position + of_tag - self._tag.stat.size + self._sound_at)
            data += self._mp3.read(wanted - of_tag)
        self._position += wanted
        return data

    def _move_to(self, offset: int) -> None:
        """Moves to an offset in the MP3's blob; to the start of the sound by reading what is before it."""
        if offset == self._sound_at:
            self._mp3.seek(0)
            while (before := offset - self._mp3.tell()) and self._mp3.read(min(_CHUNK, before)):
                pass
        elif offset != self._mp3.tell():
            self._mp3.seek(offset)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves to a byte offset from the start (0), the current position (1) or the end (2), and returns it."""
        target = offset + {0: 0, 1: self._position, 2: self.stat.size}[whence]
        if target < 0:
            raise ValueError("The position is before the start of the MP3.")
        self._position = target
        return target

    def tell(self) -> int:
        """Returns the byte offset of the next read."""
        return self._position

    def fetch_until(self, end: int) -> None:
        """Fetches nothing in advance from the byte offset ``end`` on: the caller will not read it."""
        self._tag.fetch_until(min(end, self._tag.stat.size))
        self._mp3.fetch_until(max(0, end - self._tag.stat.size + self._sound_at))
