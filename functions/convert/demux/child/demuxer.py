"""Reads the packets of one audio track from an open container by PyAV, unchanged, and keeps count of them."""

import contextlib
import math
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

from functions.convert.demux.child import pictures
from functions.convert.demux.child.pictures import is_picture
from functions.convert.gaps import MIN_GAP, Gap, GapList, total
from functions.convert.seek.packets import OPUS_RATE, opus_samples
from functions.mp3.frame import DECODER_DELAY, MAX_SKIPPED, is_tag, parse_header, tags_size

if TYPE_CHECKING:
    import av.audio.stream
    import av.container
    import av.packet
    import av.stream

#: Failed reads in a row that end a track.
MAX_FAILED_READS = 64
#: Bytes after the last packet that need no packet: GXF's end (SMPTE 360M) has 16.
_TRAILER = 16
#: Containers of broadcasts, in which a track may go on as another one.
BROADCASTS = ("mpegts", "mpeg")
#: Seconds of another track, without a packet of the current one, after which it takes over.
_TAKEOVER = 2.0
#: Packets of another track that are kept for that long, at most.
_MAX_WAITING = 2000
#: Packets of the current track among those of another one that show that both exist at once.
_PARALLEL = 3
#: Codecs that libav does not tell apart before it has seen a packet.
_MPEG_AUDIO = frozenset({"mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float"})
#: Packets that are decoded until one yields a frame.
_MAX_PROBED = 8


class Demuxer:
    """An iterator over the packets of one audio track that counts what it returns.

    Attributes:
        stream: the track.
        packets: number of packets so far.
        errors: places that could not be read, and packets that the container itself marks as damaged.
        gaps: where the track's clock jumps, on a clock of its sound that starts at the first packet.
        skipped: samples at the start that are not played.
        discarded: samples at the end that are not played.
        truncated: whether the last packet is incomplete, as MP3 frames are.
        ends_early: whether libav could not read the last packet to its end.
        read_to: bytes of the file up to the end of the last packet.
        cover: the embedded picture that suits best, empty if there is none.
        cover_bytes: bytes of all embedded pictures.
        rate: samples per second, as decoded.
        channels: number of channels, as decoded.
    """

    def __init__(
        self,
        container: "av.container.InputContainer",
        stream: "av.audio.stream.AudioStream",
        until: float = math.inf,
        pauses: Iterable[tuple[float, float]] = (),
    ) -> None:
        """Prepares to read a track.

        Args:
            container: the open file.
            stream: the track.
            until: seconds on the file's clock; the first packet that is after them is the last.
            pauses: between edits of an mp4, in seconds on the file's clock: libav returns the start of the track there.
        """
        self._container = container
        self._until = until
        self.stream = stream
        self.packets = 0
        self.errors = 0
        self.skipped = 0
        self.discarded = 0
        self.truncated = False
        self.ends_early = False
        self.read_to = 0
        self._position = -1
        self._reached = 0  # bytes of the file up to the end of the last packet of any track
        self.cover = b""
        self.cover_bytes = 0
        self._cover_rank: float = math.inf
        self._has_tags = container.format.name == "mp3"
        for rank, picture in pictures.attachments(container):
            self._offer_cover(rank, picture)
        self.rate = stream.codec_context.sample_rate
        self.channels = stream.codec_context.channels
        stream.codec_context.thread_count = 1
        self._probes_left = _MAX_PROBED
        self._first: float | None = None  # from here on, times are seconds on the track's clock
        # Other decoders need hidden packets to begin with, and ffmpeg drops what they decode to. Between edits a track
        # of its own cannot hide them.
        self._shown = False
        self._forgets = stream.codec_context.name.startswith("pcm_")
        self._states_lengths = stream.codec_context.name in ("opus", "libopus")
        self._hidden = 0
        self._current = stream.index  # the track that packets are taken from
        self._first_kind = ("", 0)
        self._ticks = 0  # length of the last packet that had one
        self._parallel: set[int] = set()  # tracks that exist beside the current one
        self._successors: dict[int, _Successor] = {}
        self._shortest = math.inf
        self._bytes_per_tick = 0.0
        self._page: int | None = None  # position of the first packet, until another has a different one
        self._last_start = 0.0
        self._end = 0.0
        self._summed = 0.0  # of all packets' lengths
        self._lengths_known = True
        self._shift = 0.0  # added to times since the clock restarted
        self._gaps = GapList()
        self._gap_count = 0
        self._gap_seconds = 0.0  # kept, since adding up 1,000 gaps for each packet takes longer than reading it
        self._stalled_seconds = 0.0  # of packets whose time is not after the one before
        self._others_reach = 0.0
        self._pictures_reach = 0.0
        self._clock_is_wrong = False
        # A float, since computing with a packet's own fraction costs more than reading the packet.
        self._base = float(stream.time_base or 0)
        self._pauses = [(start - 2 * self._base, end - 2 * self._base) for start, end in pauses]  # libav rounds them

    @property
    def duration(self) -> float:
        """Seconds of audio: the sum of the packets' lengths where these are exact, otherwise their span."""
        span = self._span()
        return self._summed if self._is_exact() or not span else span

    @property
    def gaps(self) -> list[Gap]:
        """The gaps between packets, on a clock that starts with the first one."""
        return self._gaps.gaps

    @property
    def pauses(self) -> float:
        """Seconds of pauses too short for gaps; 0 where rounded times or unknown lengths look like some."""
        known = self._is_exact() and self._lengths_known and self.clock_holds
        return max(self._span() - self._summed, 0.0) if known else 0.0

    def _is_exact(self) -> bool:
        return self.stream.time_base is not None and self.stream.time_base <= Fraction(1, 8000)

    def _span(self) -> float:
        """Returns the seconds from the first packet to the end of the last one, without gaps."""
        return max(self._end - (self._first or 0.0) - total(self.gaps), 0.0)

    @property
    def edited(self) -> bool:
        """Whether an edit list says to the sample what is played; elsewhere the length may be an estimate."""
        return self.skipped > 0 and self._container.format.name.startswith("mov,")

    @property
    def start(self) -> float:
        """Seconds on the file's clock at which the first sample is played."""
        return (self._first or 0.0) + self.skipped / (self.stream.sample_rate or self.rate or 1)

    @property
    def end(self) -> float:
        """Seconds on the file's clock at which the track's last packet ends."""
        return self._end

    @property
    def reach(self) -> float:
        """Seconds on the file's clock at which its last data ends, that of other tracks included."""
        return max(self._end, self._others_reach)

    @property
    def clock_holds(self) -> bool:
        """Whether the track's clock neither restarts nor is wrong, so that it can be compared with other tracks'."""
        return not self._shift and not self._clock_is_wrong

    @property
    def pictures_reach(self) -> float:
        """Seconds on the file's clock at which other tracks with sound or pictures end, as far as they were read."""
        return self._pictures_reach

    def __iter__(self) -> Iterator["av.packet.Packet[Any]"]:
        """Yields the track's packets in the file's order; skips and counts unreadable places."""
        import av.error

        failed = 0  # reads since the last packet
        packets = self._demux()
        while failed < MAX_FAILED_READS:
            try:
                packet = next(packets)
            except (StopIteration, EOFError):
                break
            except av.error.FFmpegError:
                failed += 1
                packets = self._demux()
                continue
            if not packet.size:
                continue
            self.errors += failed
            failed = 0
            self._reached = max(self._reached, (packet.pos or 0) + packet.size)
            if packet.stream_index == self._current:
                own = self._own(packet)
                if own is None:
                    continue
                yield own
                if self._last_start > self._until:
                    return
                continue
            self._note_other(packet)
            if self._may_succeed(packet):
                yield from self._wait_for_takeover(packet)
        # Some demuxers (GXF, Westwood) report an error at the end of a complete file.
        self.errors += failed if self._reached < self._container.size - _TRAILER else 0
        self.errors -= self.ends_early
        for successor in list(self._successors.values())[:1]:
            yield from self._take_over(successor)
        self._judge_gaps()

    def _own(self, packet: "av.packet.Packet[Any]") -> "av.packet.Packet[Any] | None":
        """Counts a packet of the track; returns it without tags, or None if it is a tag or hidden."""
        if packet.is_discard and (self._forgets or self._shown):
            self._hide(packet)
            return None
        self._shown = not packet.is_discard
        if self._pauses and self._is_paused(packet):
            return None
        self._forget_parallel()
        whole = self._without_tags(packet) if self._has_tags else packet
        if whole is not None:
            self._count(whole)
        return whole

    def _is_paused(self, packet: "av.packet.Packet[Any]") -> bool:
        time = (packet.pts or 0) * self._base
        return any(start <= time < end for start, end in self._pauses)

    def _demux(self) -> Iterator["av.packet.Packet[Any]"]:
        if self.stream.duration and self._container.format.name not in (*BROADCASTS, "gxf"):
            covers = [stream for stream in self._container.streams.video if is_picture(stream)]
            return read_packets(self._container, self.stream, *covers)
        # All streams: how far the others reach shows whether the end is missing, and in a broadcast, whose declared
        # lengths are estimates, another track may take over. GXF is read to its end, which is reported as an error.
        return read_packets(self._container)

    def _may_succeed(self, packet: "av.packet.Packet[Any]") -> bool:
        """Returns whether the packet's track may be the continuation of the current one."""
        stream = packet.stream
        return (
            self._container.format.name in BROADCASTS
            and self.packets > 0
            and stream.type == "audio"
            and packet.stream_index not in self._parallel
            and (packet.pts is not None or packet.stream_index in self._successors)
            and (self.stream.language or stream.language) == (stream.language or self.stream.language)
            and getattr(stream, "codec_context", None) is not None
            and self._kind(stream.codec_context.name, packet) == self._first_kind
        )

    @staticmethod
    def _kind(codec: str, packet: "av.packet.Packet[Any]") -> tuple[str, int]:
        # ISO/IEC 11172-3, 2.4.2.3: the layer is in bits 13 and 14.
        return ("mpeg", bytes(packet)[1] >> 1 & 3) if codec in _MPEG_AUDIO and packet.size > 1 else (codec, 0)

    def _wait_for_takeover(self, packet: "av.packet.Packet[Any]") -> Iterator["av.packet.Packet[Any]"]:
        """Keeps a packet of another track until it is known whether that takes over; yields all if it does."""
        successor = self._successors.setdefault(packet.stream_index, _Successor())
        successor.packets.append(packet)
        seconds = ((packet.pts or 0) - (successor.packets[0].pts or 0)) * float(packet.time_base or 0)
        if seconds >= _TAKEOVER or len(successor.packets) >= _MAX_WAITING:
            yield from self._take_over(successor)

    def _take_over(self, successor: "_Successor") -> Iterator["av.packet.Packet[Any]"]:
        self._successors = {}
        self._current = successor.packets[0].stream_index
        for packet in successor.packets:
            self._count(packet)
            yield packet

    def _forget_parallel(self) -> None:
        """Notes that the current track goes on beside those that might have succeeded it."""
        for index, successor in list(self._successors.items()):
            successor.rivals += 1
            if successor.rivals >= _PARALLEL:
                self._parallel.add(index)
                del self._successors[index]

    def _without_tags(self, packet: "av.packet.Packet[Any]") -> "av.packet.Packet[Any] | None":
        """Returns a packet of MP3s that were laid end to end without the tags between them; None if it is a tag."""
        import av

        data = bytes(packet)
        start = tags_size(data)
        frame = data[start:]
        if not frame or ((self.packets or start) and is_tag(frame)):
            return None
        if not start:
            return packet
        rest: av.packet.Packet[Any] = av.Packet(frame)
        rest.pts = packet.pts
        rest.dts = packet.dts
        rest.duration = packet.duration
        rest.time_base = packet.time_base
        rest.is_keyframe = packet.is_keyframe
        rest.stream = self.stream
        return rest

    def _judge_gaps(self) -> None:
        """Takes back the gaps where the clock was at fault."""
        # A wrong clock, as for E-AC-3 and DTS in AVI; but Opus is silent between most packets of somebody who listens.
        if 2 * self._gap_count > self.packets and not self._states_lengths:
            self.gaps.clear()
            self._clock_is_wrong = True
            self._end = (self._first or 0.0) + self._summed
        elif total(self.gaps) <= self._stalled_seconds + MIN_GAP:  # a clock that stalls, as for FLAC in ASF
            self.gaps.clear()

    def _note_other(self, packet: "av.packet.Packet[Any]") -> None:
        """Notes what a packet of another track reveals: the cover, or how far the file reaches."""
        if is_picture(packet.stream):
            self._offer_cover(pictures.rank(packet.stream.metadata), bytes(packet))
        elif packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * float(packet.time_base or 0)
            self._others_reach = max(self._others_reach, end)
            if packet.stream.type in ("audio", "video"):
                self._pictures_reach = max(self._pictures_reach, end)

    def _offer_cover(self, rank: int, picture: bytes) -> None:
        self.cover_bytes += len(picture)
        if rank < self._cover_rank:
            self.cover = picture
            self._cover_rank = rank

    def _count(self, packet: "av.packet.Packet[Any]") -> None:
        self.packets += 1
        self._count_bytes(packet.pos, packet.size)
        self.errors += packet.is_corrupt
        self.ends_early = packet.is_corrupt
        self._lengths_known &= bool(packet.duration)
        # libav gives no lengths to packets of tracks that it did not see when it opened the file.
        self._ticks = packet.duration or self._ticks
        if self._current != self.stream.index:
            packet.duration = self._ticks
        length = self._sounding(packet)
        self._summed += length
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None:
            self._count_time(time * self._base, length, packet.pos)
        before = self.discarded
        self.discarded = 0  # only the last packet's counts, and those before that a padding longer than a frame covers
        for side in packet.iter_sidedata():
            if side.data_type == "skip_samples":
                # AV_PKT_DATA_SKIP_SAMPLES (libavcodec/packet.h): from the start, from the end, 32 bits little-endian.
                skipped, self.discarded = struct.unpack_from("<II", bytes(side))
                self.skipped += skipped if self.packets == 1 else 0
                if self.discarded >= self.samples(packet):
                    self.discarded += before
        if self.packets == 1:
            self._first_kind = self._kind(self.stream.codec_context.name, packet)
            if self._forgets and self._container.format.name.startswith("mov,"):
                self._bytes_per_tick = packet.size / (packet.duration or math.inf)
            self.skipped = max(self.skipped - self._hidden, 0)
        if self._probes_left:
            self._probe(packet)

    def _count_bytes(self, position: int | None, size: int) -> None:
        """Notes how far the file was read. All packets of a page, a block or a PES packet have the position of that."""
        if position is not None and position != self._position:
            self._position = position
            self.read_to = max(self.read_to, position)
        self.read_to += size

    def _sounding(self, packet: "av.packet.Packet[Any]") -> float:
        """Returns the seconds of a packet's sound: in mov and mp4 the packet before a gap lasts until its end."""
        length = (packet.duration or 0) * self._base
        if not self._container.format.name.startswith("mov,"):
            return length
        if self._states_lengths:
            stated = opus_samples(bytes(packet)[:2]) / OPUS_RATE
            return min(stated or length, length)
        if length > self._shortest + MIN_GAP:
            return self._shortest
        self._shortest = min(length or math.inf, self._shortest)
        return length

    def _hide(self, packet: "av.packet.Packet[Any]") -> None:
        """Leaves out a packet that an edit list hides; the first tells how many samples are skipped, these included."""
        if not self.packets:
            self.skipped += sum(
                struct.unpack_from("<I", bytes(side))[0]
                for side in packet.iter_sidedata()
                if side.data_type == "skip_samples"
            )
            self._hidden += round((packet.duration or 0) * self._base * self.rate)

    def _count_time(self, start: float, length: float, position: int | None) -> None:
        if self._first is None:
            self._first = start
            self._end = start
            self._page = position
        start += self._shift
        if self._page is not None and position != self._page:
            self._count_page(start)
        if start < self._end - MIN_GAP:  # the clock restarts
            self._shift += self._end - start
            start = self._end
        elif start > self._end + MIN_GAP:
            self._gap_count += 1
            self._gaps.add(Gap(self._end - self._first - self._gap_seconds, start - self._end))
            self._gap_seconds += start - self._end
        elif start <= self._last_start and self.packets > 1:
            self._stalled_seconds += length
        self._last_start = start
        self._end = max(self._end, start + length)

    def _count_page(self, start: float) -> None:
        # libav puts the first page of FLAC in Ogg at 0; only the second shows where the clock starts.
        if self._container.format.name == "ogg" and start > self._end + MIN_GAP:
            self._first = (self._first or 0.0) + start - self._end
            self._end = start
        self._page = None

    def pcm_size(self, length: int) -> int:
        """Returns the bytes of a packet of PCM in a mov, from its length in the time base; 0 of any other packet."""
        return round(length * self._bytes_per_tick)

    def samples(self, packet: "av.packet.Packet[Any]") -> int:
        """Returns the number of samples of a packet."""
        return round((packet.duration or 0) * self._base * (self.stream.sample_rate or self.rate))

    def rest(self, last: "av.packet.Packet[Any]") -> int | None:
        """Returns how much of one of the last packets is before the end that the container declares.

        Returns:
            A length in the packet's time base, 0 for nothing of it; None for the complete packet.
        """
        source = self.stream
        if (
            self._current != source.index
            or not source.duration
            or last.pts is None
            or last.time_base != source.time_base
        ):
            return None
        start = source.start_time or 0
        rest = start + source.duration - last.pts
        if start >= (last.duration or 0) and 0 < rest - start < (last.duration or 0):
            rest -= start  # a length that includes the pause before a late sound
        if rest <= 0 and self.discarded and self._container.format.name == "mp3":
            return 0
        return rest if 0 < rest < (last.duration or 0) else None

    def _probe(self, packet: "av.packet.Packet[Any]") -> None:
        # A header may say 24 kHz and mono where the audio is 48 kHz and stereo (AAC with SBR and PS): a decoder knows.
        import av.error

        self._probes_left -= 1
        with contextlib.suppress(av.error.FFmpegError):
            for frame in self.stream.codec_context.decode(packet):
                self.rate = frame.sample_rate
                self.channels = frame.layout.nb_channels
                self._probes_left = 0


def read_packets(
    container: "av.container.InputContainer", *streams: "av.stream.Stream"
) -> Iterator["av.packet.Packet[Any]"]:
    """Yields the packets of these streams, or of all that were there when the file was opened."""
    # Damage may look like the start of a new stream, and recordings of broadcasts have real ones. PyAV does not list
    # them, and may raise this at the end of the file when it asks for their last packets.
    with contextlib.suppress(IndexError):
        yield from container.demux(*streams)


def is_default(stream: "av.stream.Stream") -> bool:
    """Returns whether the file marks a stream as its default."""
    return bool(stream.disposition & stream.disposition.default)


class _Successor:
    """A track that takes over if the current one has ended."""

    def __init__(self) -> None:
        self.packets: list[av.packet.Packet[Any]] = []
        self.rivals = 0  # packets of the current track since the first of these


class NotCopyable(Exception):
    """The MP3 packets are not complete frames of one kind: they do not make an MP3 file when concatenated."""


def copy_frames(demuxer: Demuxer, target: IO[bytes]) -> None:
    """Concatenates MP3 packets unchanged, except for a frame that the end of the file truncates.

    Raises:
        NotCopyable: that would not make an MP3 file.
    """
    kind = None
    last = None
    for packet in demuxer:
        last = packet
        data = bytes(packet)
        frame = parse_header(data)
        if demuxer.truncated or frame is None or frame.size < len(data) or (kind or frame.kind) != frame.kind:
            raise NotCopyable
        if demuxer.skipped > MAX_SKIPPED or 0 < demuxer.skipped < DECODER_DELAY:
            raise NotCopyable  # an edit list removes more or less than a tag can express
        kind = frame.kind
        if frame.size > len(data):
            demuxer.truncated = True  # allowed if it is the last packet
            continue
        if not (demuxer.packets == 1 and is_tag(data)):
            target.write(data)
    if demuxer.stream.time_base and last is not None and not demuxer.discarded and demuxer.edited:
        rest = demuxer.rest(last)
        if rest is not None:
            beyond = ((last.duration or 0) - rest) * demuxer.stream.time_base * demuxer.stream.sample_rate
            demuxer.discarded = round(beyond)
