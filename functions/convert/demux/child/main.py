"""The process that opens a user's file, by PyAV: extracts an audio track, or an excerpt of the video, and reports.

It has two open files, a socket to its parent and the file it writes, and cannot open a third. The order arrives over
the socket, and so do the bytes of the source: the parent (``client.py``) answers READ requests until REPORT ends the
exchange.
"""

import contextlib
import errno
import io
import itertools
import json
import math
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from functions.convert.demux.child import matroska, opus_links, protection, video_excerpt
from functions.convert.demux.child.clusters import ClusterExcerpts
from functions.convert.demux.child.declared import Declared, read_declared
from functions.convert.demux.child.demuxer import BROADCASTS, Demuxer, NotCopyable, copy_frames, is_default
from functions.convert.demux.child.mp4 import fragments, writer
from functions.convert.demux.child.mp4 import movie as mp4
from functions.convert.demux.child.mp4.boxes import Outline, TruncatedFile, outline
from functions.convert.demux.child.mp4.excerpts import Excerpts
from functions.convert.demux.child.pictures import is_picture
from functions.convert.demux.child.remuxer import NoContainer, formats, remux
from functions.convert.demux.child.tag_values import read_values
from functions.convert.demux.protocol import (
    ANSWER,
    BEGUN,
    BUFFER,
    COVER,
    INDEXED,
    MAX_COVER,
    MAX_PIXELS,
    ORIGINAL,
    RECOGNIZED_BY_NAME,
    REPORT,
    REQUEST,
    SPAN,
    TO_THE_END,
    ExcerptOrder,
    Fault,
    FaultReport,
    Order,
    PartOrder,
    PeerClosed,
    RemoteFile,
    Report,
    TrackReport,
    dump_report,
    receive,
    receive_order,
)
from functions.convert.errors import UnsupportedLayout
from functions.convert.gaps import Gap
from functions.convert.sandbox import limits
from functions.convert.track_list import LANGUAGE, MAX_TITLE, MAX_TRACKS, ListedTrack
from functions.mp3.chapters import MAX_CHAPTERS, Chapter

if TYPE_CHECKING:
    import av.audio.stream
    import av.container

#: Ranges of samples: the first one and the one after the last, None for the end of the track.
Ranges = Sequence[tuple[int, int | None]]

_MAX_TAGS = 500
#: Characters of the name of a tag.
_MAX_NAME = 100
#: Characters of the value of a tag; lyrics are the longest.
_MAX_TAG = 20_000
#: Characters of all tags. Each may take a dozen bytes of a report, which must be shorter than MAX_REPORT.
_MAX_TEXT = 250_000
#: Characters of a chapter's title.
_MAX_TITLE = 200
#: Containers, by the first of libav's names, that have texts in UTF-8 or UTF-16 only.
_UNICODE = ("mov", "matroska", "ogg", "flac", "asf", "nut")
#: Pixels of a frame that libav may decode while it opens a file. A PNG of 12,000 x 12,000 pixels has 0.4 MB and takes
#: 430 MB decoded. Frames of 4K are decoded, since libav reads the first 5 MB of a video that it cannot decode.
_MAX_PROBED = 4096 * 2304
#: The same where the video is wanted: libav forgets the size of larger frames, which the message is about.
_MAX_PROBED_VIDEO = 2 * MAX_PIXELS
#: Bytes that libav reads at a time of an excerpt, of which the last seconds are not needed.
_PART_BUFFER = 64 << 10
#: Bytes of a source that is copied for ffmpeg although libav does not know it: music made of notes and samples, and the
#: sound of games.
MAX_UNKNOWN = 256 << 20
#: Names of tags that are not the file's where a track has them: programs name it "Track1" or "Surround 5.1".
_OF_THE_TRACK = ("title", "comment", "encoder")
AV_TIME_BASE = 1_000_000  # libavutil/avutil.h
#: Seconds that no file lasts, three years: a claim of more is damaged.
_MAX_CLAIM = 1e8
#: Demuxers that read a file's length from its header. The others estimate it from the data.
DECLARING = (
    *("mov,", "matroska,", "avi", "flv", "asf", "mxf", "gxf", "rm"),
    *("wav", "w64", "aiff", "caf", "au", "flac", "tta", "wv"),
    *("apm", "argo_asf", "ast", "kvag", "smjpeg"),
)
#: The tag DURATION of a track of Matroska, as mkvmerge and ffmpeg write it.
_TAGGED_LENGTH = re.compile(r"(\d{2,4}):(\d\d):(\d\d(?:\.\d{1,9})?)")
#: Demuxers that read the length of a file from what is at its end.
MEASURING = ("ogg", "nut")
#: Seconds by which pictures may be before the sound of the same time in a broadcast: a second by the standard (ISO/IEC
#: 13818-1, 2.4.2.6), more in some files. If the file is cut off, that is no silence at its end.
_MAX_AHEAD = 2.0
#: libavcodec's names for PCM, with the bits of a sample; if there are none, it has 8.
_PCM = re.compile(r"pcm_(?:[suf](\d+)(?:be|le)?|alaw|mulaw)")
#: Samples of PCM in a mov of which libav makes a packet, at most.
_GROUPED = 1024
#: Demuxers of containers whose length may count from 0 on a clock that starts later.
COUNTING_FROM_ZERO = ("mov,", "matroska,", "asf", "avi")


@dataclass(frozen=True, slots=True)
class Extracted:
    """An extracted track: its report, and its cover, empty if there is none."""

    report: TrackReport
    cover: bytes


class _Wanted(NamedTuple):
    """The track that is to be indexed, if that is worthwhile; as the arguments of ``extract``."""

    target: IO[bytes]
    number: int | None
    copy: bool
    on_indexed: Callable[[Extracted], Ranges]
    seconds: float


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
        wanted = _Wanted(target, number, copy, on_indexed, index_seconds)
        for index in (_index_samples, _index_fragments, _index_clusters):
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
        container = _open(source, buffer=_PART_BUFFER)
    except av.error.FFmpegError as error:
        return FaultReport(Fault.FORMAT, str(error))
    streams = container.streams.audio
    if order.track >= len(streams) or getattr(streams[order.track], "codec_context", None) is None:
        return FaultReport(Fault.TRACK)
    until = math.inf if order.until is None else order.until / 1000
    demuxer = Demuxer(container, streams[order.track], until)
    name = remux(demuxer, lambda: formats(container, demuxer, fragmented=False), target, fragmented=False)
    target.flush()
    report = replace(_report(container, demuxer, name), truncated=demuxer.ends_early)
    return Extracted(report, b"")


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
        container = _open(opened)
    except av.error.FFmpegError as error:
        if boxes.is_movie and not boxes.indexed:
            return FaultReport(Fault.INDEX, str(error))
        return FaultReport(Fault.FORMAT, str(error))
    streams = container.streams.audio
    if not streams:
        return FaultReport(Fault.SILENT if container.streams.video else Fault.FORMAT)
    if number is not None and number >= len(streams):
        return FaultReport(Fault.TRACK, tracks=_listed(container))
    wanted = _by_preference(streams) if number is None else [number]
    first: Extracted | FaultReport | None = None
    for attempt, chosen in enumerate(wanted):
        if attempt:
            opened.seek(0)
            container = _open(opened)
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


def _by_preference(streams: "Sequence[av.audio.stream.AudioStream]") -> list[int]:
    """Returns the numbers of the audio tracks, those first that the file marks as its default."""
    return sorted(range(len(streams)), key=lambda number: not is_default(streams[number]))


def _extract_stream(file: _File, target: IO[bytes], number: int, copy: bool) -> Extracted | FaultReport:
    """Extracts one audio track; as ``extract``."""
    container = file.container
    stream = container.streams.audio[number]
    # PyAV creates no context without a decoder, whatever its types say.
    if getattr(stream, "codec_context", None) is None:
        return FaultReport(Fault.CODEC, tracks=_listed(container))
    if protection.is_protected(file.source, container, stream):
        return FaultReport(Fault.PROTECTED, tracks=_listed(container))
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
    missing = 0.0 if boxes.fragmented and boxes.truncated else _missing(container, demuxer, file.declared, file.size)
    truncated = _is_truncated(file, demuxer)
    lead, tail = _surroundings(container, demuxer)
    unread = 0.0 if missing > 1.0 else _unread(container, demuxer, file.size, tail)
    report = _report(container, demuxer, name, values=file.values)
    report = replace(
        report,
        errors=report.errors or int(unread > 0),
        missing=_credible(missing),
        truncated=truncated,
        gaps=_from_first_played(demuxer),
        lead=_credible(lead),
        tail=0.0 if missing > 1.0 or truncated else _credible(tail),
        start=_credible(demuxer.start),
        unread=_credible(unread),
    )
    return Extracted(report, _cover(demuxer))


def _pauses(file: _File, number: int) -> Sequence[tuple[float, float]]:
    """Returns the pauses between edits of a track of an mp4; leaves the source where libav expects it."""
    if not file.boxes.is_movie:
        return ()
    position = file.source.tell()
    pauses = mp4.pauses(file.source, file.size, number)
    file.source.seek(position)
    return pauses


def _take(
    container: "av.container.InputContainer", demuxer: Demuxer, target: IO[bytes], *, copy: bool, fragmented: bool
) -> str | None:
    """Writes the track to the target; returns the name of its container, or None if none takes the codec."""
    if copy and _codec(demuxer.stream) == "mp3":
        copy_frames(demuxer, target)
        return "mp3"
    try:
        return remux(demuxer, lambda: formats(container, demuxer, fragmented), target, fragmented=fragmented)
    except NoContainer:
        for _ in demuxer:  # counts the rest of its packets
            pass
        return None


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
        container = _open(movie.beginning())
    except av.error.FFmpegError as error:
        raise UnsupportedLayout from error
    streams = container.streams.audio
    if len(streams) != movie.audios or getattr(streams[number or 0], "codec_context", None) is None:
        raise UnsupportedLayout
    demuxer = Demuxer(container, streams[number or 0])
    for _ in demuxer:
        pass
    values = read_values(source, size)
    report = replace(_report_by_tables(container, demuxer, movie, values), packets=movie.packets, track=number or 0)
    cover = _cover(demuxer)
    if copy and report.codec == "mp3":
        if demuxer.skipped or demuxer.errors:
            raise UnsupportedLayout
        skipped, discarded, duration = writer.write_frames(movie, target)
        report = replace(report, container="mp3", skipped=skipped, discarded=discarded, duration=duration)
    elif report.duration >= index_seconds and _index_tables(
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


def _report_by_tables(
    container: "av.container.InputContainer", demuxer: Demuxer, movie: mp4.Movie, values: Mapping[str, str]
) -> TrackReport:
    """Reports a track of which only the first packets were read; what the report says of the others is in the tables.

    Args:
        container: the beginning of the file.
        demuxer: the track's packets in it.
        movie: the file.
        values: tags that libavformat does not give.
    """
    timeline = movie.timeline()
    return replace(
        _report(container, demuxer, "mov", timeline.pause, values),
        duration=timeline.duration,
        gaps=timeline.gaps,
        lead=_credible(timeline.lead),
        tail=_credible(timeline.tail),
        start=_credible(timeline.pause),
    )


def _index_tables(
    movie: mp4.Movie,
    demuxer: Demuxer,
    extracted: Extracted,
    target: IO[bytes],
    on_indexed: Callable[[Extracted], Ranges],
) -> bool:
    """Writes recipes for excerpts of the track; returns False if it is to be extracted."""
    config = demuxer.stream.codec_context.extradata or b""
    try:
        excerpts = Excerpts.of(movie, extracted.report.codec, demuxer.rate, bytes(config))
    except UnsupportedLayout:
        return False
    if not (ranges := on_indexed(extracted)):
        return False
    try:
        excerpts.write(ranges, target)
    except UnsupportedLayout:
        target.seek(0)
        target.truncate()
        return False
    return True


def _index_samples(source: io.RawIOBase, wanted: _Wanted) -> Extracted:
    """Writes recipes for excerpts of a track of PCM in a mov.

    Raises:
        UnsupportedLayout: the track is to be extracted.
    """
    size = source.seek(0, os.SEEK_END)
    movie = mp4.parse_samples(source, size, wanted.number or 0)
    if movie.timeline().duration < wanted.seconds or (wanted.number is None and not movie.is_default):
        raise UnsupportedLayout
    container, chosen = _open_ends(movie.beginning(), wanted)
    demuxer = Demuxer(container, container.streams.audio[chosen])
    first = max((packet.size for packet in demuxer), default=0)
    codec = _PCM.fullmatch(_codec(demuxer.stream))
    if chosen != (wanted.number or 0) or codec is None:
        raise UnsupportedLayout
    size_of_one = int(codec[1] or 8) // 8 * demuxer.channels
    excerpts = Excerpts.of_samples(movie, demuxer.rate, size_of_one)
    if first != size_of_one * min(excerpts.packets.first_chunk, _GROUPED):
        raise UnsupportedLayout
    report = _report_by_tables(container, demuxer, movie, read_values(source, size))
    report = replace(report, packets=math.ceil(movie.packets * size_of_one / first), track=chosen)
    return _index(Extracted(report, _cover(demuxer)), wanted, excerpts.write)


def _index_fragments(source: io.RawIOBase, wanted: _Wanted) -> Extracted:
    """Writes recipes for excerpts of a track in a fragmented mp4.

    Raises:
        UnsupportedLayout: the track is to be extracted.
    """
    size = source.seek(0, os.SEEK_END)
    found = fragments.parse(source, size, wanted.number or 0, wanted.seconds)
    if found.seconds < wanted.seconds or (wanted.number is None and not found.movie.is_default):
        raise UnsupportedLayout
    container, chosen = _open_ends(found.ends, wanted)
    stream = container.streams.audio[chosen]
    demuxer = Demuxer(container, stream)
    for _ in demuxer:
        pass
    if chosen != (wanted.number or 0) or demuxer.errors or demuxer.ends_early or len(demuxer.gaps) != 1:
        raise UnsupportedLayout
    demuxer.gaps.clear()  # it is where nothing was read
    config = bytes(stream.codec_context.extradata or b"")
    excerpts = Excerpts.of_fragments(found, _codec(stream), demuxer.rate, config, demuxer.skipped)
    claimed = float((stream.duration or 0) * (stream.time_base or 0))
    missing = min(_missing(container, demuxer, Declared(), size), max(claimed - found.seconds, 0.0))
    report = _report_of_ends(container, demuxer, "mov", missing, read_values(source, size))
    report = replace(report, duration=found.seconds, packets=found.packets.count, track=chosen)
    return _index(Extracted(report, _cover(demuxer)), wanted, excerpts.write)


def _index_clusters(source: io.RawIOBase, wanted: _Wanted) -> Extracted:
    """Writes recipes for excerpts of a track in Matroska.

    Raises:
        UnsupportedLayout: the track is to be extracted.
    """
    segment = matroska.parse(source)
    if segment.seconds < wanted.seconds:
        raise UnsupportedLayout
    file = segment.without_middle()
    container, chosen = _open_ends(file, wanted)
    stream = container.streams.audio[chosen]
    demuxer = Demuxer(container, stream)
    excerpts = ClusterExcerpts.of(segment, demuxer, _codec(stream), chosen)
    missing = _missing(container, demuxer, Declared(), file.size)
    report = _report_of_ends(container, demuxer, "matroska", missing, {})
    packets = excerpts.packets_in(demuxer.duration)
    report = replace(report, packets=packets, track=chosen, starts=excerpts.starts())
    if report.duration < wanted.seconds:
        raise UnsupportedLayout
    return _index(Extracted(report, _cover(demuxer)), wanted, excerpts.write)


def _open_ends(file: io.RawIOBase, wanted: _Wanted) -> "tuple[av.container.InputContainer, int]":
    """Opens a file of which only the first and the last seconds are read; returns the number of the track as well.

    Raises:
        UnsupportedLayout: the track is to be extracted.
    """
    import av.error

    try:
        container = _open(file)
    except av.error.FFmpegError as error:
        raise UnsupportedLayout from error
    streams = container.streams.audio
    if (wanted.number or 0) >= len(streams):
        raise UnsupportedLayout
    chosen = _by_preference(streams)[0] if wanted.number is None else wanted.number
    stream = streams[chosen]
    # PyAV creates no context without a decoder, whatever its types say.
    if getattr(stream, "codec_context", None) is None or protection.is_protected(file, container, stream):
        raise UnsupportedLayout
    if wanted.copy and _codec(stream) == "mp3":
        raise UnsupportedLayout  # its frames are copied, all of them
    return container, chosen


def _report_of_ends(
    container: "av.container.InputContainer", demuxer: Demuxer, name: str, missing: float, values: Mapping[str, str]
) -> TrackReport:
    """Reports a track of which only the first and the last seconds were read."""
    lead, tail = _surroundings(container, demuxer)
    return replace(
        _report(container, demuxer, name, values=values),
        missing=_credible(missing),
        lead=_credible(lead),
        tail=0.0 if missing > 1.0 else _credible(tail),
        start=_credible(demuxer.start),
    )


def _index(extracted: Extracted, wanted: _Wanted, write: Callable[[Ranges, IO[bytes]], None]) -> Extracted:
    """Offers a track and writes the recipes that are asked for.

    Raises:
        UnsupportedLayout: the track is to be extracted.
    """
    if not (ranges := wanted.on_indexed(extracted)):
        raise UnsupportedLayout
    wanted.target.seek(0)
    wanted.target.truncate()
    write(ranges, wanted.target)
    wanted.target.flush()
    return replace(extracted, report=replace(extracted.report, indexed=True))


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


def _open(source: io.RawIOBase, max_pixels: int = _MAX_PROBED, buffer: int = BUFFER) -> "av.container.InputContainer":
    import av
    from av.container import InputContainer

    options = {"protocol_whitelist": "none", "max_pixels": str(max_pixels)}
    # Bytes that are not UTF-8 reach the parent as lone surrogates. It finds their code page (``functions.code_pages``):
    # the detector reads its models from files, which the sandbox forbids.
    container = av.open(source, options=options, buffer_size=buffer, metadata_errors="surrogateescape")
    if not isinstance(container, InputContainer):
        raise TypeError(container)
    return container


def _codec(stream: "av.audio.stream.AudioStream") -> str:
    return {"mp3float": "mp3"}.get(stream.codec_context.name, stream.codec_context.name)


def _cover(demuxer: Demuxer) -> bytes:
    return demuxer.cover if len(demuxer.cover) <= MAX_COVER else b""


def _report(
    container: "av.container.InputContainer",
    demuxer: Demuxer,
    name: str,
    pause: float = 0.0,
    values: Mapping[str, str] | None = None,
) -> TrackReport:
    # ``pause``: seconds before the sound on the file's clock that the demuxer does not know of; ``values``: tags that
    # libavformat does not give.
    stream = demuxer.stream
    return TrackReport(
        codec=_codec(stream),
        container=name,
        rate=demuxer.rate,
        channels=demuxer.channels,
        packets=demuxer.packets,
        errors=demuxer.errors,
        skipped=demuxer.skipped,
        discarded=demuxer.discarded,
        duration=demuxer.duration,
        missing=0.0,
        tags=_limited(_merged([values or {}, _tags(container, stream)])),
        chapters=_chapters(container, demuxer, pause),
        ambisonic=stream.layout.name.startswith("ambisonic"),
        unicode=container.format.name.partition(",")[0] in _UNICODE,
        dropped=len(demuxer.cover) if len(demuxer.cover) > MAX_COVER else 0,
        tracks=_listed(container),
    )


def _listed(container: "av.container.InputContainer") -> list[ListedTrack]:
    """Lists the audio tracks of the file."""
    streams = container.streams.audio
    default = _by_preference(streams)[0]
    return [_listed_track(container, streams[number], number == default) for number in range(len(streams))][:MAX_TRACKS]


def _listed_track(
    container: "av.container.InputContainer", stream: "av.audio.stream.AudioStream", default: bool
) -> ListedTrack:
    # PyAV creates no context without a decoder, whatever its types say.
    context = getattr(stream, "codec_context", None)
    language = stream.metadata.get("language", "")
    if language == "und" or not LANGUAGE.fullmatch(language):
        language = ""
    # The tags of an Ogg stream are those of the file. libav calls a title ``name`` in mov, and ``track_name`` in MXF.
    title = "" if container.format.name == "ogg" else _first_tag(stream.metadata, "title", "name", "track_name")
    return ListedTrack(
        codec="" if context is None else context.codec.canonical_name,
        channels=0 if context is None else context.channels,
        language=language,
        title=title[:MAX_TITLE],
        default=default,
    )


def _first_tag(tags: Mapping[str, str], *names: str) -> str:
    return next((tags[name].strip() for name in names if name in tags), "")


def _tags(container: "av.container.InputContainer", stream: "av.audio.stream.AudioStream") -> dict[str, str]:
    """Returns the tags of the file, and those of the track that apply to all of it."""
    if container.format.name == "ogg":  # has all its tags in the streams
        others = [video.metadata for video in container.streams.video if not is_picture(video)]
        return _merged([stream.metadata, container.metadata, *others])
    tags = {name: value for name, value in stream.metadata.items() if name.lower() not in _OF_THE_TRACK}
    return _merged([container.metadata, tags])


def _merged(sources: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Merges tags; the first source that has a name counts, whatever its case."""
    merged: dict[str, str] = {}
    names: set[str] = set()
    for source in sources:
        merged |= {name: value for name, value in source.items() if name.lower() not in names}
        names |= {name.lower() for name in source}
    return merged


def _limited(found: dict[str, str]) -> dict[str, str]:
    # An untrusted file may have any number of tags of any length; no MP3 has so many or such long ones.
    kept: dict[str, str] = {}
    space = _MAX_TEXT
    for name, value in itertools.islice(found.items(), _MAX_TAGS):
        name = name[:_MAX_NAME]
        value = value[:_MAX_TAG]
        space -= len(name) + len(value)
        if space < 0:
            break
        kept[name] = value
    return kept


def _chapters(container: "av.container.InputContainer", demuxer: Demuxer, pause: float) -> list[Chapter]:
    """Returns the container's chapters, on the clock of the extracted track."""
    # The tag of an MP3 file counts from the first sample that is played, not from the first packet.
    start = 0.0 if container.format.name == "mp3" else demuxer.start + pause
    chapters = []
    for number, chapter in enumerate(container.chapters()[:MAX_CHAPTERS], 1):
        base = float(chapter["time_base"] or 0)
        title = chapter["metadata"].get("title", "").strip() or f"Chapter {number}"
        chapters.append(Chapter(chapter["start"] * base - start, chapter["end"] * base - start, title[:_MAX_TITLE]))
    return chapters


def _missing(container: "av.container.InputContainer", demuxer: Demuxer, declared: Declared, size: int) -> float:
    """Seconds between where the file ends and where it claims to end; 0 if it claims nothing itself.

    Args:
        container: the file.
        demuxer: its track, read to the end.
        declared: what the file's header says.
        size: bytes of the file.
    """
    if declared.streamed:
        return 0.0
    if declared.size > size or declared.end:
        return _undelivered(container, demuxer, declared, size)
    if declared.size:
        return 0.0
    stream = demuxer.stream
    # The length of an MP3 is an estimate from its size, or from its tag; if a frame is truncated, the tag is right.
    if not container.format.name.startswith(DECLARING) and not demuxer.truncated:
        return 0.0
    if stream.duration and stream.time_base:
        length = float(stream.duration * stream.time_base)
        # For FLAC in WAV, libav may estimate it from a bit rate in the header that is not the audio's.
        estimated = 8 * container.size / (stream.codec_context.bit_rate or math.inf)
        if container.format.name == "wav" and math.isclose(length, estimated, rel_tol=0.001):
            return 0.0
        start = float((stream.start_time or 0) * stream.time_base)
        return max(min(_claimed_end(container, start, length) - demuxer.end, length - demuxer.duration), 0.0)
    length = (container.duration or 0) / AV_TIME_BASE or _tagged_length(stream)
    if not length:
        return 0.0
    start = (container.start_time or 0) / AV_TIME_BASE
    return max(_claimed_end(container, start, length) - demuxer.reach, 0.0)


def _tagged_length(stream: "av.audio.stream.AudioStream") -> float:
    """Returns the seconds of a track of Matroska by the tag that muxers write, if the file's own length is damaged."""
    found = _TAGGED_LENGTH.fullmatch(stream.metadata.get("DURATION", ""))
    if found is None:
        return 0.0
    hours, minutes, seconds = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _credible(seconds: float) -> float:
    """Returns what a file claims about its length; 0 if that is damaged."""
    return seconds if seconds < _MAX_CLAIM else 0.0


def _is_truncated(file: _File, demuxer: Demuxer) -> bool:
    """Returns whether the file ends within a part of it."""
    # The sound of a streamed WAV or CAF is one part of unknown size, and libav never gets all it asks for.
    lasts_until_the_end = file.declared.streamed and file.container.format.name in ("wav", "caf")
    ends_early = demuxer.ends_early and not lasts_until_the_end
    return ends_early or file.boxes.truncated or file.declared.size > file.size


def _unread(container: "av.container.InputContainer", demuxer: Demuxer, size: int, tail: float) -> float:
    """Estimates the seconds of sound that are in the file and were not read; 0 if that is less than half.

    Most demuxers take damage for the end of the file, or pass over it, and report neither.
    """
    name = container.format.name
    stream = demuxer.stream
    if tail <= demuxer.duration < demuxer.pauses + tail:
        return demuxer.pauses + tail
    rest = size - demuxer.read_to - demuxer.cover_bytes
    if name == "avi":
        length = float(stream.frames * (stream.time_base or 0))
        # Both have to say so: empty chunks delay sound, and libav passes over them.
        return length - demuxer.end if demuxer.end < length / 2 and rest > size / 4 else 0.0
    if name in MEASURING:
        length = float((stream.duration or 0) * (stream.time_base or 0)) or (container.duration or 0) / AV_TIME_BASE
        found = demuxer.end - demuxer.start - demuxer.pauses
        if demuxer.clock_holds and found < length / 2:
            return length - found
    others = [other for other in container.streams if other.index != stream.index and not is_picture(other)]
    # In mov and mp4 tables say where the sound is. DV has pictures and sound of a frame in one place.
    if name.startswith("mov,") or (others and name != "dv") or rest <= size / 2:
        return 0.0
    return demuxer.duration * rest / max(demuxer.read_to, 1)


def _from_first_played(demuxer: Demuxer) -> list[Gap]:
    """Returns the gaps of the track on a clock that starts with the first sample that is played."""
    skipped = demuxer.skipped / (demuxer.stream.sample_rate or demuxer.rate or 1)
    return [Gap(max(gap.start - skipped, 0.0), gap.length) for gap in demuxer.gaps]


def _surroundings(container: "av.container.InputContainer", demuxer: Demuxer) -> tuple[float, float]:
    """Returns the seconds of other tracks with sound or pictures before and after the track's sound."""
    others = [
        stream
        for stream in (*container.streams.audio, *container.streams.video)
        if stream.index != demuxer.stream.index and not is_picture(stream)
    ]
    if not others or not demuxer.clock_holds:
        return 0.0, 0.0
    end = demuxer.pictures_reach
    for stream in others:
        if stream.duration and stream.time_base:
            start = float((stream.start_time or 0) * stream.time_base)
            length = float(stream.duration * stream.time_base)
            end = max(end, length if length > start else start + length)  # as in _claimed_end
    own = demuxer.stream
    # AVI delays sound by empty chunks, which libav passes over; its header counts them.
    own_end = max(demuxer.end, float(own.frames * (own.time_base or 0)) if container.format.name == "avi" else 0.0)
    lead = demuxer.start - (container.start_time or 0) / AV_TIME_BASE
    tail = max(end - own_end, 0.0)
    return max(lead, 0.0), 0.0 if container.format.name in BROADCASTS and tail < _MAX_AHEAD else tail


def _claimed_end(container: "av.container.InputContainer", start: float, length: float) -> float:
    """Returns the seconds on the file's clock at which it claims to end."""
    # Programs disagree on whether a length counts from the start or from 0: only what neither accounts for is missing.
    counts_from_zero = length > start and container.format.name.startswith(COUNTING_FROM_ZERO)
    return length if counts_from_zero else start + length


def _undelivered(container: "av.container.InputContainer", demuxer: Demuxer, declared: Declared, size: int) -> float:
    """Seconds that are missing from a file of whose size or end its header says more; 0 if that cannot be estimated."""
    stream = demuxer.stream
    name = container.format.name
    if name == "ogg":
        return 0.0  # only the size of its last page is known
    if declared.end:
        return max(declared.end - demuxer.reach, 0.0)
    if name == "avi" and stream.frames and stream.time_base:  # dwLength of the stream's header, in its time base
        return max(float(stream.frames * stream.time_base) - demuxer.end, 0.0)
    return demuxer.duration * (declared.size / size - 1)


class _Reporter:
    """Sends reports, and the cover once."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._cover_sent = False

    def begun(self, extracted: Extracted) -> None:
        """Reports a track that is still being written."""
        self._send_cover(extracted.cover)
        self._send(BEGUN, dump_report(extracted.report))

    def indexed(self, extracted: Extracted) -> Ranges:
        """Reports a track that can be indexed; returns the parent's answer."""
        self._send_cover(extracted.cover)
        self._send(INDEXED, dump_report(extracted.report))
        (count,) = ANSWER.unpack(receive(self._link, ANSWER.size))
        spans = SPAN.iter_unpack(receive(self._link, count * SPAN.size))
        return [(start, None if end == TO_THE_END else end) for start, end in spans]

    def end(self, result: Extracted | Report) -> None:
        """Reports the result."""
        if isinstance(result, Extracted):
            self._send_cover(result.cover)
            result = result.report
        self._send(REPORT, dump_report(result))

    def _send_cover(self, cover: bytes) -> None:
        if cover and not self._cover_sent:
            self._send(COVER, cover)
        self._cover_sent = True

    def _send(self, kind: bytes, data: bytes) -> None:
        self._link.sendall(REQUEST.pack(kind, len(data), 0) + data)


def _carry_out(order: Order, source: RemoteFile, target: IO[bytes], reporter: _Reporter) -> Extracted | Report:
    """Carries out an order; every failure of libav becomes a report."""
    try:
        if isinstance(order.wanted, ExcerptOrder):
            container = _open(source, _MAX_PROBED_VIDEO)
            return video_excerpt.extract(container, target, order.wanted.second)
        if isinstance(order.wanted, PartOrder):
            return extract_part(source, target, order.wanted)
        if order.wanted.extension:
            source.name = f"source.{order.wanted.extension}"
        seconds = math.inf if order.wanted.index_seconds is None else order.wanted.index_seconds
        return extract(
            source,
            target,
            order.wanted.track,
            order.wanted.copy,
            on_begun=reporter.begun,
            on_indexed=reporter.indexed,
            index_seconds=seconds,
        )
    except NotCopyable:
        return FaultReport(Fault.NOT_COPYABLE)
    except MemoryError:
        return FaultReport(Fault.MEMORY)
    except PeerClosed:
        os._exit(1)
    except OSError as error:
        return FaultReport(Fault.DISK_FULL if error.errno == errno.ENOSPC else Fault.BROKEN, str(error))
    except Exception as error:
        return FaultReport(Fault.BROKEN, f"{type(error).__name__}: {error}")


def _import_libav() -> None:
    """Imports all of PyAV that is used: no module can be opened in the sandbox."""
    import av
    import av.logging
    import av.subtitles.codeccontext
    import av.subtitles.stream
    import av.subtitles.subtitle  # PyAV imports these when it finds subtitles

    av.logging.set_level(av.logging.PANIC)


def main() -> None:
    """Enters the limits, imports PyAV, and enters the sandbox: it opens no more files than the order brings."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    limits.enter(arguments["parent"], arguments["limits"])
    link = socket.socket(fileno=arguments["link"])
    reporter = _Reporter(link)
    try:
        _import_libav()
    except ImportError as error:
        reporter.end(FaultReport(Fault.NOT_STARTED, f"{type(error).__name__}: {error}"))
        os._exit(1)
    if arguments["confined"]:
        limits.confine(arguments["parent"], tasks=0)
    try:
        order = receive_order(link)
    except PeerClosed:
        os._exit(1)
    target = open(order.target, "wb")  # noqa: SIM115, PTH123 - a descriptor, open until the process ends
    limits.limit(order.limits)
    reporter.end(_carry_out(order, RemoteFile(link, order.size), target, reporter))
    with contextlib.suppress(OSError):
        target.flush()
    os._exit(0)  # skips libav's clean-up, which has nothing left to do for us


if __name__ == "__main__":
    main()
