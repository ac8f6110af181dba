"""The MP3 has the chapters of the source, shifted and clipped like its audio."""

import io
from pathlib import Path
from typing import Any

import av
import pytest
from mutagen import flac, id3

from functions.mp3.chapters import MAX_CHAPTERS, Chapter
from functions.mp3.id3 import build_tag
from functions.options import Options
from tests.support import clips, tracks
from tests.unit.convert.test_identity import convert

ID3: Any = id3.ID3  # mutagen has no types
FLAC: Any = flac.FLAC


def with_chapters(path: Path, *arguments: str, count: int = 3, seconds: float = 2) -> Path:
    """Makes a clip with chapters of the given length."""
    times = ((number * seconds * 1000, (number + 1) * seconds * 1000) for number in range(count))
    metadata = "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start:.0f}\nEND={end:.0f}\ntitle=Teil {number} ß\n"
        for number, (start, end) in enumerate(times)
    )
    (notes := path.with_suffix(".txt")).write_text(f";FFMETADATA1\n{metadata}")
    sound = clips.clip(path.with_name("sound.wav"), seconds=6)
    clips.run("-i", sound, "-i", notes, "-map", "0:a", "-map_chapters", 1, *arguments, path)
    return path


def chapters(mp3: bytes) -> list[tuple[str, float, float]]:
    """Returns the chapters of an MP3 as libav reads them: titles, starts and ends."""
    with av.open(io.BytesIO(mp3), "r") as container:
        found = [(one, float(one["time_base"] or 0)) for one in container.chapters()]
    return [(one["metadata"]["title"], one["start"] * base, one["end"] * base) for one, base in found]


def test_last_chapter_lasts_until_the_end_of_a_file_of_unknown_length(tmp_path: Path) -> None:
    piped = tmp_path / "a.flac"
    piped.write_bytes(clips.run("-i", clips.clip(tmp_path / "a.wav", seconds=6), "-f", "flac", "-"))
    file = FLAC(piped)
    assert not file.info.total_samples
    names = {"000": ("00:00:00.000", "one"), "001": ("00:00:04.000", "two")}
    for number, (time, title) in names.items():
        file[f"CHAPTER{number}"] = time
        file[f"CHAPTER{number}NAME"] = title
    file.save()
    _, mp3 = convert(piped, tmp_path, Options(), 1)
    assert chapters(mp3) == [("one", 0, 4), ("two", 4, pytest.approx(6, abs=0.001))]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("a.mp4", "-c:a aac"), ("a.mkv", "-c:a libopus"), ("a.mp3", "-c:a libmp3lame"), ("a.m4a", "-c:a alac")],
)
def test_chapters_are_kept(name: str, arguments: str, tmp_path: Path) -> None:
    video = with_chapters(tmp_path / name, *arguments.split())
    mp3 = convert(video, tmp_path, Options(), 1)[1]
    assert [title for title, _, _ in chapters(mp3)] == ["Teil 0 ß", "Teil 1 ß", "Teil 2 ß"]
    times = [time for _, *both in chapters(mp3) for time in both]
    assert times == pytest.approx([0, 2, 2, 4, 4, 6], abs=0.015)
    (table,) = ID3(io.BytesIO(mp3)).getall("CTOC")
    assert table.child_element_ids == ["chp0", "chp1", "chp2"]


def test_chapters_are_shifted_by_start_and_clipped_by_end(tmp_path: Path) -> None:
    video = with_chapters(tmp_path / "a.mkv", "-c:a", "flac")
    found = chapters(convert(video, tmp_path, Options(start=2.5, end=5.25), 1)[1])
    assert found == [("Teil 1 ß", 0.0, 1.5), ("Teil 2 ß", 1.5, 2.75)]
    assert chapters(convert(video, tmp_path, Options(end=1.0), 1)[1]) == [("Teil 0 ß", 0.0, 1.0)]


@pytest.mark.parametrize("codec", ["libmp3lame", "aac"])
def test_chapters_beyond_the_audio_are_clipped(codec: str, tmp_path: Path) -> None:
    chaptered = with_chapters(tmp_path / "chaptered.mka", "-c:a", codec, count=6)
    video = tmp_path / "late.mka"
    clips.run(
        "-itsoffset",
        2.5,
        "-i",
        tmp_path / "sound.wav",
        "-i",
        chaptered,
        "-map",
        "0",
        "-map_chapters",
        1,
        "-c:a",
        codec,
        video,
    )
    result, mp3 = convert(video, tmp_path, Options(), 1)
    assert result.copied == (codec == "libmp3lame")
    assert [title for title, _, _ in chapters(mp3)] == ["Teil 1 ß", "Teil 2 ß", "Teil 3 ß", "Teil 4 ß"]
    times = [time for _, *both in chapters(mp3) for time in both]
    assert times == pytest.approx([0, 1.5, 1.5, 3.5, 3.5, 5.5, 5.5, result.duration], abs=0.05)


def test_number_of_chapters_is_bounded(tmp_path: Path) -> None:
    video = with_chapters(tmp_path / "many.mkv", "-c:a", "flac", count=600, seconds=0.01)
    mp3 = convert(video, tmp_path, Options(), 1)[1]
    assert len(chapters(mp3)) == MAX_CHAPTERS


@pytest.mark.parametrize("size", [127, 128, 16_383, 16_384, 300_000, 2_097_152, 3_000_000])
def test_pictures_of_any_size_and_later_frames_are_read_back(size: int) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(index * 31 % 256 for index in range(size - 8))
    metadata = {"title": "T", "comment": "c" * 500, "artist": "ß" * 300}
    written = build_tag(metadata, "a.mp4", picture, [Chapter(0.0, 1.5, "one"), Chapter(1.5, 3.0, "two")])
    found = ID3(io.BytesIO(written + bytes(4000)))
    assert found.size == len(written)
    (shown,) = found.getall("APIC")
    assert (shown.data, shown.mime) == (picture, "image/png")
    assert [str(one.sub_frames["TIT2"]) for one in found.getall("CHAP")] == ["one", "two"]
    assert [(one.start_time, one.end_time) for one in found.getall("CHAP")] == [(0, 1500), (1500, 3000)]
    assert str(found["TPE1"]) == "ß" * 300


def test_titles_are_bounded(tmp_path: Path) -> None:
    long = build_tag({}, "a.mp4", b"", [Chapter(0.0, 1.0, "x\x00y" * 5000)])
    assert len(long) < 5000
    video = with_chapters(tmp_path / "a.mkv", "-c:a", "flac", count=1)
    with video.open("rb") as source:
        track = tracks.take(source, tmp_path, Options())
    assert list(track.chapters) == [Chapter(0.0, 2.0, "Teil 0 ß")]


def test_invalid_text_is_replaced_and_large_times_are_clamped() -> None:
    # Python represents a file name that is not UTF-8 like this; a damaged file may claim such a length.
    found = ID3(io.BytesIO(build_tag({}, "caf\udce9.mp4", b"", [Chapter(1.0, 5e6, "a\ud800")]) + bytes(4000)))
    assert str(found["TIT2"]) == "caf?"
    (one,) = found.getall("CHAP")
    assert (one.start_time, one.end_time) == (1000, 0xFFFFFFFF)


@pytest.mark.parametrize(("begin", "kind"), [(b"\xff\xd8\xff\xe0", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png")])
def test_type_of_a_picture_is_detected(begin: bytes, kind: str) -> None:
    found = ID3(io.BytesIO(build_tag({}, "a.mp4", begin + bytes(100)) + bytes(4000)))
    assert found.getall("APIC")[0].mime == f"image/{kind}"
