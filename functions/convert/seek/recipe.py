"""Recipes: how an encoder puts together its excerpt of a video, of which it reads nothing else.

The demux child writes an index, one recipe after the other, in place of the track. An excerpt is a small file of its
own: the bytes of the recipe's prefix, which declare the packets, and then the packets, which are spans of the video.
"""

import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from operator import add
from typing import IO, Any, Final, Self

from functions.convert.seek.errors import TrackChanged
from functions.convert.streams import SupportsReadSeek, SupportsWrite

#: The beginning of a recipe: number of the first sample, samples of the warm-up, samples of the packets that draw,
#: number of the audio track, number of the sample at time 0, samples of the grid, milliseconds of the end, samples in
#: common; bytes of the prefix, bytes of the prefix with the packets that draw, number of spans.
_HEADER: Final = struct.Struct("<qqqqqqqqqqq")
#: Bytes of a span in an index: its offset and its size.
_SPAN_SIZE: Final = 16
#: Bytes that are copied at a time.
_CHUNK: Final = 1 << 20
#: Bytes of the longest recipe: ten hours of AAC in one excerpt have a quarter of it.
MAX_RECIPE: Final = 64 << 20
#: Samples of the packets that draw, of which our child writes three.
_MAX_DRAWN: Final = 1 << 16
#: An excerpt has so many times the bytes of the video, and so many more, at most: as a track (``demux.spawner``).
_MAX_SHARE: Final = 2
_MAX_MORE: Final = 16 << 20


class InvalidIndex(Exception):
    """The demux child wrote something that our code never writes: it is compromised."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Parts of a video, in the order in which they follow each other in an excerpt.

    Attributes:
        offsets: of each part, in bytes.
        sizes: of each part, in bytes.
    """

    offsets: "array[int]"
    sizes: "array[int]"

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> Self:
        """Returns the parts with these offsets and sizes."""
        numbers = array("q", (number for span in spans for number in span))
        return cls(numbers[::2], numbers[1::2])

    @classmethod
    def from_bytes(cls, data: memoryview) -> Self:
        """Parses the output of ``to_bytes``."""
        numbers = array("q")
        numbers.frombytes(data)
        return cls(numbers[::2], numbers[1::2])

    def to_bytes(self) -> bytes:
        """Returns the parts as they are in an index."""
        numbers = array("q", bytes(_SPAN_SIZE * len(self)))
        numbers[::2] = self.offsets
        numbers[1::2] = self.sizes
        return numbers.tobytes()

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.offsets, self.sizes, strict=True)

    @property
    def end(self) -> int:
        """Where the part that reaches furthest ends in the video."""
        return max(map(add, self.offsets, self.sizes), default=0)

    def are_in(self, size: int) -> bool:
        """Returns whether all are parts of a video of this size, and not too many."""
        smallest = min(min(self.offsets, default=0), min(self.sizes, default=0))
        return smallest >= 0 and self.end <= size and sum(self.sizes) <= _MAX_SHARE * size + _MAX_MORE


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to put together an excerpt.

    Attributes:
        sample: number of the track's sample with which the excerpt begins; negative for samples that are not played.
        prefix: what precedes the packets in the excerpt's file.
        spans: the parts of the video that contain the packets.
        drawing: the same as ``prefix``, and packets that make the decoder draw random numbers; empty if the decoder
            draws none (``seek.independence``).
        drawn: samples of these packets.
        warmup: samples at the start of the excerpt that depend on packets before it.
        track: number of the audio track that a demux child has to extract from the excerpt, since there is more in it;
            -1 if the excerpt has the packets alone. Then ``sample`` is that with which the track begins, and
            ``drawing`` is one packet (``seek.numbering``).
        zero: number of the track's sample at time 0 of the excerpt's clock, if it has more than the packets.
        grid: samples of which the packets at the start of the track have multiples, if it has more than the packets; 0
            if the excerpt begins with the track, so that ``sample`` is its first one.
        until: milliseconds on that clock after which no packet is needed; -1 for the end of the excerpt.
        common: samples before the wanted ones that decoders of this excerpt and of the one before have to decode alike,
            if nothing else shows that they do.
    """

    sample: int
    prefix: bytes
    spans: Spans
    drawing: bytes = b""
    drawn: int = 0
    warmup: int = 0
    track: int = -1
    zero: int = 0
    grid: int = 0
    until: int = -1
    common: int = 0

    def to_bytes(self) -> bytes:
        """Returns the recipe as it is in an index."""
        sizes = (len(self.prefix), len(self.drawing), len(self.spans))
        numbers = (self.sample, self.warmup, self.drawn, self.track, self.zero, self.grid, self.until, self.common)
        return b"".join((_HEADER.pack(*numbers, *sizes), self.prefix, self.drawing, self.spans.to_bytes()))

    @classmethod
    def from_bytes(cls, data: bytes | bytearray) -> Self:
        """Parses the output of ``to_bytes``."""
        sample, warmup, drawn, track, zero, grid, until, common, prefix, drawing, _ = _HEADER.unpack_from(data)
        at = _HEADER.size + prefix
        return cls(
            sample=sample,
            prefix=bytes(data[_HEADER.size : at]),
            drawing=bytes(data[at : at + drawing]),
            spans=Spans.from_bytes(memoryview(data)[at + drawing :]),
            drawn=drawn,
            warmup=warmup,
            track=track,
            zero=zero,
            grid=grid,
            until=until,
            common=common,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a recipe is in its index: offset and size in bytes, and the CRC-32 of these."""

    offset: int
    size: int
    crc: int


def read_index(file: IO[bytes], size: int) -> Iterator[tuple[Place, Recipe]]:
    """Reads the recipes of an index.

    Args:
        file: the index.
        size: bytes of the video.

    Raises:
        InvalidIndex: the file is no index of this video.
    """
    offset = 0
    while header := file.read(_HEADER.size):
        length = _size(header)
        data = header + file.read(length - _HEADER.size)
        if len(data) != length:
            raise InvalidIndex
        recipe = Recipe.from_bytes(data)
        if not recipe.spans.are_in(size):
            raise InvalidIndex
        yield Place(offset, length, zlib.crc32(data)), recipe
        offset += length


def _size(header: bytes) -> int:
    if len(header) < _HEADER.size:
        raise InvalidIndex
    _, warmup, drawn, _, _, grid, _, common, *sizes = _HEADER.unpack(header)
    prefix, drawing, spans = sizes
    size: int = _HEADER.size + prefix + drawing + spans * _SPAN_SIZE
    if min(warmup, drawn, grid, common, *sizes) < 0 or drawn > _MAX_DRAWN or size > MAX_RECIPE:
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
    data = bytearray()
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


class ExcerptFile:
    """An excerpt of a video as a file, of which nothing is copied: its prefix, and its spans of the video."""

    def __init__(self, recipe: Recipe, video: SupportsReadSeek) -> None:
        """Puts an excerpt together; the video is used by this file alone from now on."""
        self._prefix = recipe.prefix
        self._video = video
        self._offsets = recipe.spans.offsets
        # Where each span starts in the excerpt, and where the last one ends.
        self._starts = array("q", accumulate(recipe.spans.sizes, initial=len(recipe.prefix)))
        self._size = self._starts[-1]
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        """Reads up to ``size`` bytes; at the end of a part, fewer."""
        at = self._position
        size = self._size if size < 0 else size
        if at < len(self._prefix):
            data = self._prefix[at : at + size]
        elif at < self._size:
            number = bisect_right(self._starts, at) - 1
            offset = self._offsets[number] + at - self._starts[number]
            if self._video.tell() != offset:
                self._video.seek(offset)
            data = self._video.read(min(size, self._starts[number + 1] - at))
        else:
            data = b""
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves to a byte offset and returns it."""
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        """Returns the byte offset."""
        return self._position
