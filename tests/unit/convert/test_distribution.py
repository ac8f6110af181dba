"""A split job with edits gives the same MP3, tags, cover and warning as one converter makes alone."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.support import clips
from tests.support.kill_points import ADA, System, new_system
from tests.unit.convert.test_chapters import with_chapters
from tests.unit.state.test_killed import only_job, prepare


def film(directory: Path) -> Path:
    """Makes a video with chapters whose pictures end before its sound."""
    sound = with_chapters(directory / "sound.mka", "-af", "apad=whole_dur=24", "-c:a", "aac", "-b:a", "64k", seconds=8)
    picture = ("-f", "lavfi", "-i", "testsrc=s=96x64:r=10:d=9")
    clips.run("-i", sound, *picture, "-map", 0, "-map", 1, "-c:a", "copy", "-c:v", "mpeg4", directory / "film.mkv")
    return directory / "film.mkv"


def changing(directory: Path) -> Path:
    """Makes a file that is stereo at 48 kHz, then mono at 32 kHz."""
    first = clips.clip(directory / "one.aac", "-c:a", "aac", rate=48000)
    second = clips.clip(directory / "two.aac", "-c:a", "aac", "-ac", "1", rate=32000, sound=clips.NOISE)
    (directory / "both.aac").write_bytes(first.read_bytes() + second.read_bytes())
    return directory / "both.aac"


def two_mono_tracks(directory: Path) -> Path:
    """Makes a video with two mono tracks."""
    sound = clips.clip(directory / "sound.wav", seconds=24)
    clips.run("-i", sound, "-filter_complex", "[0:a]channelsplit", "-c:a", "pcm_s16le", directory / "pair.mov")
    return directory / "pair.mov"


class Converted(NamedTuple):
    """An MP3, its warning, the number of its pieces, and its waveform."""

    mp3: bytes
    warning: str | None
    pieces: int
    waveform: bytes | None


def converted(video: Path, options: dict[str, str], place: Path, fanout: float) -> Converted:
    """Converts the video."""

    def work(system: System) -> None:
        create_job(Form(video.name, options, iter([video.read_bytes()])), ADA, None, system.for_upload())

    place.mkdir()
    system = System(prepare(new_system(place / "empty"), place / "uploaded", work))
    system.fanout_seconds = fanout
    system.convert(only_job(system).id, system.for_convert())
    pieces = system.count("pieces")
    system.let_days_pass()
    job = only_job(system)
    assert (job.state, job.error) == ("done", None)
    system.assert_tidy()
    content = system.bytes_of("mp3s", job.mp3)
    system.close()
    return Converted(content, job.warning, pieces, job.waveform)


def mostly_damaged(directory: Path) -> Path:
    """Makes an AVI that is zeros from a third on."""
    video = clips.clip(directory / "a.avi", "-ac", 1, "-c:a", "pcm_s16le", seconds=72, rate=16000)
    data = bytearray(video.read_bytes())
    start = data.index(b"movi")
    end = data.rindex(b"idx1")
    data[start + (end - start) // 3 : end] = bytes(end - start - (end - start) // 3)
    video.write_bytes(data)
    return video


@pytest.mark.parametrize(
    ("make", "options", "warning"),
    [
        (film, {"start": "2", "end": "23.5", "fade_in": "11", "fade_out": "9.5", "cover": "frame"}, None),
        (
            film,
            {"start": "1", "cover": "20"},
            "The cover position is past the end of the video: choose an earlier one.",
        ),
        (changing, {"start": "1", "fade_in": "15", "fade_out": "5", "volume": "-2"}, None),
        (two_mono_tracks, {"track": "0,1", "start": "0.5", "fade_out": "3"}, None),
        (mostly_damaged, {}, "Only 24 of 72 seconds of sound could be decoded: the rest is damaged."),
    ],
    ids=["edits", "no-cover", "changing", "pair", "mostly-damaged"],
)
def test_many_workers_make_the_same_mp3_as_one(
    make: Callable[[Path], Path], options: dict[str, str], warning: str | None, tmp_path: Path
) -> None:
    video = make(tmp_path)
    one, many = (converted(video, options, tmp_path / str(fanout), fanout) for fanout in (1e9, 0))
    assert one[2] == 0
    assert many[2] == 2
    assert many[0] == one[0]
    assert many[1] == one[1] == warning
    assert many.waveform == one.waveform
    assert (one.waveform is None) == (make is changing)
    assert (b"APIC" in one[0][:2000]) == ("frame" in options.values())
    assert (b"CHAP" in one[0][:2000]) == (make is film)
