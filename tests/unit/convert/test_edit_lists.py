"""What an edit list of an mp4 or mov hides is not heard, and nothing else is missing."""

import io
import struct
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from functions.convert.demux.child import audio_track
from functions.convert.demux.child.description import Extracted
from functions.options import Options
from tests.support import clips
from tests.unit.convert.test_damaged_media import convert

RATE = 48000
#: In each second a tone that is 200 Hz higher than in the one before.
STEPS = f"aevalsrc='0.5*sin(2*PI*200*(1+floor(t))*t)':d=10:s={RATE},aformat=channel_layouts=stereo"
PAUSE = -1


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields the boxes in ``data``: kind, start and end."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at, at + size
        at += size


def box(kind: bytes, content: bytes) -> bytes:
    """Returns a box."""
    return struct.pack(">I", 8 + len(content)) + kind + content


def with_edits(data: bytes, edits: list[tuple[float, float]], track: int = 0) -> bytes:
    """Replaces the edit list of a track by edits: seconds, and where they start in the track in seconds."""
    (moov,) = [data[start:end] for kind, start, end in boxes(data) if kind == b"moov"]
    clock = int.from_bytes(moov[moov.index(b"mvhd") + 16 :][:4], "big")
    entries = [
        struct.pack(">IiI", round(length * clock), PAUSE if start == PAUSE else round(start * RATE), 0x10000)
        for length, start in edits
    ]
    edts = box(b"edts", box(b"elst", struct.pack(">II", 0, len(edits)) + b"".join(entries)))
    content = b""
    number = -1
    for kind, start, end in boxes(moov[8:]):
        part = moov[8:][start:end]
        if kind == b"trak":
            number += 1
            if number == track:
                parts = [part[8:][a:b] for inner, a, b in boxes(part[8:]) if inner != b"edts"]
                part = box(b"trak", b"".join([parts[0], edts, *parts[1:]]))
        content += part
    return b"".join(box(b"moov", content) if kind == b"moov" else data[start:end] for kind, start, end in boxes(data))


def second_at(mp3: Path, sample: int) -> int:
    """Returns which second of ``STEPS`` is heard from a sample on, from the zero crossings of a quarter of a second."""
    sound = array("h", clips.run("-i", mp3, "-ac", 1, "-ar", RATE, "-f", "s16le", "-"))[sample : sample + RATE // 4]
    crossings = sum(before < 0 <= after for before, after in pairwise(sound))
    return round(crossings * 4 / 200) - 1


#: Edits, and which second of the track is heard from the start and from the second edit on.
EDITS: dict[str, tuple[list[tuple[float, float]], list[int]]] = {
    "pause and trim": ([(2, PAUSE), (4, 3)], [3]),
    "trim": ([(4, 3)], [3]),
    "pause between": ([(2, 1), (1, PAUSE), (2, 6)], [1, 6]),
    "reordered": ([(2, 6), (2, 1)], [6, 1]),
}
CASES = [
    pytest.param(name, codec, *edits, id=f"{codec}, {title}")
    for name, codec in (("a.mp4", "aac"), ("a.m4a", "alac"), ("a.mov", "pcm_s16le"), ("mp3.mp4", "libmp3lame"))
    for title, edits in EDITS.items()
]


@pytest.mark.parametrize(("name", "codec", "edits", "heard"), CASES)
def test_only_what_the_edit_list_shows_is_heard(
    name: str, codec: str, edits: list[tuple[float, float]], heard: list[int], tmp_path: Path
) -> None:
    video = tmp_path / name
    clips.run("-f", "lavfi", "-i", STEPS, "-c:a", codec, video)
    video.write_bytes(with_edits(video.read_bytes(), edits))
    assert_heard(video, edits, heard, tmp_path)


def test_only_that_is_heard_of_a_track_that_is_not_enabled(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    clips.run("-f", "lavfi", "-i", STEPS, "-c:a", "aac", video)
    edits, heard = EDITS["reordered"]
    enabled, disabled = b"tkhd\0\0\0\3", b"tkhd\0\0\0\2"
    data = with_edits(video.read_bytes(), edits)
    assert data.count(enabled) == 1
    video.write_bytes(data.replace(enabled, disabled))
    assert_heard(video, edits, heard, tmp_path)


def assert_heard(video: Path, edits: list[tuple[float, float]], heard: list[int], tmp_path: Path) -> None:
    result, mp3 = convert(video, tmp_path, Options(bitrate=192))
    shown = [length for length, start in edits if start != PAUSE]
    # libav shows the last packet of an edit as a whole: 4,096 samples at most, and only if another edit follows it.
    slack = 4096 if len(shown) > 1 else 0
    assert clips.samples(mp3, RATE, 2) == pytest.approx(sum(shown) * RATE, abs=slack)
    assert result.duration == pytest.approx(sum(shown), abs=slack / RATE)
    first = 0.0
    for second, length in zip(heard, shown, strict=True):
        assert second_at(mp3, round(first * RATE) + RATE // 3) == second
        first += length


def test_track_that_its_edit_list_trims_is_extracted_by_the_tables(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    clips.run("-f", "lavfi", "-i", STEPS, "-c:a", "aac", video)
    video.write_bytes(with_edits(video.read_bytes(), [(2, 7)]))
    with io.FileIO(video) as source, (tmp_path / "track").open("wb") as target:
        extracted = audio_track.extract(source, target, 0, False)
    assert isinstance(extracted, Extracted)
    assert extracted.report.container == "mov"
    assert extracted.report.duration == 2
