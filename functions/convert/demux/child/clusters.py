"""Writes recipes for excerpts of a track in Matroska or WebM (``seek.recipe``), from both ends of the file.

An excerpt is the head of the file and a run of clusters, other tracks included. Which sample it begins with is known
only to who reads it (``seek.numbering``); the start of the file shows how samples and clock relate.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import IO, Final, Self

from functions.convert.demux.child.demuxer import Demuxer
from functions.convert.demux.child.matroska import INTERLEAVE, Segment
from functions.convert.demux.child.mp4 import aac
from functions.convert.demux.protocol import MAX_STARTS
from functions.convert.errors import UnsupportedLayout
from functions.convert.seek.numbering import PacketClock
from functions.convert.seek.packets import NUMBERED, opus_skip
from functions.convert.seek.recipe import Recipe, Spans

#: Seconds between two places where excerpts may begin: ranges can begin every second or so.
_MIN_SECONDS: Final = 1.0
#: Packets of AAC that depend on packets before them.
_AAC_WARMUP: Final = 3
#: Packets of the excerpts that draw random numbers: more than the decoder remembers.
_DRAWING: Final = 3
#: Seconds before the wanted samples that decoders have to see. The longest memory is two blocks of Vorbis: 8,192
#: samples at 8 kHz; the 511 bytes of MP3 are 0.6 s at the smallest frame size; AAC remembers one packet. Of
#: 944 seeks in CELT all were exact after 0.77 s; SILK is not indexed (``seek.packets``).
_WARMUP: Final = {"aac": 0.2, "mp3": 1.0, "vorbis": 2.0, "opus": 2.0}
#: Samples at 48 kHz before the wanted ones that two decoders of Opus must have decoded alike: a second.
_COMMON: Final = {"opus": 48_000}
#: Milliseconds after the wanted samples that are read as well, since times are not exact.
_BEYOND: Final = 100
#: The sample of an AAC track is the clusters with so many moments all over the track.
_WINDOWS: Final = 2
#: The first packets are decoded to identify the codec, and have times of their own.
_MIN_PACKETS: Final = 32


@dataclass(frozen=True, slots=True)
class ClusterExcerpts:
    """A track of which excerpts can be made.

    Attributes:
        segment: the file.
        track: number of the audio track.
        codec: libavcodec's name for the track's codec.
        clock: the packets at the start of the file.
        origin: number of the first sample that the track decodes to; negative if that is not played.
        seconds: at which the track ends on the file's clock.
        drawing: a packet that makes the decoder draw random numbers; empty if it never does.
    """

    segment: Segment
    track: int
    codec: str
    clock: PacketClock
    origin: int
    seconds: float
    drawing: bytes

    @classmethod
    def of(cls, segment: Segment, demuxer: Demuxer, codec: str, track: int) -> Self:
        """Reads the packets at both ends of the file.

        Args:
            segment: the file.
            demuxer: its track, of which nothing between the two ends can be read.
            codec: libavcodec's name for the track's codec.
            track: number of the audio track.

        Raises:
            UnsupportedLayout: the track's samples cannot be counted, or something is damaged.
        """
        if codec not in NUMBERED or not demuxer.rate:
            raise UnsupportedLayout
        config = bytes(demuxer.stream.codec_context.extradata or b"")
        drawing = aac.drawing_packet(config) if codec == "aac" else b""
        clock = PacketClock.of(codec, demuxer.channels, demuxer.rate, config)
        nanoseconds = segment.delays[track] if track < len(segment.delays) else 0
        # libav takes the samples that are not played off all times, rounded up from half a millisecond.
        delay = math.floor(nanoseconds / 1e6 + 0.5)
        for packet in demuxer:
            if packet.pts is None:
                raise UnsupportedLayout
            if not demuxer.gaps:
                time = round(packet.pts * float(packet.time_base or 0) * 1000)
                clock.add(time + delay, bytes(packet), 0, packet.size)
        if abs(demuxer.skipped - nanoseconds * demuxer.rate / 1e9) > 1:
            raise UnsupportedLayout  # the file gives another sample rate, as for AAC that may have SBR
        if demuxer.errors or demuxer.ends_early or len(demuxer.gaps) != 1 or len(clock.times) < _MIN_PACKETS:
            raise UnsupportedLayout
        demuxer.gaps.clear()  # it is where nothing was read
        if codec == "opus" and demuxer.skipped != opus_skip(config):
            raise UnsupportedLayout
        origin = 0 if codec == "vorbis" else -demuxer.skipped
        return cls(segment, track, codec, clock, origin, demuxer.end, drawing)

    def starts(self) -> list[int]:
        """Returns the samples with which the wanted ones may begin, if the excerpt begins with a cluster, in order."""
        zero = self.clock.at_zero() + self.origin
        before = INTERLEAVE / 1000 + _WARMUP.get(self.codec, 0.0)
        starts: list[int] = []
        for cluster in self.segment.clusters[1:]:
            start = math.ceil(zero + (cluster.time / 1000 + before) * self.clock.rate)
            if not starts or start >= starts[-1] + _MIN_SECONDS * self.clock.rate:
                starts.append(start)
        return starts[:MAX_STARTS]

    def packets_in(self, seconds: float) -> int:
        """Returns about how many packets there are in this time."""
        return math.ceil(seconds * len(self.clock.times) * self.clock.rate / self.clock.end)

    def write(self, ranges: Iterable[tuple[int, int | None]], target: IO[bytes]) -> None:
        """Writes a recipe for each range of samples; if the decoder may draw random numbers, that of a sample first.

        Args:
            ranges: the first sample and the one after the last, None for the end; counted from the first one that is
                played.
            target: the new file.
        """
        zero = round(self.clock.at_zero()) + self.origin
        if self.drawing:
            target.write(self._recipe(tuple(self._windows()), zero, draws=True).to_bytes())
        for number, (start, end) in enumerate(ranges):
            # The first encoder counts from the start of the track, also if the MP3 starts later.
            first = (start - zero) / self.clock.rate - _WARMUP.get(self.codec, 0.0) if number else -math.inf
            last = None if end is None else (end - zero) / self.clock.rate
            recipe = self._recipe((self.segment.span(first, last),), zero, draws=bool(self.drawing) and number > 0)
            if number:
                recipe = replace(recipe, grid=self.clock.grid, warmup=self._warmup)
            until = -1 if last is None else round(last * 1000) + _BEYOND
            target.write(replace(recipe, until=until).to_bytes())

    @property
    def _warmup(self) -> int:
        """Samples at the start of an excerpt that depend on packets before it, at most."""
        if self.codec == "aac":
            return _AAC_WARMUP * aac.SAMPLES
        return math.ceil(_WARMUP.get(self.codec, 0.0) * self.clock.rate)

    def _windows(self) -> Iterator[tuple[int, int]]:
        for number in range(1, _WINDOWS + 1):
            second = self.seconds * number / (_WINDOWS + 1)
            yield self.segment.window(second)

    def _recipe(self, spans: tuple[tuple[int, int], ...], zero: int, *, draws: bool) -> Recipe:
        return Recipe(
            sample=self.origin,
            prefix=self.segment.head,
            spans=Spans.of(spans),
            drawing=self.drawing if draws else b"",
            drawn=_DRAWING * aac.SAMPLES if draws else 0,
            warmup=self._warmup if draws else 0,
            track=self.track,
            zero=zero,
            common=_COMMON.get(self.codec, 0),
        )
