"""Extracts an audio track from an mp4 or mov by the file's own tables, which are copied unchanged.

libav keeps a record of every packet in such a file, including those of the video, and another of each that it writes:
200 MB for ten hours. Here tables and audio are copied in chunks, and libav sees only the beginning, to identify the
audio. The new file has the track's boxes byte for byte, including its edit list, and its audio as a single chunk: it
decodes to the same samples because it is the same track. The boxes are those of ISO/IEC 14496-12 and of QuickTime.
"""

import contextlib
import io
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, repeat, takewhile
from typing import NamedTuple

from functions.convert.demux.child import protection
from functions.convert.demux.child.mp4.boxes import Box, BoxReader, PatchedFile
from functions.convert.errors import UnsupportedLayout
from functions.convert.gaps import MAX_GAPS, MIN_GAP, Gap, GapList, total

#: Packets that libav sees.
_SHOWN_PACKETS = 16
#: A week of the shortest packets.
_MAX_PACKETS = 1 << 28
#: A day of samples at 48 kHz.
_MAX_SAMPLES = 24 * 3600 * 48_000
#: Different lengths of packets that are counted to find the usual one.
_MAX_LENGTHS = 1000
#: Packets of a length that are too few to tell it from an accident.
_FEW = 8
#: Pauses that are looked at: 11 hours of one each 0.4 s.
_MAX_PAUSES = 100_000
#: Boxes on the top level of the file, without fragments; a file with more is left to libav.
MAX_TOP_BOXES = 64
#: The tables that say where the chunks are.
CHUNK_TABLES = {b"stsc", b"stco", b"co64"}
#: Boxes of stbl that are allowed beside these, and copied unchanged.
_COPIED_TABLES = {b"stsd", b"stts", b"stsz", b"stss", b"sgpd", b"sbgp", b"sdtp", b"free"}
#: Boxes with an entry for every packet, or every few.
_TABLES = CHUNK_TABLES | {b"stts", b"ctts", b"stsz", b"stz2", b"stss", b"stps", b"sdtp", b"sbgp"}


class Timeline(NamedTuple):
    """When the sound of a track is played, in seconds.

    Attributes:
        duration: the sound.
        gaps: pauses between edits, and packets that last longer than their sound.
        pause: the time before the sound, by the edit list.
        lead: the time of other tracks with sound or pictures before the sound.
        tail: the time of other tracks with sound or pictures after the sound.
    """

    duration: float
    gaps: list[Gap]
    pause: float
    lead: float
    tail: float


@dataclass(frozen=True, slots=True)
class Movie:
    """A file with an audio track that can be extracted by its tables.

    Attributes:
        reader: the source.
        ftyp: the first box.
        moov: the box with all tables.
        traks: the boxes of all tracks.
        trak: the box of the requested audio track.
        tables: the boxes of its stbl, by kind.
        packets: number of its packets.
        audios: number of audio tracks in the file.
    """

    reader: BoxReader
    ftyp: Box
    moov: Box
    traks: tuple[Box, ...]
    trak: Box
    tables: dict[bytes, Box]
    packets: int
    audios: int

    def timeline(self) -> Timeline:
        """Returns when the track's sound is played, by the edit list, or by all packets if there is none."""
        gaps, duration = self._shown()
        played = [trak for trak in self.traks if handler(self.reader, trak) in (b"soun", b"vide")]
        pause = self._pause(self.trak)
        end = max((self._end(trak) for trak in played if trak != self.trak), default=0.0)
        return Timeline(
            duration=duration,
            gaps=gaps,
            pause=pause,
            lead=pause - min(self._pause(trak) for trak in played),
            tail=max(end - pause - duration - total(gaps), 0.0),
        )

    def _pause(self, trak: Box) -> float:
        """Returns the seconds before the first edit of a track."""
        for length, start in islice(self.edits(trak), 1):
            return length / self.clock if start is None else 0.0
        return 0.0

    def _end(self, trak: Box) -> float:
        """Returns the seconds at which a track ends, by its header; 0 if that does not say."""
        tkhd = self.reader.find(trak, b"tkhd")
        offset, width = (28, 8) if self.reader.number(tkhd.body, 1) else (20, 4)
        length = self.reader.number(tkhd.body + offset, width)
        return 0.0 if length == (1 << 8 * width) - 1 else length / self.clock

    def _shown(self) -> tuple[list[Gap], float]:
        """Returns the gaps, and the seconds of sound that the edit list shows."""
        clock = self.clock
        ticks = self.ticks
        pauses, whole = self._long_packets()
        shown = GapList()
        sound = 0.0
        for number, (length, start) in enumerate(self.edits()):
            if start is None:
                if number:
                    shown.add(Gap(sound, length / clock))
                continue
            end = min(start + length * ticks / clock, whole) if length else whole
            for begin, stop in islice(pauses, bisect_right(pauses, (start, math.inf)), None):
                if stop >= end:
                    break
                sound += (begin - start) / ticks
                shown.add(Gap(sound, (stop - begin) / ticks))
                start = stop
            sound += max(end - start, 0) / ticks
        if sound:
            return shown.gaps, sound
        between = GapList()
        silent = 0
        for begin, stop in pauses:
            between.add(Gap((begin - silent) / ticks, (stop - begin) / ticks))
            silent += stop - begin
        return between.gaps, (whole - silent) / ticks

    def _long_packets(self) -> tuple[list[tuple[int, int]], int]:
        """Returns where packets last longer than their sound, and the length of all, in the track's time base."""
        usual = self._usual_length()
        longest = usual + MIN_GAP * self.ticks
        at = 0
        pauses: list[tuple[int, int]] = []
        for count, length in self.times():
            if length > longest:
                starts = range(at, at + count * length, length)
                pauses += [(start + usual, start + length) for start in islice(starts, _MAX_PAUSES - len(pauses))]
            at += count * length
        return pauses, at

    def _usual_length(self) -> int:
        """Returns the length of a packet that lasts as long as its sound, in the track's time base."""
        packets: dict[int, int] = {}
        for count, length in self.times():
            if length in packets or len(packets) < _MAX_LENGTHS:
                packets[length] = packets.get(length, 0) + count
        # Most packets may be stretched to the next one: those of Opus where somebody listens. The last one is shorter.
        frequent = [length for length, count in packets.items() if count >= max(_FEW, self.packets / 100)]
        return min(frequent, default=max(packets, key=lambda length: packets[length]))

    @property
    def has_single_samples(self) -> bool:
        """Whether each packet is one sample, and all have the same size: PCM."""
        stts = self.tables[b"stts"].body
        is_single = self.reader.number(stts + 4) == self.reader.number(stts + 12) == 1
        return is_single and self.reader.number(self.tables[b"stsz"].body + 4) > 0

    @property
    def is_default(self) -> bool:
        """Whether the track is enabled (ISO/IEC 14496-12, 8.3.2.3), which libav takes for its default."""
        return bool(self.reader.number(self.reader.find(self.trak, b"tkhd").body) & 1)

    @property
    def clock(self) -> int:
        """The file's time base, in ticks per second."""
        return self._per_second(self.reader.find(self.moov, b"mvhd"))

    @property
    def ticks(self) -> int:
        """The track's time base, in ticks per second."""
        return self._per_second(self.reader.find(self.trak, b"mdia", b"mdhd"))

    def _per_second(self, box: Box) -> int:
        version = self.reader.number(box.body, 1)
        if not (number := self.reader.number(box.body + (20 if version else 12))):
            raise UnsupportedLayout
        return number

    def edits(self, trak: Box | None = None) -> Iterator[tuple[int, int | None]]:
        """Yields an edit list, by default the audio track's.

        Yields:
            Each entry's length on the file's clock, and its start in the track's time base; None is a pause.
        """
        reader = self.reader
        for edts in (box for box in reader.children(trak or self.trak) if box.kind == b"edts"):
            elst = reader.find(edts, b"elst")
            width = 8 if reader.number(elst.body, 1) else 4
            for offset in range(elst.body + 8, elst.end - 2 * width, 2 * width + 4):
                start = reader.number(offset + width, width)
                is_pause = start >> 8 * width - 1  # negative
                yield reader.number(offset, width), None if is_pause else start

    def times(self) -> Iterator[tuple[int, int]]:
        """Yields runs of packets of equal length: their number, and the length in the track's time base."""
        stts = self.tables[b"stts"]
        numbers = self.reader.numbers(stts.body + 8, 2 * self.reader.number(stts.body + 4))
        return zip(numbers, numbers, strict=True)

    @property
    def _chunk_offsets(self) -> Box:
        return self.tables.get(b"co64") or self.tables[b"stco"]

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Yields the chunks: offset in the file, and number of packets."""
        reader = self.reader
        stsc = self.tables[b"stsc"]
        offsets = self._chunk_offsets
        width = 8 if offsets.kind == b"co64" else 4
        runs = reader.numbers(stsc.body + 8, 3 * reader.number(stsc.body + 4))
        packets = 0
        next_run = next(runs, None)
        for number, offset in enumerate(reader.numbers(offsets.body + 8, reader.number(offsets.body + 4), width), 1):
            if number == next_run:
                packets = next(runs)
                if next(runs) != 1:
                    raise UnsupportedLayout  # a second kind of audio
                next_run = next(runs, None)
            yield offset, packets

    def sizes(self) -> Iterator[int]:
        """Yields the size of each packet in bytes."""
        stsz = self.tables[b"stsz"]
        size = self.reader.number(stsz.body + 4)
        return repeat(size, self.packets) if size else self.reader.numbers(stsz.body + 12, self.packets)

    def beginning(self) -> PatchedFile:
        """Returns the file as if its audio track had only a few packets, and its other tracks none."""
        reader = self.reader
        patches = self._hidden_tables()
        shown = min(self.packets, _SHOWN_PACKETS)
        stts = self.tables[b"stts"].body
        entries, before = _entries_for(shown, (count for count, _ in self.times()))
        patches[stts + 4] = entries.to_bytes(4, "big")
        patches[stts + 8 * entries] = (shown - before).to_bytes(4, "big")
        patches[self.tables[b"stsz"].body + 8] = shown.to_bytes(4, "big")
        chunks, _ = _entries_for(shown, (packets for _, packets in self.chunks()))
        patches[self._chunk_offsets.body + 4] = chunks.to_bytes(4, "big")
        stsc = self.tables[b"stsc"].body
        first_chunks = islice(reader.numbers(stsc + 8, 3 * reader.number(stsc + 4)), 0, None, 3)
        runs = sum(1 for _ in takewhile(lambda first: first <= chunks, first_chunks))
        patches[stsc + 4] = runs.to_bytes(4, "big")
        return PatchedFile(reader.source, reader.size, patches)

    def _hidden_tables(self) -> dict[int, bytes]:
        """Returns patches that rename edit lists, and tables that libav need not see, to ``free``."""
        reader = self.reader
        patches: dict[int, bytes] = {}
        for trak in self.traks:
            if trak != self.trak and handler(reader, trak) not in (b"soun", b"vide"):
                continue  # chapters
            hidden = [box for box in reader.children(trak) if box.kind == b"edts"]
            for box in reader.children(reader.find(trak, b"mdia", b"minf", b"stbl")):
                if box.kind in _TABLES and (trak != self.trak or box.kind not in (*CHUNK_TABLES, b"stts", b"stsz")):
                    hidden.append(box)
            patches.update((box.start + 4, b"free") for box in hidden)
        return patches


def parse(source: io.RawIOBase, size: int, number: int) -> Movie:
    """Reads a file's boxes.

    Args:
        source: the file.
        size: bytes of it.
        number: which audio track, from 0.

    Raises:
        UnsupportedLayout: it is not an mp4, has no such track, or one that cannot be extracted here: use libav.
    """
    movie = _with_tables(source, size, number)
    if movie.has_single_samples:
        raise UnsupportedLayout  # libav groups them into packets as it likes
    return movie


def parse_samples(source: io.RawIOBase, size: int, number: int) -> Movie:
    """Reads the boxes of a file with PCM, whose tables have an entry for each chunk and none for each sample.

    Args:
        source: the file.
        size: bytes of it.
        number: which audio track, from 0.

    Raises:
        UnsupportedLayout: it is something else.
    """
    movie = _with_tables(source, size, number)
    if not movie.has_single_samples:
        raise UnsupportedLayout
    return movie


def _with_tables(source: io.RawIOBase, size: int, number: int) -> Movie:
    movie = _outlined(source, size, number)
    reader = movie.reader
    if movie.ftyp.kind != b"ftyp" or not is_here(reader, movie.trak):
        raise UnsupportedLayout
    tables = tables_of(reader, movie.trak)
    movie = replace(movie, tables=tables, packets=_packets(reader, tables))
    if movie.packets > (_MAX_SAMPLES if movie.has_single_samples else _MAX_PACKETS):
        raise UnsupportedLayout
    return movie


def is_here(reader: BoxReader, trak: Box) -> bool:
    """Returns whether the audio of a track is in the same file."""
    dref = reader.find(trak, b"mdia", b"minf", b"dinf", b"dref")
    return reader.number(dref.body + 4) == 1 and bool(reader.number(dref.body + 16) & 1)


def pauses(source: io.RawIOBase, size: int, number: int) -> list[tuple[float, float]]:
    """Returns when a track pauses between two edits, in seconds on the file's clock.

    Args:
        source: the file.
        size: bytes of it.
        number: which audio track, from 0.
    """
    found: list[tuple[float, float]] = []
    with contextlib.suppress(UnsupportedLayout):
        movie = _outlined(source, size, number)
        time = 0
        for length, start in islice(movie.edits(), MAX_GAPS):
            if start is None and time:
                found.append((time / movie.clock, (time + length) / movie.clock))
            time += length
    return found


def _outlined(source: io.RawIOBase, size: int, number: int) -> Movie:
    """Reads a file's boxes, without the tables of the track.

    Raises:
        UnsupportedLayout: it is not an mp4, is fragmented, or has no such track.
    """
    reader = BoxReader(source, size)
    top = list(islice(reader.boxes(0, size), MAX_TOP_BOXES))
    kinds = [box.kind for box in top]
    if kinds.count(b"moov") != 1 or b"moof" in kinds or len(top) == MAX_TOP_BOXES:
        raise UnsupportedLayout
    return describe(reader, top[0], top[kinds.index(b"moov")], number, fragmented=False)


def describe(reader: BoxReader, ftyp: Box, moov: Box, number: int, *, fragmented: bool) -> Movie:
    """Returns a file by its ``moov`` box, without the tables of the track.

    Args:
        reader: the file.
        ftyp: its first box.
        moov: the box.
        number: which audio track, from 0.
        fragmented: whether the box must announce fragments; otherwise it must not.

    Raises:
        UnsupportedLayout: there is no such track, or the box is different.
    """
    children = list(reader.children(moov))
    kinds = {box.kind for box in children}
    if b"cmov" in kinds or (b"mvex" in kinds) != fragmented:
        raise UnsupportedLayout
    traks = tuple(box for box in children if box.kind == b"trak")
    audios = [box for box in traks if handler(reader, box) == b"soun"]
    if number >= len(audios):
        raise UnsupportedLayout
    return Movie(reader, ftyp, moov, traks, audios[number], {}, 0, len(audios))


def tables_of(reader: BoxReader, trak: Box) -> dict[bytes, Box]:
    """Returns the tables of a track by their kind.

    Raises:
        UnsupportedLayout: one of them is missing, is there twice, or is unusual.
    """
    tables: dict[bytes, Box] = {}
    for box in reader.children(reader.find(trak, b"mdia", b"minf", b"stbl")):
        if box.kind in tables and box.kind not in (b"sgpd", b"sbgp", b"free"):
            raise UnsupportedLayout
        tables[box.kind] = box
    if not {b"stsd", b"stts", b"stsz", b"stsc"} <= tables.keys() <= _COPIED_TABLES | CHUNK_TABLES:
        raise UnsupportedLayout
    if len(CHUNK_TABLES & tables.keys()) != 2:
        raise UnsupportedLayout
    return tables


def _packets(reader: BoxReader, tables: dict[bytes, Box]) -> int:
    """Returns the number of packets, after checking that the tables are consistent."""
    stsz = tables[b"stsz"]
    entry = tables[b"stsd"].body + 8
    count = reader.number(stsz.body + 8)
    if (
        not count
        or (not reader.number(stsz.body + 4) and count > (stsz.end - stsz.body - 12) // 4)
        or reader.number(entry - 4) != 1
        or reader.read_at(entry + 4, 4) in protection.ENTRIES
    ):
        raise UnsupportedLayout
    for kind, width in ((b"stts", 8), (b"stsc", 12), (b"stco", 4), (b"co64", 8)):
        if kind in tables and reader.number(tables[kind].body + 4) * width > tables[kind].end - tables[kind].body - 8:
            raise UnsupportedLayout
    stts = tables[b"stts"].body
    if sum(islice(reader.numbers(stts + 8, 2 * reader.number(stts + 4)), 0, None, 2)) != count:
        raise UnsupportedLayout
    return count


def _entries_for(wanted: int, counts: Iterable[int]) -> tuple[int, int]:
    """Returns how many of the counts are needed to reach a sum, and the sum of those without the last."""
    reached = 0
    for number, count in enumerate(counts, 1):
        if reached + count >= wanted:
            return number, reached
        reached += count
    raise UnsupportedLayout


def handler(reader: BoxReader, trak: Box) -> bytes:
    """Returns the kind of a track: ``soun``, ``vide``, or another."""
    return reader.read_at(reader.find(trak, b"mdia", b"hdlr").body + 8, 4)
