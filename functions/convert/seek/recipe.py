"""Recipes: how an encoder puts together its excerpt of a video, of which it reads nothing else.

The demux child writes an index, one recipe after the other, in place of the track. An excerpt is a small file of its
own: the bytes of the recipe's prefix, which declare the packets, and then the packets, which are spans of the video.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final, Self

from functions.convert.seek.errors import TrackChanged
from functions.convert.streams import SupportsReadSeek, SupportsWrite

#: The beginning of a recipe: number of the first sample, samples of the warm-up, samples of the packets that draw,
#: bytes of the prefix, bytes of the prefix with these packets, number of spans.
_HEADER: Final = struct.Struct("<qqqqqq")
_SPAN: Final = struct.Struct("<qq")
#: Bytes that are copied at a time.
_CHUNK: Final = 1 << 20
#: Bytes of the longest recipe: ten hours of AAC in one excerpt have a quarter of it.
MAX_RECIPE: Final = 64 << 20


class InvalidIndex(Exception):
    """The demux child wrote something that our code never writes: it is compromised."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to put together an excerpt.

    Attributes:
        sample: number of the track's sample with which the excerpt begins; negative for samples that are not played.
        prefix: what precedes the packets in the excerpt's file.
        spans: offset and size of the parts of the video that contain the packets.
        drawing: the same as ``prefix``, and packets that make the decoder draw random numbers; empty if the decoder
            draws none (``seek.independence``).
        drawn: samples of these packets.
        warmup: samples at the start of the excerpt that depend on packets before it.
    """

    sample: int
    prefix: bytes
    spans: tuple[tuple[int, int], ...]
    drawing: bytes = b""
    drawn: int = 0
    warmup: int = 0

    def to_bytes(self) -> bytes:
        """Returns the recipe as it is in an index."""
        numbers = (self.sample, self.warmup, self.drawn, len(self.prefix), len(self.drawing), len(self.spans))
        spans = b"".join(_SPAN.pack(*span) for span in self.spans)
        return b"".join((_HEADER.pack(*numbers), self.prefix, self.drawing, spans))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parses the output of ``to_bytes``."""
        sample, warmup, drawn, prefix, drawing, _ = _HEADER.unpack_from(data)
        at = _HEADER.size + prefix
        return cls(
            sample=sample,
            prefix=data[_HEADER.size : at],
            drawing=data[at : at + drawing],
            spans=tuple(_SPAN.iter_unpack(data[at + drawing :])),
            drawn=drawn,
            warmup=warmup,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a recipe is in its index: offset and size in bytes, and the CRC-32 of these."""

    offset: int
    size: int
    crc: int


def read_index(file: IO[bytes]) -> Iterator[tuple[Place, Recipe]]:
    """Reads the recipes of an index.

    Raises:
        InvalidIndex: the file is no index.
    """
    offset = 0
    while header := file.read(_HEADER.size):
        size = _size(header)
        data = header + file.read(size - _HEADER.size)
        if len(data) != size:
            raise InvalidIndex
        yield Place(offset, size, zlib.crc32(data)), Recipe.from_bytes(data)
        offset += size


def _size(header: bytes) -> int:
    if len(header) < _HEADER.size:
        raise InvalidIndex
    _, warmup, drawn, *sizes = _HEADER.unpack(header)
    prefix, drawing, spans = sizes
    size: int = _HEADER.size + prefix + drawing + spans * _SPAN.size
    if min(warmup, drawn, *sizes) < 0 or size > MAX_RECIPE:
        raise InvalidIndex
    return size


def read_recipe(index: SupportsReadSeek, place: Any) -> Recipe:
    """Reads one recipe of a stored index.

    Args:
        index: the index.
        place: where the recipe is: anything with the attributes of ``Place``.

    Raises:
        TrackChanged: the bytes are not those that were stored.
    """
    index.seek(place.offset)
    data = b""
    while len(data) < place.size and (more := index.read(place.size - len(data))):
        data += more
    if zlib.crc32(data) != place.crc:
        raise TrackChanged
    return Recipe.from_bytes(data)


def copy_spans(
    video: SupportsReadSeek, spans: Iterable[tuple[int, int]], on_progress: Callable[[], None], *outs: SupportsWrite
) -> None:
    """Copies parts of the video.

    Args:
        video: the video.
        spans: offset and size of each part.
        on_progress: called before each read. An exception that it raises stops the work.
        outs: each takes the bytes.

    Raises:
        TrackChanged: the video is shorter than it was.
    """
    for offset, size in spans:
        left = size
        if left < 0 or offset < 0:
            raise TrackChanged
        video.seek(offset)
        while left:
            on_progress()
            data = video.read(min(_CHUNK, left))
            if not data:
                raise TrackChanged
            for out in outs:
                out.write(data)
            left -= len(data)
