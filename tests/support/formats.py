"""Makes a clip of every format that can be made here: by the bundled ffmpeg's muxers and encoders, or by hand."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.support import clips

#: Seconds of each clip that ffmpeg makes.
SECONDS: Final = 1.0
_MONO: Final = "-ar 8000 -ac 1"
_EXPERIMENTAL: Final = "-strict -2 -ar 48000"
#: ffmpeg's arguments for a clip in each container, by the extension of its name; a muxer follows if it is not the one
#: that ffmpeg chooses for the extension.
_CONTAINERS: Final = {
    "3g2": _MONO,
    "3gp": _MONO,
    "aac": "",
    "ac3": "",
    "adx": "",
    "aif": "",
    "alp": "-ar 22050 -f alp",
    "amr": _MONO,
    "apm": "-f apm",
    "aptx": "",
    "aptxhd": "-f aptx_hd",
    "asf": "",
    "ast": "",
    "au": "",
    "aud": "-ar 22050 -ac 1 -f wsaud",
    "avi": "",
    "caf": "",
    "daud": "-ar 96000 -ac 6 -f daud",
    "dfpwm": "-ac 1 -ar 48000",
    "dts": _EXPERIMENTAL,
    "dv": "-s 720x576 -r 25 -ar 48000",
    "eac3": "",
    "f4v": "",
    "flac": "",
    "flv": "",
    "g722": "-ar 16000 -ac 1",
    "g723_1": f"{_MONO} -f g723_1",
    "gxf": "-s 720x576 -r 25 -ar 48000 -c:a pcm_s16le -ac 1 -f gxf",
    "ircam": "",
    "ismv": "",
    "kvag": "-f kvag",
    "latm": "",
    "m2ts": "-ar 48000 -c:a pcm_bluray",
    "mka": "",
    "mkv": "",
    "mlp": _EXPERIMENTAL,
    "mmf": _MONO,
    "mov": "",
    "mp2": "",
    "mp3": "",
    "mp4": "",
    "mpg": "",
    "mxf": "-s 720x576 -r 25 -ar 48000 -c:a pcm_s16le",
    "nut": "",
    "ogg": "",
    "opus": "-ar 48000",
    "psp": "-ar 48000",
    "ra": "-f rm",
    "roq": "-ar 22050 -f roq",
    "rso": _MONO,
    "sbc": "",
    "smjpeg": "-f smjpeg",
    "sox": "-f sox",
    "spdif": "-f spdif",
    "swf": "",
    "thd": _EXPERIMENTAL,
    "ts": "",
    "tta": "",
    "voc": "",
    "vob": "",
    "w64": "",
    "wav": "",
    "webm": "",
    "wma": "",
    "wtv": "",
    "wv": "",
}
#: Containers that have pictures beside the sound.
_WITH_PICTURES: Final = frozenset({"dv", "gxf", "mkv", "mpg", "mxf", "psp", "vob", "wtv"})
#: ffmpeg's arguments for a clip of each codec that the containers above do not have already.
_CODECS: Final = {
    "adpcm_argo": "-f argo_asf",
    "adpcm_ima_qt": "-f mov",
    "adpcm_ima_wav": "-f wav",
    "adpcm_ms": "-f matroska",
    "adpcm_swf": "-ar 22050 -f nut",
    "adpcm_yamaha": "-f nut",
    "alac": "-f mov",
    "g726": f"{_MONO} -f matroska",
    "g726le": f"{_MONO} -f au",
    "nellymoser": "-ar 11025 -ac 1 -f flv",
    "pcm_alaw": "-f matroska",
    "pcm_dvd": "-ar 48000 -f vob",
    "pcm_f32be": "-f mov",
    "pcm_f32le": "-f matroska",
    "pcm_f64be": "-f mov",
    "pcm_f64le": "-f matroska",
    "pcm_mulaw": "-f matroska",
    "pcm_s16be_planar": "-f nut",
    "pcm_s16le_planar": "-f nut",
    "pcm_s24be": "-f matroska",
    "pcm_s24le": "-f matroska",
    "pcm_s24le_planar": "-f nut",
    "pcm_s32be": "-f matroska",
    "pcm_s32le": "-f matroska",
    "pcm_s32le_planar": "-f nut",
    "pcm_s64be": "-f nut",
    "pcm_s64le": "-f matroska",
    "pcm_s8": "-f mov",
    "pcm_s8_planar": "-f nut",
    "pcm_u16be": "-f nut",
    "pcm_u16le": "-f nut",
    "pcm_u24be": "-f nut",
    "pcm_u24le": "-f nut",
    "pcm_u32be": "-f nut",
    "pcm_u32le": "-f nut",
    "real_144": f"{_MONO} -f matroska",
    "s302m": "-strict -2 -ar 48000 -f mpegts",
    "wavpack": "-f matroska",
    "wmav1": "-f asf",
    "wmav2": "-f matroska",
}
#: The opening of Beethoven's Fifth: periods of a sampler's clock (ProTracker's table of notes).
_NOTES: Final = (285, 285, 285, 360)


def _dsd(path: Path) -> None:
    """Writes a second of silence in a DSF file (Sony, DSF File Format Specification 1.01): 2.8 MHz, one bit, mono."""
    rate = 2_822_400
    block = 4096
    blocks = -(-rate // 8 // block)
    form = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 1, 1, rate, 1, blocks * block * 8, block, 0)
    data = struct.pack("<4sQ", b"data", 12 + blocks * block) + b"\x69" * (blocks * block)
    path.write_bytes(struct.pack("<4sQQQ", b"DSD ", 28, 28 + len(form) + len(data), 0) + form + data)


def _tracker(path: Path) -> None:
    """Writes a ProTracker module of one pattern: music of notes and samples."""
    square = bytes([64] * 16 + [192] * 16)
    sample = struct.pack(">22sHBBHH", b"square", len(square) // 2, 0, 64, 0, len(square) // 2)
    empty = struct.pack(">22sHBBHH", b"", 0, 0, 0, 0, 1)
    rows = [struct.pack(">HBB", _NOTES[row // 4], 0x10, 0) + bytes(12) for row in range(16)]
    pattern = b"".join(rows) + struct.pack(">HBB", 0, 0x0D, 0) + bytes(12) + bytes(16 * 47)
    head = b"Fifth".ljust(20, b"\0") + sample + empty * 30 + bytes([1, 127]) + bytes(128) + b"M.K."
    path.write_bytes(head + pattern + square)


def _ambisonic(path: Path) -> None:
    """Makes an Opus track of a sound field, as in videos of all directions (RFC 8486, channel mapping family 2)."""
    sound = "aevalsrc='0.3*sin(2*PI*440*t)|0.2*sin(2*PI*550*t)|0|0':d={seconds}:s={rate}:c=4.0"
    clips.clip(path, "-c:a", "libopus", "-mapping_family", 255, sound=sound, seconds=SECONDS)
    data = bytearray(path.read_bytes())
    data[data.index(b"OpusHead") + 18] = 2
    path.write_bytes(data)


def _by_ffmpeg(path: Path, arguments: str, pictures: bool) -> None:
    rate = 48000 if "-ar" in arguments else 44100
    clips.clip(path, *arguments.split(), seconds=SECONDS, rate=rate, video=pictures)


def makers() -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yields a file name for each format, and a function that makes the file at a path of that name."""
    for extension, arguments in _CONTAINERS.items():
        pictures = extension in _WITH_PICTURES
        yield (
            f"container.{extension}",
            lambda path, arguments=arguments, pictures=pictures: _by_ffmpeg(path, arguments, pictures),  # type: ignore[misc]  # mypy takes no default in a lambda
        )
    for codec, arguments in _CODECS.items():
        container = arguments.rpartition(" ")[2]
        yield (
            f"{codec}.{container}",
            lambda path, codec=codec, arguments=arguments: _by_ffmpeg(path, f"{arguments} -c:a {codec}", False),  # type: ignore[misc]
        )
    yield "dsd.dsf", _dsd
    yield "music.mod", _tracker
    yield "ambisonic.mkv", _ambisonic
