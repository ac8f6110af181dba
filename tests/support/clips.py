"""Clips that tests make with the ffmpeg that came with the dependencies, and what they ask of an MP3."""

import importlib
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

#: Real files from browsers, phones and broken tools, where they are there.
_MEDIA = Path(os.environ.get("MP3BURST_MEDIA") or ROOT.parent / "shared" / "media")

#: Sound that gives an encoder work: notes that begin and fade, a little noise, another thing in each ear.
MUSIC = (
    "aevalsrc='0.4*sin(2*PI*(220+110*floor(mod(t\\,4)))*t)*exp(-3*mod(t\\,0.5))+0.1*random(0)"
    "|0.3*sin(2*PI*(331+55*floor(mod(t\\,7)))*t)*exp(-2*mod(t\\,0.7))+0.1*random(1)':d={seconds}:s={rate}"
)
NOISE = "anoisesrc=c=pink:a=0.5:d={seconds}:r={rate}:seed=7,aformat=channel_layouts=stereo"
SILENCE = "anullsrc=r={rate}:cl=stereo,atrim=duration={seconds}"
#: From full scale, and beyond, to nothing and back.
STEPS = (
    "aevalsrc='1.4*sin(2*PI*997*t)*gt(mod(t\\,1)\\,0.5)|0.9*sin(2*PI*60*t)*lt(mod(t\\,1.3)\\,0.4)':d={seconds}:s={rate}"
)


def real(name: str) -> Path:
    """A real file; the test skips where there is none, since they are no part of the repository."""
    if not (path := _MEDIA / name).exists():
        pytest.skip(f"there is no {name}: MP3BURST_MEDIA names the folder of real files")
    return path


@cache
def ffmpeg() -> str:
    """The program's path."""
    imageio_ffmpeg: Any = importlib.import_module("imageio_ffmpeg")  # it has no types
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def run(*arguments: object) -> bytes:
    """Run ffmpeg; what it wrote to its standard output."""
    command = [ffmpeg(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def clip(
    path: Path, *arguments: object, sound: str = MUSIC, seconds: float = 12.3, rate: int = 48000, video: bool = False
) -> Path:
    """Make a clip at ``path``; its extension and the arguments say of what kind."""
    picture = ["-f", "lavfi", "-i", f"testsrc=s=96x64:r=25:d={seconds}"] if video else []
    run("-f", "lavfi", "-i", sound.format(seconds=seconds, rate=rate), *picture, *arguments, path)
    return path


#: For an MP3 without what differs from file to file, and without a bit reservoir.
PLAIN = ("-map_metadata", "-1", "-reservoir", "0", "-id3v2_version", "0")


def serial(video: Path, mp3: Path, *quality: object) -> bytes:
    """What one ffmpeg makes of a video with its bit reservoir off, without an ID3 tag."""
    run("-i", video, "-vn", "-sn", "-dn", *quality, *PLAIN, mp3)
    return mp3.read_bytes()


def without_id3(mp3: bytes) -> bytes:
    """The MP3 from its first frame on."""
    if not mp3.startswith(b"ID3"):
        return mp3
    size = 0
    for byte in mp3[6:10]:  # ID3v2.3, 3.1: 7 bits in each byte
        assert byte < 128
        size = size << 7 | byte
    return mp3[10 + size :]


def samples(path: Path, rate: int, channels: int) -> int:
    """How many samples of each channel a file decodes to, without an error."""
    command = [ffmpeg(), "-nostdin", "-v", "error", "-xerror", "-i", str(path), "-vn", "-f", "s16le", "-"]
    done = subprocess.run([*command[:-3], "-ac", str(channels), "-ar", str(rate), *command[-3:]], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return len(done.stdout) // 2 // channels
