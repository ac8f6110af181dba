"""Finds where an MP3 is silent, with ffmpeg on this machine: the server never decodes an MP3 again."""

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from client.errors import CONVERTER, ClientError

#: What silencedetect writes of each silence.
_SILENCE: Final = re.compile(rb"lavfi\.silence_(start|end)=([0-9.]+)")
#: Seconds: silence that begins earlier is the beginning, and no part ends there.
_BEGINNING: Final = 0.1


def cuts(mp3: Path, seconds: float, decibels: float) -> list[float]:
    """Returns the middle of each silence between two sounds, in seconds.

    Args:
        mp3: the file.
        seconds: how long a silence lasts at least.
        decibels: relative to full scale; what stays below is silent.

    Raises:
        ClientError: there is no ffmpeg, or it cannot decode the file.
    """
    detect = f"silencedetect=noise={decibels}dB:duration={seconds},ametadata=mode=print:file=-"
    only_mp3 = ["-protocol_whitelist", "file", "-f", "mp3"]  # the server chose the bytes: a playlist would open others
    command = [_ffmpeg(), "-nostdin", "-loglevel", "error", *only_mp3, "-i", str(mp3.absolute()), "-map", "0:a:0"]
    try:
        done = subprocess.run([*command, "-af", detect, "-f", "null", "-"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ClientError(f"ffmpeg cannot decode the MP3 ({error}): check that it works.") from error
    found = []
    start = 0.0
    for name, value in _SILENCE.findall(done.stdout):
        if name == b"start":
            start = float(value)
        elif start > _BEGINNING:  # the silence at the end has no end
            found.append((start + float(value)) / 2)
    return found


def _ffmpeg() -> str:
    """Returns the path of the ffmpeg of this machine, or of the one that the converter's package contains."""
    path = shutil.which("ffmpeg")
    if path is None and find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg  # type: ignore[import-untyped]  # it has no types

        path = str(imageio_ffmpeg.get_ffmpeg_exe())
    if path is None:
        raise ClientError(f"This needs ffmpeg: install it, or pip install '{CONVERTER}'.")
    return path
