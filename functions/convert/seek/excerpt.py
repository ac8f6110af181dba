"""Lets the encoder of a late range start shortly before it, instead of decoding everything that comes first.

The encoder gets an excerpt of the track: the head of the file and the run of clusters that its range needs, with as
much before it as the decoder remembers. ffmpeg's own seeking (``-ss``) goes by time stamps, which are milliseconds here
and do not show which sample a packet starts with. So the samples of every packet before the excerpt are counted, from
the packets themselves (``packets``), and the range is counted from the first sample of the excerpt.

Whatever cannot be counted, or cannot be decoded from the middle bit by bit, is decoded from its beginning:

- AAC and AC-3: their decoders use random numbers (``seek.independence`` proves the contrary for parts of some videos).
- Opus: its decoder's memory fades, but no rule says when it is gone. Of 140 seeks at 12 to 128 kbit/s (SILK, hybrid,
  CELT; 2.5 to 20 ms) all were equal after 0.62 s; an earlier one, with ``-ss``, was not after 31 s.
- A sample rate that MP3 does not have: the resampler is between two samples.
- ``start``, ``end`` and fades count samples from the beginning; ``normalize`` is never split.
- Tracks that were not extracted to Matroska, like those of mp4 (``seek.recipe``) and of MP3 files with LAME's tag, and
  tracks that are damaged, have gaps or change their format.
"""

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, NamedTuple

from functions.convert import silence
from functions.convert.demux.track import TrackInfo
from functions.convert.errors import UnsupportedLayout
from functions.convert.ffmpeg import filters
from functions.convert.mp3.summary import CHUNK_SIZE
from functions.convert.plan import LOOKAHEAD_FRAMES, PREROLL_FRAMES, FrameRange, Plan, Seek
from functions.convert.seek import matroska
from functions.convert.seek.errors import TrackChanged
from functions.convert.seek.packets import COUNTABLE, packet_counter
from functions.convert.streams import SupportsReadSeek, SupportsWrite
from functions.mp3.frame import SAMPLE_RATES, samples_per_frame
from functions.options import Options

#: Seconds of sound from which encoders seek. Below an hour the last encoder wastes 3 s at most. Of 3.2 h of FLAC
#: (1.5 GB) one of 97 pieces took 11.1 s from the beginning and 1.1 s with a seek, and indexing took 1.6 s for all.
#: Counting the packets of an hour takes 0.1 s (FLAC) to 0.2 s (PCM, MP3, Vorbis).
MIN_SEEK_SECONDS = 3600.0
#: Seconds that are decoded before the pre-roll and after the range. The longest memory is two blocks of Vorbis: 8,192
#: samples at 8 kHz; the 511 bytes of MP3 are 0.6 s at the smallest frame size.
WARMUP_SECONDS = 3.0
#: Seconds by which the packets may deviate from the file's clock.
_TOLERANCE = 1.0


class ClusterStart(NamedTuple):
    """Where a cluster starts in the file, and the number of the sample that an excerpt from there starts with."""

    offset: int
    sample: int


@dataclass(frozen=True, slots=True)
class ClusterIndex:
    """The starts of all clusters of a track, and where the last cluster ends in the file."""

    starts: Sequence[ClusterStart]
    end: int


def is_seekable(track: TrackInfo, options: Options) -> bool:
    """Returns whether the packets can be indexed, so that encoders of the track may be able to seek."""
    counts = options.start or options.end is not None or options.fade_in or options.fade_out
    return track.container == "matroska" and track.codec in COUNTABLE and not counts and is_countable(track, options)


def is_countable(track: TrackInfo, options: Options) -> bool:
    """Returns whether an encoder that knows the number of its first sample needs nothing that comes before it."""
    counts = options.normalize or filters.needs_exact_length(options, track.duration)
    return (
        track.rate in SAMPLE_RATES
        and not track.errors
        and not track.gaps
        and not silence.filled(track, options)
        and not counts
    )


def index_clusters(track: TrackInfo) -> ClusterIndex | None:
    """Indexes the clusters of a complete track that ``is_seekable``; returns None if its packets do not add up."""
    try:
        with track.path.open("rb") as file:
            return _index(file, track)
    except UnsupportedLayout:
        return None


def _index(file: IO[bytes], track: TrackInfo) -> ClusterIndex:
    head = matroska.head(file)
    count = packet_counter(track.codec, track.channels, matroska.private(head))
    delay = matroska.delay(head)
    skipped = round((delay or 0) * track.rate / 1e9)
    starts: list[ClusterStart] = []
    decoded = 0
    end = 0
    first_time = 0
    dropped = False
    uncountable = False
    for offset, end, cluster in matroska.clusters(file):  # noqa: B007 - the last end is used
        first = True
        for begin, stop, drops in matroska.packets(cluster):
            if uncountable or (dropped and (first or not drops)):
                raise UnsupportedLayout  # samples that are not to be played are allowed only at the very end
            dropped = drops
            before = decoded
            try:
                decoded += count(cluster, begin, stop)
            except UnsupportedLayout:
                uncountable = True  # allowed for the last packet, which may be truncated
            if uncountable or not first:
                continue
            first = False
            if not starts:
                first_time = matroska.timestamp(cluster)
                starts.append(ClusterStart(offset, 0))
                if delay is None and track.codec == "vorbis":
                    skipped = decoded  # without an explicit delay the first packet is dropped
                continue
            # Decoding a Vorbis packet takes the one before it, so the first packet of an excerpt is dropped.
            starts.append(ClusterStart(offset, (decoded if track.codec == "vorbis" else before) - skipped))
            if (
                starts[-1].sample <= starts[-2].sample
                or abs((matroska.timestamp(cluster) - first_time) / 1000 - before / track.rate) > _TOLERANCE
            ):
                raise UnsupportedLayout
    if not starts:
        raise UnsupportedLayout
    return ClusterIndex(starts, end)


def add_seeks(plan: Plan, track: TrackInfo, clusters: ClusterIndex) -> Plan:
    """Returns the plan with a seek for each of its ranges."""
    with track.path.open("rb") as file:
        ranges = tuple(
            replace(frame_range, seek=_seek_for(frame_range, plan.rate, clusters, file)) for frame_range in plan.ranges
        )
    return replace(plan, ranges=ranges)


def _seek_for(frame_range: FrameRange, rate: int, clusters: ClusterIndex, file: IO[bytes]) -> Seek:
    starts = clusters.starts
    samples = [start.sample for start in starts]
    warmup = WARMUP_SECONDS * rate
    size = samples_per_frame(rate)
    first = max(bisect_right(samples, (frame_range.start - PREROLL_FRAMES) * size - warmup) - 1, 0)
    last = len(samples)
    if frame_range.end is not None:
        last = bisect_right(samples, (frame_range.end + LOOKAHEAD_FRAMES) * size + warmup)
    offset, sample = starts[first]
    end = starts[last].offset if last < len(samples) else clusters.end
    return Seek(head=starts[0].offset, offset=offset, end=end, sample=sample, crc=_copy(file, offset, end, None))


def write_excerpt(track: SupportsReadSeek, seek: Seek, out: SupportsWrite) -> None:
    """Writes the excerpt of a track that an encoder reads, a valid file.

    Args:
        track: the complete track.
        seek: of the encoder's range.
        out: takes the bytes of the excerpt.

    Raises:
        TrackChanged: the track is not the one that the seek was made for.
    """
    track.seek(0)
    head = b""
    while len(head) < seek.head and (data := track.read(seek.head - len(head))):
        head += data
    try:
        out.write(matroska.excerpt_head(head, at_start=seek.offset == seek.head))
    except UnsupportedLayout as error:
        raise TrackChanged from error
    if _copy(track, seek.offset, seek.end, out) != seek.crc:
        raise TrackChanged


def _copy(file: SupportsReadSeek, offset: int, end: int, out: SupportsWrite | None) -> int:
    """Returns the CRC-32 of the bytes between two offsets, and writes them to ``out`` if there is one."""
    file.seek(offset)
    crc = 0
    left = end - offset
    while left:
        data = file.read(min(CHUNK_SIZE, left))
        if not data:
            raise TrackChanged
        if out is not None:
            out.write(data)
        crc = zlib.crc32(data, crc)
        left -= len(data)
    return crc
