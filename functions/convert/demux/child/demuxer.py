"""Takes one audio track out of an open container by PyAV, packets and time stamps as they are. Runs in the reader."""

import contextlib
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

from functions.convert.mp3.frame import MAX_SKIPPED, is_tag, parse_header

if TYPE_CHECKING:
    import av.audio.stream
    import av.container
    import av.packet
    import av.stream

BUFFER = 256 << 10
#: So many failed reads in a row end a track.
PATIENCE = 64
#: Seconds without a packet that count as a place that could not be read; ffmpeg closes such gaps.
GAP = 0.25


class Extraction:
    """Takes one track out of an open container and counts what it takes.

    Attributes:
        packets: how many so far.
        errors: places that could not be read or are missing, and packets that the container itself calls damaged.
        skipped: samples at the start that are not to be heard.
        discarded: samples at the end that are not to be heard.
        cut: whether the last packet is not whole.
        cover: the first picture that came along.
        rate: samples a second, as decoded.
        channels: how many, as decoded.
    """

    def __init__(self, container: "av.container.InputContainer", stream: "av.audio.stream.AudioStream") -> None:
        self._container = container
        self.stream = stream
        self.packets = self.errors = self.skipped = self.discarded = self._gaps = 0
        self.cut = False
        self.cover = b""
        self.rate = stream.codec_context.sample_rate
        self.channels = stream.codec_context.channels
        stream.codec_context.thread_count = 1
        self._probing = 8  # packets to try until one gives a frame
        self._first: float | None = None
        self._end = self._summed = self._others_reach = self._moved = 0.0
        self._start = self._leapt = self._stood = 0.0  # of the clock: where it is, how far it leapt and stood still
        # Seconds. To make it of a packet's own fraction costs more than to read the packet.
        self._base = float(stream.time_base or 0)

    @property
    def duration(self) -> float:
        """Seconds of audio: what the packets add up to where their lengths are exact, else what they span."""
        exact = self.stream.time_base is not None and self.stream.time_base <= Fraction(1, 8000)
        span = max(self._end - (self._first or 0.0), 0.0)
        return self._summed if exact or not span else span

    @property
    def edited(self) -> bool:
        """Whether an edit list tells to the sample what is heard; elsewhere the length may be an estimate."""
        return self.skipped > 0 and self._container.format.name.startswith("mov,")

    @property
    def began(self) -> float:
        """Seconds at which what is heard begins, on the file's own clock."""
        return (self._first or 0.0) + self.skipped / (self.stream.sample_rate or self.rate or 1)

    @property
    def reach(self) -> float:
        """Seconds up to which the file has anything, on its own clock."""
        return max(self._end, self._others_reach)

    def __iter__(self) -> Iterator["av.packet.Packet[Any]"]:
        """The track's packets in the file's order; a place that cannot be read is passed over, and counted."""
        import av.error

        patience = PATIENCE
        packets = self._demux()
        while patience:
            try:
                packet = next(packets)
            except (StopIteration, EOFError):
                if 2 * self._gaps > self.packets:  # a wrong clock, as of E-AC-3 and DTS in AVI
                    self.errors -= self._gaps
                    self._end = (self._first or 0.0) + self._summed
                elif self._leapt <= self._stood + GAP:  # one that waited for the sound, as of FLAC in ASF
                    self.errors -= self._gaps
                return
            except av.error.FFmpegError:
                self.errors += 1
                patience -= 1
                packets = self._demux()
                continue
            patience = PATIENCE
            if not packet.size:
                continue
            if packet.stream_index == self.stream.index:
                self._count(packet)
                yield packet
            elif is_picture(packet.stream):
                self.cover = self.cover or bytes(packet)
            elif packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * float(packet.time_base or 0)
                self._others_reach = max(self._others_reach, end)

    def _demux(self) -> Iterator["av.packet.Packet[Any]"]:
        if self.stream.duration:
            pictures = [one for one in self._container.streams.video if is_picture(one)]
            return self._container.demux(self.stream, *pictures)
        return self._container.demux()  # all, since how far the others reach tells whether the end is missing

    def _count(self, packet: "av.packet.Packet[Any]") -> None:
        self.packets += 1
        self.errors += packet.is_corrupt
        length = (packet.duration or 0) * self._base
        self._summed += length
        if packet.pts is not None:
            start = packet.pts * self._base
            if self._first is None:
                self._first = self._end = start
            start += self._moved
            if start < self._end - GAP:  # the clock begins anew
                self._moved += self._end - start
                start = self._end
            elif start > self._end + GAP:
                self.errors += 1
                self._gaps += 1
                self._leapt += start - self._end
            elif start <= self._start and self.packets > 1:
                self._stood += length
            self._start, self._end = start, max(self._end, start + length)
        self.discarded = 0  # only the last packet's counts
        for side in packet.iter_sidedata():
            if side.data_type == "skip_samples":
                # AV_PKT_DATA_SKIP_SAMPLES (libavcodec/packet.h): from the start, from the end, 32 bits little-endian.
                skipped, self.discarded = struct.unpack_from("<II", bytes(side))
                self.skipped += skipped if self.packets == 1 else 0
        if self._probing:
            self._decode(packet)

    def rest(self, last: "av.packet.Packet[Any]") -> int | None:
        """How much of the last packet, in its time base, is before the end that the container tells; None for all."""
        source = self.stream
        if not source.duration or last.pts is None or last.time_base != source.time_base:
            return None
        rest = (source.start_time or 0) + source.duration - last.pts
        # LAME's padding may be more than a frame. Of two packets both stay: libav makes nothing of one such in mov.
        if rest <= 0 and self.discarded and self._container.format.name == "mp3" and self.packets > 2:
            return 0
        return rest if 0 < rest < (last.duration or 0) else None

    def _decode(self, packet: "av.packet.Packet[Any]") -> None:
        # A header may say 24 kHz and mono where the sound is 48 kHz and stereo (AAC with SBR and PS): a decoder knows.
        import av.error

        self._probing -= 1
        with contextlib.suppress(av.error.FFmpegError):
            for frame in self.stream.codec_context.decode(packet):
                self.rate, self.channels = frame.sample_rate, frame.layout.nb_channels
                self._probing = 0


def is_picture(stream: "av.stream.Stream") -> bool:
    """Whether what the stream has is one picture that came along, and no video."""
    return stream.type == "video" and bool(stream.disposition & stream.disposition.attached_pic)


class NotWhole(Exception):
    """The MP3 packets are not whole frames of one kind: they cannot be laid end to end."""


def copy_frames(extraction: Extraction, target: IO[bytes]) -> None:
    """Write MP3 packets end to end as they are, but for a frame that the end of the file has cut off.

    Raises:
        NotWhole: that would make no MP3 file.
    """
    kind = last = None
    for packet in extraction:
        last, data = packet, bytes(packet)
        frame = parse_header(data)
        if extraction.cut or frame is None or frame.size < len(data) or (kind or frame.kind) != frame.kind:
            raise NotWhole
        if extraction.skipped > MAX_SKIPPED:
            raise NotWhole  # an edit list cuts more than a tag can tell of
        kind = frame.kind
        if frame.size > len(data):
            extraction.cut = True  # right, if it is the last
            continue
        if not (extraction.packets == 1 and is_tag(data)):
            target.write(data)
    if extraction.stream.time_base and last is not None and not extraction.discarded and extraction.edited:
        rest = extraction.rest(last)
        if rest is not None:
            beyond = ((last.duration or 0) - rest) * extraction.stream.time_base * extraction.stream.sample_rate
            extraction.discarded = round(beyond)
