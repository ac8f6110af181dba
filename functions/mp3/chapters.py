"""The chapters of a track, and how they move when only part of the track is kept."""

from collections.abc import Iterable
from typing import NamedTuple

#: An ID3 table of contents counts its entries in one byte (ID3v2 Chapter Frame Addendum, 3.2).
MAX_CHAPTERS = 255
#: Seconds. A shorter chapter cannot be written: ID3 counts milliseconds.
_MIN_SECONDS = 0.001


class Chapter(NamedTuple):
    """A titled section of the audio, in seconds."""

    start: float
    end: float
    title: str


def within(chapters: Iterable[Chapter], start: float, length: float) -> list[Chapter]:
    """Clips chapters to the part of the audio that is kept.

    Args:
        chapters: of the complete audio.
        start: seconds that are removed from its beginning.
        length: seconds that are kept after that.

    Returns:
        The chapters that overlap the kept part, clipped to it and relative to its start.
    """
    clipped = (
        Chapter(max(chapter.start - start, 0.0), min(chapter.end - start, length), chapter.title)
        for chapter in chapters
    )
    return [chapter for chapter in clipped if chapter.end - chapter.start >= _MIN_SECONDS]
