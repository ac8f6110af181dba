"""Writes an audio track into a container of its own, which decodes to the samples of the source. Runs in the reader."""

import errno
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any, Final

from functions.convert.demux.child.demuxer import Demuxer
from functions.convert.demux.protocol import BUFFER

if TYPE_CHECKING:
    import av.container
    import av.packet

#: Matroska has no tag for them that PyAV would write; in nut nothing is lost that their decoders need, as it is of WMA.
_FOR_NUT: Final = frozenset({"adpcm_ms", "adpcm_swf", "adpcm_yamaha", "amrnb", "g722", "g723_1"})
#: Bytes of packets that libav's writer of TTA may hold to the end.
_MOST_HELD = 256 << 20


class _Clock:
    """Gives packets times that only go forward, which containers insist on.

    Recordings that were joined begin anew in the middle, and where a packet was damaged its time may be, too. Sound is
    laid end to end in any case.
    """

    def __init__(self, shift: int = 0) -> None:
        self._shift, self._due = shift, 0
        self._last: int | None = None

    def set(self, packet: "av.packet.Packet[Any]") -> None:
        """Move a packet behind the one before it, and all that follow with it; one without a time gets one."""
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None:
            packet.dts = packet.pts = time = self._due - self._shift
        if self._last is not None and time + self._shift <= self._last:
            self._shift = max(self._due, self._last + 1) - time
        if self._shift:
            packet.dts = None if packet.dts is None else packet.dts + self._shift
            packet.pts = None if packet.pts is None else packet.pts + self._shift
        self._last = time + self._shift
        self._due = self._last + (packet.duration or 0)


class NoContainer(Exception):
    """None takes the codec."""


def formats(container: "av.container.InputContainer", demuxer: Demuxer, fragmented: bool) -> tuple[str, ...]:
    """Containers that a track may go into and decode to the same samples; the first that takes its codec is the one."""
    # Some codecs stay where they come from: on DVDs, in old Flash and QuickTime, in broadcasts. What has no name for a
    # codec takes it all the same in mpegts, and does not know it again.
    own = [one for one in ("aiff", "au", "mpegts") if one == container.format.name]
    rest = "asf", "nut", "vob", "flv", "caf", *own
    stream = demuxer.stream
    # The last packet of fragments is heard to its end, which matroska needs not be told. But it does not take over what
    # is not to be heard at the beginning, as the encoder's delay in an edit list or in LAME's tag.
    movie, silent = container.format.name.startswith("mov,"), demuxer.skipped > 0
    if (movie and (not fragmented or silent)) or (container.format.name == "mp3" and silent):
        return "mov", "mp4", "matroska", *rest
    if stream.codec_context.name == "aac" and not stream.codec_context.extradata:
        # Each frame has its own header, which matroska would take off: rates may change midway.
        return "nut", "adts"
    if container.format.name == "ogg" and stream.codec_context.name == "opus":
        return "nut", "matroska", *rest  # matroska tells only of the first link of a chain what is not to be heard
    if container.format.name == "tta" and container.size <= _MOST_HELD:
        return "tta", "matroska", *rest  # its decoder has to know the number of samples, which matroska rounds
    # These tell, as asf cannot, what of the first or the last packet is not to be heard.
    if container.format.name == "caf":
        return "matroska", "caf", *rest
    if container.format.name.startswith(("matroska,", "nut")) and stream.codec_context.name in _FOR_NUT:
        return "nut", *rest
    return "matroska", *rest


def _options(name: str, rate: int) -> dict[str, str]:
    if name == "mpegts":
        return {"mpegts_m2ts_mode": "1"}  # the only one that takes Blu-ray's PCM
    if name == "nut":
        return {"syncpoints": "none", "strict": "experimental"}  # so it tells of any packet what is not to be heard
    # The edit list says how long the track is, by default in milliseconds.
    return {"movie_timescale": str(rate)} if name in ("mov", "mp4") else {}


def remux(demuxer: Demuxer, formats: Callable[[], Sequence[str]], target: IO[bytes], fragmented: bool) -> str:
    """Write the track into a container of its own, packets and time stamps as they are.

    Args:
        demuxer: the track.
        formats: tells, once the first packet is known, the containers to try; the first that takes the codec is used.
        target: where it goes.
        fragmented: whether the last packet is to be heard to its end, however long it says that it is.

    Returns:
        The container's name.

    Raises:
        NoContainer: it is in none of them.
    """
    import av
    import av.error

    packets = iter(demuxer)
    last, length = next(packets, None), 0
    for name in formats():
        target.seek(0)
        target.truncate()
        options = _options(name, demuxer.stream.sample_rate)
        output = av.open(target, "w", format=name, options=options, buffer_size=BUFFER)
        try:
            stream = output.add_stream_from_template(demuxer.stream)
            output.start_encoding()
        except (ValueError, av.error.FFmpegError):
            continue
        clock = _Clock(_early(last, demuxer) if name == "mov" else 0)
        for packet in packets:
            if last is not None:
                last.stream, length = stream, last.duration or 0
                _write(output, last, clock, demuxer)
            last = packet
        if last is not None:
            rest = None if fragmented else demuxer.rest(last)
            if fragmented:
                last.duration = max(last.duration or 0, length)
            elif rest is not None:
                # Where libav parses packets itself (AC-3 in mp4), their lengths hide that the last is meant to be cut.
                last.duration = rest
            if rest != 0:
                last.stream = stream
                _write(output, last, clock, demuxer)
        output.close()
        return name
    raise NoContainer(demuxer.stream.codec_context.name)


def _write(
    output: "av.container.OutputContainer", packet: "av.packet.Packet[Any]", clock: _Clock, demuxer: Demuxer
) -> None:
    import av.error

    clock.set(packet)
    try:
        output.mux_one(packet)
    except av.error.FFmpegError as error:
        if error.errno == errno.ENOSPC or demuxer.packets <= 2:  # it takes none
            raise
        demuxer.errors += 1  # what is in the packet is damaged, as the lengths of AMR that mov looks at


def _early(first: "av.packet.Packet[Any] | None", demuxer: Demuxer) -> int:
    # What is not to be heard at the beginning comes before 0 in an edit list; with libav's reader of MP3 it is at 0.
    if first is None or first.pts != 0 or first.time_base is None:
        return 0
    return -round(Fraction(demuxer.skipped, demuxer.stream.sample_rate) / first.time_base)
