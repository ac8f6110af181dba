"""Writes recipes for excerpts of an mp4 or mov (``seek.recipe``), from the file's tables or the heads of its fragments.

An excerpt is an mp4 with one track: the packets from a little before the wanted samples to a little after them. Which
sample it begins with follows from the table of the packets' lengths, and from where the edit list begins. An excerpt
has an edit list only to end where the track does.
"""

import io
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import IO, Final, Self

from functions.convert.demux.child.mp4 import aac
from functions.convert.demux.child.mp4.boxes import Box, Parts, gapless_tags, size_of, wrap, write_parts
from functions.convert.demux.child.mp4.fragments import Fragments
from functions.convert.demux.child.mp4.movie import CHUNK_TABLES, Movie
from functions.convert.demux.child.mp4.packets import Packets, Sizes
from functions.convert.errors import UnsupportedLayout
from functions.convert.seek.recipe import MAX_RECIPE, Recipe, Spans
from functions.mp3.frame import HEADER_SIZE, parse_header

#: Packets that are indexed, at most; of each, four bytes are kept. That is 100 hours of AAC.
_MAX_PACKETS: Final = 1 << 24
#: Packets before the wanted samples, by codec. AAC remembers one packet; the 511 bytes that MP3 remembers are 22 of the
#: smallest; the others remember nothing.
_WARMUP: Final = {"aac": 3, "mp3": 30, "alac": 0, "flac": 0}
#: Packets after the wanted samples, which no decoder needs.
_BEYOND: Final = 2
#: Packets at the end whose lengths may differ from the usual one: libav's muxer has two of MP3.
_MAX_LASTS: Final = 2
#: Bytes of the description of FLAC (RFC 9639, 8.2), which begins with the smallest and the largest packet, in samples.
_STREAMINFO: Final = 34
#: Where the description of ALAC has the samples of a packet (ALACMagicCookieDescription, after the box's header).
_ALAC_FRAME_LENGTH: Final = slice(12, 16)
#: Packets of the excerpts that draw random numbers: more than the decoder remembers.
_DRAWING: Final = 3
#: The sample of an AAC track is this many windows of this many packets, all over the track.
_WINDOWS: Final = 8
_WINDOW: Final = 64
#: Bytes of the description of a track, without its tables.
_MAX_BOXES: Final = 1 << 20
#: Tables that an excerpt has of its own, and boxes that say nothing about its samples.
_LEFT_OUT: Final = CHUNK_TABLES | {b"stts", b"stsz", b"stss", b"sgpd", b"sbgp", b"sdtp"}
_LEFT_OUT_BOXES: Final = {b"edts", b"tref", b"udta", b"meta", b"free"}
_ITUNES_GAPLESS: Final = b"iTunSMPB"


@dataclass(frozen=True, slots=True)
class Times:
    """When the packets of a track are played, in samples.

    Attributes:
        length: of a packet.
        lasts: lengths of the track's last packets, by its table.
        skipped: samples before the first one that is played.
        end: the samples up to where the edit list ends; None if there is none.
        played: number of packets that are decoded.
        pause: samples by which the edit list delays the first one.
    """

    length: int
    lasts: tuple[int, ...]
    skipped: int
    end: int | None
    played: int
    pause: int = 0


@dataclass(frozen=True, slots=True)
class Excerpts:
    """A track of which excerpts can be made.

    Attributes:
        movie: the file.
        times: of the packets.
        packets: of the track.
        warmup: packets before the wanted samples.
        drawing: a packet that makes the decoder draw random numbers; empty if it never does.
    """

    movie: Movie
    times: Times
    packets: Packets
    warmup: int
    drawing: bytes

    @classmethod
    def of(cls, movie: Movie, codec: str, rate: int, config: bytes) -> Self:
        """Reads the tables of a track.

        Args:
            movie: the file.
            codec: libavcodec's name for the track's codec.
            rate: samples per second, as decoded.
            config: the decoder's configuration.

        Raises:
            UnsupportedLayout: the track's samples cannot be counted by its tables.
        """
        if codec not in _WARMUP or movie.packets > _MAX_PACKETS or b"stss" in movie.tables:
            raise UnsupportedLayout
        packets = _packets(movie, Sizes.of(movie.sizes()))
        return cls._of(movie, _times(movie), packets, codec, rate, config)

    @classmethod
    def of_samples(cls, movie: Movie, rate: int, size: int) -> Self:
        """Reads the tables of a track of PCM, whose excerpts can begin and end with any sample.

        Args:
            movie: the file.
            rate: samples per second, as decoded.
            size: of a sample of all channels, in bytes.

        Raises:
            UnsupportedLayout: the track's samples cannot be counted by its tables.
        """
        times = _times(movie)
        if movie.ticks != rate or times.length != 1 or size < 1:
            raise UnsupportedLayout
        packets = _packets(movie, Sizes.repeated(size, movie.packets))
        return cls(movie, replace(times, end=None), packets, 0, b"")

    @classmethod
    def of_fragments(cls, fragments: Fragments, codec: str, rate: int, config: bytes, skipped: int) -> Self:
        """Reads a track of a fragmented file.

        libav plays all packets of it to their end, whatever length the last one declares.

        Args:
            fragments: the track.
            codec: libavcodec's name for its codec.
            rate: samples per second, as decoded.
            config: the decoder's configuration.
            skipped: samples before the first one that is played.

        Raises:
            UnsupportedLayout: the track's samples cannot be counted.
        """
        if any(_ITUNES_GAPLESS in tags for tags in _tags(fragments.movie)):
            raise UnsupportedLayout
        packets = fragments.packets
        times = Times(fragments.length, (), skipped, None, packets.count)
        return cls._of(fragments.movie, times, packets, codec, rate, config)

    @classmethod
    def _of(cls, movie: Movie, times: Times, packets: Packets, codec: str, rate: int, config: bytes) -> Self:
        if codec not in _WARMUP or movie.ticks != rate:
            raise UnsupportedLayout
        drawing = aac.drawing_packet(config) if codec == "aac" else b""
        if times.length != _packet_samples(movie, codec, config, packets.start):
            raise UnsupportedLayout
        return cls(movie, times, packets, _WARMUP[codec], drawing)

    def write(self, ranges: Iterable[tuple[int, int | None]], target: IO[bytes]) -> None:
        """Writes a recipe for each range of samples; if the decoder may draw random numbers, that of a sample first.

        Args:
            ranges: the first sample and the one after the last, None for the end; counted from the first one that is
                played.
            target: the new file.

        Raises:
            UnsupportedLayout: there is nothing in a range, or it consists of too many parts.
        """
        recipes = [self._sample()] if self.drawing else []
        for recipe in chain(recipes, (self._range(start, end) for start, end in ranges)):
            data = recipe.to_bytes()
            if len(data) > MAX_RECIPE:
                raise UnsupportedLayout
            target.write(data)

    def _range(self, start: int, end: int | None) -> Recipe:
        times = self.times
        first = max((start + times.skipped) // times.length - self.warmup, 0)
        last = times.played
        if end is not None:
            last = min(-(-(end + times.skipped) // times.length) + _BEYOND, last)
        if first >= last:
            raise UnsupportedLayout
        # A decoder that begins where the track does is the one that decodes all of it.
        is_first = not first and times.skipped <= self.movie.ticks
        return self._recipe([(first, last)], draws=bool(self.drawing) and not is_first)

    def _sample(self) -> Recipe:
        count = self.times.played
        step = max(count // _WINDOWS, _WINDOW)
        return self._recipe([(first, min(first + _WINDOW, count)) for first in range(0, count, step)], draws=True)

    def _recipe(self, runs: Sequence[tuple[int, int]], *, draws: bool) -> Recipe:
        """Returns the recipe for runs of packets."""
        sizes = self.packets.sizes.joined(runs)
        head = self._head(sizes, runs[-1][1])
        length = self.times.length
        drawing = b""
        if draws:
            before = sizes.after([len(self.drawing)] * _DRAWING)
            drawing = self._head(before, runs[-1][1]) + self.drawing * _DRAWING
        return Recipe(
            sample=runs[0][0] * length - self.times.skipped,
            prefix=head,
            spans=Spans.of(span for run in runs for span in self.packets.spans(*run)),
            drawing=drawing,
            drawn=_DRAWING * length if draws else 0,
            warmup=self.warmup * length if draws else 0,
        )

    def _head(self, sizes: Sizes, last: int) -> bytes:
        """Returns what precedes the packets of an excerpt in its file.

        Args:
            sizes: of its packets, in bytes.
            last: number of the packet after the last one.
        """
        times = self.times
        end = None
        if last == times.played and times.end is not None:
            # It ends where the track does: the edit list may end within the last packet.
            end = times.end + (sizes.count - last) * times.length
        tables = _Tables(sizes, times.length, times.lasts if last == self.packets.count else ())
        ftyp: Parts = [(self.movie.ftyp.start, self.movie.ftyp.end)]
        mdat = struct.pack(">I4sQ", 1, b"mdat", 16 + sizes.total(0, sizes.count))
        offset = size_of(ftyp) + size_of(self._moov(tables, end, 0)) + len(mdat)
        parts = [*ftyp, *self._moov(tables, end, offset), mdat]
        if sum(end - start for start, end in (part for part in parts if isinstance(part, tuple))) > _MAX_BOXES:
            raise UnsupportedLayout
        target = io.BytesIO()
        write_parts(self.movie.reader, parts, target)
        return target.getvalue()

    def _moov(self, tables: "_Tables", end: int | None, offset: int) -> Parts:
        """Returns the ``moov`` box for packets that start at an offset, and that are played up to a sample or all."""
        movie = self.movie
        mvhd = movie.reader.find(movie.moov, b"mvhd")
        clock = mvhd.body + (20 if movie.reader.number(mvhd.body, 1) else 12)
        # The file's clock counts samples, so that the edit list can end at any of them.
        parts: Parts = [(mvhd.start, clock), struct.pack(">I", movie.ticks), (clock + 4, mvhd.end)]
        trak = self._trak(movie.trak, tables, offset)
        if end is not None:
            edits = [struct.pack(">QqI", end, 0, 1 << 16)]
            if self.times.pause:  # with which ffmpeg plays the last packet to its end
                edits.insert(0, struct.pack(">QqI", self.times.pause, -1, 1 << 16))
            edts = wrap(b"edts", wrap(b"elst", [struct.pack(">II", 1 << 24, len(edits)), *edits]))
            trak = wrap(b"trak", [*trak[1:], *edts])
        return wrap(b"moov", [*parts, *trak])

    def _trak(self, box: Box, tables: "_Tables", offset: int) -> Parts:
        """Returns the ``trak`` box, or one of the boxes in it, with one chunk of packets."""
        parts: Parts = []
        for child in self.movie.reader.children(box):
            if child.kind in (b"mdia", b"minf", b"stbl"):
                parts += self._trak(child, tables, offset)
            elif child.kind == b"mdhd":
                parts += self._mdhd(child, tables.duration)
            elif child.kind not in _LEFT_OUT_BOXES and child.kind not in _LEFT_OUT:
                parts.append((child.start, child.end))
        if box.kind == b"stbl":
            parts += tables.boxes(offset)
        return wrap(box.kind, parts)

    def _mdhd(self, box: Box, duration: int) -> Parts:
        """Returns the ``mdhd`` box with the length of an excerpt."""
        reader = self.movie.reader
        offset, width = (24, 8) if reader.number(box.body, 1) else (16, 4)
        at = box.body + offset
        return [(box.start, at), duration.to_bytes(width, "big"), (at + width, box.end)]


@dataclass(frozen=True, slots=True)
class _Tables:
    """The tables of an excerpt: the sizes of its packets, their length, and those of the last ones."""

    sizes: Sizes
    length: int
    lasts: tuple[int, ...]

    @property
    def duration(self) -> int:
        """The length of all packets."""
        return (self.sizes.count - len(self.lasts)) * self.length + sum(self.lasts)

    def boxes(self, offset: int) -> Parts:
        """Returns the boxes for one chunk at an offset."""
        count = self.sizes.count
        runs = [(count - len(self.lasts), self.length), *((1, length) for length in self.lasts)]
        return [
            *wrap(b"stts", [struct.pack(">II", 0, len(runs)), *(struct.pack(">II", *run) for run in runs)]),
            *self.sizes.box(),
            *wrap(b"stsc", [struct.pack(">IIIII", 0, 1, 1, count, 1)]),
            *wrap(b"stco", [struct.pack(">III", 0, 1, offset)]),
        ]


def _packet_samples(movie: Movie, codec: str, config: bytes, offset: int) -> int:
    """Returns the samples of each packet but the last ones, by what the decoder goes by; the table may say otherwise.

    Args:
        movie: the file.
        codec: libavcodec's name for the track's codec.
        config: the decoder's configuration.
        offset: of the first packet.

    Raises:
        UnsupportedLayout: it does not say so, or packets differ.
    """
    if codec == "aac":
        return aac.SAMPLES
    if codec == "flac":
        smallest, largest = struct.unpack_from(">HH", config.ljust(_STREAMINFO, b"\0"))
        if smallest != largest:
            raise UnsupportedLayout
        return int(largest)
    if codec == "alac":
        return int.from_bytes(config[_ALAC_FRAME_LENGTH], "big")
    frame = parse_header(movie.reader.read_at(offset, HEADER_SIZE))
    if frame is None:
        raise UnsupportedLayout
    return frame.samples


def _times(movie: Movie) -> Times:
    """Returns when the packets are played; all but the last ones must be equally long by the table.

    ffmpeg decodes up to the packet with which the edit is complete (libavformat/mov.c, mov_fix_index).
    """
    (count, length), *rest = islice(movie.times(), _MAX_LASTS + 2)
    lasts = tuple(last for number, last in rest[:_MAX_LASTS] for _ in range(min(number, _MAX_LASTS + 1)))
    if not length or count + len(lasts) != movie.packets or len(lasts) > _MAX_LASTS:
        raise UnsupportedLayout
    edits = list(islice(movie.edits(), 3))
    pause = 0
    if edits and edits[0][1] is None:
        pause = edits[0][0] * movie.ticks // movie.clock
        edits = edits[1:]
    if not edits:
        if any(_ITUNES_GAPLESS in tags for tags in _tags(movie)):
            raise UnsupportedLayout
        return Times(length, lasts, 0, None, movie.packets)
    duration, start = edits[0]
    if len(edits) > 1 or start is None or not duration:
        raise UnsupportedLayout
    end = start + (2 * duration * movie.ticks + movie.clock) // (2 * movie.clock)
    played = min(-(-end // length), count)
    reached = count * length
    for last in lasts:
        if reached < end:
            played += 1
        reached += last
    if not played or start >= played * length:
        raise UnsupportedLayout
    return Times(length, lasts, start, end, played, pause)


def _tags(movie: Movie) -> Iterator[bytes]:
    """Yields the tags that may declare samples to skip."""
    for box in movie.reader.children(movie.moov):
        if box.kind in (b"udta", b"meta"):
            for part in gapless_tags(movie.reader, box):
                yield part if isinstance(part, bytes) else b"".join(movie.reader.chunks(*part))


def _packets(movie: Movie, sizes: Sizes) -> Packets:
    """Returns the packets by the tables.

    Args:
        movie: the file.
        sizes: of the packets.

    Raises:
        UnsupportedLayout: a chunk is outside the file, or the chunks do not contain all packets.
    """
    offsets = array("Q")
    firsts = array("I")
    packets = 0
    for offset, count in movie.chunks():
        if len(offsets) == _MAX_PACKETS:
            raise UnsupportedLayout
        offsets.append(offset)
        firsts.append(packets)
        packets += count
        if packets > sizes.count or offset + sizes.total(packets - count, packets) > movie.reader.size:
            raise UnsupportedLayout
    if packets != movie.packets:
        raise UnsupportedLayout
    return Packets(sizes, offsets, firsts)
