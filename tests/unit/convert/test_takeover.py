"""In a broadcast the sound may go on as another track: it is followed, and other tracks are not mixed in."""

from pathlib import Path

import pytest

from functions.options import Options
from tests.support import clips
from tests.unit.convert.test_damaged_media import convert

RATE = 48000
PARTS = 5


def tone(frequency: int, seconds: int = PARTS) -> tuple[str, ...]:
    return "-f", "lavfi", "-i", f"sine=f={frequency}:r={RATE}:d={seconds}"


def recording(path: Path, codecs: tuple[str, ...], *, pictures: bool = False, offset: int = PARTS) -> Path:
    """Makes a recording in which the sound goes on as another track every five seconds, in the given codecs."""
    data = b""
    for number, codec in enumerate(codecs):
        part = path.with_name(f"part{number}.ts")
        video = ("-f", "lavfi", "-i", f"testsrc2=s=64x48:r=25:d={PARTS}") if pictures else ()
        maps = ("-map", "1", "-map", "0", "-c:v", "mpeg2video") if pictures else ()
        track = 1 if pictures else 0
        clips.run(
            *tone(440 * (number + 1)), *video, *maps, "-ac", 2, "-c:a", codec, "-b:a", "128k",
            "-streamid", f"{track}:{0x150 + number}", "-output_ts_offset", number * offset, part,
        )  # fmt: skip
        data += part.read_bytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("pictures", [False, True], ids=["sound", "pictures"])
@pytest.mark.parametrize("codec", ["mp2", "aac", "ac3", "libmp3lame"])
def test_track_that_takes_over_is_followed(codec: str, pictures: bool, tmp_path: Path) -> None:
    video = recording(tmp_path / "a.ts", (codec, codec, codec), pictures=pictures)
    result, mp3 = convert(video, tmp_path)
    assert result.duration == pytest.approx(3 * PARTS, abs=0.2)
    assert result.warning is None
    assert result.copied == (codec == "libmp3lame")
    assert clips.samples(mp3, RATE, 2) == pytest.approx(3 * PARTS * RATE, abs=0.2 * RATE)


def test_track_whose_clock_starts_again_is_followed(tmp_path: Path) -> None:
    result, _ = convert(recording(tmp_path / "a.ts", ("mp2", "mp2"), offset=0), tmp_path)
    assert result.duration == pytest.approx(2 * PARTS, abs=0.1)
    assert result.warning is None


def test_sound_that_goes_on_in_another_codec_is_missing_with_a_warning(tmp_path: Path) -> None:
    result, _ = convert(recording(tmp_path / "a.ts", ("mp2", "ac3"), pictures=True), tmp_path)
    assert result.duration == pytest.approx(PARTS, abs=0.1)
    assert result.warning == "This file has no sound for about 5 of its 10 seconds (5 at the end): these are left out."


@pytest.mark.parametrize("track", [0, 1])
def test_second_track_does_not_fill_a_hole_of_the_first(track: int, tmp_path: Path) -> None:
    video = tmp_path / "a.ts"
    maps = ("-map", "0", "-map", "1", "-c:a", "mp2", "-ac", 2)
    holes = (f"-filter:a:{track}", "aselect='not(between(t,5,15))'")
    clips.run(*tone(440, 20), *tone(880, 20), *maps, *holes, video)
    result, _ = convert(video, tmp_path, Options(track=track))
    assert result.duration == pytest.approx(10, abs=0.1)
    assert result.warning == (
        "This file has no sound for about 10 of its 20 seconds (10 in between): these are left out."
    )
