"""Opens files by libav, as PyAV gives it, and says how libav calls what is in them."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from functions.convert.demux.child.demuxer import is_default
from functions.convert.demux.protocol import BUFFER, MAX_PIXELS

if TYPE_CHECKING:
    import av.audio.stream
    import av.container

#: Pixels of a frame that libav may decode while it opens a file. A PNG of 12,000 x 12,000 pixels has 0.4 MB and takes
#: 430 MB decoded. Frames of 4K are decoded, since libav reads the first 5 MB of a video that it cannot decode.
_MAX_PROBED = 4096 * 2304
#: The same where the video is wanted: libav forgets the size of larger frames, which the message is about.
MAX_PROBED_VIDEO = 2 * MAX_PIXELS
AV_TIME_BASE = 1_000_000  # libavutil/avutil.h


def open_file(
    source: io.RawIOBase, max_pixels: int = _MAX_PROBED, buffer: int = BUFFER
) -> "av.container.InputContainer":
    """Opens a file, by its bytes alone.

    Args:
        source: the file.
        max_pixels: of a frame that libav may decode while it opens the file.
        buffer: bytes that it reads at a time.

    Raises:
        av.error.FFmpegError: libav does not know the format.
    """
    import av
    from av.container import InputContainer

    options = {"protocol_whitelist": "none", "max_pixels": str(max_pixels)}
    # Bytes that are not UTF-8 reach the parent as lone surrogates. It finds their code page (``functions.code_pages``):
    # the detector reads its models from files, which the sandbox forbids.
    container = av.open(source, options=options, buffer_size=buffer, metadata_errors="surrogateescape")
    if not isinstance(container, InputContainer):
        raise TypeError(container)
    return container


def codec_name(stream: "av.audio.stream.AudioStream") -> str:
    """Returns the name of a track's codec; libav has two decoders of MP3."""
    return {"mp3float": "mp3"}.get(stream.codec_context.name, stream.codec_context.name)


def by_preference(streams: "Sequence[av.audio.stream.AudioStream]") -> list[int]:
    """Returns the numbers of the audio tracks, those first that the file marks as its default."""
    return sorted(range(len(streams)), key=lambda number: not is_default(streams[number]))
