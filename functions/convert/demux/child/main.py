"""The process that opens a user's file, by PyAV: extracts an audio track, or an excerpt of the video, and reports.

It has two open files, a socket to its parent and the file it writes, and cannot open a third. The order arrives over
the socket, and so do the bytes of the source: the parent (``client.py``) answers READ requests until REPORT ends the
exchange.
"""

import contextlib
import errno
import json
import math
import os
import socket
import sys
from typing import IO, Any

from functions.convert.demux.child import video_excerpt
from functions.convert.demux.child.audio_track import extract, extract_part
from functions.convert.demux.child.demuxer import NotCopyable
from functions.convert.demux.child.description import Extracted
from functions.convert.demux.child.indexing import Ranges
from functions.convert.demux.child.libav import MAX_PROBED_VIDEO, open_file
from functions.convert.demux.protocol import (
    ANSWER,
    BEGUN,
    COVER,
    INDEXED,
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
    dump_report,
    receive,
    receive_order,
)
from functions.convert.sandbox import limits


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
            container = open_file(source, MAX_PROBED_VIDEO)
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
