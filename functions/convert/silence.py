"""What becomes of the parts of a file that have no sound: the MP3 leaves them out or is silent there.

Filling is part of the plan: every encoder of a track inserts the same silence at the same samples, before a range is
selected, so that the MP3 does not depend on the ranges.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from functions.convert.demux.track import TrackInfo
from functions.convert.gaps import MIN_GAP, Gap, total
from functions.mp3.chapters import Chapter
from functions.options import Options

#: Seconds of a file without sound that need no warning, unless they are more than half of the file.
_TOLERANCE: Final = 1.0
#: Seconds by which a packet may be decoded before its time: by rounded times and by a resampler's delay.
_EARLY: Final = 0.01
#: Seconds before the end of a gap that belong to the sound after it: the packets there may overlap with the gap.
_RESUMING: Final = 0.1


def filled(track: TrackInfo, options: Options) -> Sequence[Gap]:
    """Returns the gaps that become silence; the time before a late sound is the first of them."""
    if options.gaps != "silence":
        return ()
    first = [Gap(0.0, track.lead)] if track.lead > MIN_GAP else []
    return [*first, *track.gaps]


def length(track: TrackInfo, options: Options) -> float:
    """Returns the seconds of the track's sound, and of the silence that is inserted."""
    return track.duration + total(filled(track, options))


def silence_filters(gaps: Sequence[Gap], shortest: float = 0.05) -> tuple[str, ...]:
    """Returns the filters that insert the silence.

    Args:
        gaps: what becomes silence.
        shortest: seconds that every gap exceeds.
    """
    if not gaps:
        return ()
    # The clock counts samples, and jumps at each gap. Only aresample's hard compensation acts on that: it inserts
    # exactly the samples that are missing, and does not resample.
    shift = _shift(gaps, [0.0, *accumulate(gap.length for gap in gaps)])
    least = f"min_comp={min(shortest, 0.001):g}:min_hard_comp={shortest:g}"
    return f"asetpts=round((N/SR+{shift})/TB)", f"aresample=async=1:{least}:first_pts=0"


def _shift(gaps: Sequence[Gap], shifts: Sequence[float]) -> str:
    """Returns an expression for the seconds of the gaps before the current frame, by binary search."""
    if not gaps:
        return f"{shifts[0]:.6f}"
    middle = len(gaps) // 2
    before = _shift(gaps[:middle], shifts[: middle + 1])
    after = _shift(gaps[middle + 1 :], shifts[middle + 1 :])
    return rf"if(lt(N/SR\,{max(gaps[middle].start - _EARLY, 0.0):.6f})\,{before}\,{after})"


def chapters_of(track: TrackInfo, options: Options) -> list[Chapter]:
    """Returns the track's chapters on the clock of its sound, with the silence that is inserted."""
    if options.gaps == "silence":
        lead = total(filled(track, options)) - total(track.gaps)
        return [Chapter(start + lead, end + lead, title) for start, end, title in track.chapters]
    return list(_without_gaps(track.chapters, track.gaps))


def _without_gaps(chapters: Iterable[Chapter], gaps: Sequence[Gap]) -> Iterator[Chapter]:
    for start, end, title in chapters:
        yield Chapter(_sound_before(start, gaps), _sound_before(end, gaps), title)


def _sound_before(time: float, gaps: Sequence[Gap]) -> float:
    """Returns the seconds of sound before a time."""
    left = time
    for gap in gaps:
        if left <= gap.start:
            break
        inside = gap.start + gap.length - left
        left = left - gap.length if inside < _RESUMING else gap.start
    return left


def warning_for(track: TrackInfo, options: Options) -> str | None:
    """Returns the warning about parts of the file that have no sound; None if they are short."""
    tail = track.tail if options.end is None else 0.0
    parts = {"at the start": track.lead, "in between": total(track.gaps), "at the end": tail}
    silent = sum(parts.values())
    whole = track.lead + track.duration + total(track.gaps) + track.tail
    if silent <= _TOLERANCE and (silent <= whole / 2 or max(parts.values()) <= MIN_GAP):
        return None
    where = ", ".join(f"{_number(seconds)} {place}" for place, seconds in parts.items() if seconds > MIN_GAP)
    rest = "the MP3 is silent there" if options.gaps == "silence" and silent > tail else "these are left out"
    if options.gaps == "silence" and tail > MIN_GAP and silent > tail:
        rest += " and ends with the sound"
    return f"This file has no sound for about {_number(silent)} of its {_number(whole)} seconds ({where}): {rest}."


def unmentioned(track: TrackInfo, options: Options) -> int:
    """Returns the number of gaps that are left out and for which there is no warning of their own."""
    return 0 if options.gaps == "silence" or warning_for(track, options) else len(track.gaps)


def _number(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}".removesuffix(".0")
