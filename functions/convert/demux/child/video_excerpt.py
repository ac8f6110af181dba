"""Copies the video packets around one position into a small file, from which a cover is made."""

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from functions.convert.demux.child.demuxer import read_packets
from functions.convert.demux.child.libav import AV_TIME_BASE
from functions.convert.demux.child.pictures import is_picture
from functions.convert.demux.protocol import BUFFER, EXCERPT_WINDOW, MAX_PIXELS, ExcerptReport, Fault, FaultReport

if TYPE_CHECKING:
    import av.container
    import av.video.stream

#: Bytes of packets. Where the key frame is farther away than that, the last frame that fits is used.
MAX_BYTES = 32 << 20
#: Where a frame is looked for if the user named no position, as a fraction of the video's length.
DEFAULT_POSITION = 0.1
#: Seconds after the position: frames are stored in another order than they are shown.
_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class _Copied:
    """What was copied, in seconds on the video's clock.

    Attributes:
        start: time of the first frame; None if nothing was copied.
        end: end of the last frame.
        at_end: whether the video itself ends there.
    """

    start: float | None
    end: float
    at_end: bool


def extract(
    container: "av.container.InputContainer", target: IO[bytes], second: float | None
) -> ExcerptReport | FaultReport:
    """Copies the video around a position.

    Args:
        container: the open source.
        target: the new file.
        second: the position in seconds; None for some way into the video.
    """
    videos = [stream for stream in container.streams.video if not is_picture(stream)]
    # PyAV creates no context without a decoder, whatever its types say.
    if not videos or getattr(videos[0], "codec_context", None) is None:
        return FaultReport(Fault.NO_PICTURE)
    stream = videos[0]
    # By the header; ffmpeg holds the frames themselves to it (``cover_frame.py``).
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        return FaultReport(Fault.TOO_LARGE)
    start = (container.start_time or 0) / AV_TIME_BASE
    length = (container.duration or 0) / AV_TIME_BASE
    wanted = length * DEFAULT_POSITION if second is None else second
    base = float(stream.time_base or 0)
    if wanted and base:
        container.seek(round((start + wanted) / base), stream=stream)
    until = start + wanted + (EXCERPT_WINDOW if second is None else _AFTER)
    copied = _copy(container, stream, target, until)
    if copied.start is None:
        past_end = second is not None and second > length > 0
        return FaultReport(Fault.PAST_END) if past_end else FaultReport(Fault.BROKEN, "no picture after the position")
    if copied.at_end and second is not None and copied.end < start + second - _AFTER:
        return FaultReport(Fault.PAST_END)
    pixel = stream.sample_aspect_ratio
    return ExcerptReport(
        offset=max(min(start + wanted, copied.end) - copied.start, 0.0),
        reach=copied.end - copied.start,
        pixel=float(pixel) if pixel else 1.0,
    )


def _copy(
    container: "av.container.InputContainer", stream: "av.video.stream.VideoStream", target: IO[bytes], until: float
) -> _Copied:
    opened = _open_output(container, stream, target)
    if opened is None:
        return _Copied(None, 0.0, True)
    output, output_stream = opened
    base = float(stream.time_base or 0)
    size = 0
    shift = 0
    start = None
    end = 0.0
    at_end = True
    for packet in read_packets(container, stream):
        time = packet.pts if packet.pts is not None else packet.dts
        if not packet.size or time is None or (start is None and not packet.is_keyframe):
            continue
        if start is None:
            start = time * base
            shift = time
        size += packet.size
        decoded = packet.dts if packet.dts is not None else time
        if size > MAX_BYTES or decoded * base > until:
            at_end = False
            break
        end = max(end, (time + (packet.duration or 0)) * base)
        packet.pts = time - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = output_stream
        output.mux_one(packet)
    output.close()
    return _Copied(start, end, at_end)


def _open_output(
    container: "av.container.InputContainer", stream: "av.video.stream.VideoStream", target: IO[bytes]
) -> "tuple[av.container.OutputContainer, av.video.stream.VideoStream] | None":
    """Opens the first container that takes the video's codec; None if none does."""
    import av
    import av.error

    is_mov = container.format.name.startswith("mov,")
    for name in ("mov", "matroska", "nut") if is_mov else ("matroska", "mov", "nut"):
        target.seek(0)
        target.truncate()
        output = av.open(target, "w", format=name, buffer_size=BUFFER)
        try:
            output_stream = output.add_stream_from_template(stream)
            output.start_encoding()
        except (ValueError, av.error.FFmpegError):
            continue
        return output, output_stream
    return None
