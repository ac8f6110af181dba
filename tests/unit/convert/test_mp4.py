"""Audio extracted by an mp4's own tables decodes to the same samples; what these cannot handle is left to libav."""

import io
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from functions.convert.demux.child import audio_track
from functions.convert.demux.child.description import Extracted
from functions.convert.demux.child.mp4 import movie as mp4
from functions.convert.demux.child.mp4 import writer
from functions.convert.demux.child.mp4.boxes import Outline, outline
from functions.convert.demux.protocol import TrackReport
from functions.convert.errors import UnsupportedLayout
from tests.support import clips


def decoded(path: Path, track: int = 0) -> bytes:
    """Returns what ffmpeg decodes from an audio track, with its rate and layout."""
    return clips.run(
        "-i", path, "-map", f"0:a:{track}", "-c:a", "pcm_f32le", "-map_metadata", -1, "-f", "wav", "-bitexact", "-"
    )


def take(video: Path, target: Path, track: int = 0) -> Extracted:
    """Extracts a track by its tables alone."""
    with io.FileIO(video) as source, target.open("wb") as out:
        movie = mp4.parse(source, video.stat().st_size, track)
        writer.write_head(movie, out)
        writer.write_audio(movie, out)
        out.flush()
        source.seek(0)
        with target.with_suffix(".read").open("wb") as second:
            extracted = audio_track.extract(source, second, track, False)
    assert isinstance(extracted, Extracted)
    assert target.with_suffix(".read").read_bytes() == target.read_bytes()
    return extracted


def _plain(path: Path) -> None:
    clips.clip(path, "-c:v", "mpeg4", "-c:a", "aac", seconds=4.7, rate=44100, video=True)


def _trimmed(path: Path) -> None:
    """Makes a video whose edit list starts in the middle of a packet."""
    _plain(original := path.with_name("original.mp4"))
    clips.run("-ss", "1.23", "-i", original, "-t", "2.5", "-c", "copy", path)


def _delayed(path: Path) -> None:
    _plain(original := path.with_name("original.mp4"))
    clips.run("-itsoffset", "1.5", "-i", original, "-i", original, "-map", "0:a", "-map", "1:v", "-c", "copy", path)


def _chapters(path: Path) -> None:
    """Makes a video with a text track that the audio track references."""
    (titles := path.with_name("titles")).write_text(
        ";FFMETADATA1\ntitle=T\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=2\ntitle=One\n[CHAPTER]\nTIMEBASE=1/1\nSTART=2\nEND=4\n"
    )
    _plain(original := path.with_name("original.mp4"))
    clips.run("-i", original, "-i", titles, "-map_metadata", 1, "-map_chapters", 1, "-c", "copy", path)


def _equal_sizes(path: Path) -> None:
    clips.clip(path, "-c:a", "ac3", "-movflags", "+faststart", seconds=4)


def _sparse(path: Path) -> None:
    """Makes a video with its chunks far apart, their offsets past the first tables."""
    pictures = ("-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=4,noise=alls=60:allf=t")
    clips.run(
        "-f", "lavfi", "-i", clips.MUSIC.format(seconds=4, rate=22050), *pictures, "-c:v", "mjpeg", "-c:a", "aac", path
    )


def _aligned(path: Path) -> None:
    """Makes a video whose tables take exactly one read, so that the audio starts where that ends."""
    clips.clip(path, "-c:a", "ac3", "-movflags", "+faststart", seconds=15)
    data = path.read_bytes()
    sound = data.index(b"mdat") + 4
    at = data.index(b"stco") + 12
    chunks = int.from_bytes(data[at - 4 : at], "big")
    gap = 4096 - sound
    assert gap > 0
    moved = [int.from_bytes(data[at + 4 * n : at + 4 * n + 4], "big") + gap for n in range(chunks)]
    assert moved[0] == 4096
    size = (len(data) - sound + 8 + gap).to_bytes(4, "big")
    tables = data[:at] + b"".join(one.to_bytes(4, "big") for one in moved) + data[at + 4 * chunks : sound - 8]
    path.write_bytes(tables + size + b"mdat" + bytes(gap) + data[sound:])


@pytest.mark.parametrize("make", [_plain, _trimmed, _delayed, _chapters, _equal_sizes, _sparse, _aligned])
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_track_decodes_to_the_samples_of_the_source(make: Callable[[Path], None], suffix: str, tmp_path: Path) -> None:
    make(video := tmp_path / f"video.{suffix}")
    report = take(video, tmp_path / "track").report
    sound = decoded(video)
    assert decoded(tmp_path / "track") == sound
    assert report.container == "mov"
    samples = (len(sound) - 100) // 4 // 2
    assert report.duration == pytest.approx(samples / report.rate, abs=0.05)


def test_requested_track_of_several_is_extracted(tmp_path: Path) -> None:
    one, two = (clips.clip(tmp_path / f"{rate}.m4a", "-c:a", "aac", rate=rate, seconds=2) for rate in (44100, 32000))
    video = tmp_path / "two.mp4"
    clips.run("-i", one, "-i", two, "-map", 0, "-map", 1, "-c", "copy", video)
    for number, rate in enumerate((44100, 32000)):
        extracted = take(video, tmp_path / "track", number)
        assert extracted.report.rate == rate
        assert decoded(tmp_path / "track") == decoded(video, number)
    with io.FileIO(video) as source, pytest.raises(UnsupportedLayout):
        mp4.parse(source, video.stat().st_size, 2)


def test_tags_and_cover_are_found_in_the_part_that_libav_sees(tmp_path: Path) -> None:
    _chapters(original := tmp_path / "original.m4a")
    picture = tmp_path / "cover.png"
    clips.run("-f", "lavfi", "-i", "testsrc=s=64x64", "-frames:v", 1, picture)
    video = tmp_path / "cover.m4a"
    clips.run(
        "-i", original, "-i", picture, "-map", "0:a", "-map", 1, "-c", "copy", "-disposition:v:0", "attached_pic", video
    )
    extracted = take(video, tmp_path / "track")
    assert extracted.cover == picture.read_bytes()
    assert extracted.report.tags["title"] == "T"
    assert decoded(tmp_path / "track") == decoded(video)


_PEAK = """
import io, resource, sys
from functions.convert.demux.child import audio_track
with io.FileIO(sys.argv[1]) as source, open(sys.argv[2], "wb") as target:
    assert audio_track.extract(source, target, 0, False).report.duration > 290
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    peaks = []
    short = clips.clip(tmp_path / "minute.m4a", "-c:a", "aac", sound=clips.SILENCE, seconds=60)
    for times in (5, 180):
        video = tmp_path / f"{times}.m4a"
        clips.run("-stream_loop", times - 1, "-i", short, "-c", "copy", video)
        done = subprocess.run([sys.executable, "-c", _PEAK, video, tmp_path / "track"], capture_output=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 4, peaks  # 506,000 packets: libav's records of them take 60 MB


def test_random_faults_in_the_tables_are_survived(tmp_path: Path) -> None:
    _plain(video := tmp_path / "video.mp4")
    original = video.read_bytes()
    chance = random.Random(1)  # noqa: S311 - reproducible
    moov = original.rindex(b"moov") - 4
    plain = 0
    for _ in range(400):
        data = bytearray(original)
        for _ in range(chance.choice([1, 1, 4])):
            data[chance.randrange(moov, len(data))] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
        try:
            source = io.BytesIO(data)
            movie = mp4.parse(source, len(data), 0)  # type: ignore[arg-type]  # it has all methods that are used
            movie.beginning().read()
            writer.write_head(movie, out := io.BytesIO())
            writer.write_audio(movie, out)
            assert movie.timeline().duration >= 0
        except UnsupportedLayout:
            continue
        plain += 1
        assert len(out.getvalue()) < 2 * len(data) + 1000
    assert 40 < plain < 400


def _with_mp3(path: Path, *arguments: object, rate: int = 44100) -> None:
    clips.clip(path, "-c:v", "mpeg4", "-c:a", "libmp3lame", *arguments, seconds=4.7, rate=rate, video=True)


def _mp3(path: Path) -> None:
    _with_mp3(path)


def _mp3_of_a_low_rate(path: Path) -> None:
    _with_mp3(path, "-b:a", "48k", rate=24000)


def _mp3_without_an_edit_list(path: Path) -> None:
    _with_mp3(path, "-use_editlist", "0")


def _mp3_first_half(path: Path) -> None:
    _with_mp3(original := path.with_name("original.mp4"))
    clips.run("-i", original, "-t", "2.5", "-c", "copy", path)


def _mp3_delayed(path: Path) -> None:
    _with_mp3(original := path.with_name("original.mp4"))
    clips.run("-itsoffset", "1.5", "-i", original, "-i", original, "-map", "0:a", "-map", "1:v", "-c", "copy", path)


def _mp3_with_a_gap(path: Path) -> None:
    _with_mp3(original := path.with_name("original.mp4"))
    clips.run("-i", original, "-vn", "-c", "copy", "-bsf:a", "noise=drop='between(n,50,80)'", path)


@pytest.mark.parametrize(
    ("make", "by_tables"),
    [
        (_mp3, True),
        (_mp3_of_a_low_rate, True),
        (_mp3_without_an_edit_list, True),
        (_mp3_first_half, None),
        (_mp3_delayed, False),
        (_mp3_with_a_gap, False),
    ],
)
def test_mp3_copied_by_the_tables_equals_libavs_copy(
    make: Callable[[Path], None], by_tables: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(video := tmp_path / "video.mp4")
    libav_calls: list[bool] = []

    def spy(source: io.RawIOBase) -> Outline:
        libav_calls.append(True)
        return outline(source)

    monkeypatch.setattr(audio_track, "outline", spy)

    def extract(name: str) -> tuple[TrackReport, bytes]:
        with io.FileIO(video) as source, (tmp_path / name).open("wb") as target:
            extracted = audio_track.extract(source, target, 0, True)
        assert isinstance(extracted, Extracted)
        return extracted.report, (tmp_path / name).read_bytes()

    ours, our_frames = extract("tables")
    assert by_tables is None or bool(libav_calls) != by_tables

    def no_tables(*_: object) -> None:
        raise UnsupportedLayout

    monkeypatch.setattr(mp4, "parse", no_tables)
    theirs, their_frames = extract("libav")
    assert ours.duration == pytest.approx(theirs.duration, abs=1e-6)
    assert ours.tail == pytest.approx(theirs.tail, abs=0.05)
    assert ours == replace(theirs, duration=ours.duration, tail=ours.tail)
    assert our_frames == their_frames
    assert ours.container == "mp3"
