"""The process that opens the stranger's file, by PyAV: it takes one audio track out, as it is, and tells what it saw.

It holds two open files, a socket to its parent and the track it writes, and cannot open a third. What to read comes
over the socket, and so do the source's bytes: the parent (``client.py``) answers READ until REPORT ends it all.
"""

import contextlib
import errno
import functools
import io
import itertools
import json
import math
import os
import socket
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from functions.convert.chapters import chapters_of
from functions.convert.demux.child import video_excerpt
from functions.convert.demux.child.demuxer import BUFFER, Extraction, NotWhole, copy_frames
from functions.convert.demux.child.mp4 import movie as mp4
from functions.convert.demux.child.mp4 import writer
from functions.convert.demux.child.mp4.boxes import is_fragmented
from functions.convert.demux.child.remuxer import NoContainer, formats, remux
from functions.convert.demux.protocol import BEGUN, COVER, MAX_COVER, REPORT, REQUEST, Gone, Remote, receive_order
from functions.convert.errors import UnsupportedLayout
from functions.convert.sandbox import limits

if TYPE_CHECKING:
    import av.audio.stream
    import av.container

_LONGEST_TAG, _MOST_TAGS = 4000, 500
#: Characters of all tags; each may be a dozen bytes of a report, which has to be shorter than MAX_REPORT.
_MOST_TEXT = 250_000
AV_TIME_BASE = 1_000_000  # libavutil/avutil.h
#: Demuxers that read a file's length from its header. The others estimate it from what is there.
DECLARING = ("mov,", "matroska,", "avi", "flv", "asf", "wav", "w64", "aiff", "caf", "flac", "tta", "wv")


def read(
    source: io.RawIOBase,
    target: IO[bytes],
    track: int,
    copy: bool,
    begun: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Take track number ``track`` out of the source.

    Args:
        source: the file.
        target: where the track goes.
        track: its number, from 0.
        copy: whether MP3 becomes bare frames.
        begun: hears what will be returned as soon as it is known, if that is before the track is there as a whole; from
            then on the target only grows.

    Returns:
        What was seen, for the parent; with a ``fault`` where there is nothing to take out. ``cover`` is bytes.
    """
    import av.error

    with contextlib.suppress(UnsupportedLayout):
        return _by_its_tables(source, target, track, copy, begun)
    target.seek(0)
    target.truncate()
    fragmented = is_fragmented(source)
    try:
        container = _open(source)
    except av.error.FFmpegError as error:
        return {"fault": "format", "detail": str(error)}
    streams = container.streams.audio
    if not streams:
        return {"fault": "silent" if container.streams.video else "format"}
    if track >= len(streams):
        return {"fault": "track", "tracks": len(streams)}
    stream = streams[track]
    # Without a decoder PyAV makes no context, whatever its types say.
    if getattr(stream, "codec_context", None) is None:
        return {"fault": "codec"}
    extraction = Extraction(container, stream)
    codec = _codec(stream)
    if copy and codec == "mp3":
        kind = "mp3"
        copy_frames(extraction, target)
    else:
        kind = remux(extraction, lambda: formats(container, extraction, fragmented), target, whole=fragmented)
    target.flush()
    return {
        **_report(container, extraction),
        "container": kind,
        "duration": extraction.duration,
        "packets": extraction.packets,
        "missing": _missing(container, extraction),
    }


def _by_its_tables(
    source: io.RawIOBase, target: IO[bytes], track: int, copy: bool, begun: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """As ``read``, of an mp4 that is whole; UnsupportedLayout where it is not, or has more to it."""
    import av.error

    size = source.seek(0, os.SEEK_END)
    movie = mp4.parse(source, size, track)
    try:
        container = _open(movie.beginning())
    except av.error.FFmpegError as error:
        raise UnsupportedLayout from error
    streams = container.streams.audio
    if len(streams) != movie.audios or getattr(streams[track], "codec_context", None) is None:
        raise UnsupportedLayout
    extraction = Extraction(container, streams[track])
    for _ in extraction:
        pass
    known = {**_report(container, extraction), "duration": movie.duration, "packets": movie.packets, "missing": 0.0}
    if copy and _codec(extraction.stream) == "mp3":
        if extraction.skipped or extraction.errors:
            raise UnsupportedLayout
        skipped, discarded, duration = writer.write_frames(movie, target)
        known |= {"container": "mp3", "skipped": skipped, "discarded": discarded, "duration": duration}
    else:
        known["container"] = "mov"
        writer.write_head(movie, target)
        target.flush()
        begun(known)
        try:
            writer.write_sound(movie, target)
        except UnsupportedLayout as error:
            raise EOFError("the source is shorter than it was") from error
    target.flush()
    return known


def _open(source: io.RawIOBase) -> "av.container.InputContainer":
    import av
    from av.container import InputContainer

    options = {"protocol_whitelist": "none"}
    container = av.open(source, options=options, buffer_size=BUFFER, metadata_errors="replace")
    if not isinstance(container, InputContainer):
        raise TypeError(container)
    return container


def _codec(stream: "av.audio.stream.AudioStream") -> str:
    return {"mp3float": "mp3"}.get(stream.codec_context.name, stream.codec_context.name)


def _report(container: "av.container.InputContainer", extraction: Extraction) -> dict[str, Any]:
    stream = extraction.stream
    return {
        "codec": _codec(stream),
        "rate": extraction.rate,
        "channels": extraction.channels,
        "errors": extraction.errors,
        "skipped": extraction.skipped,
        "discarded": extraction.discarded,
        "tags": _tags({**stream.metadata, **container.metadata}),
        "chapters": chapters_of(container, extraction),
        "cover": extraction.cover,
    }


def _tags(found: dict[str, str]) -> dict[str, str]:
    # A stranger's file may bring any number of any size; none that an MP3 has is so long or so late.
    kept: dict[str, str] = {}
    room = _MOST_TEXT
    for name, value in itertools.islice(found.items(), _MOST_TAGS):
        name, value = name[:100], value[:_LONGEST_TAG]
        room -= len(name) + len(value)
        if room < 0:
            break
        kept[name] = value
    return kept


def _missing(container: "av.container.InputContainer", extraction: Extraction) -> float:
    """Seconds between where the file ends and where it says that it ends; 0 where it says nothing of its own."""
    stream = extraction.stream
    # The length of an MP3 is an estimate by its size or what its tag says; where a frame is cut off, the tag is right.
    if not container.format.name.startswith(DECLARING) and not extraction.cut:
        return 0.0
    if stream.duration and stream.time_base:
        claimed = float(stream.duration * stream.time_base)
        # Of FLAC in WAV libav may guess it by a bit rate of the header, which is not the sound's.
        guessed = 8 * container.size / (stream.codec_context.bit_rate or math.inf)
        if container.format.name == "wav" and math.isclose(claimed, guessed, rel_tol=0.001):
            return 0.0
        return max(claimed - extraction.duration, 0.0)
    if not container.duration:
        return 0.0
    start = (container.start_time or 0) / AV_TIME_BASE
    return max(start + container.duration / AV_TIME_BASE - extraction.reach, 0.0)


def _tell(link: socket.socket, what: bytes, report: dict[str, Any]) -> None:
    cover = report.pop("cover", b"")  # once
    if len(cover) > MAX_COVER:
        report["dropped"] = len(cover)
    elif cover:
        link.sendall(REQUEST.pack(COVER, len(cover), 0) + cover)
    data = json.dumps(report).encode()
    link.sendall(REQUEST.pack(what, len(data), 0) + data)


def main() -> None:
    """The process: limits first, then PyAV, then no more open files than the order brings."""
    arguments = json.loads(sys.argv[1])
    limits.enter(arguments["parent"], arguments["limits"])
    link = socket.socket(fileno=arguments["link"])
    import av
    import av.logging
    import av.subtitles.codeccontext
    import av.subtitles.stream
    import av.subtitles.subtitle  # PyAV imports these when it meets subtitles: too late then

    av.logging.set_level(av.logging.PANIC)
    try:
        order, number = receive_order(link)
    except Gone:
        os._exit(1)
    target = open(number, "wb")  # noqa: SIM115, PTH123 - a number, and open to the end of the process
    limits.limit(order["limits"])
    source = Remote(link, order["size"])
    report: dict[str, Any] = {}
    try:
        if "second" in order:
            report = video_excerpt.take(_open(source), target, order["second"])
        else:
            begun = functools.partial(_tell, link, BEGUN)
            report = read(source, target, order["track"], order["copy"], begun)
    except NotWhole:
        report = {"fault": "not whole"}
    except NoContainer as error:
        report = {"fault": "codec", "detail": f"no container takes {error}"}
    except MemoryError:
        report = {"fault": "memory"}
    except Gone:
        os._exit(1)
    except OSError as error:
        report = {"fault": "room" if error.errno == errno.ENOSPC else "broken", "detail": f"{error}"}
    except Exception as error:  # whatever the file does to libav, the parent is told
        report = {"fault": "broken", "detail": f"{type(error).__name__}: {error}"}
    _tell(link, REPORT, report)
    with contextlib.suppress(OSError):
        target.flush()
    os._exit(0)  # libav's own clean-up has nothing left to do for us


if __name__ == "__main__":
    main()
