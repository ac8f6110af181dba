"""Extracts an audio track from a user's file, or from an excerpt of it: by the file's own tables, or by libav."""

import contextlib
import io
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, NamedTuple

from functions.convert.demux.child import opus_links, protection
from functions.convert.demux.child.claimed_length import credible, missing_seconds, surroundings, unread_seconds
from functions.convert.demux.child.declared import Declared, read_declared
from functions.convert.demux.child.demuxer import Demuxer, copy_frames
from functions.convert.demux.child.description import Extracted, cover_of, list_tracks, report_by_tables, report_track
from functions.convert.demux.child.indexing import (
    Ranges,
    Wanted,
    index_clusters,
    index_fragments,
    index_samples,
    index_tables,
)
from functions.convert.demux.child.libav import by_preference, codec_name, open_file
from functions.convert.demux.child.mp4 import movie as mp4
from functions.convert.demux.child.mp4 import writer
from functions.convert.demux.child.mp4.boxes import Outline, TruncatedFile, outline
from functions.convert.demux.child.remuxer import NoContainer, formats, remux
from functions.convert.demux.child.tag_values import read_values
from functions.convert.demux.protocol import BUFFER, ORIGINAL, RECOGNIZED_BY_NAME, Fault, FaultReport, PartOrder
from functions.convert.errors import UnsupportedLayout
from functions.convert.gaps import Gap

if TYPE_CHECKING:
    import av.container

#: Bytes that libav reads at a time of an excerpt, of which the last seconds are not needed.
_PART_BUFFER = 64 << 10
#: Bytes of a source that is copied for ffmpeg although libav does not know it: music made of notes and samples, and the
#: sound of games.
MAX_UNKNOWN = 256 << 20


class _File(NamedTuple):
    """An open file, what it says about itself, and those of its tags that libavformat does not give."""

    source: io.RawIOBase
    container: "av.container.InputContainer"
    boxes: Outline
    declared: Declared
    size: int
    values: dict[str, str]


def extract(
    source: io.RawIOBase,
    target: IO[bytes],
    number: int | None,
    copy: bool,
    on_begun: Callable[[Extracted], None] = lambda _: None,
    on_indexed: Callable[[Extracted], Ranges] = lambda _: (),
    index_seconds: float = math.inf,
) -> Extracted | FaultReport:
    """Extracts an audio track.

    Args:
        source: the user's file.
        target: the new file.
        number: which audio track, from 0; None for the file's default, or else the first that is usable.
        copy: whether MP3 becomes bare frames.
        on_begun: called with what will be returned, as soon as it is known, if that is before the track is complete;
            from then on the target only grows.
        on_indexed: called with what will be returned, if excerpts can be made of the track without reading it; returns
            the ranges of samples to write recipes for (``seek.recipe``), or none to extract the track.
        index_seconds: seconds of sound from which that is worthwhile.

    If no container takes the codec, the target becomes a copy of the source; also if libav has no demuxer or decoder
    for it, since ffmpeg may have one, and it is not too large.

    Raises:
        NotCopyable: ``copy`` was set and the MP3 packets do not make an MP3 file.
    """
    with contextlib.suppress(UnsupportedLayout):
        return _extract_by_tables(source, target, number, copy, on_begun, on_indexed, index_seconds)
    if not math.isinf(index_seconds):
        wanted = Wanted(target, number, copy, on_indexed, index_seconds)
        for index in (index_samples, index_fragments, index_clusters):
            # Damage may claim times and rates that cannot be computed with.
            with contextlib.suppress(UnsupportedLayout, ArithmeticError):
                return index(source, wanted)
    found = _extract_by_libav(source, target, number, copy)
    if isinstance(found, Extracted):
        if found.report.codec == "opus" and found.report.errors:
            return _extract_links(source, target, number, found)
        return found
    if found.fault in (Fault.FORMAT, Fault.CODEC):
        return _unknown(source, target, found)
    return found


def extract_part(source: io.RawIOBase, target: IO[bytes], order: PartOrder) -> Extracted | FaultReport:
    """Extracts an audio track from an excerpt of a file with libav's demuxer.

    Args:
        source: the excerpt.
        target: the new file.
        order: which track, and how much of it.
    """
    import av.error

    try:
        container = open_file(source, buffer=_PART_BUFFER)
    except av.error.FFmpegError as error:
        return FaultReport(Fault.FORMAT, str(error))
    streams = container.streams.audio
    if order.track >= len(streams) or getattr(streams[order.track], "codec_context", None) is None:
        return FaultReport(Fault.TRACK)
    until = math.inf if order.until is None else order.until / 1000
    demuxer = Demuxer(container, streams[order.track], until)
    name = remux(demuxer, lambda: formats(container, demuxer, fragmented=False), target, fragmented=False)
    target.flush()
    report = replace(report_track(container, demuxer, name), truncated=demuxer.ends_early)
    return Extracted(report, b"")


def _extract_by_tables(
    source: io.RawIOBase,
    target: IO[bytes],
    number: int | None,
    copy: bool,
    on_begun: Callable[[Extracted], None],
    on_indexed: Callable[[Extracted], Ranges],
    index_seconds: float,
) -> Extracted:
    """Extracts a track of a complete mp4 by the file's own tables; as ``extract``.

    Raises:
        UnsupportedLayout: the file is something else, or more complicated.
    """
    import av.error

    size = source.seek(0, os.SEEK_END)
    movie = mp4.parse(source, size, number or 0)
    if number is None and not movie.is_default:
        raise UnsupportedLayout  # libav knows whether another track is
    try:
        container = open_file(movie.beginning())
    except av.error.FFmpegError as error:
        raise UnsupportedLayout from error
    streams = container.streams.audio
    if len(streams) != movie.audios or getattr(streams[number or 0], "codec_context", None) is None:
        raise UnsupportedLayout
    demuxer = Demuxer(container, streams[number or 0])
    for _ in demuxer:
        pass
    values = read_values(source, size)
    report = replace(report_by_tables(container, demuxer, movie, values), packets=movie.packets, track=number or 0)
    cover = cover_of(demuxer)
    if copy and report.codec == "mp3":
        if demuxer.skipped or demuxer.errors:
            raise UnsupportedLayout
        skipped, discarded, duration = writer.write_frames(movie, target)
        report = replace(report, container="mp3", skipped=skipped, discarded=discarded, duration=duration)
    elif report.duration >= index_seconds and index_tables(
        movie, demuxer, Extracted(report, cover), target, on_indexed
    ):
        report = replace(report, indexed=True)
    else:
        writer.write_head(movie, target)
        target.flush()
        on_begun(Extracted(report, cover))
        try:
            writer.write_audio(movie, target)
        except UnsupportedLayout as error:
            raise EOFError("the source is shorter than it was") from error
    target.flush()
    return Extracted(report, cover)


def _extract_by_libav(
    source: io.RawIOBase, target: IO[bytes], number: int | None, copy: bool
) -> Extracted | FaultReport:
    """Extracts an audio track with libav's demuxer; as ``extract``."""
    import av.error

    boxes = outline(source)
    declared = read_declared(source)
    size = source.seek(0, os.SEEK_END)
    values = read_values(source, size)
    source.seek(0)
    opened = source if boxes.usable == size else TruncatedFile(source, boxes.usable)
    try:
        container = open_file(opened)
    except av.error.FFmpegError as error:
        if boxes.is_movie and not boxes.indexed:
            return FaultReport(Fault.INDEX, str(error))
        return FaultReport(Fault.FORMAT, str(error))
    streams = container.streams.audio
    if not streams:
        return FaultReport(Fault.SILENT if container.streams.video else Fault.FORMAT)
    if number is not None and number >= len(streams):
        return FaultReport(Fault.TRACK, tracks=list_tracks(container))
    wanted = by_preference(streams) if number is None else [number]
    first: Extracted | FaultReport | None = None
    for attempt, chosen in enumerate(wanted):
        if attempt:
            opened.seek(0)
            container = open_file(opened)
        found = _extract_stream(_File(source, container, boxes, declared, size, values), target, chosen, copy)
        if isinstance(found, Extracted) and found.report.packets:
            unusable = wanted[0] if attempt else -1
            protected = isinstance(first, FaultReport) and first.fault == Fault.PROTECTED
            report = replace(found.report, track=chosen, unusable=unusable, protected=protected)
            return replace(found, report=report)
        first = first or found
    return first or FaultReport(Fault.SILENT)


def _extract_links(
    source: io.RawIOBase, target: IO[bytes], number: int | None, found: Extracted
) -> Extracted | FaultReport:
    """Extracts Opus again if it is a chain whose links have different numbers of channels."""
    chain = opus_links.with_two_channels(source, source.seek(0, os.SEEK_END))
    return found if chain is None else _extract_by_libav(chain, target, number, False)


def _extract_stream(file: _File, target: IO[bytes], number: int, copy: bool) -> Extracted | FaultReport:
    """Extracts one audio track; as ``extract``."""
    container = file.container
    stream = container.streams.audio[number]
    # PyAV creates no context without a decoder, whatever its types say.
    if getattr(stream, "codec_context", None) is None:
        return FaultReport(Fault.CODEC, tracks=list_tracks(container))
    if protection.is_protected(file.source, container, stream):
        return FaultReport(Fault.PROTECTED, tracks=list_tracks(container))
    target.seek(0)
    target.truncate()
    boxes = file.boxes
    demuxer = Demuxer(container, stream, pauses=_pauses(file, number))
    name = _take(container, demuxer, target, copy=copy, fragmented=boxes.fragmented)
    if name is None:
        name = container.format.name if container.format.name in RECOGNIZED_BY_NAME.values() else ORIGINAL
        _copy_source(file.source, target)
    target.flush()
    # Of a fragmented file libav knows the length of the fragments that are there.
    missing = (
        0.0 if boxes.fragmented and boxes.truncated else missing_seconds(container, demuxer, file.declared, file.size)
    )
    truncated = _is_truncated(file, demuxer)
    lead, tail = surroundings(container, demuxer)
    unread = 0.0 if missing > 1.0 else unread_seconds(container, demuxer, file.size, tail)
    report = report_track(container, demuxer, name, values=file.values)
    report = replace(
        report,
        errors=report.errors or int(unread > 0),
        missing=credible(missing),
        truncated=truncated,
        gaps=_from_first_played(demuxer),
        lead=credible(lead),
        tail=0.0 if missing > 1.0 or truncated else credible(tail),
        start=credible(demuxer.start),
        unread=credible(unread),
    )
    return Extracted(report, cover_of(demuxer))


def _take(
    container: "av.container.InputContainer", demuxer: Demuxer, target: IO[bytes], *, copy: bool, fragmented: bool
) -> str | None:
    """Writes the track to the target; returns the name of its container, or None if none takes the codec."""
    if copy and codec_name(demuxer.stream) == "mp3":
        copy_frames(demuxer, target)
        return "mp3"
    try:
        return remux(demuxer, lambda: formats(container, demuxer, fragmented), target, fragmented=fragmented)
    except NoContainer:
        for _ in demuxer:  # counts the rest of its packets
            pass
        return None


def _pauses(file: _File, number: int) -> Sequence[tuple[float, float]]:
    """Returns the pauses between edits of a track of an mp4; leaves the source where libav expects it."""
    if not file.boxes.is_movie:
        return ()
    position = file.source.tell()
    pauses = mp4.pauses(file.source, file.size, number)
    file.source.seek(position)
    return pauses


def _is_truncated(file: _File, demuxer: Demuxer) -> bool:
    """Returns whether the file ends within a part of it."""
    # The sound of a streamed WAV or CAF is one part of unknown size, and libav never gets all it asks for.
    lasts_until_the_end = file.declared.streamed and file.container.format.name in ("wav", "caf")
    ends_early = demuxer.ends_early and not lasts_until_the_end
    return ends_early or file.boxes.truncated or file.declared.size > file.size


def _from_first_played(demuxer: Demuxer) -> list[Gap]:
    """Returns the gaps of the track on a clock that starts with the first sample that is played."""
    skipped = demuxer.skipped / (demuxer.stream.sample_rate or demuxer.rate or 1)
    return [Gap(max(gap.start - skipped, 0.0), gap.length) for gap in demuxer.gaps]


def _unknown(source: io.RawIOBase, target: IO[bytes], report: FaultReport) -> FaultReport:
    if source.seek(0, os.SEEK_END) <= MAX_UNKNOWN:
        _copy_source(source, target)
    return report


def _copy_source(source: io.RawIOBase, target: IO[bytes]) -> None:
    target.seek(0)
    target.truncate()
    source.seek(0)
    shutil.copyfileobj(source, target, BUFFER)
    target.flush()
