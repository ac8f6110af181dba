"""Extracts the audio track of a video, or an excerpt of its pictures: the way into this package."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from functions import code_pages
from functions.convert.budget import check_plausible
from functions.convert.demux.client import DemuxClient, error_of
from functions.convert.demux.protocol import (
    ORIGINAL,
    RECOGNIZED_BY_NAME,
    ExcerptOrder,
    ExcerptReport,
    Fault,
    FaultReport,
    PartOrder,
    TrackOrder,
    TrackReport,
)
from functions.convert.errors import DAMAGED, UnusableMedia
from functions.convert.gaps import Gap
from functions.convert.progress import OnProgress
from functions.convert.streams import SupportsReadSeek
from functions.convert.track_list import ListedTrack, decoded
from functions.mp3.chapters import Chapter

#: The first sample and the one after the last, None for the end of the track; 0 is the first that is played.
SampleRange = tuple[int, int | None]
_WARNING: Final = "Audio track {} of this file {}: track {} was converted."


@dataclass(frozen=True, slots=True)
class VideoExcerpt:
    """A few seconds of the video, from which the cover is taken.

    Attributes:
        path: its file.
        times: seconds in that file; the frame with the most contrast becomes the cover.
        pixel: width of a pixel divided by its height.
    """

    path: Path
    times: tuple[float, ...]
    pixel: float


@dataclass(frozen=True, slots=True)
class TrackInfo:
    """What is known about an audio track that was extracted from its video.

    Attributes:
        path: the file with the track.
        container: libav's name for the muxer of that file: ``mov``, ``matroska``; ``mp3`` for bare frames; ``original``
            if the file is a copy of the source.
        codec: libavcodec's name for it.
        rate: samples per second, as decoded.
        channels: number of channels, as decoded.
        duration: seconds, from the packets.
        missing: seconds that the source claims to have and does not.
        packets: number of packets.
        errors: places in the source that could not be read.
        skipped: samples at the start that are not played.
        discarded: samples at the end that are not played.
        tags: names and values as in the source, decoded.
        chapters: the source's, on the track's clock.
        cover: the embedded picture in its own format, or empty.
        dropped: bytes of a picture that was too large to keep, 0 if none was.
        truncated: whether the source ends within a packet or another part of it.
        gaps: where the track has no sound.
        lead: seconds of the source before the track's sound.
        tail: seconds of the source after the track's sound.
        start: seconds on the source's clock at which the first sample is played.
        unread: estimated seconds of sound that are in the source and could not be read, if more than half are; else 0.
        excerpt: what the cover is made from instead of ``cover``.
        cover_warning: a message for the user if the cover is not the requested one, else None.
        number: which audio track of ``path`` it is, from 0.
        ambisonic: whether the channels are components of a sound field instead of signals for loudspeakers.
        warning: a message for the user if it is not the track that the file names first, else None.
        tracks: all audio tracks of the source; empty if libav does not know it.
        starts: samples with which a range may begin without its encoder reading much more of the source; empty for any.
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
    truncated: bool = False
    gaps: Sequence[Gap] = ()
    lead: float = 0.0
    tail: float = 0.0
    start: float = 0.0
    unread: float = 0.0
    excerpt: VideoExcerpt | None = None
    cover_warning: str | None = None
    number: int = 0
    ambisonic: bool = False
    warning: str | None = None
    tracks: Sequence[ListedTrack] = ()
    starts: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Indexing:
    """When to index a track instead of extracting it.

    Attributes:
        seconds: of sound from which it may be worthwhile.
        ranges: returns the ranges that excerpts are needed of; none to extract the track.
    """

    seconds: float
    ranges: Callable[[TrackInfo], Sequence[SampleRange]]


class TrackStream:
    """An audio track whose extraction may still be in progress: its file may grow until ``complete`` returns.

    Attributes:
        info: what is known about the track. The pipeline adds the cover and, if needed, the exact duration.
        indexed: whether the track was not extracted: its file has the recipes for the excerpts that were asked for, in
            their order; if the decoder may draw random numbers, one for a sample of the track comes first.
    """

    def __init__(self, info: TrackInfo, client: DemuxClient | None = None, *, indexed: bool = False) -> None:
        """Describes a track that ``client`` is extracting; None if its file is complete."""
        self.info = info
        self.indexed = indexed
        self._client = client

    @property
    def growing(self) -> bool:
        """Whether the file still grows."""
        return self._client is not None and not self._client.finished

    @property
    def slow(self) -> bool:
        """Whether the file still grows, and its source is slow."""
        return self.growing and self._client is not None and self._client.slow

    def chunks(self) -> Iterator[bytes]:
        """Yields the bytes of a growing file from start to end, waiting for those that are not yet written."""
        if self._client is None:
            raise ValueError("the file is complete: open it instead")
        yield from self._client.chunks()

    def check(self) -> None:
        """Raises the error that has stopped the extraction, if any; as ``complete``."""
        if self._client is not None:
            self._client.check()

    def complete(self, on_progress: OnProgress) -> TrackInfo:
        """Waits until the file is complete.

        Args:
            on_progress: as for ``open_track``.

        Raises:
            UnusableMedia, EncoderKilled: as ``open_track``.
            MediaUnavailable: or any other error of the source.
        """
        if self._client is not None:
            self._client.finish(on_progress)
        return self.info


@contextmanager
def open_track(
    source: SupportsReadSeek,
    path: Path,
    *,
    number: int | None,
    copy: bool,
    filename: str = "",
    indexing: Indexing | None = None,
    on_progress: OnProgress,
) -> Iterator[TrackStream | None]:
    """Extracts an audio track from the source into a new file.

    Args:
        source: used by this function alone until the end of the block.
        path: the new file.
        number: which audio track, from 0, in the file's order; None for the file's default, or else the first that is
            usable.
        copy: whether MP3 becomes bare frames.
        filename: the video's name.
        indexing: when to index the track instead; None for never.
        on_progress: called at least twice a second with the fraction of the source that was read, 0 to 1.

    Yields:
        The track as soon as its properties are known; its file may still grow. None if ``copy`` was set and the MP3
        packets cannot be copied.

    Raises:
        UnknownMedia: libav has no demuxer or decoder for it. The file is a copy of the source, or empty.
        UnusableMedia: there is no such track, it cannot be read, or no real codec has its rate or channels.
        EncoderKilled: the demux child died by SIGKILL.
    """
    extension = filename.rpartition(".")[2].lower()
    extension = extension if extension in RECOGNIZED_BY_NAME else ""
    order = TrackOrder(number, copy, extension, None if indexing is None else indexing.seconds)
    ranges: Sequence[SampleRange] = ()
    with DemuxClient(source, path, order) as client:
        if indexing is not None and (offered := client.indexed(on_progress)) is not None:
            check_plausible(offered.rate, offered.channels)
            ranges = indexing.ranges(track_info(offered, path, b""))
            client.cut(ranges)
        report, cover = client.report(on_progress)
        if isinstance(report, FaultReport):
            if report.fault != Fault.NOT_COPYABLE or not copy:
                raise error_of(report, number)
            yield None
            return
        if not isinstance(report, TrackReport):
            raise AssertionError("the client accepts only the report that was ordered")
        if report.indexed and not ranges:
            raise UnusableMedia(DAMAGED)  # the child is compromised
        if not report.packets:
            error = UnusableMedia("The audio track of this file is empty: choose a file with sound.")
            error.tracks = decoded(report.tracks)
            raise error
        check_plausible(report.rate, report.channels)
        yield TrackStream(track_info(report, path, cover), client, indexed=report.indexed)


def track_info(report: TrackReport, path: Path, cover: bytes) -> TrackInfo:
    """Describes a track by the report of the child that wrote it to ``path``, and its cover."""
    texts = [*report.tags.values(), *(chapter.title for chapter in report.chapters)]
    texts = code_pages.decode_all(texts, doubts_latin_1=not report.unicode)
    titles = texts[len(report.tags) :]
    return TrackInfo(
        path=path,
        container=report.container,
        codec=report.codec,
        rate=report.rate,
        channels=report.channels,
        duration=report.duration,
        missing=report.missing,
        truncated=report.truncated,
        gaps=report.gaps,
        lead=report.lead,
        tail=report.tail,
        start=report.start,
        unread=report.unread,
        packets=report.packets,
        errors=report.errors,
        skipped=report.skipped,
        discarded=report.discarded,
        tags=dict(zip(report.tags, texts, strict=False)),
        chapters=[chapter._replace(title=title) for chapter, title in zip(report.chapters, titles, strict=True)],
        cover=cover,
        dropped=report.dropped,
        number=report.track if report.container == ORIGINAL else 0,
        ambisonic=report.ambisonic,
        warning=_warning(report),
        tracks=decoded(report.tracks),
        starts=report.starts,
    )


def _warning(report: TrackReport) -> str | None:
    if report.unusable < 0:
        return None
    state = "is copy-protected" if report.protected else "is empty or cannot be decoded"
    return _WARNING.format(report.unusable, state, report.track)


def extract_track(
    source: SupportsReadSeek, path: Path, *, number: int | None, copy: bool, on_progress: OnProgress
) -> TrackInfo | None:
    """Extracts a track completely; arguments and errors as ``open_track`` and ``TrackStream.complete``."""
    with open_track(source, path, number=number, copy=copy, on_progress=on_progress) as track:
        return None if track is None else track.complete(on_progress)


def extract_part(
    source: SupportsReadSeek, path: Path, *, number: int, until: int | None, on_progress: OnProgress
) -> TrackInfo:
    """Extracts an audio track from an excerpt of a video into a new file.

    Args:
        source: the excerpt, used by this function alone.
        path: the new file.
        number: which audio track, from 0.
        until: milliseconds on the video's clock after which no packet is needed; None for the end of the excerpt.
        on_progress: as for ``open_track``.

    Raises:
        UnusableMedia: the excerpt cannot be read.
        EncoderKilled: the demux child died by SIGKILL.
    """
    with DemuxClient(source, path, PartOrder(number, until)) as client:
        client.finish(on_progress)
        report, _ = client.report(on_progress)
    if isinstance(report, FaultReport):
        raise error_of(report, number)
    if not isinstance(report, TrackReport):
        raise AssertionError("the client accepts only the report that was ordered")
    check_plausible(report.rate, report.channels)
    return track_info(report, path, b"")


def extract_excerpt(
    source: SupportsReadSeek, path: Path, second: float | None, on_progress: OnProgress
) -> ExcerptReport | FaultReport:
    """Extracts a few seconds of the source's pictures into a new file.

    Args:
        source: used by this function alone.
        path: the new file.
        second: the position in seconds; None for one that may suit a cover.
        on_progress: as for ``open_track``.

    Returns:
        Where in the excerpt the position is, or why there is no excerpt.

    Raises:
        UnusableMedia: the source cannot be read.
        EncoderKilled: the demux child died by SIGKILL.
    """
    with DemuxClient(source, path, ExcerptOrder(second)) as client:
        report, _ = client.report(on_progress)
    if isinstance(report, TrackReport):
        raise AssertionError("the client accepts only the report that was ordered")
    return report
