"""The boxes that an mp4 or mov is made of (ISO/IEC 14496-12, 4.2), read without holding any of them."""

import io
import struct
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO, NamedTuple

from functions.convert.demux.protocol import MAX_GATHERED, MAX_SPANS, PositionedFile, RemoteFile
from functions.convert.errors import UnsupportedLayout

#: Bytes that are read at a time.
READ = 64 << 10
#: Bytes of a table that are read at a time: to go back for more, from amidst the sound, costs a store a new query.
_TABLE = 512 << 10
#: After a leap, as long as nothing is known of what follows.
_AHEAD = 4 << 10
#: Boxes beside each other, at most; real files have a dozen, long ones in fragments thousands.
MOST = 4096
#: Pieces of a new file: bytes, or from where to where in the old one.
Parts = list[bytes | tuple[int, int]]
_TYPES = {4: "I", 8: "Q"}


class Box(NamedTuple):
    """Where a box begins, where its content does, and where it ends."""

    kind: bytes
    start: int
    body: int
    end: int


class File:
    """A source of known size, read anywhere through one small buffer.

    What is asked for and is not there raises UnsupportedLayout.
    """

    def __init__(self, source: io.RawIOBase, size: int) -> None:
        self.source = source
        self.size = size
        self._start, self._data = 0, b""

    def at(self, offset: int, size: int) -> bytes:
        """So many bytes from an offset on, not more than memory has room for."""
        if not 0 <= offset - self._start <= len(self._data) - size:
            ahead = max(size, READ)
            if offset != self.source.tell():  # others read from it, too
                self.source.seek(offset)
                ahead = max(size, _AHEAD)  # between two chunks of sound may be megabytes of pictures
            self._start, self._data = offset, b""
            while len(self._data) < size:
                got = self.source.read(ahead - len(self._data))
                if not got:
                    raise UnsupportedLayout
                self._data += got
        return self._data[offset - self._start : offset - self._start + size]

    def spans(self, start: int, end: int, most: int = READ) -> Iterator[bytes]:
        """Everything between two offsets, in chunks of so many bytes at most."""
        for offset in range(start, end, most):
            yield self.at(offset, min(most, end - offset))

    def gather(self, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """Everything between pairs of offsets, in chunks; of short spans many are asked for at once."""
        asked: list[tuple[int, int]] = []
        size = 0
        for start, end in spans:
            asked.append((start, end))
            size += end - start
            if len(asked) == MAX_SPANS or size > READ:
                yield from self._together(asked, size)
                asked, size = [], 0
        yield from self._together(asked, size)

    def _together(self, spans: list[tuple[int, int]], size: int) -> Iterator[bytes]:
        if size > MAX_GATHERED or not isinstance(self.source, RemoteFile):
            for span in spans:
                yield from self.spans(*span)
        elif spans:
            data = self.source.gather(spans)
            if len(data) != size:
                raise UnsupportedLayout
            yield data

    def number(self, offset: int, width: int = 4) -> int:
        """A big-endian number of so many bytes."""
        return int.from_bytes(self.at(offset, width), "big")

    def numbers(self, offset: int, count: int, width: int = 4) -> Iterator[int]:
        """A table of them, 4 or 8 bytes each."""

        def blocks() -> Iterator["array[int]"]:
            for data in self.spans(offset, offset + count * width, _TABLE):
                block = array(_TYPES[width], data)
                block.byteswap()
                yield block

        return chain.from_iterable(blocks())

    def boxes(self, start: int, end: int) -> Iterator[Box]:
        """The boxes between two offsets."""
        for _ in range(MOST):
            if start + 8 > end:
                return
            size, kind, body = self.number(start), self.at(start + 4, 4), start + 8
            if size == 1:
                size, body = self.number(body, 8), body + 8
            elif size == 0 and end == self.size:
                size = end - start
            if start + size < body or start + size > end:
                raise UnsupportedLayout
            yield Box(kind, start, body, start + size)
            start += size
        raise UnsupportedLayout

    def children(self, box: Box) -> Iterator[Box]:
        """The boxes in a box that has nothing else."""
        return self.boxes(box.body, box.end)

    def one(self, box: Box, *path: bytes) -> Box:
        """The box at the end of a path on which there is but one of each kind."""
        for kind in path:
            found = [child for child in self.children(box) if child.kind == kind]
            if len(found) != 1:
                raise UnsupportedLayout
            (box,) = found
        return box


class Beginning(PositionedFile):
    """A source in which some bytes are others."""

    def __init__(self, source: io.RawIOBase, size: int, patches: dict[int, bytes]) -> None:
        self._source = source
        self._size = size
        self._patches = patches
        self._position = source.seek(0)

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes."""
        data = bytearray(self._source.read(size) or b"")
        begin, self._position = self._position, self._position + len(data)
        for offset, patch in self._patches.items():
            start, end = max(offset, begin), min(offset + len(patch), self._position)
            if start < end:
                data[start - begin : end - begin] = patch[start - offset : end - offset]
        return bytes(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move."""
        self._position = self._source.seek(offset, whence)
        return self._position


def is_fragmented(source: io.RawIOBase) -> bool:
    """Whether an mp4 or mov has ``moof`` boxes (ISO/IEC 14496-12, 8.8): these decode otherwise by way of mov."""
    position, fragmented = 0, False
    for _ in range(64):
        source.seek(position)
        head = source.read(16) or b""
        if len(head) < 8:
            break
        size = int.from_bytes(head[:4], "big")
        if head[4:8] == b"moof":
            fragmented = True
            break
        size = int.from_bytes(head[8:16], "big") if size == 1 else size
        if size < 8:
            break
        position += size
    source.seek(0)
    return fragmented


def size_of(parts: Parts) -> int:
    """Bytes of all parts."""
    return sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in parts)


def wrap(kind: bytes, parts: Parts) -> Parts:
    """A box around parts."""
    return [struct.pack(">I4s", 8 + size_of(parts), kind), *parts]


def write(file: File, parts: Parts, target: IO[bytes]) -> None:
    """Write parts, those of the file chunk by chunk."""
    for part in parts:
        for data in [part] if isinstance(part, bytes) else file.spans(*part):
            target.write(data)


def gapless(file: File, box: Box) -> Parts:
    """Of the tags what may tell of samples that are not to be heard (iTunSMPB); no titles, no pictures."""
    parts: Parts = []
    body = box.body
    if box.kind == b"meta" and file.at(box.body + 4, 4) != b"hdlr":  # QuickTime's has no version
        body += 4
        parts.append((box.body, body))
    for child in file.boxes(body, box.end):
        if child.kind in (b"meta", b"ilst"):
            parts += gapless(file, child)
        elif child.kind in (b"hdlr", b"----"):
            parts.append((child.start, child.end))
    return wrap(box.kind, parts)
