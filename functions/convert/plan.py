"""Cuts a track into ranges that encoders can work on at once, none of which changes a byte of the result.

An encoder that starts ``PREROLL`` frames early has forgotten by its range that it did not start at the beginning
(measured, not proven: the identity tests hold it). At 44.1 kHz and its fractions a frame of constant bit rate is no
whole number of bytes, and the padding that makes up for it repeats every 49 frames: encoders start at multiples.

An encoder decodes the track from its beginning, unless what it would decode can be told from the track's packets and
its decoder forgets what came before: then it leaps (``seek.leap``).
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from functions.convert.chapters import Chapter, within
from functions.convert.mp3 import frame

#: Frames that an encoder starts before its range; a multiple of 49.
PREROLL = 98
#: Frames that it goes on beyond it: the encoder looks ahead.
BEYOND = 4
#: Cuts are at multiples of so many frames.
STEP = 49
#: No piece is shorter: pre-roll and start of a process would cost more than it gains.
LEAST = 4 * STEP
#: What decoding a second costs by what encoding it costs; an encoder that cannot leap decodes from the track's start.
DECODING = 0.07
#: The same where the track is still being read from a slow source: its encoder waits for what is before its range
#: longer than it decodes it (measured, 300 MB with 580 s of sound in GridFS).
WAITING = 0.25


@dataclass(frozen=True, slots=True)
class Leap:
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
class Piece:
    """A range of frames of the MP3.

    Attributes:
        start: its first frame.
        end: the frame after its last; None for all up to where the track ends.
        leap: what its encoder reads; None for the whole track.
    """

    start: int
    end: int | None
    leap: Leap | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The piece from the JSON of its plan."""
        return cls(data["start"], data["end"], Leap(**data["leap"]) if data.get("leap") else None)


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
        pieces: the ranges, in order and without a gap.
        before: how many samples of the track come before the MP3 begins; every encoder decodes them, too.
        steady: whether all filters but the first see one stream, whatever changes in the track on the way.
        packets: how many the track has.
        bundled: whether ffmpeg may do at one go what it does by stages (``arguments.py``).
    """

    container: str
    rate: int
    channels: int
    quality: tuple[str, ...]
    filters: tuple[str, ...]
    samples: int
    pieces: tuple[Piece, ...]
    before: int = 0
    steady: bool = False
    packets: int = 0
    bundled: bool = False

    @property
    def seconds(self) -> float:
        """How long the MP3 will about be."""
        return self.samples / self.rate

    def within(self, chapters: Iterable[Chapter]) -> list[Chapter]:
        """What the MP3 has of the chapters of its track."""
        return within(chapters, self.before / self.rate, self.seconds)

    def steadied(self) -> Self:
        """The plan for a track whose rate or channels change on the way, which restarts what sees the change."""
        return replace(self, steady=len(self.filters) > 1, bundled=False)

    @property
    def variable(self) -> bool:
        """Whether frames differ in bit rate, so that those without a bit reservoir can be re-packed."""
        return self.quality[0] == "-q:a"

    def to_json(self) -> dict[str, Any]:
        """The plan in JSON's own types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The plan from ``to_json``."""
        pieces = tuple(Piece.from_json(piece) for piece in data["pieces"])
        return cls(**{**data, "quality": tuple(data["quality"]), "filters": tuple(data["filters"]), "pieces": pieces})


def nearest_rate(rate: int) -> int:
    """The sample rate of MP3 nearest to the track's, as ffmpeg chooses it."""
    return min(frame.RATES, key=lambda candidate: (abs(candidate - rate), -candidate))


def cut(frames: int, pieces: int, decoding: float = DECODING) -> tuple[Piece, ...]:
    """Cut about so many frames into at most so many pieces that take equally long.

    A later piece is shorter, since its encoder decodes all that is before it: with c the cost of decoding by that of
    encoding, every ``end * c + (end - start)`` is the same. Where encoders leap, c is 0.
    """
    ends = [0.0]
    for _ in range(pieces):
        ends.append((1 + ends[-1]) / (1 + decoding))
    cuts = [round(frames * end / ends[-1] / STEP) * STEP for end in ends[1:-1]]
    starts = [0]
    for at in cuts:
        if at - starts[-1] >= LEAST and frames - at >= LEAST:
            starts.append(at)
    return tuple(Piece(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True))


def atrim(piece: Piece, rate: int) -> str | None:
    """The filter that gives an encoder its range, pre-roll and a little beyond it included; None for all of it."""
    size = frame.samples_per_frame(rate)
    first = piece.leap.sample if piece.leap else 0
    limits = []
    if piece.start > PREROLL:
        limits.append(f"start_sample={(piece.start - PREROLL) * size - first}")
    if piece.end is not None:
        limits.append(f"end_sample={(piece.end + BEYOND) * size - first}")
    return f"atrim={':'.join(limits)}" if limits else None


def skipped(piece: Piece) -> int:
    """How many frames of an encoder's output come before its range."""
    return min(piece.start, PREROLL)
