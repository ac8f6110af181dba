"""The waveform of an MP3 is that of the samples which were encoded, in whatever ranges and by however many workers."""

import io
import itertools
import random
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from functions.convert import pipeline, points
from functions.convert.demux.track import extract_track
from functions.convert.ffmpeg import encoder
from functions.convert.ffmpeg.binary import has_levels
from functions.convert.ffmpeg.encoder import EncoderInput
from functions.convert.plan import RANGE_STEP, FrameRange, Plan
from functions.convert.points import PointReader, Points, in_bytes, join_points, point_samples
from functions.convert.sandbox import spawn
from functions.mp3.frame import samples_per_frame
from functions.options import Options
from functions.waveform import MAX_POINTS, Waveform
from tests.support import clips
from tests.support.processes import shell_program

PLAN = Plan("matroska", 44100, 2, ("-b:a", "192k"), ("anull",), 0, (FrameRange(0, None),))
HOUR = 3600 * 44100


def convert(
    video: Path, directory: Path, encoders: int = 2, ffmpeg: str | None = None
) -> tuple[Waveform | None, bytes]:
    out = io.BytesIO()
    settings = pipeline.Settings(options=Options(), filename=video.name, encoders=encoders, ffmpeg=ffmpeg)
    with video.open("rb") as source:
        result = pipeline.to_mp3(source, out, settings, directory=directory, on_progress=lambda _: None)
    return result.waveform, out.getvalue()


def measured(sound: Path, size: int) -> list[int]:
    """The lowest and the highest sample of each point of a file in turn, as bytes."""
    samples = array("f", clips.run("-i", sound, "-f", "f32le", "-"))
    found = []
    for part in (samples[at : at + 2 * size] for at in range(0, len(samples), 2 * size)):
        found += [max(int(min(part) * 128), -128), min(int(max(part) * 128), 127)]
    return found


def signed(waveform: Waveform) -> list[int]:
    return [*memoryview(waveform.data).cast("b")]


def assert_is_of(waveform: Waveform | None, sound: Path, tolerance: int = 1) -> None:
    """Asserts that a waveform has the length of a file, and its samples but for rounding."""
    assert waveform is not None
    expected = measured(sound, waveform.point_samples)
    assert len(waveform.data) == len(expected)
    assert max(abs(one - other) for one, other in zip(signed(waveform), expected, strict=True)) <= tolerance


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le", "pcm_f32le"])
@pytest.mark.parametrize("sound", [clips.MUSIC, clips.STEPS])
def test_waveform_has_the_lowest_and_highest_samples(codec: str, sound: str, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.wav", "-c:a", codec, sound=sound, rate=44100)
    waveform, mp3 = convert(video, tmp_path)
    assert_is_of(waveform, video)
    (tmp_path / "a.mp3").write_bytes(mp3)
    if sound == clips.MUSIC:
        assert_is_of(waveform, tmp_path / "a.mp3", tolerance=12)  # which has lost something in encoding


@pytest.mark.parametrize("arguments", ["a.mkv -c:a aac", "a.mkv -c:a ac3", "a.webm -c:a libopus", "a.flac"])
def test_number_of_encoders_makes_no_difference(arguments: str, tmp_path: Path) -> None:
    name, *codec = arguments.split()
    video = clips.clip(tmp_path / name, *codec, seconds=30)
    one, *others = [convert(video, tmp_path, encoders)[0] for encoders in (1, 2, 5)]
    assert one is not None
    assert others == [one, one]
    assert_is_of(one, video, tolerance=2)


@pytest.mark.parametrize(("most", "rate"), [(4096, 8000), (8, 8000), (3, 8000), (30, 44100), (3, 44100)])
@pytest.mark.parametrize("believed", [0.1, 1.0, 3.0])
def test_points_of_any_ranges_join_to_those_of_one(
    most: int, rate: int, believed: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the sound is longer or shorter than it was believed to be, and if points are longer than ranges."""
    monkeypatch.setattr(points, "MAX_POINTS", most)
    monkeypatch.setattr(points, "_FEW", most // 2)
    seconds = 24 if rate == 8000 else 12
    video = clips.clip(tmp_path / "sound.wav", rate=rate, seconds=seconds)
    with video.open("rb") as source:
        track = extract_track(source, tmp_path / "track", number=0, copy=False, on_progress=lambda _: None)
    assert track is not None
    plan = replace(PLAN, rate=rate, quality=("-b:a", "64k"), samples=int(seconds * rate * believed))
    steps = seconds * rate // (RANGE_STEP * samples_per_frame(rate))
    chance = random.Random(most + rate)  # noqa: S311 - repeatable
    joined = []
    for count in (0, 1, 3):
        starts = [0, *(at * RANGE_STEP for at in sorted(chance.sample(range(1, steps + 3), count)))]
        made = []
        for start, end in itertools.pairwise([*starts, None]):
            assert start is not None
            source_of_range = EncoderInput(clips.ffmpeg(), plan, track.path, tmp_path)
            (run,) = encoder.encode(source_of_range, [FrameRange(start, end)], 1, lambda _: None)
            assert run.points is not None
            made.append(Points.from_json(run.points.to_json()))
        joined.append(join_points(rate, made))
    assert joined[0] is not None
    assert joined[0].points <= most
    assert joined == [joined[0]] * 3
    assert_is_of(joined[0], video)


@pytest.mark.parametrize(
    ("hours", "least"), [(0.002, 128), (0.02, 256), (0.1, 256), (1, 2048), (12, 2048), (100, 2048)]
)
def test_long_mp3_has_a_small_waveform(hours: float, least: int) -> None:
    samples = int(hours * HOUR)
    plan = replace(PLAN, samples=samples)
    found = Points(point_samples(plan))
    for sample in range(0, samples, points.chunk_samples(plan)):
        found.add(sample, -1, 1)
    waveform = join_points(plan.rate, [found])
    assert waveform is not None
    assert least <= waveform.points <= MAX_POINTS
    assert waveform.points == -(-samples // waveform.point_samples)
    assert len(waveform.to_bytes()) < 8300
    assert Waveform.from_bytes(waveform.to_bytes()) == waveform


def test_damage_leaves_a_waveform(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.flac", seconds=20)
    data = bytearray(video.read_bytes())
    at = len(data) * 7 // 10
    data[at : at + 3000] = bytes(3000)
    video.write_bytes(data)
    waveform, mp3 = convert(video, tmp_path)
    (tmp_path / "a.mp3").write_bytes(mp3)
    assert_is_of(waveform, tmp_path / "a.mp3", tolerance=12)


def test_sound_that_changes_its_format_is_complete_without_a_waveform(tmp_path: Path) -> None:
    first, second = (clips.clip(tmp_path / f"{rate}.aac", rate=rate, seconds=3) for rate in (44100, 32000))
    (tmp_path / "both.aac").write_bytes(first.read_bytes() + second.read_bytes())
    waveform, mp3 = convert(tmp_path / "both.aac", tmp_path, encoders=1)
    assert waveform is None
    expected = clips.serial(tmp_path / "both.aac", tmp_path / "serial.mp3", "-b:a", "192k")
    assert clips.without_id3(mp3) == expected


def test_ranges_that_are_encoded_again_are_not_encoded_for_a_waveform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (clips.clip(tmp_path / f"{rate}.aac", rate=rate, seconds=20) for rate in (44100, 32000))
    (tmp_path / "both.aac").write_bytes(first.read_bytes() + second.read_bytes())
    start = spawn.spawn
    runs: list[list[str]] = []

    def counting(arguments: list[str], *rest: Any, **more: Any) -> Any:
        runs.append(arguments)
        return start(arguments, *rest, **more)

    monkeypatch.setattr(spawn, "spawn", counting)
    counts = []
    for can_measure in (False, True):
        runs.clear()
        monkeypatch.setattr(encoder, "has_levels", lambda _, can=can_measure: can)
        convert(tmp_path / "both.aac", tmp_path, encoders=2)
        counts.append(len([run for run in runs if "libmp3lame" in run]))
    assert counts[0] == counts[1] > 2


def test_copied_frames_have_no_waveform(tmp_path: Path) -> None:
    assert convert(clips.clip(tmp_path / "a.mp3", seconds=3), tmp_path)[0] is None


@pytest.mark.usefixtures("unconfined")
def test_ffmpeg_that_cannot_measure_makes_the_same_mp3(tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    shell_program(program, f'case "$*" in -filters) echo "anull"; exit;; esac\nexec {clips.ffmpeg()} "$@"')
    video = clips.clip(tmp_path / "a.flac", seconds=3)
    assert not has_levels(str(program))
    assert has_levels(clips.ffmpeg())
    waveform, mp3 = convert(video, tmp_path, ffmpeg=str(program))
    assert (waveform, mp3) == (None, convert(video, tmp_path)[1])


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((-0.5, 0.25, -6.0206), (-64, 32)),
        ((-16384.0, 8192.0, -6.0206), (-64, 32)),  # 16 bits
        ((-4.0, 2.0, 12.0412), (-128, 127)),
        ((0.0, 0.0, float("-inf")), (0, 0)),
        ((float("-inf"), float("inf"), float("inf")), (0, 0)),
        ((float("inf"), 5.0, 0.0), (0, 0)),
        ((float("inf"), 5.0, float("-inf")), (0, 0)),
        ((-5.0, float("-inf"), 0.0), (0, 0)),
        ((float("1e39"), float("1e39"), float("1e40")), (127, 127)),
        ((0.1, 0.5, -6.0206), (12, 64)),
    ],
)
def test_levels_of_any_unit(levels: tuple[float, float, float], expected: tuple[int, int]) -> None:
    assert in_bytes(*levels) == pytest.approx(expected, abs=1)


def test_part_of_a_waveform() -> None:
    whole = Waveform(44100, 100, bytes(range(20)))
    assert whole.part(0, 1000) == whole
    assert whole.part(250, 400) == replace(whole, data=bytes(range(4, 8)), before=50)
    assert whole.part(250, 401) == replace(whole, data=bytes(range(4, 10)), before=50)
    assert whole.part(1000, 1100) is None
    part = whole.part(250, 800)
    assert part is not None
    assert Waveform.from_bytes(part.to_bytes()) == part
    assert Waveform.from_bytes(part.to_bytes()[:-4]) == replace(part, before=0)  # as it was stored at first
    for first, last in ((0, 160), (80, 150), (0, 550), (50, 51)):
        assert part.part(first, last) == whole.part(250 + first, 250 + last)


def test_what_a_hostile_ffmpeg_prints_is_ignored_or_clipped() -> None:
    reader = PointReader(PLAN, FrameRange(0, None))
    name = b"lavfi.astats.Overall."
    for line in (b"", b"=", name, name + b"Peak_level=nan", name + b"Peak_level=" + b"9" * 4000, b"\xff" * 4096):
        reader.receive(line)
    assert not reader.points.lows
    for number in range(2 * MAX_POINTS + 1):
        for level in (b"Min_level=-0.500000", b"Max_level=99.000000", b"Peak_level=" + b"9" * 40 + b".000000"):
            reader.receive(name + level)
        assert len(reader.points.lows) == len(reader.points.highs) <= MAX_POINTS, number
    assert {*reader.points.lows} == {-128}
    assert {*reader.points.highs} == {127}
