"""Copy-protected files fail with a sentence that says so, in every container that can say it."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from functions.convert import pipeline
from functions.convert.errors import UnusableMedia
from functions.options import Options
from tests.support import clips

_CENC = "-encryption_scheme cenc-aes-ctr -encryption_key 76a6c65c5ea762046bd749a2e632ccbb"
_CENC += " -encryption_kid a7e61c373e219033c21091fa607bf3b8"


def clip(path: Path, arguments: str, pictures: bool = False) -> bytearray:
    return bytearray(clips.clip(path, *arguments.split(), seconds=3, video=pictures).read_bytes())


def _cenc(path: Path) -> None:
    clip(path, f"-c:a aac {_CENC}")


def _fragmented_cenc(path: Path) -> None:
    clip(path, f"-c:a aac -movflags frag_keyframe+empty_moov {_CENC}")


def _entry(kind: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        data = clip(path, "-c:a aac")
        place = data.index(b"mp4a", data.index(b"stsd"))
        data[place : place + 4] = kind
        path.write_bytes(data)

    return make


def _element(identifier: int, content: bytes) -> bytes:
    """Returns an element of Matroska with a size of eight bytes."""
    return (
        identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
        + b"\x01"
        + len(content).to_bytes(7, "big")
        + content
    )


def _content(data: bytes, start: int) -> tuple[bytes, int]:
    """Returns the content of an element of Matroska whose size is at an offset, and where it ends."""
    width = 9 - data[start].bit_length()
    size = int.from_bytes(data[start : start + width], "big") & (1 << 7 * width) - 1
    return data[start + width : start + width + size], start + width + size


def _content_encryption(path: Path) -> None:
    data = bytes(clip(path, "-c:a libvorbis -live 1"))
    place = data.rindex(b"\x16\x54\xae\x6b")  # the first is in the index of elements
    tracks, end = _content(data, place + 4)
    entry, _ = _content(tracks, tracks.index(b"\xae") + 1)
    encryption = _element(0x5035, _element(0x47E1, b"\x05") + _element(0x47E2, bytes(range(16))))
    encodings = _element(0x6D80, _element(0x6240, _element(0x5033, b"\x01") + encryption))
    path.write_bytes(data[:place] + _element(0x1654AE6B, _element(0xAE, entry + encodings)) + data[end:])


def _content_encryption_object(path: Path) -> None:
    data = clip(path, "-c:a wmav2")
    size, count = struct.unpack_from("<QI", data, 16)
    added = bytes.fromhex("14e68a292226174cb935dae07ee9289c") + struct.pack("<QI", 28, 0)
    struct.pack_into("<QI", data, 16, size + len(added), count + 1)
    path.write_bytes(data[:size] + added + data[size:])


def _recording(path: Path) -> None:
    clip(path, "-c:a mp2 -c:v mpeg2video -f asf -metadata WM/WMRVContentProtected=true", pictures=True)


def _scrambled_packets(path: Path) -> None:
    data = clip(path, "-c:a mp2 -f mpegts -streamid 0:0x123")
    for start in range(0, len(data), 188):
        if data[start + 1] & 0x1F == 1 and data[start + 2] == 0x23:
            data[start + 3] |= 0x80
            for place in range(start + 12, start + 188):
                data[place] ^= 0x5A
    path.write_bytes(data)


def _scrambled_title(path: Path) -> None:
    data = clip(path, "-c:a mp2 -f vob")
    start = data.find(b"\x00\x00\x01\xc0")
    while start >= 0:
        data[start + 6] |= 0x10
        for place in range(start + 128, start + 6 + int.from_bytes(data[start + 4 : start + 6], "big")):
            data[place] ^= 0x5A
        start = data.find(b"\x00\x00\x01\xc0", start + 4)
    path.write_bytes(data)


def _filtered_tags(path: Path) -> None:
    data = clip(path, "-c:a aac -f flv")
    start = 13
    while start < len(data):
        data[start] |= 0x20 if data[start] == 8 else 0
        start += 15 + int.from_bytes(data[start + 1 : start + 4], "big")
    path.write_bytes(data)


def _encrypted_triplets(path: Path) -> None:
    data = clip(path, "-s 720x576 -r 25 -ar 48000 -c:a pcm_s16le -f mxf", pictures=True)
    essence = bytes.fromhex("060e2b34010201010d010301160103")
    assert essence in data
    path.write_bytes(data.replace(essence, bytes.fromhex("060e2b34020401070d010301027e01")))


PROTECTED: dict[str, Callable[[Path], None]] = {
    "cenc.m4a": _cenc,
    "fragmented.mp4": _fragmented_cenc,
    "fairplay.m4p": _entry(b"drms"),
    "audible.aax": _entry(b"aavd"),
    "encodings.webm": _content_encryption,
    "drm.wma": _content_encryption_object,
    "recording.dvr-ms": _recording,
    "scrambled.ts": _scrambled_packets,
    "css.vob": _scrambled_title,
    "filtered.flv": _filtered_tags,
    "cinema.mxf": _encrypted_triplets,
}


def test_track_beside_protected_ones_is_converted(tmp_path: Path) -> None:
    video = tmp_path / "a.ts"
    sound = ("-f", "lavfi", "-i", "sine=440:d=3")
    clips.run(*sound, *("-map", "0", "-map", "0", "-map", "0", "-c:a", "mp2"), video)
    data = bytearray(video.read_bytes())
    for start in range(0, len(data), 188):
        # The headers of the PES packets of the second and third track say that these are scrambled.
        if data[start + 1] == 0x41 and data[start + 2] in (1, 2):
            data[data.index(b"\x00\x00\x01\xc0", start) + 6] |= 0x10
    video.write_bytes(data)
    settings = pipeline.Settings(options=Options(track=0), filename="a.ts", encoders=1)
    with video.open("rb") as source:
        result = pipeline.to_mp3(source, io.BytesIO(), settings, directory=tmp_path, on_progress=lambda _: None)
    assert result.duration == pytest.approx(3, abs=0.1)


def test_protected_track_that_is_passed_over_is_called_protected(tmp_path: Path) -> None:
    video = tmp_path / "a.ts"
    clips.run("-f", "lavfi", "-i", "sine=440:d=3", "-map", "0", "-map", "0", "-c:a", "mp2", video)
    data = bytearray(video.read_bytes())
    for start in range(0, len(data), 188):
        if data[start + 1] & 0x1F == 1 and data[start + 2] == 0:  # PID 256, the first track
            data[start + 3] |= 0x80
    video.write_bytes(data)
    settings = pipeline.Settings(options=Options(), filename="a.ts", encoders=1)
    with video.open("rb") as source:
        result = pipeline.to_mp3(source, io.BytesIO(), settings, directory=tmp_path, on_progress=lambda _: None)
    assert result.warning == "Audio track 0 of this file is copy-protected: track 1 was converted."


@pytest.mark.parametrize("name", PROTECTED)
def test_copy_protected_file_fails_with_a_sentence_that_says_so(name: str, tmp_path: Path) -> None:
    format_ = {"m4p": "mp4", "aax": "mp4"}.get(name.rpartition(".")[2])
    video = tmp_path / (name if format_ is None else f"{name}.{format_}")
    PROTECTED[name](video)
    settings = pipeline.Settings(options=Options(), filename=name, encoders=1)
    with video.open("rb") as source, pytest.raises(UnusableMedia, match=r"^This file is copy-protected and cannot be"):
        pipeline.to_mp3(source, io.BytesIO(), settings, directory=tmp_path, on_progress=lambda _: None)
