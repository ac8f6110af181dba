"""Writes what is extracted from an mp4: an mp4 with a single track, or the frames of its MP3.

The tables come first, so that readers can start before all of the audio is there.
"""

import math
import struct
from collections.abc import Iterator
from itertools import islice
from typing import IO, NamedTuple

from functions.convert.demux.child.mp4.boxes import Box, Parts, gapless_tags, size_of, wrap, write_parts
from functions.convert.demux.child.mp4.movie import CHUNK_TABLES, Movie
from functions.convert.errors import UnsupportedLayout
from functions.mp3.frame import is_tag, parse_header

#: Bytes of the header of the box with the audio: its size takes 64 bits.
_MDAT_HEADER = 16
#: Edits of a list that has pauses.
_MAX_EDITS = 1 << 16
#: Samples in a frame of MPEG-1 Layer III; frames of the lower rates have fewer.
_MAX_FRAME_SAMPLES = 1152


class _Chunk(NamedTuple):
    """Consecutive packets of the track in the source: offset and size in bytes, and number of packets."""

    offset: int
    size: int
    packets: int


def write_head(movie: Movie, target: IO[bytes]) -> None:
    """Writes everything that precedes the audio.

    Raises:
        UnsupportedLayout: the tables are inconsistent, or point past the end of the file.
    """
    size = sum(chunk.size for chunk in _chunks(movie))
    ftyp: Parts = [(movie.ftyp.start, movie.ftyp.end)]
    offset = size_of(ftyp) + size_of(_moov(movie, 0)) + _MDAT_HEADER
    write_parts(movie.reader, [*ftyp, *_moov(movie, offset)], target)
    target.write(struct.pack(">I4sQ", 1, b"mdat", _MDAT_HEADER + size))


def write_audio(movie: Movie, target: IO[bytes]) -> None:
    """Writes the audio after the head."""
    for data in movie.reader.gather((chunk.offset, chunk.offset + chunk.size) for chunk in _chunks(movie)):
        target.write(data)


def write_frames(movie: Movie, target: IO[bytes]) -> tuple[int, int, float]:
    """Concatenates the packets of an MP3 track, except for a tag frame.

    Returns:
        The samples at the start and at the end that are not played, and the seconds of all packets, those samples
        included.

    Raises:
        UnsupportedLayout: the packets are not complete frames of one kind, or the edit list leaves some of them out.
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
    return *_skipped(movie, rate, samples), movie.packets * samples / rate


def _skipped(movie: Movie, rate: int, samples: int) -> tuple[int, int]:
    """Returns the samples at the start and at the end that the edit list skips."""
    left = movie.packets
    for count, length in movie.times():
        left -= count
        if length != samples and (left or count > 1):
            raise UnsupportedLayout  # a gap
    edits = list(islice(movie.edits(), 2))
    if movie.ticks != rate or len(edits) > 1:
        raise UnsupportedLayout
    for length, start in edits:
        # If an edit starts later, or ends before the last packet starts, libav leaves packets out.
        end = length * rate / movie.clock if length else math.inf
        if start is None or start >= _MAX_FRAME_SAMPLES or start + end <= (movie.packets - 1) * samples:
            raise UnsupportedLayout
        return start, 0 if math.isinf(end) else max(movie.packets * samples - start - round(end), 0)
    return 0, 0


def _packets(movie: Movie) -> Iterator[bytes]:
    sizes = movie.sizes()
    for chunk in _chunks(movie):
        offset = chunk.offset
        for size in islice(sizes, chunk.packets):
            yield b"".join(movie.reader.chunks(offset, offset + size))
            offset += size


def _chunks(movie: Movie) -> Iterator[_Chunk]:
    """Yields the track's chunks.

    Raises:
        UnsupportedLayout: a chunk is outside the file, or the chunks do not contain all packets.
    """
    sizes = movie.sizes()
    packets = 0
    for offset, count in movie.chunks():
        size = sum(islice(sizes, count))
        packets += count
        if offset + size > movie.reader.size:
            raise UnsupportedLayout
        yield _Chunk(offset, size, count)
    if packets != movie.packets:
        raise UnsupportedLayout


def _moov(movie: Movie, offset: int) -> Parts:
    """Returns the new ``moov`` box, for audio that starts at an offset of the new file."""
    parts: Parts = []
    for box in movie.reader.children(movie.moov):
        if box == movie.trak:
            parts += _trak(movie, box, offset)
        elif box.kind == b"mvhd":
            parts.append((box.start, box.end))
        elif box.kind in (b"udta", b"meta") and movie.trak == movie.traks[-1]:  # these apply to the last track
            parts += gapless_tags(movie.reader, box)
    return wrap(b"moov", parts)


def _edts_without_pauses(movie: Movie) -> Parts:
    """Returns the edit list without pauses between edits, in whose place libav plays the start of the track."""
    entries = [
        struct.pack(">QqI", length, -1 if start is None else start, 1 << 16)
        for number, (length, start) in enumerate(islice(movie.edits(), _MAX_EDITS))
        if start is not None or not number
    ]
    return wrap(b"edts", wrap(b"elst", [struct.pack(">II", 1 << 24, len(entries)), *entries]))


def _trak(movie: Movie, box: Box, offset: int) -> Parts:
    """Returns the ``trak`` box, or one of the boxes in it, with a single chunk at an offset of the new file."""
    parts: Parts = []
    for child in movie.reader.children(box):
        if child.kind in (b"mdia", b"minf", b"stbl"):
            parts += _trak(movie, child, offset)
        elif child.kind == b"edts" and any(start is None for _, start in islice(movie.edits(), 1, None)):
            parts += _edts_without_pauses(movie)
        elif child.kind not in (*CHUNK_TABLES, b"tref", b"udta", b"meta", b"free"):
            parts.append((child.start, child.end))
    if box.kind == b"stbl":
        parts += wrap(b"stsc", [struct.pack(">IIIII", 0, 1, 1, movie.packets, 1)])
        parts += wrap(b"stco", [struct.pack(">III", 0, 1, offset)])
    return wrap(box.kind, parts)
