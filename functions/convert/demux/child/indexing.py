"""Writes recipes for excerpts of an audio track (``seek.recipe``) in place of the track, where that is worthwhile.

The beginning and the end of the file, and its tables, say what there is to know; the sound between them is not read.
"""

import io
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, NamedTuple

from functions.convert.demux.child import matroska, protection
from functions.convert.demux.child.claimed_length import missing_seconds
from functions.convert.demux.child.clusters import ClusterExcerpts
from functions.convert.demux.child.declared import Declared
from functions.convert.demux.child.demuxer import Demuxer
from functions.convert.demux.child.description import Extracted, cover_of, report_by_tables, report_of_ends
from functions.convert.demux.child.libav import by_preference, codec_name, open_file
from functions.convert.demux.child.mp4 import fragments
from functions.convert.demux.child.mp4 import movie as mp4
from functions.convert.demux.child.mp4.excerpts import Excerpts
from functions.convert.demux.child.tag_values import read_values
from functions.convert.errors import UnsupportedLayout

if TYPE_CHECKING:
    import av.container

#: Ranges of samples: the first one and the one after the last, None for the end of the track.
Ranges = Sequence[tuple[int, int | None]]
#: libavcodec's names for PCM, with the bits of a sample; if there are none, it has 8.
_PCM = re.compile(r"pcm_(?:[suf](\d+)(?:be|le)?|alaw|mulaw)")
#: Samples of PCM in a mov of which libav makes a packet, at most.
_GROUPED = 1024


class Wanted(NamedTuple):
    """The track that is to be indexed, if that is worthwhile; as the arguments of ``extract``."""

    target: IO[bytes]
    number: int | None
    copy: bool
    on_indexed: Callable[[Extracted], Ranges]
    seconds: float


def index_tables(
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


def index_samples(source: io.RawIOBase, wanted: Wanted) -> Extracted:
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
    codec = _PCM.fullmatch(codec_name(demuxer.stream))
    if chosen != (wanted.number or 0) or codec is None:
        raise UnsupportedLayout
    size_of_one = int(codec[1] or 8) // 8 * demuxer.channels
    excerpts = Excerpts.of_samples(movie, demuxer.rate, size_of_one)
    if first != size_of_one * min(excerpts.packets.first_chunk, _GROUPED):
        raise UnsupportedLayout
    report = report_by_tables(container, demuxer, movie, read_values(source, size))
    report = replace(report, packets=math.ceil(movie.packets * size_of_one / first), track=chosen)
    return _index(Extracted(report, cover_of(demuxer)), wanted, excerpts.write)


def index_fragments(source: io.RawIOBase, wanted: Wanted) -> Extracted:
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
    excerpts = Excerpts.of_fragments(found, codec_name(stream), demuxer.rate, config, demuxer.skipped)
    claimed = float((stream.duration or 0) * (stream.time_base or 0))
    missing = min(missing_seconds(container, demuxer, Declared(), size), max(claimed - found.seconds, 0.0))
    report = report_of_ends(container, demuxer, "mov", missing, read_values(source, size))
    report = replace(report, duration=found.seconds, packets=found.packets.count, track=chosen)
    return _index(Extracted(report, cover_of(demuxer)), wanted, excerpts.write)


def index_clusters(source: io.RawIOBase, wanted: Wanted) -> Extracted:
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
    excerpts = ClusterExcerpts.of(segment, demuxer, codec_name(stream), chosen)
    missing = missing_seconds(container, demuxer, Declared(), file.size)
    report = report_of_ends(container, demuxer, "matroska", missing, {})
    packets = excerpts.packets_in(demuxer.duration)
    report = replace(report, packets=packets, track=chosen, starts=excerpts.starts())
    if report.duration < wanted.seconds:
        raise UnsupportedLayout
    return _index(Extracted(report, cover_of(demuxer)), wanted, excerpts.write)


def _open_ends(file: io.RawIOBase, wanted: Wanted) -> "tuple[av.container.InputContainer, int]":
    """Opens a file of which only the first and the last seconds are read; returns the number of the track as well.

    Raises:
        UnsupportedLayout: the track is to be extracted.
    """
    import av.error

    try:
        container = open_file(file)
    except av.error.FFmpegError as error:
        raise UnsupportedLayout from error
    streams = container.streams.audio
    if (wanted.number or 0) >= len(streams):
        raise UnsupportedLayout
    chosen = by_preference(streams)[0] if wanted.number is None else wanted.number
    stream = streams[chosen]
    # PyAV creates no context without a decoder, whatever its types say.
    if getattr(stream, "codec_context", None) is None or protection.is_protected(file, container, stream):
        raise UnsupportedLayout
    if wanted.copy and codec_name(stream) == "mp3":
        raise UnsupportedLayout  # its frames are copied, all of them
    return container, chosen


def _index(extracted: Extracted, wanted: Wanted, write: Callable[[Ranges, IO[bytes]], None]) -> Extracted:
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
