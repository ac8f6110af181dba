"""Describes a file that libav in the demux child does not know, by the ffmpeg that encodes, which may know more."""

import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from functions.convert.demux.protocol import ORIGINAL
from functions.convert.demux.track import TrackInfo
from functions.convert.ffmpeg import args, encoder
from functions.convert.ffmpeg.encoder import EncoderRun
from functions.convert.ffmpeg.single import run_to_end
from functions.convert.plan import FrameRange

#: CPU seconds to recognize a file and decode its first frame.
_CPU_SECONDS: Final = 60
#: Bytes of the file with the first frame.
_FRAME_BYTES: Final = 16 << 20
#: The beginning of a WAV file as ffmpeg writes it: RIFF and its length, WAVE, fmt, its length and type, channels,
#: samples per second.
_WAVE: Final = struct.Struct("<4s4x8s6xHI")


def identify(ffmpeg: str, path: Path, number: int, on_progress: Callable[[], None]) -> TrackInfo | None:
    """Describes an audio track of a file; None if ffmpeg cannot decode it.

    Args:
        ffmpeg: path of the program.
        path: the complete source.
        number: which audio track, from 0.
        on_progress: called twice a second. An exception that it raises stops the work.

    Returns:
        The track, whose length is still unknown.

    Raises:
        EncoderKilled: ffmpeg died by SIGKILL, or hangs.
        TemporaryStorageFull: there is no space for a frame.
        OutOfResources: as ``spawn.spawn``.
    """
    wave = path.with_name("first-frame")
    limits = {"AS": encoder.ADDRESS_SPACE, "CPU": _CPU_SECONDS, "NOFILE": 64, "FSIZE": _FRAME_BYTES}
    run = EncoderRun(FrameRange(0, None), wave, staged=True)
    with path.open("rb") as source, wave.open("wb") as out:
        run_to_end(
            run,
            [
                *args.decode(ffmpeg, ORIGINAL, source.fileno(), number),
                *("-frames:a", "1", "-c:a", "pcm_s16le", "-bitexact", "-f", "wav", "-fd", str(out.fileno()), "fd:"),
            ],
            limits,
            pass_fds=(source.fileno(), out.fileno()),
            on_progress=on_progress,
        )
    if run.full or run.status == -signal.SIGKILL:  # says nothing about the file
        run.check_status()
    with wave.open("rb") as file:
        head = file.read(_WAVE.size)
    if run.status or len(head) < _WAVE.size:
        return None
    riff, form, channels, rate = _WAVE.unpack(head)
    if (riff, form) != (b"RIFF", b"WAVEfmt ") or not channels or not rate:
        return None
    return TrackInfo(
        path=path,
        container=ORIGINAL,
        codec="",
        rate=rate,
        channels=channels,
        duration=0.0,
        missing=0.0,
        packets=0,
        errors=0,
        skipped=0,
        discarded=0,
        tags={},
        chapters=(),
        cover=b"",
        number=number,
    )
