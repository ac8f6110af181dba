"""The chapters of a video: read from its container, moved to where its sound begins, and cut to what is kept of it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from functions.convert.demux.child.demuxer import Extraction

if TYPE_CHECKING:
    import av.container

#: An ID3 table of contents counts its entries in one byte (ID3v2 Chapter Frame Addendum, 3.2).
MOST = 255
_LONGEST_TITLE = 200


class Chapter(NamedTuple):
    """A part of the sound, in seconds."""

    start: float
    end: float
    title: str


def chapters_of(container: "av.container.InputContainer", extraction: Extraction) -> list[Chapter]:
    """The chapters of an open container, on the clock of the track that was taken out of it."""
    # An MP3's own tag counts from what is heard first, not from the first packet.
    began = 0.0 if container.format.name == "mp3" else extraction.began
    found = []
    for number, one in enumerate(container.chapters()[:MOST], 1):
        base = float(one["time_base"] or 0)
        title = one["metadata"].get("title", "").strip() or f"Chapter {number}"
        found.append(Chapter(one["start"] * base - began, one["end"] * base - began, title[:_LONGEST_TITLE]))
    return found


def within(chapters: Iterable[Chapter], start: float, length: float) -> list[Chapter]:
    """What is left of chapters.

    Args:
        chapters: of the whole sound.
        start: seconds of it that are left out at its beginning.
        length: seconds that are kept from there on.

    Returns:
        Those that reach into what is kept, cut to it, on its clock.
    """
    moved = (Chapter(max(one.start - start, 0.0), min(one.end - start, length), one.title) for one in chapters)
    # Less than a millisecond is no chapter: it could not be written.
    return [one for one in moved if one.end - one.start >= 0.001]
