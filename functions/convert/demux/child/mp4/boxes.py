"""Reads and writes the boxes of an mp4 or mov (ISO/IEC 14496-12, 4.2) without loading any of them into memory."""

import io
import os
import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from itertools import count as count_from
from typing import IO, NamedTuple

from functions.convert.demux.protocol import MAX_GATHERED, MAX_SPANS, PositionedFile, RemoteFile
from functions.convert.errors import UnsupportedLayout

#: Bytes that are read at a time.
READ = 64 << 10
#: Bytes of a table that are read at a time: to return to the table from the audio costs a store another query.
_TABLE = 512 << 10
#: Bytes that are read after a seek, as long as nothing is known about what follows.
_AHEAD = 4 << 10
#: Boxes on one level, at most. Real files have a dozen; long fragmented ones have thousands.
MAX_BOXES = 4096
#: The content of a new file: bytes, or (start, end) offsets of a span in the source.
Parts = list[bytes | tuple[int, int]]
#: Boxes of a file that are read to find out whether it is fragmented.
_MAX_UNFRAGMENTED = 64
#: Boxes of a fragmented file, two for every second or so, that are read to find out whether it is complete.
_MAX_FRAGMENTS = 1 << 17
#: Boxes of which an mp4 or mov has at least one on the top level.
_MOVIE_BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat"}
_TYPES = {4: "I", 8: "Q"}


class Box(NamedTuple):
    """The offsets of a box: where it starts, where its content starts, and where it ends."""

    kind: bytes
    start: int
    body: int
    end: int


class BoxReader:
    """Random access to a source of known size through one small buffer.

    Raises UnsupportedLayout whenever the source does not have what is requested.
    """

    def __init__(self, source: io.RawIOBase, size: int) -> None:
        self.source = source
        self.size = size
        self._start = 0
        self._data = b""

    def read_at(self, offset: int, size: int) -> bytes:
        """Reads exactly ``size`` bytes, which must fit in memory."""
        if not 0 <= offset - self._start <= len(self._data) - size:
            ahead = max(size, READ)
            if offset != self.source.tell():  # others read from the source, too
                self.source.seek(offset)
                ahead = max(size, _AHEAD)  # between two chunks of audio there may be megabytes of video
            self._start = offset
            self._data = b""
            while len(self._data) < size:
                data = self.source.read(ahead - len(self._data))
                if not data:
                    raise UnsupportedLayout
                self._data += data
        return self._data[offset - self._start : offset - self._start + size]

    def chunks(self, start: int, end: int, limit: int = READ) -> Iterator[bytes]:
        """Reads everything between two offsets, in chunks of at most ``limit`` bytes."""
        for offset in range(start, end, limit):
            yield self.read_at(offset, min(limit, end - offset))

    def gather(self, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """Reads everything between pairs of offsets, in chunks; many short spans are requested at once."""
        pending: list[tuple[int, int]] = []
        size = 0
        for start, end in spans:
            pending.append((start, end))
            size += end - start
            if len(pending) == MAX_SPANS or size > READ:
                yield from self._gather(pending, size)
                pending = []
                size = 0
        yield from self._gather(pending, size)

    def _gather(self, spans: list[tuple[int, int]], size: int) -> Iterator[bytes]:
        if size > MAX_GATHERED or not isinstance(self.source, RemoteFile):
            for span in spans:
                yield from self.chunks(*span)
        elif spans:
            data = self.source.gather(spans)
            if len(data) != size:
                raise UnsupportedLayout
            yield data

    def number(self, offset: int, width: int = 4) -> int:
        """Reads a big-endian number of ``width`` bytes."""
        return int.from_bytes(self.read_at(offset, width), "big")

    def numbers(self, offset: int, count: int, width: int = 4) -> Iterator[int]:
        """Reads a table of big-endian numbers, 4 or 8 bytes each."""

        def blocks() -> Iterator["array[int]"]:
            for data in self.chunks(offset, offset + count * width, _TABLE):
                block = array(_TYPES[width], data)
                block.byteswap()
                yield block

        return chain.from_iterable(blocks())

    def boxes(self, start: int, end: int, limit: int = MAX_BOXES) -> Iterator[Box]:
        """Reads the headers of the boxes between two offsets, which must not be more than ``limit``."""
        for _ in range(limit):
            if start + 8 > end:
                return
            size = self.number(start)
            kind = self.read_at(start + 4, 4)
            body = start + 8
            if size == 1:
                size = self.number(body, 8)
                body += 8
            elif size == 0 and end == self.size:
                size = end - start
            if start + size < body or start + size > end:
                raise UnsupportedLayout
            yield Box(kind, start, body, start + size)
            start += size
        raise UnsupportedLayout

    def children(self, box: Box) -> Iterator[Box]:
        """Reads the headers of the boxes in a box that contains nothing else."""
        return self.boxes(box.body, box.end)

    def find(self, box: Box, *path: bytes) -> Box:
        """Returns the box at the end of a path; each kind on the path must be unique in its parent."""
        for kind in path:
            found = [child for child in self.children(box) if child.kind == kind]
            if len(found) != 1:
                raise UnsupportedLayout
            (box,) = found
        return box


class PatchedFile(PositionedFile):
    """A source in which some bytes are replaced by others."""

    def __init__(self, source: io.RawIOBase, size: int, patches: dict[int, bytes]) -> None:
        """Replaces bytes of the source.

        Args:
            source: the file.
            size: bytes of it.
            patches: the new bytes by their offsets.
        """
        self._source = source
        self._size = size
        self._patches = patches
        self._position = source.seek(0)

    def read(self, size: int = -1, /) -> bytes:
        """Reads up to ``size`` bytes."""
        data = bytearray(self._source.read(size) or b"")
        begin = self._position
        self._position += len(data)
        for offset, patch in self._patches.items():
            start = max(offset, begin)
            end = min(offset + len(patch), self._position)
            if start < end:
                data[start - begin : end - begin] = patch[start - offset : end - offset]
        return bytes(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Sets the offset of the next read."""
        self._position = self._source.seek(offset, whence)
        return self._position


class TruncatedFile(PositionedFile):
    """The first bytes of a source."""

    def __init__(self, source: io.RawIOBase, size: int) -> None:
        """Ends the source after ``size`` bytes."""
        self._source = source
        self._size = size
        self._position = source.seek(0)

    def read(self, size: int = -1, /) -> bytes:
        """Reads up to ``size`` bytes."""
        left = max(self._size - self._position, 0)
        data = self._source.read(left if size < 0 else min(size, left)) or b""
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Sets the offset of the next read."""
        if whence == os.SEEK_END:
            offset += self._size
            whence = os.SEEK_SET
        self._position = self._source.seek(offset, whence)
        return self._position


@dataclass(frozen=True, slots=True)
class Outline:
    """The boxes on the top level of a file; of a file of another format, what would be such boxes.

    Attributes:
        is_movie: whether it is an mp4 or mov.
        indexed: whether it has a ``moov`` box, or so many boxes that it may have one.
        fragmented: whether it has ``moof`` boxes (ISO/IEC 14496-12, 8.8). Such tracks decode differently once they are
            remuxed to mov.
        truncated: whether the last box is incomplete.
        usable: bytes of the file without an incomplete ``moof``, with which libav reads nothing at all.
    """

    is_movie: bool
    indexed: bool
    fragmented: bool
    truncated: bool
    usable: int


def outline(source: io.RawIOBase) -> Outline:
    """Reads the headers of the boxes on the top level."""
    end = source.seek(0, os.SEEK_END)
    boxes = list(islice(_top_boxes(source, end), _MAX_FRAGMENTS))
    source.seek(0)
    kinds = {box.kind for box in boxes}
    if not kinds & _MOVIE_BOXES:
        return Outline(is_movie=False, indexed=False, fragmented=False, truncated=False, usable=end)
    last = boxes[-1]
    fragmented = b"moof" in kinds
    # Anything may follow the last box, such as a camera's own data.
    truncated = last.end > end and (last.kind in (b"moof", b"mdat") or (fragmented and not last.kind))
    return Outline(
        is_movie=True,
        indexed=b"moov" in kinds or last.end < end,
        fragmented=fragmented,
        truncated=truncated,
        usable=last.start if truncated and last.kind != b"mdat" else end,
    )


def _top_boxes(source: io.RawIOBase, end: int) -> Iterator[Box]:
    """Yields the boxes on the top level; the last may end after the file, and has no kind if its header does."""
    start = 0
    fragmented = False
    for count in count_from(1):
        source.seek(start)
        head = source.read(16) or b""
        kind = head[4:8] if len(head) >= 8 else b""
        size = int.from_bytes(head[:4], "big") if kind else 16
        body = start + 8
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
            body += 8
        elif size == 0:
            size = end - start
        if size < 8:
            return
        yield Box(kind, start, body, start + size)
        start += size
        fragmented = fragmented or kind == b"moof"
        if start >= end or (count >= _MAX_UNFRAGMENTED and not fragmented):
            return


def size_of(parts: Parts) -> int:
    """Returns the size of all parts in bytes."""
    return sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in parts)


def wrap(kind: bytes, parts: Parts) -> Parts:
    """Puts parts into a box."""
    return [struct.pack(">I4s", 8 + size_of(parts), kind), *parts]


def write_parts(reader: BoxReader, parts: Parts, target: IO[bytes]) -> None:
    """Writes parts, and copies those from the source chunk by chunk."""
    for part in parts:
        for data in [part] if isinstance(part, bytes) else reader.chunks(*part):
            target.write(data)


def gapless_tags(reader: BoxReader, box: Box) -> Parts:
    """Copies a box of tags, reduced to those that may declare samples to skip (iTunSMPB): no titles, no pictures."""
    parts: Parts = []
    body = box.body
    if box.kind == b"meta" and reader.read_at(box.body + 4, 4) != b"hdlr":  # QuickTime's has no version
        body += 4
        parts.append((box.body, body))
    for child in reader.boxes(body, box.end):
        if child.kind in (b"meta", b"ilst"):
            parts += gapless_tags(reader, child)
        elif child.kind in (b"hdlr", b"----"):
            parts.append((child.start, child.end))
    return wrap(box.kind, parts)
