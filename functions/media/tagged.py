"""Reads an MP3 that is in several blobs: its ID3 tag was replaced, or its sound is a range of another MP3's.

The tag that has replaced another is a blob of its own, in front of the sound in the MP3's first blob. The first blob of
an MP3 that was cut out of another one has its tags and its first frames; the other frames are those of the other one.
"""

import zlib
from collections.abc import Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

from functions.media.interface import BlobCorrupt, BlobId, Reader, Stat, Store

_CHUNK: Final = 256 << 10  # bytes


class StoredMp3(NamedTuple):
    """The blobs that an MP3 is in.

    Attributes:
        mp3: the blob that was made with it.
        tag: the blob of the tag that has replaced the one in it; None if it has its first one.
        sound_at: bytes of the tag that was replaced.
        sound: the blob that has the rest of its frames; None if ``mp3`` has all of them.
        sound_from: where they begin in it, in bytes.
        sound_to: where they end in it.
        crc32: the CRC-32 of the MP3, if it is known.
    """

    mp3: BlobId
    tag: BlobId | None = None
    sound_at: int | None = None
    sound: BlobId | None = None
    sound_from: int = 0
    sound_to: int = 0
    crc32: int | None = None


class _Span(NamedTuple):
    """Bytes of a blob that are a part of the MP3."""

    reader: Reader
    first: int
    last: int


def open_mp3(store: Store, mp3: StoredMp3) -> Reader:
    """Returns a reader of an MP3.

    Args:
        store: the media store of MP3s.
        mp3: its blobs.

    Raises:
        BlobNotFound: one of the blobs does not exist, or its id is malformed.
    """
    if mp3.tag is None and mp3.sound is None:
        return store.open(mp3.mp3)
    readers: list[Reader] = []
    try:
        for blob in (mp3.tag, mp3.mp3, mp3.sound):
            if blob is not None:
                readers.append(store.open(blob))
    except BaseException:
        _close(readers)
        raise
    firsts = [0, mp3.sound_at or 0] if mp3.tag is not None else [0]
    spans = [_Span(reader, first, reader.stat.size) for reader, first in zip(readers, firsts, strict=False)]
    if mp3.sound is not None:
        spans.append(_Span(readers[-1], mp3.sound_from, mp3.sound_to))
    return SplicedReader(spans, len(firsts) - 1, mp3.crc32 if mp3.sound is not None else None)


def _close(
    readers: Sequence[Reader],
    kind: type[BaseException] | None = None,
    error: BaseException | None = None,
    trace: TracebackType | None = None,
) -> None:
    if readers:
        try:
            readers[0].__exit__(kind, error, trace)
        finally:
            _close(readers[1:], kind, error, trace)


class SplicedReader:
    """Reads bytes of several blobs as those of one.

    Whoever reads all of it reads the replaced tag, too, which is dropped: so the checksum of the MP3's blob is
    verified. Of a blob of which only a range is read, that is not possible: then the checksum of the MP3 itself is.
    """

    def __init__(self, spans: Sequence[_Span], own: int, crc32: int | None = None) -> None:
        """Reads the spans one after the other.

        Args:
            spans: at least one.
            own: which of them is of the MP3's own blob.
            crc32: of all bytes, if it is to be verified.
        """
        self.stat = Stat(sum(span.last - span.first for span in spans), "", "", spans[own].reader.stat.description)
        self._spans = spans
        self._own = own
        self._position = 0
        self._expected = crc32
        # The bytes from the beginning that were read in turn, and their CRC-32.
        self._verified = 0
        self._crc32 = 0
        self.fetch_until(self.stat.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _close([span.reader for span in self._spans], kind, error, trace)

    def read(self, size: int = -1, /) -> bytes:
        """Returns up to ``size`` bytes, fewer only at the end; BlobCorrupt if bytes are missing or were changed."""
        left = max(0, self.stat.size - self._position)
        end = self._position + (left if size < 0 else min(size, left))
        parts = []
        begin = 0
        for number, span in enumerate(self._spans):
            first = max(self._position, begin)
            last = min(end, begin + span.last - span.first)
            if first < last:
                self._move_to(number, span.first + first - begin)
                parts.append(span.reader.read(last - first))
            begin += span.last - span.first
        data = b"".join(parts)
        if len(data) < end - self._position:
            raise BlobCorrupt("Part of the MP3 is missing in the media store: convert the video again.")
        self._verify(data)
        self._position = end
        return data

    def _move_to(self, number: int, offset: int) -> None:
        """Moves to an offset in the blob of a span; in that of the MP3 to the sound by reading what is before it."""
        span = self._spans[number]
        if number == self._own and offset == span.first:
            span.reader.seek(0)
            while (before := offset - span.reader.tell()) and span.reader.read(min(_CHUNK, before)):
                pass
        elif offset != span.reader.tell():
            span.reader.seek(offset)

    def _verify(self, data: bytes) -> None:
        if self._expected is None or self._position != self._verified:
            return
        self._crc32 = zlib.crc32(data, self._crc32)
        self._verified += len(data)
        if self._verified == self.stat.size and self._crc32 != self._expected:
            raise BlobCorrupt("The MP3 is damaged in the media store: convert the video again.")

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
        begin = 0
        for span in self._spans:
            size = span.last - span.first
            span.reader.fetch_until(span.first + min(max(end - begin, 0), size))
            begin += size
