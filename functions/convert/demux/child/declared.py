"""Reads what a file declares about its own size and length, where libav does not say whether it is all there.

RIFF, W64, IFF, CAF: a header has the bytes of the file. ASF: its header has both bytes and seconds, but libav ignores
them if they do not match the file. Ogg: a page has its own size.
"""

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

#: Sizes that programs write that cannot return to the header, and the rest of what they have written by then.
_STREAMED = (range(0x7FFF_FF00, 0x8000_0100), range(0xFFFF_FF00, 0x1_0000_0000))
#: Chunks that are read to find the parts of a long AVI, at most 2 GB each, or the properties in a header of ASF.
_MAX_CHUNKS = 1024
#: Bytes that no file has: a larger size is damaged.
_MAX_SIZE = 1 << 40
#: GUIDs of ASF (Advanced Systems Format specification, 10.1 and 10.2) and of Sony's W64.
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
#: Bytes of the largest page: 282 of its header, and its content.
_OGG_PAGE = 282 + 65_025


@dataclass(frozen=True, slots=True)
class Declared:
    """What a file declares.

    Attributes:
        size: its bytes; 0 if it does not say.
        end: seconds on its clock at which it ends; 0 if it does not say, or if libav reads it.
        streamed: whether its program could not return to the header, whose sizes and lengths are placeholders.
    """

    size: int = 0
    end: float = 0.0
    streamed: bool = False


def read_declared(source: io.RawIOBase) -> Declared:
    """Reads what a file declares; leaves the source at any position."""
    head = read_at(source, 0, 30)
    match head[:4]:
        case b"RIFF" | b"RIFX":
            return _riff(source, "<" if head[3:4] == b"F" else ">")
        case b"FORM":
            return Declared(8 + _declared_size(head, ">"))
        case b"OggS":
            return Declared(_ogg_size(source))
        case b"caff":
            return _caf(source)
    if head[:16] == _W64_RIFF:
        size = int.from_bytes(head[16:24], "little")
        return Declared(size if size <= _MAX_SIZE else 0)
    return _asf(source)


def read_at(source: io.RawIOBase, offset: int, size: int) -> bytes:
    """Returns the bytes from an offset on, fewer at the end of the source."""
    source.seek(offset)
    data = b""
    while len(data) < size and (more := source.read(size - len(data))):
        data += more
    return data


def _declared_size(header: bytes, order: str) -> int:
    size = int(struct.unpack_from(f"{order}I", header, 4)[0]) if len(header) >= 8 else 0
    return 0 if any(size in streamed for streamed in _STREAMED) else size


def _riff(source: io.RawIOBase, order: str) -> Declared:
    """Reads the size of a file of one or more RIFF chunks (OpenDML AVI)."""
    offset = 0
    end = 0
    for _ in range(_MAX_CHUNKS):
        header = read_at(source, offset, 8)
        if header[:4] not in (b"RIFF", b"RIFX"):
            return Declared(end)
        size = _declared_size(header, order)
        if not size:
            return Declared(streamed=True)
        end = offset + 8 + size
        offset = end + size % 2  # not every program pads the last chunk
    return Declared()


def _caf(source: io.RawIOBase) -> Declared:
    """Reads where the chunk with the sound ends (Apple Core Audio Format specification 1.0)."""
    offset = 8
    for _ in range(_MAX_CHUNKS):
        header = read_at(source, offset, 12)
        size = int.from_bytes(header[4:], "big", signed=True)
        if len(header) < 12 or size > _MAX_SIZE:
            break
        if size < 0:
            return Declared(streamed=True)
        offset += 12 + size
        if header[:4] == b"data":
            return Declared(offset)
    return Declared()


def _ogg_size(source: io.RawIOBase) -> int:
    """Returns where the last page ends."""
    size = source.seek(0, os.SEEK_END)
    start = max(size - _OGG_PAGE, 0)
    tail = read_at(source, start, size - start)
    at = tail.rfind(b"OggS")
    if not 0 <= at <= len(tail) - 27:
        return 0
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    return start + at + 27 + tail[at + 26] + sum(segments)


def asf_objects(source: io.RawIOBase) -> Iterator[tuple[bytes, int, int]]:
    """Yields the GUIDs, offsets and sizes of the objects in the header of an ASF; none of another file."""
    head = read_at(source, 0, 30)
    if head[:16] != _ASF_HEADER:
        return
    offset = 30  # after the GUID, size and number of objects of the header
    end = min(int.from_bytes(head[16:24], "little"), offset + (1 << 20))
    for _ in range(_MAX_CHUNKS):
        start = read_at(source, offset, 24)
        size = int.from_bytes(start[16:], "little")
        if offset + 24 > end or size < 24:
            return
        yield start[:16], offset, size
        offset += size


def _asf(source: io.RawIOBase) -> Declared:
    for kind, offset, _ in asf_objects(source):
        part = read_at(source, offset, 104)
        if kind == _ASF_PROPERTIES and len(part) == 104:
            # 3.2: file size, creation date, packets, play duration (100 ns), send duration, preroll (ms), flags
            bytes_, _, _, duration, _, preroll, flags = struct.unpack_from("<QQQQQQI", part, 40)
            return Declared() if flags & 1 else Declared(bytes_, max(duration / 1e7 - preroll / 1e3, 0.0))
    return Declared()
