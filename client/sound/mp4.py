"""Leaves the pictures out of an mp4 or mov: ISO/IEC 14496-12, QuickTime File Format.

Tables in ``moov`` have the offsets and sizes of samples. Everything stays but the samples of video tracks: their sizes
become 0, and the offsets of all chunks become those in the shorter file. Edit lists, times, tags, covers and chapters
are in ``moov`` too and stay as they are.
"""

import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from client.sound.view import Span, UnsupportedLayout, View

#: Boxes whose contents are boxes.
_CONTAINERS: Final = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
#: Boxes at the top that have no offsets of their own.
_PLAIN: Final = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pdin", b"udta"})
#: Codecs of moving pictures; tracks of others stay.
_CODECS: Final = frozenset(
    {b"avc1", b"avc3", b"hvc1", b"hev1", b"dvh1", b"dvhe", b"vp08", b"vp09", b"av01", b"s263", b"h263"}
    | {b"mp4v", b"jpeg", b"mjpa", b"mjpb", b"apch", b"apcn", b"apcs", b"apco", b"ap4h", b"ap4x"}
)
#: Bytes of the largest ``moov`` that is read.
_MAX_TABLES: Final = 256 << 20
_MAX_DEPTH: Final = 8


class _Box(NamedTuple):
    """A box: its type, and where it, its contents, and what follows it begin."""

    kind: bytes
    start: int
    body: int
    end: int


class _Tables(NamedTuple):
    """The boxes of a track that say where its samples are."""

    is_video: bool
    sizes: _Box
    chunks: _Box
    runs: _Box


class _Range(NamedTuple):
    """Bytes of the file."""

    start: int
    end: int


def spans(file: View) -> list[Span]:
    """Returns the file without its pictures.

    Raises:
        UnsupportedLayout: the file is something else, incomplete, or more complicated.
    """
    top = list(_top(file))
    kinds = [box.kind for box in top]
    if not top or top[0].kind != b"ftyp" or kinds.count(b"moov") != 1 or not _PLAIN.issuperset(kinds):
        raise UnsupportedLayout
    movie = next(box for box in top if box.kind == b"moov")
    if movie.end - movie.start > _MAX_TABLES:
        raise UnsupportedLayout
    head = bytearray(file.read(movie.start, movie.end - movie.start))
    media = [_Range(box.body, box.end) for box in top if box.kind == b"mdat"]
    boxes = _tracks(head)
    chapters = {number for track in boxes for number in _chapters(head, track)}
    tracks = [_tables(head, track, chapters) for track in boxes]
    dropped = _dropped(head, tracks, media)
    if not dropped:
        raise UnsupportedLayout
    shifts = _Shifts(dropped)
    for track in tracks:
        _move_chunks(head, track.chunks, shifts)
        if track.is_video:
            head[track.sizes.body + 12 : track.sizes.end] = bytes(track.sizes.end - track.sizes.body - 12)
    parts: list[Span] = []
    for box in top:
        if box.kind == b"moov":
            parts.append(Span(0, 0, bytes(head)))
        elif box.kind == b"mdat":
            parts += _media(box, dropped, shifts)
        else:
            parts.append(Span(box.start, box.end))
    return parts


class _Shifts:
    """Maps offsets of the file to offsets of the file without some ranges."""

    def __init__(self, dropped: list[_Range]) -> None:
        self._starts = [each.start for each in dropped]
        self._dropped = dropped
        self._before = [0]  # bytes dropped before each range
        for each in dropped:
            self._before.append(self._before[-1] + each.end - each.start)

    def __call__(self, offset: int) -> int:
        number = bisect_right(self._starts, offset) - 1
        if number < 0:
            return offset
        last = self._dropped[number]
        return offset - self._before[number] - (min(offset, last.end) - last.start)


def _top(file: View) -> Iterator[_Box]:
    """Yields the boxes of the file; the last must be complete."""
    start = 0
    while start < file.size:
        box = _box(file.read(start, 16), start, file.size)
        yield box
        start = box.end


def _box(data: bytes | bytearray, start: int, end: int) -> _Box:
    """Parses the header of the box at ``start``, which ``data`` has, of what ends at ``end``."""
    if len(data) < 8:
        raise UnsupportedLayout
    size, kind = struct.unpack_from(">I4s", data)
    body = start + 8
    if size == 1:
        if len(data) < 16:
            raise UnsupportedLayout
        (size,) = struct.unpack_from(">Q", data, 8)
        body = start + 16
    if start + size > end or start + size < body:  # 0 is "to the end of the file", as recorders leave it
        raise UnsupportedLayout
    return _Box(kind, start, body, start + size)


def _children(head: bytearray, parent: _Box) -> Iterator[_Box]:
    start = parent.body
    while start < parent.end:
        if parent.end - start < 8:  # QuickTime's user data may end with four zeros
            return
        box = _box(head[start : start + 16], start, parent.end)
        yield box
        start = box.end


def _inside(head: bytearray, parent: _Box, depth: int = 0) -> Iterator[_Box]:
    """Yields the boxes in a box, those in containers too."""
    for box in _children(head, parent):
        yield box
        if box.kind in _CONTAINERS and depth < _MAX_DEPTH:
            yield from _inside(head, box, depth + 1)


def _tracks(head: bytearray) -> list[_Box]:
    boxes = list(_children(head, _box(head[:16], 0, len(head))))
    if b"iloc" in head or not {b"mvex", b"cmov"}.isdisjoint(box.kind for box in boxes):
        raise UnsupportedLayout  # it has offsets of its own; fragments follow; it is compressed
    return [box for box in boxes if box.kind == b"trak"]


def _chapters(head: bytearray, track: _Box) -> Iterator[int]:
    """Yields the ids of tracks with the titles and pictures of this track's chapters."""
    for references in _children(head, track):
        if references.kind == b"tref":
            for box in _children(head, references):
                if box.kind == b"chap":
                    yield from _numbers(head, box, 0, (box.end - box.body) // 4)


def _tables(head: bytearray, track: _Box, chapters: set[int]) -> _Tables:
    found: dict[bytes, _Box] = {}
    for box in _inside(head, track):
        found.setdefault(box.kind, box)  # QuickTime has a second hdlr, of the data
    chunks = found.get(b"co64") or found.get(b"stco")
    needed = {b"tkhd", b"hdlr", b"stsd", b"stsz", b"stsc"}
    if chunks is None or not needed <= found.keys() or {b"saio", b"senc"} & found.keys():
        raise UnsupportedLayout
    handler = bytes(head[found[b"hdlr"].body + 8 : found[b"hdlr"].body + 12])
    # A sample description is a box behind a count of 32 bits.
    codec = bytes(head[found[b"stsd"].body + 12 : found[b"stsd"].body + 16])
    is_single = _number(head, found[b"stsd"].body + 4) == 1
    is_uniform = _number(head, found[b"stsz"].body + 4) != 0
    is_long = head[found[b"tkhd"].body : found[b"tkhd"].body + 1] == b"\1"  # times of 64 bits before the id
    id_ = _number(head, found[b"tkhd"].body + (20 if is_long else 12))
    is_moving = codec in _CODECS and _number(head, found[b"stsz"].body + 8) > 1  # one picture is a cover
    is_video = handler == b"vide" and is_moving and is_single and not is_uniform and id_ not in chapters
    return _Tables(is_video, found[b"stsz"], chunks, found[b"stsc"])


def _number(head: bytearray, offset: int) -> int:
    """Returns the number of 32 bits at an offset."""
    if offset + 4 > len(head):
        raise UnsupportedLayout
    found: int = struct.unpack_from(">I", head, offset)[0]
    return found


def _numbers(head: bytearray, box: _Box, skipped: int, count: int, width: int = 4) -> "array[int]":
    """Returns ``count`` numbers of ``width`` bytes in a box, after so many bytes."""
    start = box.body + skipped
    if start + count * width > box.end:
        raise UnsupportedLayout
    found = array("I" if width == 4 else "Q", bytes(head[start : start + count * width]))
    if sys.byteorder == "little":
        found.byteswap()
    return found


def _offsets(head: bytearray, chunks: _Box) -> "array[int]":
    width = 8 if chunks.kind == b"co64" else 4
    return _numbers(head, chunks, 8, _number(head, chunks.body + 4), width)


def _move_chunks(head: bytearray, chunks: _Box, shifts: _Shifts) -> None:
    offsets = _offsets(head, chunks)
    moved = array(offsets.typecode, map(shifts, offsets))
    if sys.byteorder == "little":
        moved.byteswap()
    head[chunks.body + 8 : chunks.body + 8 + len(moved) * moved.itemsize] = moved.tobytes()


def _ranges(head: bytearray, track: _Tables) -> Iterator[_Range]:
    """Yields where the chunks of a track are."""
    offsets = _offsets(head, track.chunks)
    uniform = _number(head, track.sizes.body + 4)
    count = _number(head, track.sizes.body + 8)
    sizes = None if uniform else _numbers(head, track.sizes, 12, count)
    runs = _numbers(head, track.runs, 8, 3 * _number(head, track.runs.body + 4))
    sample = 0
    for run in range(0, len(runs), 3):
        first = runs[run]
        last = runs[run + 3] if run + 3 < len(runs) else len(offsets) + 1
        if not 0 < first <= last <= len(offsets) + 1:
            raise UnsupportedLayout
        for number in range(first, last):
            after = min(sample + runs[run + 1], count)
            size = uniform * (after - sample) if sizes is None else sum(sizes[sample:after])
            yield _Range(offsets[number - 1], offsets[number - 1] + size)
            sample = after
    if sample != count:
        raise UnsupportedLayout


def _dropped(head: bytearray, tracks: list[_Tables], media: list[_Range]) -> list[_Range]:
    """Returns the ranges that only video tracks use, in order.

    Raises:
        UnsupportedLayout: samples overlap, or are not where they should be.
    """
    ranges = [(each, track.is_video) for track in tracks for each in _ranges(head, track) if each.end > each.start]
    ranges.sort()
    reached = 0
    dropped: list[_Range] = []
    bounds = [each.start for each in media]
    for each, is_video in ranges:
        home = media[max(bisect_right(bounds, each.start) - 1, 0)] if media else _Range(0, 0)
        if each.start < max(reached, home.start) or each.end > home.end:
            raise UnsupportedLayout
        reached = each.end
        if is_video and dropped and dropped[-1].end == each.start:
            dropped[-1] = _Range(dropped[-1].start, each.end)
        elif is_video:
            dropped.append(each)
    return dropped


def _media(box: _Box, dropped: Iterable[_Range], shifts: _Shifts) -> Iterator[Span]:
    """Yields a box of media without the dropped ranges."""
    size = (shifts(box.end) - shifts(box.body)) + box.body - box.start
    is_long = box.body - box.start == 16
    yield Span(0, 0, struct.pack(">I4sQ", 1, box.kind, size) if is_long else struct.pack(">I4s", size, box.kind))
    start = box.body
    for each in dropped:
        if box.body <= each.start < box.end:
            yield Span(start, each.start)
            start = each.end
    yield Span(start, box.end)
