"""Takes the seconds around one moment of a video, pictures alone, into a small file. Runs in the reader."""

from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from functions.convert.demux.child.demuxer import BUFFER, is_picture

if TYPE_CHECKING:
    import av.container
    import av.video.stream

#: Bytes of pictures; where a key frame is farther away, the last frame that fits has to do.
MOST_BYTES = 32 << 20
#: Where a good frame is looked for, by the length of the video, and seconds from there on.
SOME_WAY_IN, WINDOW = 0.1, 4.0
#: Seconds after the moment: frames come in another order than they are shown.
_AFTER = 1.0
_TIME_BASE = 1_000_000  # libavutil/avutil.h, AV_TIME_BASE


@dataclass(frozen=True, slots=True)
class Moment:
    """A file of the pictures that a cover is made of.

    Attributes:
        path: where it is.
        times: seconds of it; the frame that shows most is the one.
        pixel: how much wider than high a pixel is.
        fault: a sentence, where there is no picture.
    """

    path: Path
    times: tuple[float, ...]
    pixel: float
    fault: str | None


def take(container: "av.container.InputContainer", target: IO[bytes], second: float | None) -> dict[str, Any]:
    """Take the pictures around a second, or around one some way in.

    Returns:
        For the parent: where in the new file the moment is and how far the file reaches, in seconds, and how much wider
        than high a pixel is; with a ``fault`` where there is no picture.
    """
    videos = [one for one in container.streams.video if not is_picture(one)]
    if not videos or getattr(videos[0], "codec_context", None) is None:
        return {"fault": "no picture"}
    stream = videos[0]
    begin, length = (container.start_time or 0) / _TIME_BASE, (container.duration or 0) / _TIME_BASE
    wanted = length * SOME_WAY_IN if second is None else second
    base = float(stream.time_base or 0)
    if wanted and base:
        container.seek(round((begin + wanted) / base), stream=stream)
    until = begin + wanted + (WINDOW if second is None else _AFTER)
    first, reach, ended = _copy(container, stream, target, until)
    if first is None:
        return {"fault": "beyond" if second is not None and second > length > 0 else "no picture"}
    if ended and second is not None and reach < begin + second - _AFTER:
        return {"fault": "beyond"}
    pixel = stream.sample_aspect_ratio
    offset = max(min(begin + wanted, reach) - first, 0.0)
    return {"offset": offset, "reach": reach - first, "pixel": float(pixel) if pixel else 1.0}


def _copy(
    container: "av.container.InputContainer", stream: "av.video.stream.VideoStream", target: IO[bytes], until: float
) -> tuple[float | None, float, bool]:
    """The clock's time of the first frame and of the last one's end, and whether that is the video's end."""
    import av
    import av.error

    base, size, shift = float(stream.time_base or 0), 0, 0
    first, reach, ended = None, 0.0, True
    names = ("mov", "matroska", "nut") if container.format.name.startswith("mov,") else ("matroska", "mov", "nut")
    output, copied = None, None
    for name in names:
        target.seek(0)
        target.truncate()
        output = av.open(target, "w", format=name, buffer_size=BUFFER)
        try:
            copied = output.add_stream_from_template(stream)
            output.start_encoding()
            break
        except (ValueError, av.error.FFmpegError):
            copied = None
    if output is None or copied is None:
        return None, 0.0, True
    for packet in container.demux(stream):
        time = packet.pts if packet.pts is not None else packet.dts
        if not packet.size or time is None or (first is None and not packet.is_keyframe):
            continue
        if first is None:
            first, shift = time * base, time
        size += packet.size
        decoded = packet.dts if packet.dts is not None else time
        if size > MOST_BYTES or decoded * base > until:
            ended = False
            break
        reach = max(reach, (time + (packet.duration or 0)) * base)
        packet.pts = time - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = copied
        output.mux_one(packet)
    output.close()
    return first, reach, ended
