"""Any source in any split becomes the bytes of one ffmpeg that runs with its bit reservoir off.

Variable bit rate is compared before it is re-packed, which depends on nothing but these bytes.
"""

import io
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from functions.convert import pipeline
from functions.convert.demux.track import extract_track
from functions.convert.ffmpeg import encoder
from functions.convert.ffmpeg.encoder import EncoderInput
from functions.convert.mp3.summary import PieceSummary, build_tag, last_with_sound, read_frames
from functions.convert.plan import DECODE_COST, MIN_RANGE_FRAMES, RANGE_STEP, FrameRange, Plan, plan_for, split_frames
from functions.options import Options
from tests.support import clips, tracks


def convert(video: Path, directory: Path, options: Options, encoders: int) -> tuple[pipeline.Result, bytes]:
    out = io.BytesIO()
    with video.open("rb") as source:
        result = pipeline.to_mp3(
            source,
            out,
            pipeline.Settings(options=options, filename=video.name, encoders=encoders),
            directory=directory,
            on_progress=lambda _: None,
        )
    assert result.size == len(out.getvalue())
    return result, out.getvalue()


# Each row: a file, ffmpeg's arguments for it, and the sound's rate.
CONTAINERS = [
    ("aac.mp4", "-c:a aac", 48000),
    ("aac.mov", "-c:a aac -movflags +faststart", 44100),
    ("fragmented.mp4", "-c:a aac -movflags frag_keyframe+empty_moov", 44100),
    ("recorded.mp4", "-c:a aac -movflags frag_keyframe+delay_moov", 44100),  # with an edit list
    ("streamed.mp4", "-c:a aac -movflags dash+delay_moov", 48000),
    ("opus.mp4", "-c:a libopus", 48000),
    ("ac3.mp4", "-c:a ac3", 48000),
    ("alac.mov", "-c:a alac", 44100),
    ("aac.mkv", "-c:a aac", 22050),
    ("vorbis.mkv", "-c:a libvorbis", 44100),
    ("surround.mkv", "-c:a ac3 -ac 6", 48000),
    ("opus.webm", "-c:v libvpx -deadline realtime -c:a libopus", 48000),
    ("pcm.avi", "-c:v mpeg4 -c:a pcm_s16le", 44100),
    ("eac3.avi", "-c:v mpeg4 -c:a eac3", 48000),  # each packet starts long after the one before it ends
    ("aac.flv", "-c:v flv1 -c:a aac", 44100),
    ("aac.ts", "-c:v mpeg2video -c:a aac", 48000),
    ("mp2.mpg", "-c:v mpeg1video -c:a mp2", 44100),
    ("wma.wmv", "-c:v wmv2 -c:a wmav2", 44100),
    ("vorbis.ogg", "-vn -c:a libvorbis", 44100),
    ("hires.flac", "-vn -c:a flac", 96000),
    ("odd.wav", "-vn -c:a pcm_s16le", 37800),
    ("float.wav", "-vn -c:a pcm_f32le", 48000),
    ("phone.wav", "-vn -ac 1 -c:a pcm_mulaw", 8000),
    ("mono.m4a", "-vn -ac 1 -c:a aac", 32000),
    ("bare.aac", "-vn -c:a aac", 24000),
    ("mp3.mp4", "-c:a libmp3lame -b:a 96k", 44100),
    ("lame.mp3", "-vn -c:a libmp3lame -q:a 3", 44100),
    ("low.mp3", "-vn -c:a libmp3lame -write_xing 0", 22050),
    ("ac3.mpg", "-c:v mpeg1video -c:a ac3", 48000),  # time stamps that go back slightly
    ("disc.vob", "-c:v mpeg2video -c:a pcm_dvd", 48000),
    ("disc.m2ts", "-c:v mpeg2video -c:a pcm_bluray", 48000),
    ("broadcast.ts", "-c:v mpeg2video -c:a s302m -strict -2", 48000),
    ("speech.flv", "-c:v flv1 -ac 1 -c:a nellymoser", 44100),
    ("old.caf", "-vn -c:a adpcm_ima_qt", 44100),
    # Samples of the first or last packet that are not played, in containers of codecs that few others support.
    ("windows.mkv", "-vn -c:a adpcm_ms", 48000),
    ("windows.caf", "-vn -c:a adpcm_ms", 48000),
    ("windows.nut", "-vn -c:a adpcm_ms", 48000),
    ("ima.caf", "-vn -c:a adpcm_ima_wav", 48000),
    ("flash.mka", "-vn -c:a adpcm_swf", 44100),
    ("yamaha.mka", "-vn -c:a adpcm_yamaha", 48000),
    ("telephone.mkv", "-vn -ac 1 -c:a g722", 16000),
    ("mobile.mkv", "-vn -ac 1 -c:a libopencore_amrnb", 8000),
    ("mobile.caf", "-vn -ac 1 -c:a libopencore_amrnb", 8000),
    ("modem.mkv", "-vn -ac 1 -t 12.29 -c:a g723_1 -b:a 6300", 8000),
    ("telephone.au", "-vn -ac 1 -c:a g726le", 8000),  # these tracks stay in their containers
    ("game.aiff", "-vn -c:a adpcm_ima_ws", 48000),
    # Clocks and lengths that are wrong although nothing is missing.
    ("clock.wmv", "-vn -c:a flac -frame_size 4096", 48000),
    ("clock.wtv", "-vn -c:a flac -frame_size 4096", 48000),
    ("guessed.wav", "-vn -c:a flac -sample_fmt s32 -strict -2", 48000),
]


@pytest.mark.parametrize(("name", "arguments", "rate"), CONTAINERS, ids=[row[0] for row in CONTAINERS])
def test_any_kind_of_file_becomes_the_mp3_of_one_ffmpeg(name: str, arguments: str, rate: int, tmp_path: Path) -> None:
    if "-c:v" not in arguments and "-vn" not in arguments:
        arguments = f"-c:v mpeg4 {arguments}"
    video = clips.clip(tmp_path / name, *arguments.split(), rate=rate, video="-vn" not in arguments)
    # every rate has 160 kbit/s, except MPEG-2.5, where ffmpeg uses its maximum of 64
    result, mp3 = convert(video, tmp_path, Options(bitrate=160), encoders=2)
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "160k")
    assert result.warning is None
    assert not result.copied
    assert result.duration == pytest.approx(12.3, abs=0.1)


@pytest.mark.parametrize("name", clips.REALISTIC)
def test_realistic_file_becomes_the_mp3_of_one_ffmpeg(name: str, tmp_path: Path) -> None:
    video = clips.realistic(tmp_path / name)
    options = Options(vbr=4)
    with video.open("rb") as source:
        track = tracks.take(source, tmp_path, options)
    plan = plan_for(track, options, 3)
    # Before re-packing (test_reservoir.py).
    assert spliced(plan, track.path, tmp_path) == clips.serial(video, tmp_path / "serial.mp3", "-q:a", "4")
    result, _ = convert(video, tmp_path, options, encoders=3)
    assert result.warning is None


QUALITIES = [("-b:a", f"{rate}k") for rate in (64, 128, 192, 320)] + [("-q:a", str(vbr)) for vbr in (0, 2, 9)]


@settings(
    max_examples=8,  # three encodings each, and different examples in every run
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(rate=16000, channels=1, sound=clips.MUSIC, quality=("-q:a", "0"), samples=1, splits=set(), bundled=True)
@example(
    rate=44100, channels=2, sound=clips.STEPS, quality=("-b:a", "128k"), samples=400_000, splits={2, 3, 7}, bundled=True
)
@given(
    rate=st.sampled_from([8000, 11025, 16000, 22050, 32000, 44100, 48000]),
    channels=st.sampled_from([1, 2]),
    sound=st.sampled_from([clips.MUSIC, clips.NOISE, clips.SILENCE, clips.STEPS]),
    quality=st.sampled_from(QUALITIES),
    samples=st.integers(1, 400_000),
    splits=st.sets(st.integers(1, 8), max_size=4),
    bundled=st.booleans(),
)
def test_any_split_of_any_sound(  # noqa: PLR0913 - one parameter for each thing that hypothesis varies
    tmp_path: Path,
    rate: int,
    channels: int,
    sound: str,
    quality: tuple[str, str],
    samples: int,
    splits: set[int],
    bundled: bool,
) -> None:
    video = tmp_path / "sound.wav"
    # Slightly longer than wanted, then trimmed to the sample. Ranges may also start after the end.
    length = f"aformat=channel_layouts={'mono' if channels == 1 else 'stereo'},atrim=end_sample={samples}"
    clips.clip(video, "-af", length, sound=sound, seconds=samples / rate + 0.1, rate=rate)
    starts = [0, *(at * RANGE_STEP for at in sorted(splits))]
    ranges = tuple(FrameRange(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True))
    with video.open("rb") as source:
        track = extract_track(source, tmp_path / "track", number=0, copy=False, on_progress=lambda _: None)
    assert track is not None
    plan = Plan("matroska", rate, channels, quality, ("anull",), samples, ranges, bundled=bundled)
    plan = Plan.from_json(plan.to_json())
    assert spliced(plan, track.path, tmp_path) == clips.serial(video, tmp_path / "serial.mp3", *quality)


def spliced(plan: Plan, track: Path, directory: Path) -> bytes:
    """The MP3 as many workers make it: each piece on its own, its summary through JSON, the last piece first."""
    source = EncoderInput(clips.ffmpeg(), plan, track, directory)
    made = {}
    for piece in reversed(plan.ranges):
        (run,) = encoder.encode(source, [piece], 1, lambda _: None)
        made[piece.start] = run.path, PieceSummary.from_json(run.summarize().to_json())
    ordered = [made[piece.start] for piece in plan.ranges]
    frames = chain.from_iterable(read_frames(path, summary) for path, summary in ordered)
    return not_repacked([summary for _, summary in ordered], frames)


def not_repacked(summaries: Sequence[PieceSummary], frames: Iterable[bytes]) -> bytes:
    """The MP3 of pieces, without an ID3 tag and before variable bit rate is re-packed."""
    last = last_with_sound(summaries)
    assert last is not None
    return build_tag(summaries, bytes.fromhex(last.tag)) + b"".join(frames)


def test_ranges_take_equally_long_and_have_no_gaps() -> None:
    ranges = split_frames(100_000, 4)
    assert [frames.start for frames in ranges[1:]] == [frames.end for frames in ranges[:-1]]
    assert ranges[0].start == 0
    assert ranges[-1].end is None
    ends = [frames.end or 100_000 for frames in ranges]
    costs = [end * DECODE_COST + end - frames.start for frames, end in zip(ranges, ends, strict=True)]
    assert max(costs) / min(costs) < 1.02


@pytest.mark.parametrize("frames", [0, 1, 97, MIN_RANGE_FRAMES, 2 * MIN_RANGE_FRAMES - 1])
def test_short_track_is_one_range(frames: int) -> None:
    assert split_frames(frames, 64) == (FrameRange(0, None),)


@given(frames=st.integers(0, 2_000_000), limit=st.integers(1, 200))
def test_ranges_start_where_encoders_can(frames: int, limit: int) -> None:
    ranges = split_frames(frames, limit)
    assert 1 <= len(ranges) <= limit
    for before, after in pairwise(ranges):
        assert before.end == after.start
        assert after.start % RANGE_STEP == 0
        assert after.start - before.start >= MIN_RANGE_FRAMES


def test_mp3_that_changes_its_rate_is_encoded_as_by_one_ffmpeg(tmp_path: Path) -> None:
    first = clips.clip(tmp_path / "one.mp3", "-id3v2_version", "0", "-write_xing", "0", rate=44100)
    second = clips.clip(tmp_path / "two.mp3", "-id3v2_version", "0", "-write_xing", "0", rate=48000)
    video = tmp_path / "both.mp3"
    video.write_bytes(first.read_bytes() + second.read_bytes())
    result, mp3 = convert(video, tmp_path, Options(), encoders=2)
    assert not result.copied
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "192k")


def test_last_frame_of_padding_ends_where_one_ffmpeg_ends_it(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mp3", "-af", "atrim=end_sample=115220", seconds=3)
    assert clips.samples(video, 48000, 2) == 101 * 1152 - 1105
    result, mp3 = convert(video, tmp_path, Options(bitrate=160), encoders=2)
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "160k")
    assert result.duration == pytest.approx((101 * 1152 - 1105) / 48000)


@pytest.mark.parametrize("samples", [100, 123_457])
def test_length_of_a_fractional_millisecond_is_kept(samples: int, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.tta", "-af", f"atrim=end_sample={samples}", seconds=3)
    result, mp3 = convert(video, tmp_path, Options(bitrate=160), encoders=2)
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "160k")
    assert result.warning is None


def test_sound_that_changes_its_rate_becomes_the_mp3_of_one_ffmpeg(tmp_path: Path) -> None:
    first = clips.clip(tmp_path / "one.aac", "-c:a", "aac", rate=48000)
    second = clips.clip(tmp_path / "two.aac", "-c:a", "aac", "-ac", "1", rate=32000, sound=clips.NOISE)
    video = tmp_path / "both.aac"
    video.write_bytes(first.read_bytes() + second.read_bytes())
    _, mp3 = convert(video, tmp_path, Options(), encoders=2)
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "192k")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("a.ts", "-c:v mpeg2video -c:a aac"),
        ("a.ts", "-c:v mpeg2video -c:a ac3"),
        ("a.mpg", "-c:v mpeg1video -c:a mp2"),
        ("a.ogg", "-vn -c:a libvorbis"),
        ("a.flac", "-vn -c:a flac"),
        ("a.webm", "-vn -c:a libopus"),
        ("a.opus", "-vn -c:a libopus"),
    ],
)
def test_concatenated_recordings_with_restarting_clocks_become_one(name: str, arguments: str, tmp_path: Path) -> None:
    one = clips.clip(tmp_path / name, *arguments.split(), video="-vn" not in arguments, seconds=6)
    video = one.with_stem("both")
    video.write_bytes(one.read_bytes() * 2)
    result, mp3 = convert(video, tmp_path, Options(), encoders=2)
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "192k")
    assert result.duration == pytest.approx(12, abs=0.2)
    with video.open("rb") as source:  # which the plan and the progress are based on
        assert tracks.take(source, tmp_path, Options()).duration == pytest.approx(12, abs=0.2)
