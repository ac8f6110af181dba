"""A job with edits that is shared out among workers: the MP3, tags, cover and warning that one converter makes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.support import clips
from tests.support.kill_points import ADA, House, found
from tests.unit.convert.test_chapters import with_chapters
from tests.unit.state.test_killed import prepared, the_job


def film(directory: Path) -> Path:
    """With chapters, and pictures that end before the sound does."""
    sound = with_chapters(directory / "sound.mka", "-af", "apad=whole_dur=24", "-c:a", "aac", "-b:a", "64k", seconds=8)
    picture = ("-f", "lavfi", "-i", "testsrc=s=96x64:r=10:d=9")
    clips.run("-i", sound, *picture, "-map", 0, "-map", 1, "-c:a", "copy", "-c:v", "mpeg4", directory / "film.mkv")
    return directory / "film.mkv"


def changing(directory: Path) -> Path:
    """Stereo at 48 kHz, then mono at 32."""
    first = clips.clip(directory / "one.aac", "-c:a", "aac", rate=48000)
    second = clips.clip(directory / "two.aac", "-c:a", "aac", "-ac", "1", rate=32000, sound=clips.NOISE)
    (directory / "both.aac").write_bytes(first.read_bytes() + second.read_bytes())
    return directory / "both.aac"


def converted(video: Path, options: dict[str, str], place: Path, fanout: float) -> tuple[bytes, str | None, int]:
    """The MP3, the warning, and how many pieces there were."""

    def work(house: House) -> None:
        create_job(Form(video.name, options, iter([video.read_bytes()])), ADA, None, house.for_upload())

    place.mkdir()
    house = House(prepared(found(place / "empty"), place / "uploaded", work))
    house.fanout = fanout
    house.convert(the_job(house).id, house.for_convert())
    pieces = house.count("pieces")
    house.days_pass()
    job = the_job(house)
    assert (job.state, job.error) == ("done", None)
    house.is_tidy()
    content = house.bytes_of("mp3s", job.mp3)
    house.close()
    return content, job.warning, pieces


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
    ],
    ids=["edits", "no-cover", "changing"],
)
def test_many_workers_make_what_one_makes(
    make: Callable[[Path], Path], options: dict[str, str], warning: str | None, tmp_path: Path
) -> None:
    video = make(tmp_path)
    one, many = (converted(video, options, tmp_path / str(fanout), fanout) for fanout in (1e9, 0))
    assert one[2] == 0
    assert many[2] == 2
    assert many[0] == one[0]
    assert many[1] == one[1] == warning
    assert (b"APIC" in one[0][:2000]) == ("frame" in options.values())
    assert (b"CHAP" in one[0][:2000]) == (make is film)
