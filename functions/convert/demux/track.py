"""Makes of a reader's report a Track, or a sentence for the user."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from functions.convert.chapters import Chapter
from functions.convert.demux.child.video_excerpt import Moment
from functions.convert.demux.client import Reading, SupportsReadSeek
from functions.convert.demux.verdict import fault_of
from functions.convert.errors import UnusableMedia


@dataclass(frozen=True, slots=True)
class Track:
    """An audio track, taken out of its video.

    Attributes:
        path: the file that it is in now.
        container: of that file, as libav's muxer is called: ``mov``, ``matroska``; ``mp3`` for bare frames.
        codec: as libavcodec names it.
        rate: samples a second, as decoded.
        channels: how many, as decoded.
        duration: seconds, from the packets.
        missing: seconds that the source claims to have and has not.
        packets: how many it has.
        errors: places of the source that could not be read.
        skipped: samples at the start that are not to be heard.
        discarded: samples at the end that are not to be heard.
        tags: names and values as the source has them.
        chapters: the source's, on the track's clock.
        cover: a picture, PNG or JPEG, or nothing.
        dropped: bytes of a picture that was too large to be taken along, 0 if none was.
        moment: what a cover is to be made of instead.
        reading: who still takes it out, None once all of it is there.
    """

    path: Path
    container: str
    codec: str
    rate: int
    channels: int
    duration: float
    missing: float
    packets: int
    errors: int
    skipped: int
    discarded: int
    tags: Mapping[str, str]
    chapters: Sequence[Chapter]
    cover: bytes
    dropped: int = 0
    moment: Moment | None = None
    reading: Reading | None = None


@contextmanager
def taking(
    source: SupportsReadSeek,
    path: Path,
    *,
    number: int,
    copy: bool,
    on_progress: Callable[[float], None],
) -> Iterator[Track | None]:
    """Take audio track ``number`` (from 0) out of the source into a new file at ``path``.

    Args:
        source: read here and nowhere else, up to the end of the block.
        path: where the track goes.
        number: which one, in the file's order.
        copy: whether MP3 should become bare frames.
        on_progress: called at least twice a second with the part of the source that was read, 0 to 1.

    Yields:
        The track as soon as it is known, maybe still growing (``whole``); None where ``copy`` was asked for and the MP3
        cannot be copied.

    Raises:
        UnusableMedia: there is nothing to take out.
        EncoderKilled: the reader died by SIGKILL.
    """
    with Reading(source, path, {"track": number, "copy": copy}) as reading:
        report, cover = reading.report(on_progress)
        if report.get("fault") == "not whole":
            yield None
            return
        if "fault" in report:
            raise fault_of(report, number)
        if not report["packets"]:
            raise UnusableMedia("The audio track of this file is empty.")
        yield Track(
            path=path,
            cover=cover,
            chapters=[Chapter(*one) for one in report["chapters"]],
            reading=None if reading.over else reading,
            **{name: report[name] for name in Track.__slots__ if name in report and name != "chapters"},
        )


def whole(track: Track, on_progress: Callable[[float], None]) -> Track:
    """Wait until all of a track is there; errors as ``taking``, and MediaUnavailable and the like of the source."""
    if track.reading is not None:
        track.reading.finish(on_progress)
    return replace(track, reading=None)


def take(
    source: SupportsReadSeek, path: Path, *, number: int, copy: bool, on_progress: Callable[[float], None]
) -> Track | None:
    """As ``taking``, all of it."""
    with taking(source, path, number=number, copy=copy, on_progress=on_progress) as track:
        return track and whole(track, on_progress)
