"""Gaps: parts of a track's time without sound."""

from collections.abc import Iterable
from typing import Final, NamedTuple

#: Seconds without a packet that count as a gap. Shorter ones come from rounded times.
MIN_GAP: Final = 0.25
#: Gaps of a track that are told apart; those that follow are added to the last one.
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
    """Adds a gap after the others."""
    if len(gaps) < MAX_GAPS:
        gaps.append(gap)
    else:
        gaps[-1] = Gap(gaps[-1].start, gaps[-1].length + gap.length)


def total(gaps: Iterable[Gap]) -> float:
    """Returns the seconds of all gaps."""
    return sum(gap.length for gap in gaps)
