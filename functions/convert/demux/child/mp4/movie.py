"""Takes an audio track out of an mp4 or mov by the file's own tables, which go over as they are.

libav holds a record of every packet of such a file, those of the pictures included, and another of all that it writes:
200 MB for ten hours. Here tables and sound go through in chunks, and libav sees no more than the beginning, for what
the sound is. The new file has the track's boxes byte for byte, its edit list too, and its sound as one chunk: it
decodes to the same samples because it is the same track. The boxes are those of ISO/IEC 14496-12 and of QuickTime.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat, takewhile

from functions.convert.demux.child.mp4.boxes import Beginning, Box, File
from functions.convert.errors import UnsupportedLayout

#: Packets that libav gets to see.
_SHOWN = 16
#: A week of the shortest.
_MOST_PACKETS = 1 << 28
#: Boxes of stbl that may be there beside the chunks, and go over as they are.
_CARRIED = {b"stsd", b"stts", b"stsz", b"stss", b"sgpd", b"sbgp", b"sdtp", b"free"}
CHUNKS = {b"stsc", b"stco", b"co64"}
#: Boxes that have an entry for every packet or every few.
_TABLES = CHUNKS | {b"stts", b"ctts", b"stsz", b"stz2", b"stss", b"stps", b"sdtp", b"sbgp"}


@dataclass(frozen=True, slots=True)
class Movie:
    """A file whose audio track can be taken out by its tables.

    Attributes:
        file: the source.
        ftyp: the box in front.
        moov: the box of all tables.
        traks: all tracks.
        trak: the audio track that is asked for.
        tables: the boxes of its stbl by their kinds.
        packets: how many it has.
        audios: how many audio tracks the file has.
    """

    file: File
    ftyp: Box
    moov: Box
    traks: tuple[Box, ...]
    trak: Box
    tables: dict[bytes, Box]
    packets: int
    audios: int

    @property
    def duration(self) -> float:
        """Seconds of sound, by the edit list or, without one, by all packets."""
        clock, ticks = self.clock, self.ticks
        whole = sum(count * length for count, length in self.times()) / ticks
        edited = 0.0
        for length, start in self.edits():
            if start is not None:  # else a pause, which nobody hears
                edited += length / clock or whole - start / ticks
        if 0 < edited < whole / 2:
            raise UnsupportedLayout  # whether that is meant, libav judges: its packets are what is counted then
        return min(edited, whole) if edited > 0 else whole

    @property
    def clock(self) -> int:
        """The file's time base: so many a second."""
        return self._per_second(self.file.one(self.moov, b"mvhd"))

    @property
    def ticks(self) -> int:
        """The track's time base: so many a second."""
        return self._per_second(self.file.one(self.trak, b"mdia", b"mdhd"))

    def _per_second(self, box: Box) -> int:
        if not (number := self.file.number(box.body + (20 if self.file.number(box.body, 1) else 12))):
            raise UnsupportedLayout
        return number

    def edits(self) -> Iterator[tuple[int, int | None]]:
        """The edit list: how long each entry is, on the file's clock, and where in the track it begins, or a pause."""
        file = self.file
        for edts in (box for box in file.children(self.trak) if box.kind == b"edts"):
            elst = file.one(edts, b"elst")
            width = 8 if file.number(elst.body, 1) else 4
            for at in range(elst.body + 8, elst.end - 2 * width, 2 * width + 4):
                start = file.number(at + width, width)
                yield file.number(at, width), None if start >> 8 * width - 1 else start

    def times(self) -> Iterator[tuple[int, int]]:
        """How many packets in a row are how long, in the track's time base."""
        stts = self.tables[b"stts"]
        numbers = self.file.numbers(stts.body + 8, 2 * self.file.number(stts.body + 4))
        return zip(numbers, numbers, strict=True)

    @property
    def _offsets(self) -> Box:
        return self.tables.get(b"co64") or self.tables[b"stco"]

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Where each chunk is, and how many packets it has."""
        file, stsc, offsets = self.file, self.tables[b"stsc"], self._offsets
        width = 8 if offsets.kind == b"co64" else 4
        runs = file.numbers(stsc.body + 8, 3 * file.number(stsc.body + 4))
        per, following = 0, next(runs, None)
        for number, offset in enumerate(file.numbers(offsets.body + 8, file.number(offsets.body + 4), width), 1):
            if number == following:
                per = next(runs)
                if next(runs) != 1:
                    raise UnsupportedLayout  # a second kind of sound
                following = next(runs, None)
            yield offset, per

    def sizes(self) -> Iterator[int]:
        """Bytes of each packet."""
        stsz = self.tables[b"stsz"]
        size = self.file.number(stsz.body + 4)
        return repeat(size, self.packets) if size else self.file.numbers(stsz.body + 12, self.packets)

    def beginning(self) -> Beginning:
        """The file as if its audio track had but a few packets and its pictures none."""
        file, patches = self.file, dict[int, bytes]()
        for trak in self.traks:
            if trak != self.trak and _handler(file, trak) not in (b"soun", b"vide"):
                continue  # chapters
            hidden = [box for box in file.children(trak) if box.kind == b"edts"]
            for box in file.children(file.one(trak, b"mdia", b"minf", b"stbl")):
                if box.kind in _TABLES and (trak != self.trak or box.kind not in (*CHUNKS, b"stts", b"stsz")):
                    hidden.append(box)
            patches.update((box.start + 4, b"free") for box in hidden)
        shown = min(self.packets, _SHOWN)
        stts, stsc, offsets = self.tables[b"stts"].body, self.tables[b"stsc"].body, self._offsets.body
        entries, before = _until(shown, (count for count, _ in self.times()))
        patches[stts + 4] = entries.to_bytes(4, "big")
        patches[stts + 8 * entries] = (shown - before).to_bytes(4, "big")
        patches[self.tables[b"stsz"].body + 8] = shown.to_bytes(4, "big")
        chunks, _ = _until(shown, (per for _, per in self.chunks()))
        patches[offsets + 4] = chunks.to_bytes(4, "big")
        firsts = islice(file.numbers(stsc + 8, 3 * file.number(stsc + 4)), 0, None, 3)
        patches[stsc + 4] = sum(1 for _ in takewhile(lambda first: first <= chunks, firsts)).to_bytes(4, "big")
        return Beginning(file.source, file.size, patches)


def parse(source: io.RawIOBase, size: int, number: int) -> Movie:
    """Look at a file's boxes.

    Args:
        source: the file.
        size: bytes of it.
        number: which audio track, from 0.

    Raises:
        UnsupportedLayout: it is no mp4, or has no such track, or none that can be taken out here: libav knows.
    """
    file = File(source, size)
    top = list(islice(file.boxes(0, size), 64))
    kinds = [box.kind for box in top]
    if kinds[:1] != [b"ftyp"] or kinds.count(b"moov") != 1 or b"moof" in kinds or len(top) == 64:
        raise UnsupportedLayout
    moov = top[kinds.index(b"moov")]
    inside = list(file.children(moov))
    if {box.kind for box in inside} & {b"mvex", b"cmov"}:
        raise UnsupportedLayout
    traks = tuple(box for box in inside if box.kind == b"trak")
    audios = [box for box in traks if _handler(file, box) == b"soun"]
    if number >= len(audios):
        raise UnsupportedLayout
    trak = audios[number]
    dref = file.one(trak, b"mdia", b"minf", b"dinf", b"dref")
    if file.number(dref.body + 4) != 1 or not file.number(dref.body + 16) & 1:
        raise UnsupportedLayout  # the sound is in another file
    tables: dict[bytes, Box] = {}
    for box in file.children(file.one(trak, b"mdia", b"minf", b"stbl")):
        if box.kind in tables and box.kind not in (b"sgpd", b"sbgp", b"free"):
            raise UnsupportedLayout
        tables[box.kind] = box
    if (
        not {b"stsd", b"stts", b"stsz", b"stsc"} <= tables.keys() <= _CARRIED | CHUNKS
        or len(CHUNKS & tables.keys()) != 2
    ):
        raise UnsupportedLayout
    return Movie(file, top[0], moov, traks, trak, tables, _packets(file, tables), len(audios))


def _packets(file: File, tables: dict[bytes, Box]) -> int:
    stsz, entry = tables[b"stsz"], tables[b"stsd"].body + 8
    count = file.number(stsz.body + 8)
    if (
        not 0 < count <= _MOST_PACKETS
        or (not file.number(stsz.body + 4) and count > (stsz.end - stsz.body - 12) // 4)
        or file.number(entry - 4) != 1
        or file.at(entry + 4, 4) == b"enca"  # encrypted
    ):
        raise UnsupportedLayout
    for kind, width in ((b"stts", 8), (b"stsc", 12), (b"stco", 4), (b"co64", 8)):
        if kind in tables and file.number(tables[kind].body + 4) * width > tables[kind].end - tables[kind].body - 8:
            raise UnsupportedLayout
    stts = tables[b"stts"].body
    if sum(islice(file.numbers(stts + 8, 2 * file.number(stts + 4)), 0, None, 2)) != count:
        raise UnsupportedLayout
    if file.number(stts + 4) == file.number(stts + 12) == 1:
        raise UnsupportedLayout  # single samples, PCM, of which libav makes packets as it likes
    return count


def _until(wanted: int, counts: Iterable[int]) -> tuple[int, int]:
    """How many counts add up to what is wanted or more, and to what they do without the last."""
    reached = 0
    for number, count in enumerate(counts, 1):
        if reached + count >= wanted:
            return number, reached
        reached += count
    raise UnsupportedLayout


def _handler(file: File, trak: Box) -> bytes:
    return file.at(file.one(trak, b"mdia", b"hdlr").body + 8, 4)
