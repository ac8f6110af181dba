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


class GapList:
    """Collects the gaps of a track; if there are too many, each entry stands for equally many that follow each other.

    Attributes:
        gaps: what has been collected.
    """

    def __init__(self) -> None:
        self.gaps: list[Gap] = []
        self._each = 1  # gaps that an entry stands for
        self._in_last = 0

    def add(self, gap: Gap) -> None:
        """Adds a gap after the others."""
        if self.gaps and self._in_last < self._each:
            self.gaps[-1] = _merged(self.gaps[-1], gap)
            self._in_last += 1
            return
        if len(self.gaps) == MAX_GAPS:
            self.gaps = [_merged(*pair) for pair in zip(self.gaps[::2], self.gaps[1::2], strict=True)]
            self._each *= 2
        self.gaps.append(gap)
        self._in_last = 1


def _merged(first: Gap, second: Gap) -> Gap:
    # Where the longer one is: the sound between them is off by the length of the shorter one, the rest is in its place.
    start = first.start if first.length >= second.length else second.start
    return Gap(start, first.length + second.length)


def total(gaps: Iterable[Gap]) -> float:
    """Returns the seconds of all gaps."""
    return sum(gap.length for gap in gaps)
