"""The process that opens the stranger's file, by PyAV: it takes one audio track out, as it is, and tells what it saw.

It holds two open files, a socket to its parent and the track it writes, and cannot open a third. The source's bytes
come over the socket: the parent (``probe.py``) answers READ and SEEK until REPORT or FAULT ends the conversation.
"""

import contextlib
import io
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from functions.convert import mpeg, sandbox

if TYPE_CHECKING:
    import av.audio.stream
    import av.container
    import av.packet

#: A request: what, and two numbers. READ size; SEEK offset, whence; COVER and REPORT and FAULT size, then so many bytes.
REQUEST = struct.Struct("<cqq")
#: An answer: bytes that follow (READ) or the new position (SEEK).
ANSWER = struct.Struct("<q")
READ, SEEK, COVER, REPORT, FAULT = b"r", b"s", b"c", b"d", b"f"

BUFFER = 256 << 10
MAX_COVER = 16 << 20
MAX_REPORT = 16 << 20
#: So many failed reads in a row end a track.
PATIENCE = 64


class Remote(io.RawIOBase):
    """The source, as the parent has it."""

    def __init__(self, link: socket.socket, size: int) -> None:
        self._link = link
        self._size = size
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes."""
        size = BUFFER if size < 0 else size
        self._link.sendall(REQUEST.pack(READ, size, 0))
        (length,) = ANSWER.unpack(receive(self._link, ANSWER.size))
        self._position += length
        return bytes(receive(self._link, length))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move; the parent is told, since it alone has the source."""
        self._link.sendall(REQUEST.pack(SEEK, offset, whence))
        (self._position,) = ANSWER.unpack(receive(self._link, ANSWER.size))
        return self._position

    def tell(self) -> int:
        """The byte offset of the next read."""
        return self._position

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True


def receive(link: socket.socket, size: int) -> bytearray:
    """Exactly so many bytes of a socket; EOFError where the other side is gone."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = link.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
    return data


def is_fragmented(source: io.RawIOBase) -> bool:
    """Whether an mp4 or mov has ``moof`` boxes (ISO/IEC 14496-12, 8.8): its edit list does not survive the way through mov."""
    position, fragmented = 0, False
    for _ in range(64):
        source.seek(position)
        head = source.read(16) or b""
        if len(head) < 8:
            break
        size = int.from_bytes(head[:4], "big")
        if head[4:8] == b"moof":
            fragmented = True
            break
        size = int.from_bytes(head[8:16], "big") if size == 1 else size
        if size < 8:
            break
        position += size
    source.seek(0)
    return fragmented


class Extraction:
    """Takes one track out of an open container and counts what it takes."""

    def __init__(self, stream: "av.audio.stream.AudioStream") -> None:
        self._stream = stream
        self.packets = 0
        self.bytes = 0
        self.errors = 0
        self.samples_skipped = 0
        self.samples_discarded = 0
        self.cover = b""
        self._first: float | None = None
        self._end = 0.0
        self._summed = 0.0

    @property
    def duration(self) -> float:
        """Seconds of audio: what the packets add up to, or what their time stamps span where they have no lengths."""
        return self._summed or max(self._end - (self._first or 0.0), 0.0)

    def packets_of(self, container: "av.container.InputContainer") -> Iterator["av.packet.Packet[Any]"]:
        """The track's packets in the file's order; a place that cannot be read is passed over, and counted."""
        import av.error

        patience = PATIENCE
        pictures = [one for one in container.streams.video if one.disposition & one.disposition.attached_pic]
        demuxer = container.demux(self._stream, *pictures)
        while True:
            try:
                packet = next(demuxer)
            except (StopIteration, EOFError):
                return
            except av.error.FFmpegError:
                self.errors += 1
                patience -= 1
                if not patience:
                    return
                demuxer = container.demux(self._stream, *pictures)
                continue
            if packet.size and packet.stream_index != self._stream.index:
                self.cover = self.cover or bytes(packet)
            elif packet.size:
                patience = PATIENCE
                self._count(packet)
                yield packet

    def _count(self, packet: "av.packet.Packet[Any]") -> None:
        self.packets += 1
        self.bytes += packet.size
        self.errors += packet.is_corrupt
        base = float(packet.time_base or 0)
        length = (packet.duration or 0) * base
        self._summed += length
        if packet.pts is not None:
            start = packet.pts * base
            self._first = start if self._first is None else self._first
            self._end = max(self._end, start + length)
        if packet.has_sidedata("skip_samples"):
            # AV_PKT_DATA_SKIP_SAMPLES (libavcodec/packet.h): two little-endian 32 bit counts, from the start and the end.
            skipped, discarded = struct.unpack_from("<II", bytes(packet.get_sidedata("skip_samples")))
            self.samples_skipped += skipped if self.packets == 1 else 0
            self.samples_discarded += discarded


class NotWhole(Exception):
    """The MP3 packets are not whole frames of one kind: they cannot be laid end to end."""


def copy_frames(extraction: Extraction, container: "av.container.InputContainer", target: io.RawIOBase) -> None:
    """Write MP3 packets end to end as they are; NotWhole where that would make no MP3 file."""
    kind = None
    for packet in extraction.packets_of(container):
        data = bytes(packet)
        frame = mpeg.parse(data)
        if frame is None or frame.size != len(data) or (kind or frame.kind) != frame.kind:
            raise NotWhole
        kind = frame.kind
        if not (extraction.packets == 1 and mpeg.is_tag(data)):
            target.write(data)


def remux(extraction: Extraction, container: "av.container.InputContainer", format_: str, target: io.RawIOBase) -> None:
    """Write the track into a container of its own, packets and time stamps as they are."""
    import av

    with av.open(target, "w", format=format_, buffer_size=BUFFER) as output:
        stream = output.add_stream_from_template(extraction._stream)
        for packet in extraction.packets_of(container):
            packet.stream = stream
            output.mux_one(packet)


def read(source: Remote, target: io.RawIOBase, track: int, copy: bool, link: socket.socket) -> dict[str, Any]:
    """Take track number ``track`` out of the source; what was seen, for the parent.

    Returns:
        A report; with a ``fault`` where there is nothing to take out.
    """
    import av
    import av.error

    fragmented = is_fragmented(source)
    try:
        container = av.open(source, options={"protocol_whitelist": "none"}, buffer_size=BUFFER, metadata_errors="replace")
    except av.error.FFmpegError as error:
        return {"fault": "format", "detail": str(error)}
    streams = container.streams.audio
    report: dict[str, Any] = {"format": container.format.name, "tracks": len(streams)}
    if not streams:
        return report | {"fault": "silent" if len(container.streams) else "format"}
    if track >= len(streams):
        return report | {"fault": "track"}
    stream = streams[track]
    if stream.codec_context is None:
        return report | {"fault": "codec"}
    report |= _describe(container, stream)
    extraction = Extraction(stream)
    mov = report["format"].startswith("mov,") and not fragmented
    if copy and report["codec"] == "mp3":
        report["container"] = "mp3"
        copy_frames(extraction, container, target)
    else:
        report["container"] = "mov" if mov else "matroska"
        remux(extraction, container, report["container"], target)
    target.flush()
    if 0 < len(extraction.cover) <= MAX_COVER:
        link.sendall(REQUEST.pack(COVER, len(extraction.cover), 0) + extraction.cover)
    return report | {
        "duration": extraction.duration,
        "packets": extraction.packets,
        "bytes": extraction.bytes,
        "errors": extraction.errors,
        "skipped": extraction.samples_skipped,
        "discarded": extraction.samples_discarded,
    }


def _describe(container: "av.container.InputContainer", stream: "av.audio.stream.AudioStream") -> dict[str, Any]:
    context = stream.codec_context
    name = context.name
    declared = stream.duration * stream.time_base if stream.duration and stream.time_base else None
    if declared is None and container.duration:
        declared = container.duration / 1_000_000  # AV_TIME_BASE
    return {
        "codec": "mp3" if name == "mp3float" else name,
        "rate": context.sample_rate,
        "channels": context.channels,
        "declared": float(declared) if declared else None,
        "tags": {**stream.metadata, **container.metadata},
    }


def main() -> None:
    """The process: limits first, then PyAV, then no more open files."""
    arguments = json.loads(sys.argv[1])
    sandbox.enter(arguments["parent"], arguments["limits"])
    link = socket.socket(fileno=arguments["link"])
    target = open(arguments["target"], "wb")  # noqa: SIM115, PTH123 - a number, and open to the end of the process
    import resource

    import av
    import av.logging
    import av.subtitles.codeccontext
    import av.subtitles.stream
    import av.subtitles.subtitle  # PyAV imports these when it meets subtitles: too late then

    av.logging.set_level(av.logging.PANIC)

    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    source = Remote(link, arguments["size"])
    try:
        report = read(source, target, arguments["track"], arguments["copy"], link)
    except NotWhole:
        report = {"fault": "not whole"}
    except MemoryError:
        report = {"fault": "memory"}
    except EOFError:
        os._exit(1)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        report = {"fault": "broken", "detail": f"{type(error).__name__}: {error}"}
    data = json.dumps(report).encode()
    link.sendall(REQUEST.pack(REPORT, len(data), 0) + data)
    with contextlib.suppress(OSError):
        target.flush()
    os._exit(0)  # libav's own clean-up has nothing left to do for us


if __name__ == "__main__":
    main()
