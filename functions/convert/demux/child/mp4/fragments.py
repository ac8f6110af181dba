"""Finds the packets of an audio track in a fragmented mp4 (ISO/IEC 14496-12, 8.8), without reading any of them.

Such a file has no tables. Every fragment has a head, the ``moof`` box, which says where its packets are, how large they
are and when they are played. A recording by a browser has one every second or so. Here all heads are read, and nothing
else but the first and the last fragments, by which libav identifies the audio.
"""

import io
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from functions.convert.demux.child import protection
from functions.convert.demux.child.mp4 import movie as mp4
from functions.convert.demux.child.mp4.boxes import Box, BoxReader, PatchedFile
from functions.convert.demux.child.mp4.movie import Movie
from functions.convert.demux.child.mp4.packets import Packets, Sizes
from functions.convert.errors import UnsupportedLayout

#: Boxes on the top level, at most: two or more for every fragment.
_MAX_BOXES: Final = 1 << 17
#: Bytes of the head of a fragment: one of an hour, with pictures, has 3 MB.
_MAX_HEAD: Final = 4 << 20
#: Bytes of the header of the next box, which are read with the head of a fragment.
_HEADER: Final = 16
#: Packets that are indexed, at most: 100 hours of AAC.
_MAX_PACKETS: Final = 1 << 24
#: Packets at each end of the track that libav sees.
_SHOWN: Final = 32
#: Fragments by which the length of the file is estimated.
_ESTIMATED: Final = 16
#: Flags of a track fragment's header (ISO/IEC 14496-12, 8.8.7).
_BASE_OFFSET: Final = 0x1
_DESCRIPTION: Final = 0x2
_DEFAULT_LENGTH: Final = 0x8
_DEFAULT_SIZE: Final = 0x10
_BASE_IS_MOOF: Final = 0x20000
#: Flags of a run of packets (8.8.8).
_DATA_OFFSET: Final = 0x1
_FIRST_FLAGS: Final = 0x4
_LENGTH: Final = 0x100
_SIZE: Final = 0x200
_FLAGS: Final = 0x400
_COMPOSITION: Final = 0x800


@dataclass(frozen=True, slots=True)
class Fragments:
    """A track of a fragmented file.

    Attributes:
        movie: the file.
        packets: of the track.
        length: of each packet but the last, on the track's clock.
        last: the length of the last packet.
        ends: the file as if it had no fragments between the first and the last ones.
    """

    movie: Movie
    packets: Packets
    length: int
    last: int
    ends: PatchedFile

    @property
    def seconds(self) -> float:
        """How long the packets last."""
        return ((self.packets.count - 1) * self.length + self.last) / self.movie.ticks


class _Defaults(NamedTuple):
    """What holds for the packets of a track, unless a fragment says otherwise (``trex``, 8.8.3)."""

    description: int
    length: int
    size: int


class _Part(NamedTuple):
    """A box in the head of a fragment: its kind, and where its content starts and ends in the head."""

    kind: bytes
    body: int
    end: int


@dataclass(slots=True)
class _Reading:
    """What has been read of a track so far.

    Attributes:
        number: of the track in the file.
        defaults: for its packets.
        sizes: of the packets, in bytes.
        offsets: of the runs, in the file.
        firsts: number of the first packet of each run.
        length: of each packet but the last, on the track's clock.
        last: the length of the last packet.
        start: when the first packet is played.
    """

    number: int
    defaults: _Defaults
    sizes: "array[int]" = field(default_factory=lambda: array("I"))
    offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    firsts: "array[int]" = field(default_factory=lambda: array("I"))
    length: int = 0
    last: int = 0
    start: int | None = None

    @property
    def end(self) -> int:
        """When the last packet ends."""
        return (self.start or 0) + max(len(self.sizes) - 1, 0) * self.length + self.last

    def begin(self, time: int) -> None:
        """Notes when the next fragment starts: where the one before ends."""
        if self.start is None:
            self.start = time
        if time != self.end:
            raise UnsupportedLayout

    def add(self, offset: int, sizes: "array[int]", lengths: "array[int]") -> None:
        """Adds a run of packets."""
        if not sizes:
            return
        self.length = self.length or lengths[0]
        before = lengths[:-1].count(self.length) if len(lengths) > 1 else 0
        if before != len(sizes) - 1 or (self.sizes and self.last != self.length) or 0 in sizes:
            raise UnsupportedLayout
        self.last = lengths[-1]
        if not 0 < self.last <= self.length or len(self.sizes) + len(sizes) > _MAX_PACKETS:
            raise UnsupportedLayout
        self.offsets.append(offset)
        self.firsts.append(len(self.sizes))
        self.sizes += sizes


@dataclass(slots=True)
class _Places:
    """Where the fragments are.

    Attributes:
        starts: of their heads, in the file.
        counts: packets of the track before each fragment.
        firsts: number of the first fragment of each track.
        lasts: number of the last fragment of each track.
    """

    starts: "array[int]" = field(default_factory=lambda: array("Q"))
    counts: "array[int]" = field(default_factory=lambda: array("I"))
    firsts: dict[int, int] = field(default_factory=dict)
    lasts: dict[int, int] = field(default_factory=dict)

    def middle(self, tracks: set[int], packets: int) -> tuple[int, int]:
        """Returns where the fragments start and end of which libav needs to see nothing.

        Args:
            tracks: with sound or pictures; libav sees the first and the last fragment of each.
            packets: number of packets of the track.
        """
        if not tracks <= self.firsts.keys():
            raise UnsupportedLayout
        shown = [number for number, count in enumerate(self.counts) if count >= _SHOWN]
        hidden = [number for number, count in enumerate(self.counts) if count <= packets - _SHOWN]
        if not shown or not hidden:
            raise UnsupportedLayout
        first = max(shown[0], *(self.firsts[track] + 1 for track in tracks))
        last = min(hidden[-1], *(self.lasts[track] for track in tracks))
        if first >= last:
            raise UnsupportedLayout
        return self.starts[first], self.starts[last]


def parse(source: io.RawIOBase, size: int, number: int, seconds: float = 0.0) -> Fragments:
    """Reads the heads of all fragments.

    Args:
        source: the file.
        size: bytes of it.
        number: which audio track, from 0.
        seconds: of sound from which it is worthwhile; a file that seems to have less than half of that is not read.

    Raises:
        UnsupportedLayout: it is not a fragmented mp4, has no such track, or one whose samples cannot be counted.
    """
    reader = BoxReader(source, size)
    boxes = reader.boxes(0, size, _MAX_BOXES)
    ftyp = next(boxes, None)
    moov = next((box for box in islice(boxes, mp4.MAX_TOP_BOXES) if box.kind in (b"moov", b"moof", b"mdat")), None)
    if ftyp is None or ftyp.kind != b"ftyp" or moov is None or moov.kind != b"moov":
        raise UnsupportedLayout
    movie = mp4.describe(reader, ftyp, moov, number, fragmented=True)
    _check_movie(movie)
    track = _track_number(reader, movie.trak)
    reading = _Reading(track, _defaults(reader, movie.moov, track))
    places = _Places()
    indexes: list[Box] = []
    for box in boxes:
        if box.kind == b"moof":
            _read_fragment(reader, box, reading, places)
            if (
                len(places.starts) == _ESTIMATED
                and reading.length * len(reading.sizes) * size < seconds / 2 * movie.ticks * box.start
            ):
                raise UnsupportedLayout
        elif box.kind == b"moov":
            raise UnsupportedLayout
        elif box.kind == b"sidx":
            indexes.append(box)
        end = box.end
    if not places.starts or end != size:
        raise UnsupportedLayout
    for box in indexes:
        _check_index(reader, box, reading, movie.ticks)
    packets = Packets(Sizes(len(reading.sizes), reading.sizes), reading.offsets, reading.firsts)
    return Fragments(movie, packets, reading.length, reading.last, _without_middle(movie, places, packets, indexes))


def _check_movie(movie: Movie) -> None:
    """Checks that all packets of the track are in fragments, and that there is nothing else to count."""
    reader = movie.reader
    tables = mp4.tables_of(reader, movie.trak)
    entry = tables[b"stsd"].body + 8
    edits = [start for _, start in islice(movie.edits(), 3)]
    if (
        reader.number(tables[b"stsz"].body + 8)
        or reader.number(entry - 4) != 1
        or reader.read_at(entry + 4, 4) in protection.ENTRIES
        or not mp4.is_here(reader, movie.trak)
        or len(edits) - (edits[:1] == [None]) > 1
        or any(box.kind == b"tref" for trak in movie.traks for box in reader.children(trak))
    ):
        raise UnsupportedLayout


def _track_number(reader: BoxReader, trak: Box) -> int:
    tkhd = reader.find(trak, b"tkhd")
    return reader.number(tkhd.body + (20 if reader.number(tkhd.body, 1) else 12))


def _defaults(reader: BoxReader, moov: Box, track: int) -> _Defaults:
    for box in reader.children(reader.find(moov, b"mvex")):
        if box.kind == b"trex" and reader.number(box.body + 4) == track:
            return _Defaults(*(reader.number(box.body + at) for at in (8, 12, 16)))
    raise UnsupportedLayout


def _read_fragment(reader: BoxReader, moof: Box, reading: _Reading, places: _Places) -> None:
    """Reads the head of a fragment."""
    size = moof.end - moof.start
    if size > _MAX_HEAD:
        raise UnsupportedLayout
    head = reader.read_at(moof.start, min(size + _HEADER, reader.size - moof.start))
    number = len(places.starts)
    places.starts.append(moof.start)
    places.counts.append(len(reading.sizes))
    trafs = [part for part in _parts(head, moof.body - moof.start, size) if part.kind == b"traf"]
    for traf in trafs:
        parts = list(_parts(head, traf.body, traf.end))
        kinds = [part.kind for part in parts]
        if kinds.count(b"tfhd") != 1 or kinds.count(b"tfdt") != 1:
            raise UnsupportedLayout
        tfhd = parts[kinds.index(b"tfhd")]
        track = _number(head, tfhd.body + 4, tfhd.end)
        places.firsts.setdefault(track, number)
        places.lasts[track] = number
        if track == reading.number:
            tfdt = parts[kinds.index(b"tfdt")]
            wide = _number(head, tfdt.body, tfdt.end) >> 24
            reading.begin(_number(head, tfdt.body + 4, tfdt.end, 8 if wide else 4))
            defaults, base = _header(head, tfhd, reading.defaults, moof.start, is_first=traf == trafs[0])
            for part in parts:
                if part.kind == b"trun":
                    offset, sizes, lengths = _run(head, part, defaults)
                    if not 0 <= base + offset <= reader.size - sum(sizes):
                        raise UnsupportedLayout
                    reading.add(base + offset, sizes, lengths)


def _header(head: bytes, tfhd: _Part, defaults: _Defaults, moof: int, *, is_first: bool) -> tuple[_Defaults, int]:
    """Returns what holds for the packets of a track in a fragment, and the offset that theirs count from."""
    flags = _number(head, tfhd.body, tfhd.end)
    at = tfhd.body + 8
    base = moof
    if flags & _BASE_OFFSET:
        base = _number(head, at, tfhd.end, 8)
        at += 8
    elif not flags & _BASE_IS_MOOF and not is_first:
        raise UnsupportedLayout  # it is where the data of the track before ends
    values = list(defaults)
    for position, flag in enumerate((_DESCRIPTION, _DEFAULT_LENGTH, _DEFAULT_SIZE)):
        if flags & flag:
            values[position] = _number(head, at, tfhd.end)
            at += 4
    if values[0] != 1:
        raise UnsupportedLayout
    return _Defaults(*values), base


def _run(head: bytes, trun: _Part, defaults: _Defaults) -> "tuple[int, array[int], array[int]]":
    """Returns the offset of a run, and the sizes and the lengths of its packets."""
    flags = _number(head, trun.body, trun.end)
    count = _number(head, trun.body + 4, trun.end)
    at = trun.body + 8
    if not flags & _DATA_OFFSET or count > _MAX_PACKETS:
        raise UnsupportedLayout
    offset = _number(head, at, trun.end)
    offset -= (offset >> 31) << 32  # signed
    at += 8 if flags & _FIRST_FLAGS else 4
    columns = [flag for flag in (_LENGTH, _SIZE, _FLAGS, _COMPOSITION) if flags & flag]
    if at + 4 * count * len(columns) > trun.end:
        raise UnsupportedLayout
    table = array("I", head[at : at + 4 * count * len(columns)])
    table.byteswap()

    def column(flag: int, default: int) -> "array[int]":
        return table[columns.index(flag) :: len(columns)] if flag in columns else array("I", [default]) * count

    if any(column(_COMPOSITION, 0)):
        raise UnsupportedLayout
    return offset, column(_SIZE, defaults.size), column(_LENGTH, defaults.length)


def _check_index(reader: BoxReader, sidx: Box, reading: _Reading, ticks: int) -> None:
    """Checks that an index (8.16.3) claims nothing that is not there."""
    wide = reader.number(sidx.body, 1)
    track = reader.number(sidx.body + 4)
    clock = reader.number(sidx.body + 8)
    width = 8 if wide else 4
    time = reader.number(sidx.body + 12, width)
    end = sidx.end + reader.number(sidx.body + 12 + width, width)
    entries = sidx.body + 16 + 2 * width
    count = reader.number(entries - 2, 2)
    if entries + 12 * count > sidx.end or not clock:
        raise UnsupportedLayout
    numbers = list(reader.numbers(entries, 3 * count))
    end += sum(size & 0x7FFF_FFFF for size in numbers[::3])
    time += sum(numbers[1::3])
    if end > reader.size or (track == reading.number and time * ticks > (reading.end + reading.length) * clock):
        raise UnsupportedLayout


def _without_middle(movie: Movie, places: _Places, packets: Packets, indexes: list[Box]) -> PatchedFile:
    """Returns the file as if it had no fragments between the first and the last ones, and no index.

    Raises:
        UnsupportedLayout: these are three quarters of the file or more.
    """
    reader = movie.reader
    tracks = {_track_number(reader, trak) for trak in movie.traks if mp4.handler(reader, trak) in (b"soun", b"vide")}
    start, end = places.middle(tracks, packets.count)
    if end - start < reader.size / 4:
        raise UnsupportedLayout
    patches = {start: struct.pack(">I4sQ", 1, b"free", end - start)}
    for box in indexes:
        if not start <= box.start < end:
            patches[box.start + 4] = b"free"
    return PatchedFile(reader.source, reader.size, patches)


def _parts(data: bytes, start: int, end: int) -> Iterator[_Part]:
    """Iterates over the boxes between two offsets."""
    while start < end:
        size = _number(data, start, end)
        if size < 8 or start + size > end:
            raise UnsupportedLayout
        yield _Part(data[start + 4 : start + 8], start + 8, start + size)
        start += size


def _number(data: bytes, start: int, end: int, width: int = 4) -> int:
    """Reads a number that must end before an offset."""
    if start + width > end:
        raise UnsupportedLayout
    return int.from_bytes(data[start : start + width], "big")
