"""Gaps: parts of a track's time without sound."""

from collections.abc import Iterable
from typing import Final, NamedTuple

#: Seconds without a packet that count as a gap. Shorter ones come from rounded times.
MIN_GAP: Final = 0.25
#: Gaps of a track that are told apart. If there are more, neighbors count as one.
MAX_GAPS: Final = 1000


class Gap(NamedTuple):
    """A part of the track's time without sound, in seconds.

    Attributes:
        start: seconds of sound before it.
        length: its length.
    """

    start: float
    length: float


def add_gap(gaps: list[Gap], gap: Gap) -> None:
    """Adds a gap after the others; first merges them two by two if they are too many."""
    if len(gaps) == MAX_GAPS:
        gaps[:] = [_merged(first, second) for first, second in zip(gaps[::2], gaps[1::2], strict=True)]
    gaps.append(gap)


def _merged(first: Gap, second: Gap) -> Gap:
    # Where the longer one is: the sound between them is off by the length of the shorter one, the rest is in its place.
    start = first.start if first.length >= second.length else second.start
    return Gap(start, first.length + second.length)


def total(gaps: Iterable[Gap]) -> float:
    """Returns the seconds of all gaps."""
    return sum(gap.length for gap in gaps)
