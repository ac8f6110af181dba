"""Plans how a track becomes MP3: rate, channels, quality, edits, and the ranges that encoders work on in parallel.

The result does not depend on the ranges, byte for byte. An encoder that starts ``PREROLL_FRAMES`` early makes the same
frames in its range as one that starts at the beginning (measured, not proven: the identity tests check it). At
44.1 kHz and its fractions a frame of constant bit rate is not a whole number of bytes, and the padding that compensates
repeats every 49 frames: encoders start at multiples of 49.

An encoder decodes the track from its beginning, unless the samples before its range can be counted from the
track's packets and the decoder forgets what came before; then it seeks, in the track (``seek.excerpt``) or in the video
itself (``seek.recipe``).
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any, Final, Self

from functions.convert import gaps, silence
from functions.convert.demux import protocol
from functions.convert.demux.track import TrackInfo, TrackStream
from functions.convert.ffmpeg import filters
from functions.mp3.chapters import Chapter, within
from functions.mp3.frame import SAMPLE_RATES, samples_per_frame
from functions.options import DEFAULT_BITRATE, VBR_BITRATES, Options

#: Frames that an encoder makes before its range; a multiple of 49.
PREROLL_FRAMES = 98
#: Frames that it makes after its range, because the encoder looks ahead.
LOOKAHEAD_FRAMES = 4
#: Ranges start at multiples of this many frames.
RANGE_STEP = 49
#: The shortest range, in frames: below that, pre-roll and process start would cost more than parallel work saves.
MIN_RANGE_FRAMES = 4 * RANGE_STEP
#: The cost of decoding a second, relative to encoding it; an encoder that cannot seek decodes from the track's start.
DECODE_COST = 0.07
#: The same while the track is still being read from a slow source: an encoder spends more time waiting for the
#: sound before its range than decoding it (measured, 300 MB with 580 s of sound in GridFS).
SLOW_SOURCE_COST = 0.25
#: The length of the first of at least so many ranges, relative to the others', if encoders seek. They become longer by
#: 1/15 at most.
_FIRST_LENGTH: Final = 0.5
_MANY_RANGES: Final = 8
#: Codecs whose packets may say how loud each channel is in a mix. ffmpeg's filters learn that only in stages, and
#: anything with more than two channels is mixed in stages too.
_CODECS_WITH_MIX_LEVELS = frozenset({"ac3", "eac3", "dca", "mlp", "truehd"})
#: LAME's highest bit rates in kbit/s from these sample rates on: MPEG-1, MPEG-2 and MPEG-2.5.
_MAX_BITRATES: Final = ((32_000, 320), (16_000, 160), (0, 64))
#: LAME's lowest bit rates in the same way.
_MIN_BITRATES: Final = ((32_000, 32), (0, 8))
#: Silences samples that are infinite, not a number, or more than 40 dB beyond full scale. The result has the precision
#: of what almost all decoders return.
_CLEAN: Final = r"aeval=exprs='if(lt(abs(val(ch)),100),val(ch),0)':c=same,aformat=sample_fmts=fltp"
#: Attributes that rows have only if they are not 0, since the version before does not know them.
_NEW: Final = ("track", "silence", "clocked")
#: Attributes whose keys differ in the rows of jobs, so that jobs survive an update.
_JSON_KEYS: Final = {"ranges": "pieces", "start_sample": "before", "loopback": "steady"}


@dataclass(frozen=True, slots=True)
class Seek:
    """The part of a track's file that an encoder reads if it does not start at the beginning (``seek.excerpt``).

    Attributes:
        head: bytes at the start of the file, before its sound, that are read as well.
        offset: where the part starts in the file.
        end: where it ends.
        sample: number of the track's sample that is the first of the part.
        crc: CRC-32 of the part.
    """

    head: int
    offset: int
    end: int
    sample: int
    crc: int


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The part of the video that an encoder reads if no track was extracted (``seek.recipe``).

    Attributes:
        offset: where its recipe is in the index.
        size: bytes of the recipe.
        crc: CRC-32 of the recipe.
        sample: number of the track's sample that is the first of the excerpt; negative for one that is not played.
    """

    offset: int
    size: int
    crc: int
    sample: int


@dataclass(frozen=True, slots=True)
class FrameRange:
    """A range of the MP3's frames.

    Attributes:
        start: number of the first frame.
        end: number of the frame after the last; None for the end of the track.
        seek: what its encoder reads of the track; None for all of it.
        excerpt: what its encoder reads of the video instead; None if there is a track.
    """

    start: int
    end: int | None
    seek: Seek | None = None
    excerpt: Excerpt | None = None

    @property
    def preroll(self) -> int:
        """Frames of an encoder's output before the range."""
        return min(self.start, PREROLL_FRAMES)

    def trim_filter(self, rate: int, start_sample: int = 0) -> str | None:
        """Returns the filter that selects the range, pre-roll and look-ahead included; None for everything.

        Args:
            rate: sample rate of the MP3, Hz.
            start_sample: number of the track's sample where the MP3 starts.
        """
        first, last = self.samples(rate)
        part = self.seek or self.excerpt
        skipped = part.sample if part else 0
        if start_sample:
            skipped = max(skipped - start_sample, 0)  # the filters have already dropped what comes before it
        limits = []
        if first > skipped:
            limits.append(f"start_sample={first - skipped}")
        if last is not None:
            limits.append(f"end_sample={last - skipped}")
        return f"atrim={':'.join(limits)}" if limits else None

    def samples(self, rate: int) -> tuple[int, int | None]:
        """Returns the first sample of the range, pre-roll included, and the one after the last, look-ahead included."""
        size = samples_per_frame(rate)
        last = None if self.end is None else (self.end + LOOKAHEAD_FRAMES) * size
        return (self.start - self.preroll) * size, last

    def from_sample(self, sample: int) -> Self:
        """Returns the range with an excerpt that begins with this sample of the track."""
        return replace(self, excerpt=self.excerpt and replace(self.excerpt, sample=sample))

    def to_json(self) -> dict[str, Any]:
        """Returns the range as JSON types."""
        values = {"start": self.start, "end": self.end, "leap": asdict(self.seek) if self.seek else None}
        return {**values, "excerpt": astuple(self.excerpt)} if self.excerpt else values

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Parses the output of ``to_json``."""
        seek = Seek(**data["leap"]) if data.get("leap") else None
        excerpt = Excerpt(*data["excerpt"]) if data.get("excerpt") else None
        return cls(data["start"], data["end"], seek, excerpt)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a track becomes MP3: plain data, the same for every encoder of a job.

    Attributes:
        container: format of the track's file, named like libav's muxer; ``original`` if ffmpeg has to recognize it.
        rate: sample rate of the MP3, Hz.
        channels: 1 or 2.
        quality: the encoder's arguments for bit rate or quality.
        filters: ffmpeg filters that are applied before a range is selected.
        samples: estimated number of samples of the MP3.
        ranges: the ranges, in order and without gaps; all of them have an excerpt, or none.
        start_sample: number of the track's sample where the MP3 starts; every encoder decodes those before it too.
        loopback: whether all filters after the first run behind a loopback decoder, so that they see a single format.
        packets: number of the track's packets.
        silence: seconds of silence that the filters insert.
        bundled: whether ffmpeg may run the bundled way instead of in stages (``ffmpeg.args``).
        track: which audio track of its file the track is, from 0.
        clocked: whether the filters after the first need a clock that counts the samples of the track.
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
    track: int = 0
    silence: float = 0.0
    clocked: bool = False

    @property
    def seconds(self) -> float:
        """Estimated duration of the MP3 in seconds."""
        return self.samples / self.rate

    @property
    def end_seconds(self) -> float:
        """Estimated position in the track where the MP3 ends, in seconds."""
        return (self.start_sample + self.samples) / self.rate

    @property
    def max_bytes_per_second(self) -> float:
        """Bytes of MP3 in a second of sound; of variable bit rate the most."""
        limit = next(bitrate for rate, bitrate in _MAX_BITRATES if self.rate >= rate)
        return 125.0 * (limit if self.variable else min(int(self.quality[1].removesuffix("k")), limit))

    @property
    def min_bytes_per_second(self) -> float:
        """Bytes of MP3 in a second of sound; of variable bit rate the fewest."""
        if not self.variable:
            return self.max_bytes_per_second
        return 125.0 * next(bitrate for rate, bitrate in _MIN_BITRATES if self.rate >= rate)

    @property
    def frame_seconds(self) -> float:
        """Seconds of a frame of the MP3."""
        return samples_per_frame(self.rate) / self.rate

    def expected_size(self, frame_range: FrameRange | None = None) -> int:
        """Returns the estimated bytes of the MP3's frames, or of a range of them.

        An encoder makes a few kilobytes more: its delay, its padding and the tags.
        """
        usual = 125.0 * VBR_BITRATES[int(self.quality[1])] if self.variable else math.inf
        first = frame_range.start * self.frame_seconds if frame_range else 0.0
        last = self.seconds if frame_range is None or frame_range.end is None else frame_range.end * self.frame_seconds
        return int(max(last - first, 0.0) * min(usual, self.max_bytes_per_second))

    def sample_ranges(self, *, ends_early: bool) -> list[tuple[int, int | None]]:
        """Returns the samples of the track that the encoders of the ranges need, counted from the first played.

        Args:
            ends_early: whether the MP3 may end before the track does.
        """
        end = self.samples if ends_early else None
        ranges = []
        for frame_range in self.ranges:
            first, last = frame_range.samples(self.rate)
            last = end if last is None else last
            ranges.append((self.start_sample + first, None if last is None else self.start_sample + last))
        return ranges

    def seams(self, frame_range: FrameRange) -> tuple[int | None, int | None]:
        """Returns the samples of the track where a range meets the one before and the one after; None if none does."""
        size = samples_per_frame(self.rate)
        start = self.start_sample + frame_range.start * size if frame_range.start else None
        return start, None if frame_range.end is None else self.start_sample + frame_range.end * size

    def filters_of(self, frame_range: FrameRange) -> list[str]:
        """Returns the filters of the encoder of a range."""
        first, *more = self.filters
        excerpt = frame_range.excerpt
        if self.clocked and excerpt is not None:
            more = [f"asettb=1/{self.rate}", f"asetpts=N{excerpt.sample:+d}", *more]
        trim = frame_range.trim_filter(self.rate, self.start_sample)
        return [first, *more, trim] if trim else [first, *more]

    def within(self, chapters: Iterable[Chapter]) -> list[Chapter]:
        """Returns the chapters of the track that the MP3 has, on the MP3's clock."""
        return within(chapters, self.start_sample / self.rate, self.seconds)

    def for_changing_format(self) -> Self:
        """Returns the plan for a track whose rate or channels change on the way, which restarts filters that see it."""
        return replace(self, loopback=len(self.filters) > 1, bundled=False)

    def cleaning(self) -> Self:
        """Returns the plan with samples silenced that are no sound and that LAME cannot encode."""
        first, *more = self.filters
        return replace(self, filters=(f"{_CLEAN},{first}", *more))

    @property
    def variable(self) -> bool:
        """Whether the bit rate is variable, so that the frames can be re-packed."""
        return self.quality[0] == "-q:a"

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as JSON types."""
        values = {_JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}
        for name in _NEW:
            if not values[name]:
                del values[name]
        return {**values, "pieces": [frame_range.to_json() for frame_range in self.ranges]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Parses the output of ``to_json``."""
        values = {name: data[key] for name in cls.__slots__ if (key := _JSON_KEYS.get(name, name)) in data}
        values["quality"] = tuple(data["quality"])
        values["filters"] = tuple(data["filters"])
        values["ranges"] = tuple(FrameRange.from_json(piece) for piece in data["pieces"])
        return cls(**values)


def decode_cost(stream: TrackStream) -> float:
    """Returns the cost of decoding a second of the track, relative to encoding it."""
    return SLOW_SOURCE_COST if stream.slow else DECODE_COST


def plan_for(
    track: TrackInfo, options: Options, ranges: int, decode_cost: float = DECODE_COST, *, clocked: bool = False
) -> Plan:
    """Plans the encoding of a track.

    Args:
        track: extracted from its video.
        options: what the user asked for.
        ranges: maximum number of ranges.
        decode_cost: as for ``split_frames``.
        clocked: whether the encoders begin in the middle, and their clocks count the samples of the track.

    Raises:
        UnusableMedia: no sample is left between start and end.
    """
    rate = nearest_rate(track.rate)
    channels = 1 if track.channels == 1 or options.mono else 2
    quality = (
        ("-q:a", str(options.vbr)) if options.vbr is not None else ("-b:a", f"{options.bitrate or DEFAULT_BITRATE}k")
    )
    silent = silence.filled(track, options)
    samples = round(silence.length(track, options) * rate)
    start, end = filters.bounds(options, rate, samples)
    frames = (end - start) // samples_per_frame(rate)
    edits = filters.edit_filters(options, rate, channels, samples, clocked=clocked)
    convert = filters.format_filter(options, rate, channels)
    if track.ambisonic:
        convert = f"{filters.ambisonic_filter(track.channels)},{convert}"
    return Plan(
        container=track.container,
        rate=rate,
        channels=channels,
        quality=quality,
        filters=(convert, *silence.silence_filters(silent), *edits),
        samples=end - start,
        # Normalizing costs more than encoding, and every encoder would normalize all sound before its range.
        ranges=split_frames(frames, 1 if options.normalize else ranges, decode_cost),
        start_sample=start,
        packets=track.packets,
        silence=gaps.total(silent),
        bundled=(
            track.channels <= 2 and track.codec not in _CODECS_WITH_MIX_LEVELS and track.container != protocol.ORIGINAL
        ),
        track=track.number,
        clocked=clocked and bool(edits),
    )


def nearest_rate(rate: int) -> int:
    """Returns the sample rate of MP3 nearest to the track's, as ffmpeg chooses it."""
    return min(SAMPLE_RATES, key=lambda candidate: (abs(candidate - rate), -candidate))


def moved_ranges(plan: Plan, starts: Sequence[int]) -> Plan:
    """Returns the plan with its ranges moved to where encoders can begin without reading much more than they need.

    Args:
        plan: a plan without excerpts.
        starts: samples of the track, in order, with which the samples that encoders need may begin.
    """
    size = samples_per_frame(plan.rate)
    step = RANGE_STEP * size
    # The first range boundary whose pre-roll is not before each of these samples.
    possible = [-(-(start - plan.start_sample) // step) * RANGE_STEP + PREROLL_FRAMES for start in starts]
    last = plan.samples // size - MIN_RANGE_FRAMES
    boundaries = [0]
    for frame_range in plan.ranges[1:]:
        after = bisect_left(possible, frame_range.start)
        near = [at for at in possible[max(after - 1, 0) : after + 1] if boundaries[-1] + MIN_RANGE_FRAMES <= at <= last]
        if near:
            boundaries.append(min(near, key=lambda at: abs(at - frame_range.start)))
    ends = [*boundaries[1:], None]
    return replace(plan, ranges=tuple(FrameRange(start, end) for start, end in zip(boundaries, ends, strict=True)))


def split_frames(frames: int, ranges: int, decode_cost: float = DECODE_COST) -> tuple[FrameRange, ...]:
    """Splits frames into ranges that take equally long to encode.

    A later range is shorter, since its encoder decodes everything before it: with c the cost of decoding relative to
    encoding, all ``end * c + (end - start)`` are equal. If the encoders seek, the first of many ranges is shorter than
    the others, so that the job's first piece is ready early.

    Args:
        frames: estimated number of frames.
        ranges: maximum number of ranges.
        decode_cost: cost of decoding relative to encoding; 0 if the encoders seek.
    """
    ends = [0.0]
    for number in range(ranges):
        length = _FIRST_LENGTH if not number and not decode_cost and ranges >= _MANY_RANGES else 1.0
        ends.append((length + ends[-1]) / (1 + decode_cost))
    boundaries = [round(frames * end / ends[-1] / RANGE_STEP) * RANGE_STEP for end in ends[1:-1]]
    starts = [0]
    for boundary in boundaries:
        if boundary - starts[-1] >= MIN_RANGE_FRAMES and frames - boundary >= MIN_RANGE_FRAMES:
            starts.append(boundary)
    return tuple(FrameRange(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True))
