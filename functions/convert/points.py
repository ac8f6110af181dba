"""The points of a waveform, from the samples that the encoders receive.

On its way to LAME, ffmpeg prints the lowest and the highest sample of each chunk to a pipe. Chunks and points have 49
frames, or that times or divided by a power of two: so ranges begin with a chunk, and points of any encoders can be put
together. What is measured twice, or in two halves, gives the same: the points do not depend on the ranges.
"""

import base64
import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from functions.convert.plan import RANGE_STEP, FrameRange, Plan
from functions.mp3.frame import samples_per_frame
from functions.waveform import MAX_POINTS, Waveform

#: The shortest point is this fraction of 49 frames: 40 ms at 44.1 kHz.
_FINEST: Final = 32
#: Points shorter than 49 frames, at most: for each chunk astats clears a megabyte, which takes 0.6 million instructions
#: (measured). Encoding a second takes 100 million, and comparing its samples 0.9.
_FEW: Final = 512
#: What ffmpeg prints of a chunk: its lowest sample, its highest, and the peak in dB, which tells what full scale is:
#: 1.0, or 32,767.
_LEVEL: Final = re.compile(rb"lavfi\.astats\.Overall\.(Min|Max|Peak)_level=(-?(?:[0-9]{1,40}\.[0-9]{6}|inf))")
_MAX_DECIBELS: Final = 1000.0


@dataclass(slots=True)
class Points:
    """The points of a range of samples; as more are added, points become longer.

    Attributes:
        samples: samples of a point.
        first: number of the first point; the range may begin in the middle of it.
        lows: the lowest sample of each, -128 to 127.
        highs: the highest sample of each.
    """

    samples: int
    first: int = 0
    lows: "array[int]" = field(default_factory=lambda: array("b"))
    highs: "array[int]" = field(default_factory=lambda: array("b"))

    def add(self, sample: int, low: int, high: int) -> None:
        """Adds what is known of the point with this sample of the MP3: of the last point, or of the next."""
        if sample // self.samples >= self.first + len(self.lows):
            self.lows.append(low)
            self.highs.append(high)
            while len(self.lows) > MAX_POINTS:
                self._double()
        else:
            self.lows[-1] = min(self.lows[-1], low)
            self.highs[-1] = max(self.highs[-1], high)

    def _double(self) -> None:
        points = zip(range(self.first, self.first + len(self.lows)), self.lows, self.highs, strict=True)
        doubled = type(self)(2 * self.samples, self.first // 2)
        for number, low, high in points:
            doubled.add(number * self.samples, low, high)
        self.samples, self.first, self.lows, self.highs = doubled.samples, doubled.first, doubled.lows, doubled.highs

    def to_json(self) -> list[Any]:
        """Returns the points as JSON types."""
        data = [base64.b64encode(part.tobytes()).decode() for part in (self.lows, self.highs)]
        return [self.samples, self.first, *data]

    @classmethod
    def from_json(cls, data: list[Any]) -> Self:
        """Parses the output of ``to_json``."""
        samples, first, *parts = data
        return cls(samples, first, *(array("b", base64.b64decode(part)) for part in parts))


def join_points(rate: int, ranges: Sequence[Points | None]) -> Waveform | None:
    """Joins the points of ranges that follow each other from the first sample on; None if those of one are missing.

    Args:
        rate: samples a second.
        ranges: in order.
    """
    known = [points for points in ranges if points is not None and points.lows]
    if not known or any(points is None for points in ranges):
        return None
    joined = Points(max(points.samples for points in known))
    for points in known:
        for number, (low, high) in enumerate(zip(points.lows, points.highs, strict=True), points.first):
            joined.add(number * points.samples, low, high)
    data = bytearray(2 * len(joined.lows))
    data[::2] = joined.lows.tobytes()
    data[1::2] = joined.highs.tobytes()
    return Waveform(rate, joined.samples, bytes(data))


def point_samples(plan: Plan) -> int:
    """Returns the samples of a point of the MP3, if that becomes as long as is estimated."""
    step = RANGE_STEP * samples_per_frame(plan.rate)
    samples = step // _FINEST
    while plan.samples > samples * (MAX_POINTS if samples >= step else _FEW):
        samples *= 2
    return samples


def chunk_samples(plan: Plan) -> int:
    """Returns the samples of a chunk: those of a point, or 49 frames if that has more."""
    return min(point_samples(plan), RANGE_STEP * samples_per_frame(plan.rate))


def filters(plan: Plan, pipe: int) -> list[str]:
    """Returns the filters that print the lowest and the highest sample of each chunk.

    Args:
        plan: of the track.
        pipe: descriptor of a pipe.
    """
    measured = "measure_perchannel=none:measure_overall=Min_level+Max_level+Peak_level"
    return [
        f"asetnsamples=n={chunk_samples(plan)}:p=0",
        f"astats=metadata=1:reset=1:{measured}:threads=1",
        rf"ametadata=mode=print:file=pipe\\:{pipe}",
    ]


class PointReader:
    """Reads what these filters print for one encoder, and keeps the points of its range.

    Attributes:
        points: those that are complete or in progress.
    """

    def __init__(self, plan: Plan, frame_range: FrameRange) -> None:
        size = samples_per_frame(plan.rate)
        self.points = Points(point_samples(plan), frame_range.start * size // point_samples(plan))
        self._chunk = chunk_samples(plan)
        self._next, _ = frame_range.samples(plan.rate)
        self._start = frame_range.start * size
        self._end = None if frame_range.end is None else frame_range.end * size
        self._levels: dict[bytes, float] = {}

    def receive(self, line: bytes) -> None:
        """Processes a line."""
        found = _LEVEL.fullmatch(line)
        if found is None:
            return
        self._levels[found[1]] = float(found[2])
        if found[1] == b"Peak":  # the last of a chunk
            sample = self._next
            self._next += self._chunk
            if self._start <= sample and (self._end is None or sample < self._end):
                levels = self._levels
                self.points.add(sample, *in_bytes(levels.get(b"Min", 0.0), levels.get(b"Max", 0.0), levels[b"Peak"]))


def in_bytes(low: float, high: float, peak: float) -> tuple[int, int]:
    """Returns a lowest and a highest sample, -128 to 127.

    Args:
        low: in any unit.
        high: in the same unit.
        peak: the larger of their magnitudes, in dB of full scale.
    """
    loudest = max(-low, high)
    if not (math.isfinite(low) and math.isfinite(high) and loudest > 0):  # silence, or no sound
        return 0, 0
    scale = 128 * 10 ** (min(peak, _MAX_DECIBELS) / 20) / loudest
    return _clipped(low * scale), _clipped(high * scale)


def _clipped(sample: float) -> int:
    return max(min(int(sample), 127), -128)
