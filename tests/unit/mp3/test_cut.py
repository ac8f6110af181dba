"""The parts of an MP3 decode to exactly its samples, by ffmpeg and by mpg123, wherever it is cut."""

import io
import os
import random
import shutil
import subprocess
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from functions.mp3 import info_tag, tags
from functions.mp3.cut import Part, Range, Timeline, UnknownSound, cut, read_timeline
from functions.options import Options
from tests.support import clips
from tests.unit.convert.test_identity import convert

#: Cuts of each MP3.
CUTS = int(os.environ.get("MP3BURST_CUTS", "12"))
#: ffmpeg's arguments for MP3s with and without a bit reservoir: in stereo and mono, of one granule and of two.
ENCODED = {
    "stereo": "-ar 44100 -b:a 128k",
    "full": "-ar 44100 -b:a 320k",
    "variable": "-ar 48000 -q:a 4",
    "mono": "-ar 44100 -ac 1 -b:a 64k",
    "variable mono": "-ar 48000 -ac 1 -q:a 7",
    "low": "-ar 22050 -b:a 64k",
    "low mono": "-ar 16000 -ac 1 -b:a 24k",
    "lowest": "-ar 8000 -ac 1 -b:a 8k",
}
#: The options of conversions: without a reservoir, with one that was put back, and a copy of all frames.
CONVERTED = {"constant": Options(bitrate=192), "repacked": Options(vbr=4), "copied": Options()}


def sound(name: str, directory: Path) -> bytes:
    """Makes an MP3."""
    if name in ENCODED:
        path = clips.clip(directory / "a.mp3", "-c:a", "libmp3lame", *ENCODED[name].split(), seconds=6.1)
        return path.read_bytes()
    arguments = ("-c:a", "libmp3lame", "-b:a", "128k") if name == "copied" else ("-c:a", "flac")
    video = clips.clip(directory / "a.mkv", *arguments, seconds=6.1)
    return convert(video, directory, CONVERTED[name], 2)[1]


def timeline_of(mp3: bytes) -> Timeline:
    return read_timeline(io.BytesIO(mp3), tags.size_of(mp3))


def cut_at_random(length: int, seed: int) -> list[Range]:
    """Returns ranges that cover all samples; some of a few samples only."""
    numbers = random.Random(seed)  # noqa: S311 - not a secret
    points = {numbers.randrange(1, length) for _ in range(CUTS)}
    points |= {min(point + numbers.choice([1, 30, 576, 1152]), length - 1) for point in [*points][: CUTS // 3]}
    return [Range(*both) for both in pairwise([0, *sorted(points), length])]


def content_of(part: Part, mp3: bytes) -> bytes:
    assert zlib.crc32(mp3[part.start : part.stop]) == part.crc32
    return part.head + mp3[part.start : part.stop]


def decoded_by_ffmpeg(mp3s: list[bytes], directory: Path) -> list[bytes]:
    """Returns the samples of each MP3 as floating-point numbers."""
    samples = []
    for first in range(0, len(mp3s), 50):
        inputs: list[object] = []
        outputs: list[object] = []
        for number, mp3 in enumerate(mp3s[first : first + 50]):
            (directory / f"{number}.mp3").write_bytes(mp3)
            inputs += ["-f", "mp3", "-i", directory / f"{number}.mp3"]
            outputs += ["-map", f"{number}:a", "-f", "f32le", directory / f"{number}.raw"]
        clips.run(*inputs, *outputs)
        samples += [(directory / f"{number}.raw").read_bytes() for number in range(len(inputs) // 4)]
    return samples


def decoded_by_mpg123(mp3s: list[bytes], directory: Path) -> list[bytes]:
    """Returns the samples of each MP3, 16 bits each; none if mpg123 is not installed."""
    if not (mpg123 := shutil.which("mpg123")):
        return []
    samples = []
    for mp3 in mp3s:
        (directory / "a.mp3").write_bytes(mp3)
        done = subprocess.run([mpg123, "-q", "-s", directory / "a.mp3"], capture_output=True, check=True)
        assert not done.stderr
        samples.append(done.stdout)
    return samples


@pytest.mark.parametrize("name", [*ENCODED, *CONVERTED])
def test_parts_have_the_samples_of_the_whole(name: str, tmp_path: Path) -> None:
    mp3 = sound(name, tmp_path)
    timeline = timeline_of(mp3)
    ranges = cut_at_random(timeline.length, CUTS)
    parts = [content_of(part, mp3) for part in cut(io.BytesIO(mp3), timeline, ranges)]
    for decode in (decoded_by_ffmpeg, decoded_by_mpg123):
        if not (decoded := decode([mp3, *parts], tmp_path)):
            continue
        whole, *found = decoded
        size = len(whole) // timeline.length
        assert len(whole) == size * timeline.length
        expected = [whole[first * size : last * size] for first, last in ranges]
        if decode is decoded_by_mpg123 and name.startswith("low") and name != "low":
            assert [*map(len, found)] == [*map(len, expected)]
            continue  # In mono, mpg123 rounds some samples of frames of one granule differently.
        assert found == expected


@pytest.mark.parametrize("name", ["variable", "low mono"])
def test_part_of_a_part_has_its_samples(name: str, tmp_path: Path) -> None:
    mp3 = sound(name, tmp_path)
    timeline = timeline_of(mp3)
    (part,) = cut(io.BytesIO(mp3), timeline, [Range(20_001, 70_003)])
    inner = content_of(part, mp3)
    movable = len(part.head)
    parts = cut(
        io.BytesIO(inner), timeline_of(inner), [Range(0, 900), Range(900, 30_000), Range(30_000, 50_002)], movable
    )
    assert all(each.start >= movable for each in parts)
    found = b"".join(decoded_by_ffmpeg([content_of(each, inner) for each in parts], tmp_path))
    (whole,) = decoded_by_ffmpeg([mp3], tmp_path)
    size = len(whole) // timeline.length
    assert found == whole[20_001 * size : 70_003 * size]


def test_beginning_of_sound_without_a_delay_can_be_cut_again(tmp_path: Path) -> None:
    mp3 = sound("stereo", tmp_path)
    first, last = tags.size_of(mp3), timeline_of(mp3).offset
    mp3 = mp3[:first] + mp3[first:last].replace(b"Lavc", b"else") + mp3[last:]  # an encoder that players do not trust
    timeline = timeline_of(mp3)
    assert timeline.skipped == 0
    (part,) = cut(io.BytesIO(mp3), timeline, [Range(0, 50_000)])
    inner = content_of(part, mp3)
    parts = cut(io.BytesIO(inner), timeline_of(inner), [Range(0, 900), Range(900, 50_000)], len(part.head))
    assert all(each.start >= len(part.head) for each in parts)
    found = b"".join(decoded_by_ffmpeg([content_of(each, inner) for each in parts], tmp_path))
    (whole,) = decoded_by_ffmpeg([mp3], tmp_path)
    assert found == whole[: len(found)]
    assert len(found) == 50_000 * (len(whole) // timeline.length)


def test_head_is_small_and_everything_else_is_copied(tmp_path: Path) -> None:
    mp3 = sound("stereo", tmp_path)
    (part,) = cut(io.BytesIO(mp3), timeline_of(mp3), [Range(50_000, 200_000)])
    assert len(part.head) < 1500
    assert part.stop - part.start > 50_000


@pytest.mark.parametrize("damage", ["cut off", "changed", "no tag"])
def test_sound_that_is_not_as_announced_is_refused(damage: str, tmp_path: Path) -> None:
    mp3 = sound("stereo", tmp_path)
    if damage == "no tag":
        with pytest.raises(UnknownSound):
            read_timeline(io.BytesIO(mp3), timeline_of(mp3).offset)
        return
    middle = len(mp3) // 2
    damaged = mp3[:-100] if damage == "cut off" else mp3[:middle] + bytes(500) + mp3[middle + 500 :]
    with pytest.raises(UnknownSound):
        cut(io.BytesIO(damaged), timeline_of(mp3), [Range(0, 100)])


def test_long_mp3_takes_little_memory() -> None:
    """A day has 3.6 million frames, and two requests of a user may split one at once."""
    frame = bytes((0xFF, 0xF3, 0x14, 0xC0)) + bytes(20)  # 24 kHz, mono, 8 kbit/s
    frames = 400_000
    blank = info_tag.blank_tag(frame, None, b"Lavf", 576, 1105)
    tag = info_tag.fill_tag(blank, frames=frames, size=frames * len(frame), crc=0, marks=[1], variable=False)
    mp3 = io.BytesIO(tag + frames * frame)
    timeline = read_timeline(mp3, 0)
    tracemalloc.start()
    try:
        cut(mp3, timeline, [Range(0, 1000), Range(1000, timeline.length)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * frames + (6 << 20)
