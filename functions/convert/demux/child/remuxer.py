"""Writes an audio track to a container of its own, in which it decodes to the same samples as in the source."""

import errno
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any, Final

from functions.convert.demux.child.demuxer import Demuxer
from functions.convert.demux.protocol import BUFFER

if TYPE_CHECKING:
    import av.audio.stream
    import av.container
    import av.packet

#: Matroska has no tag for these that PyAV would write. In nut nothing is lost that their decoders need, unlike for WMA.
_FOR_NUT: Final = frozenset({"adpcm_ms", "adpcm_swf", "adpcm_yamaha", "amrnb", "g722", "g723_1"})
#: Bytes of packets that libav's TTA muxer may buffer until the end.
_MAX_BUFFERED = 256 << 20
#: Packets at the end of a track that may be shortened or left out: LAME's tag states a padding of up to 4,095 samples,
#: and a frame has at least 576.
_HELD: Final = 8


class _Clock:
    """Gives packets strictly increasing times, as containers require.

    Joined recordings restart their clock in the middle, and a damaged packet may have a damaged time. The audio is
    played gapless in any case.
    """

    def __init__(self, shift: int = 0) -> None:
        self._shift = shift
        self._due = 0
        self._last: int | None = None

    def set(self, packet: "av.packet.Packet[Any]") -> None:
        """Moves a packet after the previous one, and all later ones with it; gives it a time if it has none."""
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None:
            time = self._due - self._shift
            packet.dts = time
            packet.pts = time
        if self._last is not None and time + self._shift <= self._last:
            self._shift = max(self._due, self._last + 1) - time
        if self._shift:
            packet.dts = None if packet.dts is None else packet.dts + self._shift
            packet.pts = None if packet.pts is None else packet.pts + self._shift
        self._last = time + self._shift
        self._due = self._last + (packet.duration or 0)


class NoContainer(Exception):
    """No container takes the codec."""


def formats(container: "av.container.InputContainer", demuxer: Demuxer, fragmented: bool) -> tuple[str, ...]:
    """Returns the containers in which a track decodes to the same samples, best first."""
    # Some codecs have to stay in the container they come from: on DVDs, in old Flash and QuickTime files, in
    # broadcasts. Mpegts also takes codecs that it has no name for, and then cannot identify them when it is read.
    own = [name for name in ("aiff", "au", "mpegts") if name == container.format.name]
    rest = "asf", "nut", "vob", "flv", "caf", *own
    stream = demuxer.stream
    is_mov = container.format.name.startswith("mov,")
    has_delay = demuxer.skipped > 0
    if has_delay and stream.codec_context.name.startswith("wmav") and container.format.name != "asf":
        return ()  # asf, the only one for them, has no delay, and its decoder skips 4,096 samples
    # The last packet of a fragmented file is played completely, which is the default in matroska. But matroska does not
    # take over samples to skip at the start, such as the encoder's delay in an edit list or in LAME's tag.
    if (is_mov and (not fragmented or has_delay)) or (container.format.name == "mp3" and has_delay):
        return "mov", "mp4", "matroska", *rest
    if stream.codec_context.name == "aac" and not stream.codec_context.extradata:
        # Each frame has its own header, which matroska would remove: rates may change midway.
        return "nut", "adts"
    if container.format.name == "ogg" and stream.codec_context.name == "opus":
        return "nut", "matroska", *rest  # matroska stores samples to skip for the first link of a chain only
    if container.format.name == "tta" and container.size <= _MAX_BUFFERED:
        return "tta", "matroska", *rest  # its decoder needs the number of samples, which matroska rounds
    # Unlike asf, these store how much of the first or the last packet to skip.
    if container.format.name == "caf":
        return "matroska", "caf", *rest
    if container.format.name.startswith(("matroska,", "nut")) and stream.codec_context.name in _FOR_NUT:
        return "nut", *rest
    return "matroska", *rest


def _options(name: str, rate: int) -> dict[str, str]:
    if name == "mpegts":
        return {"mpegts_m2ts_mode": "1"}  # the only mode that takes Blu-ray's PCM
    if name == "nut":
        return {"syncpoints": "none", "strict": "experimental"}  # stores the samples to skip of every packet
    # The edit list stores the length of the track, by default in milliseconds.
    return {"movie_timescale": str(rate)} if name in ("mov", "mp4") else {}


def remux(demuxer: Demuxer, formats: Callable[[], Sequence[str]], target: IO[bytes], fragmented: bool) -> str:
    """Writes the track to a container of its own, packets and timestamps unchanged.

    Args:
        demuxer: the track.
        formats: called once the first packet is known; returns the containers to try, best first.
        target: the new file.
        fragmented: whether the source is a fragmented mp4, whose last packet is played completely, whatever length it
            declares.

    Returns:
        The container's name.

    Raises:
        NoContainer: no container takes the codec.
    """
    packets = iter(demuxer)
    first = next(packets, None)
    for name in formats():
        opened = _open_output(name, demuxer, target)
        if opened is None:
            continue
        output, stream = opened
        clock = _Clock(_early(first, demuxer) if name == "mov" else 0)
        write = functools.partial(_write, output, stream, clock, demuxer)
        held = deque([] if first is None else [first])
        length = 0
        for packet in packets:
            if len(held) == _HELD:
                write(held.popleft())
            length = held[-1].duration or 0
            held.append(packet)
        if fragmented and held:
            held[-1].duration = max(held[-1].duration or 0, length)
        for packet in held if fragmented else _shortened(held, demuxer):
            write(packet)
        output.close()
        return name
    raise NoContainer(demuxer.stream.codec_context.name)


def _open_output(
    name: str, demuxer: Demuxer, target: IO[bytes]
) -> "tuple[av.container.OutputContainer, av.audio.stream.AudioStream] | None":
    """Opens a container for the track; None if it does not take the codec."""
    import av
    import av.error

    target.seek(0)
    target.truncate()
    options = _options(name, demuxer.stream.sample_rate)
    output = av.open(target, "w", format=name, options=options, buffer_size=BUFFER)
    try:
        stream = output.add_stream_from_template(demuxer.stream)
        output.start_encoding()
    except (ValueError, av.error.FFmpegError):
        return None
    return output, stream


def _shortened(last: Sequence["av.packet.Packet[Any]"], demuxer: Demuxer) -> Iterator["av.packet.Packet[Any]"]:
    """Yields the last packets of a track, up to the end that the container declares."""
    padding = demuxer.discarded
    kept = len(last)
    ending: list[av.packet.Packet[Any]] = []
    for packet in reversed(last):
        # Where libav parses packets itself (AC-3 in mp4), their lengths hide that the last is to be truncated.
        rest = demuxer.rest(packet) if padding > 0 or packet is last[-1] else None
        padding -= demuxer.samples(packet)
        # LAME's padding may exceed a frame. Of two packets both are kept: libav cannot read a single one in mov.
        if rest is not None and rest <= 0:
            if kept > 2:
                kept -= 1
                continue
        elif rest is not None:
            packet.duration = rest
        ending.append(packet)
    yield from reversed(ending)


def _write(
    output: "av.container.OutputContainer",
    stream: "av.audio.stream.AudioStream",
    clock: _Clock,
    demuxer: Demuxer,
    packet: "av.packet.Packet[Any]",
) -> None:
    import av.error

    packet = _without_hidden_samples(packet, demuxer)
    packet.stream = stream
    clock.set(packet)
    try:
        output.mux_one(packet)
    except av.error.FFmpegError as error:
        if error.errno == errno.ENOSPC or demuxer.packets <= 2:  # the container takes no packet of this track
            raise
        demuxer.errors += 1  # the packet's content is damaged; mov inspects the lengths in AMR, for example


def _without_hidden_samples(packet: "av.packet.Packet[Any]", demuxer: Demuxer) -> "av.packet.Packet[Any]":
    """Returns a packet of PCM without the samples past its length, where an edit list ends within it."""
    import av

    size = demuxer.pcm_size(packet.duration or 0)
    if not size or packet.size <= size:
        return packet
    shortened = av.Packet(bytes(packet)[:size])
    shortened.pts = packet.pts
    shortened.dts = packet.dts
    shortened.duration = packet.duration
    if packet.time_base is not None:
        shortened.time_base = packet.time_base
    return shortened


def _early(first: "av.packet.Packet[Any] | None", demuxer: Demuxer) -> int:
    # Samples to skip come before time 0 in an edit list; libav's MP3 demuxer puts them at 0, and its mov demuxer after
    # the pause before a late sound.
    if first is None or first.pts is None or first.pts < 0 or first.time_base is None:
        return 0
    return -round(Fraction(demuxer.skipped, demuxer.stream.sample_rate) / first.time_base) - first.pts
