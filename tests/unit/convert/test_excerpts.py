"""Encoders that read only their own part of an mp4 make the bytes of one that reads all of it."""

import io
import logging
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import av
import pytest

from functions.convert import handlers
from functions.convert.demux.child import audio_track
from functions.convert.demux.child.mp4 import fragments
from functions.convert.errors import UnsupportedLayout
from functions.convert.seek.extraction import Fetched
from functions.convert.seek.independence import fetch_excerpt
from functions.convert.seek.recipe import ExcerptFile, read_index
from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.support import clips
from tests.support.kill_points import ADA, System, new_system
from tests.unit.convert.test_cluster_excerpts import Counted, assert_reported_as_extracted, index
from tests.unit.convert.test_distribution import converted
from tests.unit.convert.test_edit_lists import EDITS, PAUSE, STEPS, with_edits
from tests.unit.state.test_killed import only_job, prepare

#: AAC without noise substitution, so that no decoder draws random numbers.
AAC = "-c:a aac -b:a 128k -aac_pns 0"
#: Fragments of two seconds; with an edit list, as recorders for streaming write them.
FRAGMENTS = "-g 50 -movflags frag_keyframe+empty_moov"
EDITED_FRAGMENTS = f"{FRAGMENTS}+delay_moov+default_base_moof"
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
    ("fragments.mp4", f"-c:v mpeg4 -c:a flac {FRAGMENTS}", 22050, {"start": "1", "end": "14", "fade_out": "3"}),
    ("edited fragments.mp4", f"-c:v mpeg4 {AAC} {EDITED_FRAGMENTS}", 22050, {"start": "1.7", "gaps": "silence"}),
    ("pcm.mov", "-c:v mpeg4 -c:a pcm_s24be", 22050, {"start": "1.3", "end": "13.1", "fade_in": "6"}),
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
    assert many == one._replace(pieces=2)


PCM_EDITS: dict[str, list[tuple[float, float]]] = {
    "pause and trim": [(0.7, PAUSE), (18.01234, 1.00101)],
    "beyond the end": [(25, 0.5)],
}


@pytest.mark.parametrize("title", PCM_EDITS)
def test_pieces_of_edited_pcm_make_the_mp3_of_one_encoder(
    title: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    video = clips.clip(tmp_path / "a.mov", "-c:a", "pcm_s16le", "-ac", 1, rate=48000, seconds=21)
    video.write_bytes(with_edits(video.read_bytes(), PCM_EDITS[title]))
    with caplog.at_level(logging.INFO):
        assert_same(video, {}, tmp_path)
    assert "without extracting" in caplog.text


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
    [
        ("a.m4a", AAC),
        ("a.mov", "-c:a alac -sample_fmt s32p"),
        ("a.mp4", "-c:a libmp3lame"),
        ("a.mov", "-c:a pcm_f32le -ac 1"),
        ("a.m4a", f"{AAC} -movflags empty_moov -frag_duration 500000"),
        ("a.mp4", f"-c:v mpeg4 {AAC} {EDITED_FRAGMENTS}"),
    ],
    ids=["aac", "alac", "mp3", "pcm", "fragments", "edited fragments"],
)
def test_sixty_four_excerpts_decode_to_the_samples_of_the_track(name: str, arguments: str, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), rate=22050, seconds=20, video="-c:v" in arguments)
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


LAYOUTS = {
    "base is moof": f"{FRAGMENTS}+default_base_moof",
    "edit list": EDITED_FRAGMENTS,
    "index for each fragment": "-g 50 -movflags dash",
    "index for all": "-g 50 -movflags dash+global_sidx",
    "moof for each track": f"{FRAGMENTS}+separate_moof",
    "short": "-movflags empty_moov -frag_duration 500000",
}


@pytest.mark.parametrize("title", LAYOUTS)
def test_index_of_fragments_reports_what_extraction_reports(title: str, tmp_path: Path) -> None:
    arguments = f"-c:v mpeg4 {AAC} {LAYOUTS[title]} -metadata title=A -metadata:s:a language=deu"
    video = clips.clip(tmp_path / "a.mp4", *arguments.split(), rate=22050, seconds=20, video=True)
    assert_reported_as_extracted(video.read_bytes(), "container")


def test_index_of_pcm_reports_what_extraction_reports(tmp_path: Path) -> None:
    arguments = ("-c:v", "mpeg4", "-c:a", "pcm_s16le", "-metadata", "title=A title")
    video = clips.clip(tmp_path / "a.mov", *arguments, rate=22050, seconds=12.345, video=True)
    assert_reported_as_extracted(video.read_bytes())


@pytest.fixture(scope="module")
def fragmented(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    arguments = f"-c:v mpeg4 {AAC} -g 50 -movflags dash+global_sidx"
    path = tmp_path_factory.mktemp("fragmented") / "a.mp4"
    return clips.clip(path, *arguments.split(), rate=22050, seconds=20, video=True).read_bytes()


def replaced(data: bytes, kind: bytes, number: int, offset: int, value: int) -> bytes:
    """Replaces a number of 32 bits, at an offset from the kind of a box, one of several of that kind."""
    at = -1
    for _ in range(number + 1):
        at = data.index(kind, at + 1)
    at += offset
    return data[:at] + value.to_bytes(4, "big") + data[at + 4 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "end": lambda data: data[:-1],
    "header at the end": lambda data: data + b"\0\0\0\x08",
    "last fragment": lambda data: data[: data.rindex(b"moof") - 4],
    "time": lambda data: replaced(data, b"tfdt", 5, 12, 3),
    "second moov": lambda data: data + data[data.index(b"moov") - 4 : data.index(b"sidx") - 4],
    "offset of a run": lambda data: replaced(data, b"trun", 5, 12, 1 << 30),
    "size of a packet": lambda data: replaced(data, b"trun", 5, 16, 0),
    "description": lambda data: data.replace(b"mp4a", b"enca"),
    "index of more": lambda data: replaced(data, b"sidx", 1, 36, 1 << 28),
}


@pytest.mark.parametrize("part", DAMAGE)
def test_damaged_fragments_are_not_indexed(part: str, fragmented: bytes) -> None:
    assert index(fragmented)[0]
    data = DAMAGE[part](fragmented)
    assert data != fragmented
    with pytest.raises(UnsupportedLayout):
        fragments.parse(io.BytesIO(data), len(data), 0)  # type: ignore[arg-type]
    assert not index(data)[0]


def test_damage_of_fragments_never_fails_the_extraction(fragmented: bytes) -> None:
    draw = random.Random(15)  # noqa: S311 - damage, not a secret
    for _ in range(40):
        data = bytearray(fragmented)
        moof = data.index(b"moof", draw.randrange(len(data) * 3 // 4))
        for _ in range(draw.choice([1, 4, 40])):
            data[moof + draw.randrange(400)] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
        index(bytes(data))


def test_heads_of_fragments_are_read_and_nothing_between_them(tmp_path: Path) -> None:
    arguments = ("-c:v", "rawvideo", *AAC.split(), "-movflags", "empty_moov", "-frag_duration", 1_000_000)
    video = clips.clip(tmp_path / "a.mov", *arguments, rate=22050, seconds=60, video=True)

    def bytes_read(index_seconds: float) -> int:
        with Counted(video) as source:
            audio_track.extract(
                source, io.BytesIO(), None, copy=False, on_indexed=lambda _: [(0, None)], index_seconds=index_seconds
            )
            return source.read_bytes

    assert bytes_read(30) < video.stat().st_size / 3
    extracting = bytes_read(math.inf)
    assert bytes_read(10_000) < extracting + 400_000, "a short file is not read twice"


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
