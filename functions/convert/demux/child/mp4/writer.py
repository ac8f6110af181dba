"""Writes what is taken out of an mp4: a file that has one track and nothing else, or the frames of its MP3.

The tables come first, so that whoever reads along can begin before all of the sound is there.
"""

import math
import struct
from collections.abc import Iterator
from itertools import islice
from typing import IO

from functions.convert.demux.child.mp4.boxes import Box, Parts, gapless, size_of, wrap, write
from functions.convert.demux.child.mp4.movie import CHUNKS, Movie
from functions.convert.errors import UnsupportedLayout
from functions.convert.mp3.frame import is_tag, parse_header

#: Bytes of the box that the sound is in, before it: a size of 64 bits.
_MDAT = 16


def write_head(movie: Movie, target: IO[bytes]) -> None:
    """Write all but the sound.

    Raises:
        UnsupportedLayout: the tables do not agree, or point beyond the file's end.
    """
    sound = sum(length for _, length, _ in _spans(movie))
    ftyp: Parts = [(movie.ftyp.start, movie.ftyp.end)]
    begin = size_of(ftyp) + size_of(_moov(movie, 0)) + _MDAT
    write(movie.file, [*ftyp, *_moov(movie, begin)], target)
    target.write(struct.pack(">I4sQ", 1, b"mdat", _MDAT + sound))


def write_sound(movie: Movie, target: IO[bytes]) -> None:
    """Write the sound behind the head."""
    for data in movie.file.gather((offset, offset + length) for offset, length, _ in _spans(movie)):
        target.write(data)


def write_frames(movie: Movie, target: IO[bytes]) -> tuple[int, int, float]:
    """Write the packets of an MP3 track end to end, a tag aside.

    Returns:
        How many samples at the start and at the end are not to be heard, and the seconds that all packets have, those
        included.

    Raises:
        UnsupportedLayout: they are not whole frames of one kind, or the edit list leaves some of them out.
    """
    kind = None
    for number, data in enumerate(_packets(movie)):
        frame = parse_header(data)
        if frame is None or frame.size != len(data) or (kind or frame.kind) != frame.kind:
            raise UnsupportedLayout
        kind = frame.kind
        if number or not is_tag(data):
            target.write(data)
    if kind is None:
        raise UnsupportedLayout
    rate, samples = kind
    return *_silent(movie, rate, samples), movie.packets * samples / rate


def _silent(movie: Movie, rate: int, samples: int) -> tuple[int, int]:
    left = movie.packets
    for count, length in movie.times():
        left -= count
        if length != samples and (left or count > 1):
            raise UnsupportedLayout  # a gap
    edits = list(islice(movie.edits(), 2))
    if movie.ticks != rate or len(edits) > 1:
        raise UnsupportedLayout
    for length, start in edits:
        # An edit that begins later, or ends before the last packet does begin, has libav leave packets out.
        end = length * rate / movie.clock if length else math.inf
        if start is None or start >= 1152 or start + end <= (movie.packets - 1) * samples:
            raise UnsupportedLayout
        return start, 0 if math.isinf(end) else max(movie.packets * samples - start - round(end), 0)
    return 0, 0


def _packets(movie: Movie) -> Iterator[bytes]:
    sizes = movie.sizes()
    for offset, _, per in _spans(movie):
        for size in islice(sizes, per):
            yield b"".join(movie.file.spans(offset, offset + size))
            offset += size


def _spans(movie: Movie) -> Iterator[tuple[int, int, int]]:
    """Of each chunk: where it is, its bytes, its packets; UnsupportedLayout if they lie outside or are not all."""
    sizes, packets = movie.sizes(), 0
    for offset, per in movie.chunks():
        length = sum(islice(sizes, per))
        packets += per
        if offset + length > movie.file.size:
            raise UnsupportedLayout
        yield offset, length, per
    if packets != movie.packets:
        raise UnsupportedLayout


def _moov(movie: Movie, offset: int) -> Parts:
    parts: Parts = []
    for box in movie.file.children(movie.moov):
        if box == movie.trak:
            parts += _trak(movie, box, offset)
        elif box.kind == b"mvhd":
            parts.append((box.start, box.end))
        elif box.kind in (b"udta", b"meta") and movie.trak == movie.traks[-1]:  # to the last track it applies
            parts += gapless(movie.file, box)
    return wrap(b"moov", parts)


def _trak(movie: Movie, box: Box, offset: int) -> Parts:
    parts: Parts = []
    for child in movie.file.children(box):
        if child.kind in (b"mdia", b"minf", b"stbl"):
            parts += _trak(movie, child, offset)
        elif child.kind not in (*CHUNKS, b"tref", b"udta", b"meta", b"free"):
            parts.append((child.start, child.end))
    if box.kind == b"stbl":
        parts += wrap(b"stsc", [struct.pack(">IIIII", 0, 1, 1, movie.packets, 1)])
        parts += wrap(b"stco", [struct.pack(">III", 0, 1, offset)])
    return wrap(box.kind, parts)
