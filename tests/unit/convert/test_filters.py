"""Edits of the sound are exact to the sample, and the number of encoders does not change a byte."""

import math
import re
import subprocess
from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from functions.convert import distribution
from functions.convert.__main__ import main
from functions.convert.errors import UnusableMedia
from functions.convert.plan import RANGE_STEP, FrameRange, Plan, plan_for
from functions.mp3.frame import parse_header
from functions.options import Options
from tests.support import clips, tracks
from tests.unit.convert.test_identity import convert, spliced

#: The same tone in both ears, 6 dB below full scale.
TONE = "aevalsrc='0.5*sin(2*PI*997*t)|0.5*sin(2*PI*997*t)':d={seconds}:s={rate}"


def decoded(path: Path, rate: int, channels: int = 2) -> "array[float]":
    """All samples of a file, channels interleaved."""
    samples = array("f")
    samples.frombytes(clips.run("-i", path, "-vn", "-ac", channels, "-ar", rate, "-f", "f32le", "-"))
    return samples


def encoded(samples: "array[float]", rate: int, directory: Path, *filters: object, channels: int = 2) -> bytes:
    """The MP3 that one ffmpeg makes of samples."""
    (raw := directory / "samples.raw").write_bytes(samples.tobytes())
    layout = "mono" if channels == 1 else "stereo"
    arguments = (
        "-f",
        "f32le",
        "-ar",
        rate,
        "-ch_layout",
        layout,
        "-i",
        raw,
        *filters,
        "-b:a",
        "160k",
        "-reservoir",
        "0",
    )
    clips.run(*arguments, "-id3v2_version", "0", directory / "samples.mp3")
    return (directory / "samples.mp3").read_bytes()


def edited(video: Path, directory: Path, options: Options, encoders: int = 1) -> "array[float]":
    """The MP3's samples."""
    (path := directory / "edited.mp3").write_bytes(convert(video, directory, options, encoders)[1])
    return decoded(path, 48000, 1 if options.mono else 2)


def level(samples: "array[float]") -> float:
    """Level of the loudest sample in decibels."""
    return 20 * math.log10(max(max(map(abs, samples)), 1e-9))


@pytest.mark.parametrize(
    ("name", "rate", "arguments"),
    [
        ("aac.mp4", 48000, "-c:a aac"),
        ("aac.mkv", 44100, "-c:a aac"),
        ("mp3.mkv", 44100, "-c:a libmp3lame"),
        ("pcm.wav", 22050, ""),
        ("opus.webm", 48000, ""),
    ],
)
def test_start_and_end_are_exact_to_the_sample(name: str, rate: int, arguments: str, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), rate=rate)
    result, mp3 = convert(video, tmp_path, Options(start=1.2345, end=11.00001, bitrate=160), encoders=2)
    first = round(1.2345 * rate)
    last = round(11.00001 * rate)
    kept = decoded(video, rate)[2 * first : 2 * last]
    assert clips.without_id3(mp3) == encoded(kept, rate, tmp_path)
    assert result.duration == pytest.approx((last - first) / rate, abs=1e-9)
    assert not result.copied


def test_fade_out_ends_where_the_sound_ends(tmp_path: Path) -> None:
    # The container does not give a length, and the packets add up to more than is played.
    video = clips.clip(tmp_path / "live.mkv", "-c:a", "aac", "-live", "1", rate=44100)
    samples = decoded(video, 44100)
    length = len(samples) // 2
    fade = f"afade=type=out:start_sample={length - 44100}:nb_samples=44100"
    result, mp3 = convert(video, tmp_path, Options(bitrate=160, fade_out=1), encoders=2)
    assert clips.without_id3(mp3) == encoded(samples, 44100, tmp_path, "-af", fade)
    assert result.duration == pytest.approx(length / 44100, abs=1e-9)


def test_fades_start_and_end_in_silence(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "tone.wav", sound=TONE, seconds=6)
    sound = edited(video, tmp_path, Options(start=1, end=5, fade_in=1, fade_out=2))
    second = 2 * 48000
    assert len(sound) == 4 * second
    assert level(sound[second : 2 * second]) == pytest.approx(-6, abs=0.5)
    assert level(sound[: second // 100]) < -40
    assert level(sound[-second // 100 :]) < -40
    assert level(sound[second // 2 - 2000 : second // 2]) == pytest.approx(-12, abs=1)
    assert level(sound[3 * second : 3 * second + 2000]) == pytest.approx(-12, abs=1)


def test_fade_longer_than_the_sound_covers_all_of_it(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "tone.wav", sound=TONE, seconds=2)
    sound = edited(video, tmp_path, Options(fade_out=30))
    assert len(sound) == 2 * 2 * 48000
    assert level(sound[2 * 48000 - 1000 : 2 * 48000 + 1000]) == pytest.approx(-12, abs=1)
    assert level(sound[-1000:]) < -40


def test_volume_is_in_decibels(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "tone.wav", sound=TONE, seconds=2)
    plain = level(edited(video, tmp_path, Options()))
    assert level(edited(video, tmp_path, Options(volume=-12.5))) == pytest.approx(plain - 12.5, abs=0.3)
    assert level(edited(video, tmp_path, Options(volume=4.0))) == pytest.approx(plain + 4, abs=0.3)


def test_mono_is_the_mean_of_all_channels(tmp_path: Path) -> None:
    # With integer samples ffmpeg limits the sum by itself; with floats it would not.
    same = clips.clip(tmp_path / "same.wav", "-c:a", "pcm_f32le", sound=TONE, seconds=2)
    assert level(edited(same, tmp_path, Options(mono=True))) == pytest.approx(-6, abs=0.3)
    opposite = TONE.replace("|0.5", "|-0.5")
    silent = clips.clip(tmp_path / "opposite.wav", sound=opposite, seconds=2)
    assert level(edited(silent, tmp_path, Options(mono=True))) < -80
    assert clips.run("-i", tmp_path / "edited.mp3", "-f", "s16le", "-") == clips.run(
        "-i", tmp_path / "edited.mp3", "-ac", 1, "-f", "s16le", "-"
    )


@pytest.mark.parametrize("mono", [False, True])
def test_normalize_gives_any_sound_the_same_loudness(mono: bool, tmp_path: Path) -> None:
    for volume in (0.02, 0.9):
        video = clips.clip(tmp_path / "sound.wav", "-af", f"volume={volume}", sound=clips.NOISE, seconds=15, rate=44100)
        result, mp3 = convert(video, tmp_path, Options(normalize=True, mono=mono), encoders=2)
        frame = parse_header(clips.without_id3(mp3))
        assert frame is not None
        assert frame.rate == 44100
        (path := tmp_path / "out.mp3").write_bytes(mp3)
        # Mono is played on two loudspeakers.
        command = [clips.ffmpeg(), "-nostdin", "-i", str(path), "-af", "ebur128=dualmono=1:framelog=quiet"]
        report = subprocess.run([*command, "-f", "null", "-"], capture_output=True, text=True, check=True).stderr
        found = re.search(r"I: +(-[0-9.]+) LUFS", report)
        assert found is not None
        assert float(found[1]) == pytest.approx(-16, abs=1)
        assert result.duration == pytest.approx(15, abs=1e-9)


def test_mp3_is_copied_unless_it_is_edited(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "sound.mp3", seconds=3)
    assert convert(video, tmp_path, Options(), 1)[0].copied
    assert convert(video, tmp_path, Options(start=0.0, volume=0.0, fade_in=0.0), 1)[0].copied
    for options in (Options(start=1.0), Options(end=2.0), Options(fade_in=1.0), Options(volume=1.0)):
        assert not convert(video, tmp_path, options, 1)[0].copied


def test_start_after_the_end_of_the_sound_is_refused(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "short.mp4", "-c:a", "aac", seconds=3)
    with pytest.raises(UnusableMedia, match=r"sound ends at 3\.0 seconds: choose a start before that, not 10\."):
        convert(video, tmp_path, Options(start=10.0), 1)
    # The packets extend slightly past the sound that is played.
    with pytest.raises(UnusableMedia, match="start"):
        convert(video, tmp_path, Options(start=3.001), 1)


@pytest.mark.parametrize("encoders", [1, 2])
def test_sound_that_changes_its_rate_is_edited_as_a_whole(encoders: int, tmp_path: Path) -> None:
    first = clips.clip(tmp_path / "one.aac", "-c:a", "aac", rate=48000)
    second = clips.clip(tmp_path / "two.aac", "-c:a", "aac", "-ac", "1", rate=32000, sound=clips.NOISE)
    video = tmp_path / "both.aac"
    video.write_bytes(first.read_bytes() + second.read_bytes())
    options = Options(bitrate=160, start=1.0, fade_in=0.5, fade_out=3.0, volume=-2.0)
    _, mp3 = convert(video, tmp_path, options, encoders)
    kept = decoded(video, 48000)[2 * 48000 :]
    fades = f"afade=type=in:nb_samples=24000,afade=type=out:start_sample={len(kept) // 2 - 144000}:nb_samples=144000"
    assert clips.without_id3(mp3) == encoded(kept, 48000, tmp_path, "-af", f"volume=-2.0dB,{fades}")


def test_track_is_split_by_the_length_that_is_kept(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "long.mkv", "-c:a", "libopus", "-b:a", "32k", sound=clips.SILENCE, seconds=40)
    with video.open("rb") as source:
        track = tracks.take(source, tmp_path, Options())
    assert distribution.plan_pieces(track, Options(start=9.0), 30) is not None
    hour = replace(track, duration=3600.0)
    plans = [distribution.plan_pieces(hour, Options(), 30, limit) for limit in (2, 3, distribution.MAX_PIECES)]
    assert [len(plan.ranges) for plan in plans if plan] == [2, 3, 16]
    assert distribution.plan_pieces(track, Options(start=11.0), 30) is None
    assert distribution.plan_pieces(track, Options(end=29.0), 30) is None
    # Every encoder would repeat the normalization, which costs more than encoding.
    assert distribution.plan_pieces(track, Options(normalize=True), 30) is None


@settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(rate=44100, options=Options(normalize=True), splits={3})
@example(
    rate=48000, options=Options(start=0.5, end=9.0, fade_in=3.0, fade_out=4.0, volume=3.0, mono=True), splits={2, 5}
)
@example(
    rate=32000,
    options=Options(start=0.3, fade_in=1.0, fade_out=1.0, volume=-3.0, normalize=True, mono=True),
    splits={4},
)
@given(
    rate=st.sampled_from([22050, 44100, 48000]),
    options=st.builds(
        Options,
        start=st.none() | st.floats(0, 4),
        end=st.none() | st.floats(5, 12),
        fade_in=st.none() | st.floats(0.01, 5),
        fade_out=st.none() | st.floats(0.01, 5),
        volume=st.none() | st.floats(-30, 10).map(lambda value: round(value, 2)),
        normalize=st.booleans(),
        mono=st.booleans(),
    ),
    splits=st.sets(st.integers(1, 6), max_size=3),
)
def test_many_encoders_make_the_bytes_of_one(tmp_path: Path, rate: int, options: Options, splits: set[int]) -> None:
    video = clips.clip(tmp_path / "sound.mkv", "-c:a", "aac", rate=rate)
    with video.open("rb") as source:
        track = tracks.take(source, tmp_path, replace(options, bitrate=160))
    starts = [0, *(at * RANGE_STEP for at in sorted(splits))]
    ranges = tuple(FrameRange(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True))
    plan = Plan.from_json(plan_for(track, replace(options, bitrate=160), 1).to_json())
    filters = ",".join(plan.filters)
    serial = clips.serial(track.path, tmp_path / "serial.mp3", "-af", filters, *plan.quality)
    assert spliced(replace(plan, ranges=ranges), track.path, tmp_path) == serial


def test_tool_has_a_flag_for_every_option(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "tone.wav", sound=TONE, seconds=3)
    out = tmp_path / "out.mp3"
    times = ["--start", "0:00.5", "--end", "2.5", "--fade-in", "0.5", "--fade-out", "0.5"]
    flags = [*times, "--volume", "-3", "--mono", "--normalize"]
    assert main([str(video), "-o", str(out), *flags]) == 0
    assert len(decoded(out, 48000, 1)) == 2 * 48000
    assert main([str(video), "-o", str(out), "--end", "1", "--start", "2"]) == 1


def test_tool_refuses_an_output_that_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = clips.clip(tmp_path / "tone.wav", sound=TONE, seconds=1)
    nowhere = tmp_path / "nowhere"
    for out, message in (
        (tmp_path, f"{tmp_path} is not a file: name a file with -o.\n"),
        (nowhere / "out.mp3", f"The directory {nowhere} does not exist: create it, or name another file with -o.\n"),
    ):
        assert main([str(video), "-o", str(out)]) == 1
        assert capsys.readouterr().err == message


def test_plans_of_older_versions_are_still_read() -> None:
    plan = Plan("mov", 48000, 2, ("-b:a", "192k"), ("anull",), 1, (FrameRange(0, None),))
    old = {name: value for name, value in plan.to_json().items() if name not in ("before", "steady")}
    assert Plan.from_json(old) == plan
