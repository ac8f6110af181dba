"""Encoders that read only their own part of an mp4 make the bytes of one that reads all of it."""

import io
import logging
import time
from pathlib import Path
from typing import IO, Any

import av
import pytest

from functions.convert import handlers
from functions.convert.seek.extraction import Fetched
from functions.convert.seek.independence import fetch_excerpt
from functions.convert.seek.recipe import ExcerptFile, read_index
from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.support import clips
from tests.support.kill_points import ADA, System, new_system
from tests.unit.convert.test_cluster_excerpts import index
from tests.unit.convert.test_distribution import converted
from tests.unit.convert.test_edit_lists import EDITS, STEPS, with_edits
from tests.unit.state.test_killed import only_job, prepare

#: AAC without noise substitution, so that no decoder draws random numbers.
AAC = "-c:a aac -b:a 128k -aac_pns 0"
FELL_BACK = "falls back to a track"

# Each row: a file, ffmpeg's arguments for it, the sound's rate, and options.
FILES = [
    ("alac.mov", "-c:v mpeg4 -c:a alac", 44100, {"vbr": "2"}),
    ("flac.mp4", "-c:a flac -ac 1", 22050, {"volume": "-3"}),
    ("mp3.mp4", "-c:v mpeg4 -c:a libmp3lame -b:a 96k", 44100, {"bitrate": "160"}),
    ("aac.mp4", f"-c:v mpeg4 {AAC}", 44100, {}),
    ("mono.m4a", f"{AAC} -ac 1", 32000, {}),
    ("surround.m4a", f"{AAC} -ac 6 -b:a 256k", 22050, {}),
    ("edited.mp4", f"-c:v mpeg4 {AAC}", 22050, {"start": "1.3", "end": "13.1", "fade_in": "6", "fade_out": "5.5"}),
    ("faded.mp4", AAC, 22050, {"fade_in": "7.01", "end": "14", "mono": "true", "volume": "2"}),
    ("late.mp4", AAC, 22050, {"start": "2.5"}),
    ("unedited.mp4", f"{AAC} -use_editlist 0", 22050, {}),
]


@pytest.mark.parametrize(("name", "arguments", "rate", "options"), FILES, ids=[row[0] for row in FILES])
def test_pieces_of_a_video_make_the_mp3_of_one_encoder(
    name: str, arguments: str, rate: int, options: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = 25 if rate > 24000 else 15
    video = clips.clip(tmp_path / name, *arguments.split(), rate=rate, seconds=seconds, video="-c:v" in arguments)
    with caplog.at_level(logging.INFO):
        assert_same(video, options, tmp_path)
    assert "without extracting" in caplog.text
    assert FELL_BACK not in caplog.text


def assert_same(video: Path, options: dict[str, str], place: Path) -> None:
    """Asserts that a split conversion makes what one worker makes alone."""
    one, many = (converted(video, options, place / str(fanout), fanout) for fanout in (1e9, 0))
    assert many[2] == 2
    assert many == (*one[:2], 2)


def noisy(path: Path, begin: float) -> Path:
    """Makes a file of 15 s that is silent up to a second, and then has noise for which decoders draw random numbers."""
    noise = f"anoisesrc=c=pink:a=0.5:d={{seconds}}:r={{rate}}:seed=7,volume=0:enable='lt(t,{begin})'"
    return clips.clip(path, "-c:a", "aac", "-b:a", "24k", "-ac", "1", rate=22050, seconds=15, sound=noise)


def test_video_whose_decoder_draws_random_numbers_is_extracted_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    video = noisy(tmp_path / "noise.mp4", 0)
    with caplog.at_level(logging.INFO):
        assert_same(video, {}, tmp_path)
    assert "its decoder draws random numbers" in caplog.text
    assert FELL_BACK not in caplog.text


def test_piece_that_draws_random_numbers_makes_its_job_fall_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = noisy(tmp_path / "noise.mp4", 11)
    monkeypatch.setattr(
        "functions.convert.handlers.fetch_excerpt",
        lambda recipe, video, path, *more: fetch_excerpt(recipe, video, path, *more) or (path.name == "sample" or None),
    )
    assert_same(video, {}, tmp_path)
    assert FELL_BACK in caplog.text


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("a.mp4", "-c:a flac"), ("a.mov", "-c:a alac"), ("a.mp4", "-c:a libmp3lame"), ("a.m4a", AAC)],
    ids=["flac", "alac", "mp3", "aac"],
)
def test_table_that_contradicts_its_codec_is_not_trusted(name: str, arguments: str, tmp_path: Path) -> None:
    data = bytearray(clips.clip(tmp_path / name, *arguments.split(), seconds=6).read_bytes())
    assert index(bytes(data))[0]
    length = slice(data.index(b"stts") + 16, data.index(b"stts") + 20)
    data[length] = (int.from_bytes(data[length], "big") // 2).to_bytes(4, "big")
    assert not index(bytes(data))[0]


def test_track_that_ends_before_a_range_is_extracted(tmp_path: Path) -> None:
    offered, track = index(clips.clip(tmp_path / "a.m4a", "-c:a", "alac", seconds=3).read_bytes())
    assert offered
    assert track[4:8] == b"ftyp"


def decoded(file: IO[bytes] | ExcerptFile) -> bytes:
    """The samples of one channel of a file, 4 bytes each."""
    with av.open(file, "r") as container:
        return b"".join(bytes(frame.planes[0])[: 4 * frame.samples] for frame in container.decode(audio=0))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("a.m4a", AAC), ("a.mov", "-c:a alac -sample_fmt s32p"), ("a.mp4", "-c:a libmp3lame")],
    ids=["aac", "alac", "mp3"],
)
def test_sixty_four_excerpts_decode_to_the_samples_of_the_track(name: str, arguments: str, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), rate=22050, seconds=20)
    whole = decoded(io.BytesIO(video.read_bytes()))
    step = len(whole) // 4 // 64
    ranges = [(number * step, (number + 1) * step if number < 63 else None) for number in range(64)]
    _, written = index(video.read_bytes(), ranges)
    recipes = [recipe for _, recipe in read_index(io.BytesIO(written), video.stat().st_size)][-64:]
    for (start, end), recipe in zip(ranges, recipes, strict=True):
        sound = decoded(ExcerptFile(recipe, io.BytesIO(video.read_bytes())))
        first = 4 * (start - recipe.sample)
        last = None if end is None else 4 * (end - recipe.sample)
        assert sound[first:last] == whole[4 * start : None if end is None else 4 * end]


@pytest.mark.parametrize("title", EDITS)
def test_track_with_several_edits_is_extracted(title: str, tmp_path: Path) -> None:
    clips.run("-f", "lavfi", "-i", STEPS, "-c:a", "alac", tmp_path / "a.m4a")
    edits, heard = EDITS[title]
    offered, _ = index(with_edits((tmp_path / "a.m4a").read_bytes(), edits))
    assert bool(offered) == (len(heard) == 1)


def test_receipt_counts_the_sample_of_a_track_that_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = noisy(tmp_path / "noise.mp4", 0)
    seconds = [0]
    clock = time.process_time
    monkeypatch.setattr("functions.convert.meter.time.process_time", lambda: clock() + seconds[0])

    def fetch_for_long(*arguments: Any) -> Fetched | None:
        seconds[0] = 1000
        return fetch_excerpt(*arguments)

    monkeypatch.setattr("functions.convert.handlers.fetch_excerpt", fetch_for_long)

    def split(system: System) -> None:
        create_job(Form(video.name, {}, iter([video.read_bytes()])), ADA, None, system.for_upload())
        system.fanout_seconds = 0
        handlers.convert(only_job(system).id, system.for_convert())

    system = System(prepare(new_system(tmp_path / "empty"), tmp_path / "split", split))
    assert only_job(system).audio is not None
    assert only_job(system).cpu_ms > 1_000_000
    system.close()


@pytest.mark.parametrize("second", [7.4, 7.68, 7.9, 14.0], ids=["before", "at", "after", "late"])
def test_damage_beside_the_cut(second: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Damage in the first piece shifts what comes after it; damage in the last one does not."""
    video = clips.clip(tmp_path / "a.m4a", *AAC.split(), rate=22050, seconds=15)
    data = bytearray(video.read_bytes())
    middle = data.index(b"mdat") + int(second / 15 * (data.index(b"moov") - data.index(b"mdat")))
    data[middle : middle + 1500] = b"\xff" * 1500
    video.write_bytes(data)
    assert_same(video, {}, tmp_path)
    if second > 8:
        assert FELL_BACK not in caplog.text
