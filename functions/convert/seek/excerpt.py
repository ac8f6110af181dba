"""Lets the encoder of a late piece begin shortly before it instead of decoding all that comes first.

It gets an excerpt of the track: the head of the file and the run of clusters that its range needs, with as much before
it as a decoder remembers. ffmpeg's own leap (``-ss``) goes by time stamps, which are milliseconds here and do not tell
which sample a packet begins with. So the samples of every packet before the excerpt are counted, by the packets
themselves (``packets.py``), and the range is told from the sample that the excerpt begins with.

What cannot be counted or decoded from the middle to the last bit is decoded from its beginning as before:

- AAC and AC-3: their decoders draw random numbers.
- Opus: what its decoder remembers fades, but no rule says when it is gone. Of 140 leaps at 12 to 128 kbit/s (SILK,
  hybrid, CELT; 2.5 to 20 ms) all were equal after 0.62 s; an earlier one, by ``-ss``, was not after 31 s.
- A rate that MP3 has not: the resampler stands somewhere between two samples.
- ``start``, ``end`` and fades count samples of the whole; ``normalize`` is never cut.
- Tracks that did not go into Matroska, as those of mp4 and of MP3 files with LAME's tag; such as are damaged or change
  their kind of sound.
"""

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, NamedTuple, Protocol

from functions.convert.demux.track import TrackInfo
from functions.convert.errors import UnsupportedLayout
from functions.convert.mp3.frame import SAMPLE_RATES, samples_per_frame
from functions.convert.mp3.reservoir import SupportsWrite
from functions.convert.mp3.summary import CHUNK_SIZE
from functions.convert.plan import LOOKAHEAD_FRAMES, PREROLL_FRAMES, FrameRange, Plan, Seek
from functions.convert.seek import matroska
from functions.convert.seek.packets import COUNTED, counting
from functions.options import Options

#: Seconds of sound from which on encoders leap. Below an hour the last one decodes for 3 s at most in vain. Of 3.2 h
#: of FLAC (1.5 GB) one of 97 pieces took 11.1 s from the beginning and 1.1 s by a leap, and to mark all of them 1.6 s.
#: To count the packets of an hour takes 0.1 (FLAC) to 0.2 s (PCM, MP3, Vorbis).
MIN_SEEK_SECONDS = 3600.0
#: Seconds that are decoded before the pre-roll, and behind the range. Two blocks of Vorbis, 8,192 samples at 8 kHz,
#: are the longest memory; the 511 bytes of MP3 are 0.6 s where a frame has least.
WARMUP_SECONDS = 3.0
#: Seconds by which the packets may be ahead of the file's clock or behind it.
_ASTRAY = 1.0


class ClusterStart(NamedTuple):
    """A cluster: where it begins in the file, and the sample that an excerpt from there begins with."""

    offset: int
    sample: int


@dataclass(frozen=True, slots=True)
class ClusterIndex:
    """All clusters of a track, and where the last one ends in the file."""

    marks: Sequence[ClusterStart]
    end: int


class TrackChanged(Exception):
    """What was read is not what was stored."""


class SupportsReadSeek(Protocol):
    """A track's file, or its blob."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, none only at the end."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a byte offset and return it."""
        ...


def is_seekable(track: TrackInfo, options: Options) -> bool:
    """Whether a look at the packets may show that encoders of the track can leap."""
    counts = options.start or options.end is not None or options.fade_in or options.fade_out or options.normalize
    return (
        track.container == "matroska"
        and track.codec in COUNTED
        and track.rate in SAMPLE_RATES
        and not track.errors
        and not counts
    )


def index_clusters(track: TrackInfo) -> ClusterIndex | None:
    """The marks of a track for which it is ``possible``; None where its packets do not add up."""
    try:
        with track.path.open("rb") as file:
            return _survey(file, track)
    except UnsupportedLayout:
        return None


def _survey(file: IO[bytes], track: TrackInfo) -> ClusterIndex:
    start = matroska.head(file)
    count = counting(track.codec, track.channels, matroska.private(start))
    delay = matroska.delay(start)
    hidden = round((delay or 0) * track.rate / 1e9)
    marks: list[ClusterStart] = []
    decoded, end, began, dropped, over = 0, 0, 0, False, False
    for offset, end, cluster in matroska.clusters(file):  # noqa: B007 - the last end is used
        first = True
        for begin, stop, drops in matroska.packets(cluster):
            if over or (dropped and (first or not drops)):
                raise UnsupportedLayout  # only at its very end may a track have samples that are not to be heard
            dropped, before = drops, decoded
            try:
                decoded += count(cluster, begin, stop)
            except UnsupportedLayout:
                over = True  # cut off, if it is the last
            if over or not first:
                continue
            first = False
            if not marks:
                began = matroska.timestamp(cluster)
                marks.append(ClusterStart(offset, 0))
                if delay is None and track.codec == "vorbis":
                    hidden = decoded  # unless it is said how much is to be dropped, the first packet is
                continue
            # What Vorbis makes of a packet needs the one before it, and the first of an excerpt is dropped.
            marks.append(ClusterStart(offset, (decoded if track.codec == "vorbis" else before) - hidden))
            if (
                marks[-1].sample <= marks[-2].sample
                or abs((matroska.timestamp(cluster) - began) / 1000 - before / track.rate) > _ASTRAY
            ):
                raise UnsupportedLayout
    if not marks:
        raise UnsupportedLayout
    return ClusterIndex(marks, end)


def add_seeks(plan: Plan, track: TrackInfo, marks: ClusterIndex) -> Plan:
    """The plan with a leap for each of its pieces."""
    samples = [mark.sample for mark in marks.marks]
    with track.path.open("rb") as file:

        def seek_for(piece: FrameRange) -> Seek:
            warm, size = WARMUP_SECONDS * plan.rate, samples_per_frame(plan.rate)
            first = max(bisect_right(samples, (piece.start - PREROLL_FRAMES) * size - warm) - 1, 0)
            last = (
                len(samples)
                if piece.end is None
                else bisect_right(samples, (piece.end + LOOKAHEAD_FRAMES) * size + warm)
            )
            offset, sample = marks.marks[first]
            end = marks.marks[last].offset if last < len(samples) else marks.end
            crc = _copy(file, offset, end, None)
            return Seek(marks.marks[0].offset, offset, end, sample, crc)

        return replace(plan, ranges=tuple(replace(piece, seek=seek_for(piece)) for piece in plan.ranges))


def write_excerpt(track: SupportsReadSeek, seek: Seek, out: SupportsWrite) -> None:
    """Write the part of a track that a leaping encoder reads.

    Args:
        track: the whole of it.
        seek: the range's.
        out: takes the bytes of a file of its own.

    Raises:
        TrackChanged: the track is not the one that the leap was made for.
    """
    track.seek(0)
    start = b""
    while len(start) < seek.head and (data := track.read(seek.head - len(start))):
        start += data
    try:
        out.write(matroska.continued(start, at_start=seek.offset == seek.head))
    except UnsupportedLayout as error:
        raise TrackChanged from error
    if _copy(track, seek.offset, seek.end, out) != seek.crc:
        raise TrackChanged


def _copy(file: SupportsReadSeek, offset: int, end: int, out: SupportsWrite | None) -> int:
    """The CRC-32 of the bytes between two offsets, which are written to ``out`` if there is one."""
    file.seek(offset)
    crc, left = 0, end - offset
    while left:
        data = file.read(min(CHUNK_SIZE, left))
        if not data:
            raise TrackChanged
        if out is not None:
            out.write(data)
        crc, left = zlib.crc32(data, crc), left - len(data)
    return crc
