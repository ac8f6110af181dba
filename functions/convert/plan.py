"""Cuts a track into ranges that encoders can work on at once, none of which changes a byte of the result.

An encoder that starts ``PREROLL_FRAMES`` frames early has forgotten by its range that it did not start at the beginning
(measured, not proven: the identity tests hold it). At 44.1 kHz and its fractions a frame of constant bit rate is no
whole number of bytes, and the padding that makes up for it repeats every 49 frames: encoders start at multiples.

An encoder decodes the track from its beginning, unless what it would decode can be told from the track's packets and
its decoder forgets what came before: then it leaps (``seek.leap``).
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

from functions.convert.chapters import Chapter, within
from functions.convert.demux.track import TrackInfo, TrackStream
from functions.convert.ffmpeg import filters
from functions.convert.mp3.frame import SAMPLE_RATES, samples_per_frame
from functions.options import Options

#: Frames that an encoder starts before its range; a multiple of 49.
PREROLL_FRAMES = 98
#: Frames that it goes on beyond it: the encoder looks ahead.
LOOKAHEAD_FRAMES = 4
#: Cuts are at multiples of so many frames.
RANGE_STEP = 49
#: No piece is shorter: pre-roll and start of a process would cost more than it gains.
MIN_RANGE_FRAMES = 4 * RANGE_STEP
#: What decoding a second costs by what encoding it costs; an encoder that cannot leap decodes from the track's start.
DECODE_COST = 0.07
#: The same where the track is still being read from a slow source: its encoder waits for what is before its range
#: longer than it decodes it (measured, 300 MB with 580 s of sound in GridFS).
SLOW_SOURCE_COST = 0.25
#: Their packets may say how loud each channel is in a mix, which ffmpeg's filters hear of by stages alone; and so is
#: whatever has more channels than two mixed by stages.
_TELL_HOW_TO_MIX = frozenset({"ac3", "eac3", "dca", "mlp", "truehd"})
#: kbit/s where the user asks for nothing.
DEFAULT_BITRATE = 192


#: Names in the database of what has another name here: jobs that are under way go on after an update.
_JSON_KEYS: Final = {"ranges": "pieces", "start_sample": "before", "loopback": "steady"}


@dataclass(frozen=True, slots=True)
class Seek:
    """Which part of a track an encoder reads that does not begin at the track's beginning (``seek.leap``).

    Attributes:
        head: how many bytes at the start of the track's file come before its sound; they are read, too.
        offset: where in the file the part begins.
        end: where it ends.
        sample: the number of the track's sample that is the part's first.
        crc: CRC-32 of the part.
    """

    head: int
    offset: int
    end: int
    sample: int
    crc: int


@dataclass(frozen=True, slots=True)
class FrameRange:
    """A range of frames of the MP3.

    Attributes:
        start: its first frame.
        end: the frame after its last; None for all up to where the track ends.
        leap: what its encoder reads; None for the whole track.
    """

    start: int
    end: int | None
    seek: Seek | None = None

    def to_json(self) -> dict[str, Any]:
        """The range in JSON's own types."""
        return {"start": self.start, "end": self.end, "leap": asdict(self.seek) if self.seek else None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The range from ``to_json``."""
        return cls(data["start"], data["end"], Seek(**data["leap"]) if data.get("leap") else None)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a track becomes MP3: plain data, the same for every encoder of a job.

    Attributes:
        container: what the track's file is, as libav's muxer is called.
        rate: samples a second of the MP3.
        channels: 1 or 2.
        quality: the encoder's arguments for bit rate or quality.
        filters: what happens to the sound before it is cut, as ffmpeg filters.
        samples: how many samples the MP3 will about have.
        ranges: the ranges, in order and without a gap.
        start_sample: how many samples of the track come before the MP3 begins; every encoder decodes them, too.
        loopback: whether all filters but the first see one stream, whatever changes in the track on the way.
        packets: how many the track has.
        bundled: whether ffmpeg may do at one go what it does by stages (``arguments.py``).
    """

    container: str
    rate: int
    channels: int
    quality: tuple[str, ...]
    filters: tuple[str, ...]
    samples: int
    ranges: tuple[FrameRange, ...]
    start_sample: int = 0
    loopback: bool = False
    packets: int = 0
    bundled: bool = False

    @property
    def seconds(self) -> float:
        """How long the MP3 will about be."""
        return self.samples / self.rate

    def within(self, chapters: Iterable[Chapter]) -> list[Chapter]:
        """What the MP3 has of the chapters of its track."""
        return within(chapters, self.start_sample / self.rate, self.seconds)

    def for_changing_format(self) -> Self:
        """The plan for a track whose rate or channels change on the way, which restarts what sees the change."""
        return replace(self, loopback=len(self.filters) > 1, bundled=False)

    @property
    def variable(self) -> bool:
        """Whether frames differ in bit rate, so that those without a bit reservoir can be re-packed."""
        return self.quality[0] == "-q:a"

    def to_json(self) -> dict[str, Any]:
        """The plan in JSON's own types."""
        values = {_JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}
        return {**values, "pieces": [one.to_json() for one in self.ranges]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The plan from ``to_json``."""
        values = {name: data[key] for name in cls.__slots__ if (key := _JSON_KEYS.get(name, name)) in data}
        values["quality"] = tuple(data["quality"])
        values["filters"] = tuple(data["filters"])
        values["ranges"] = tuple(FrameRange.from_json(one) for one in data["pieces"])
        return cls(**values)


def nearest_rate(rate: int) -> int:
    """The sample rate of MP3 nearest to the track's, as ffmpeg chooses it."""
    return min(SAMPLE_RATES, key=lambda candidate: (abs(candidate - rate), -candidate))


def split_frames(frames: int, pieces: int, decoding: float = DECODE_COST) -> tuple[FrameRange, ...]:
    """Cut about so many frames into at most so many pieces that take equally long.

    A later piece is shorter, since its encoder decodes all that is before it: with c the cost of decoding by that of
    encoding, every ``end * c + (end - start)`` is the same. Where encoders leap, c is 0.
    """
    ends = [0.0]
    for _ in range(pieces):
        ends.append((1 + ends[-1]) / (1 + decoding))
    cuts = [round(frames * end / ends[-1] / RANGE_STEP) * RANGE_STEP for end in ends[1:-1]]
    starts = [0]
    for at in cuts:
        if at - starts[-1] >= MIN_RANGE_FRAMES and frames - at >= MIN_RANGE_FRAMES:
            starts.append(at)
    return tuple(FrameRange(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True))


def trim_filter(piece: FrameRange, rate: int) -> str | None:
    """The filter that gives an encoder its range, pre-roll and a little beyond it included; None for all of it."""
    size = samples_per_frame(rate)
    first = piece.seek.sample if piece.seek else 0
    limits = []
    if piece.start > PREROLL_FRAMES:
        limits.append(f"start_sample={(piece.start - PREROLL_FRAMES) * size - first}")
    if piece.end is not None:
        limits.append(f"end_sample={(piece.end + LOOKAHEAD_FRAMES) * size - first}")
    return f"atrim={':'.join(limits)}" if limits else None


def preroll_of(piece: FrameRange) -> int:
    """How many frames of an encoder's output come before its range."""
    return min(piece.start, PREROLL_FRAMES)


def decode_cost(stream: TrackStream) -> float:
    """The cost of decoding a second of the track, relative to encoding it."""
    return SLOW_SOURCE_COST if stream.slow else DECODE_COST


def plan_for(track: TrackInfo, options: Options, pieces: int, decoding: float = DECODE_COST) -> Plan:
    """How to encode a track with so many encoders; ``decoding`` as for ``split_frames``."""
    rate = nearest_rate(track.rate)
    channels = 1 if track.channels == 1 or options.mono else 2
    quality = (
        ("-q:a", str(options.vbr)) if options.vbr is not None else ("-b:a", f"{options.bitrate or DEFAULT_BITRATE}k")
    )
    whole = round(track.duration * rate)
    start, end = filters.bounds(options, rate, whole)
    frames = (end - start) // samples_per_frame(rate)
    return Plan(
        container=track.container,
        rate=rate,
        channels=channels,
        quality=quality,
        filters=(filters.base(options, rate, channels), *filters.chain(options, rate, channels, whole)),
        samples=end - start,
        # To bring loudness to a level costs more than to encode, and every encoder would do all that is before it.
        ranges=split_frames(frames, 1 if options.normalize else pieces, decoding),
        start_sample=start,
        packets=track.packets,
        bundled=track.channels <= 2 and track.codec not in _TELL_HOW_TO_MIX,
    )
