"""Encoders that leap into the middle of a track: the bytes of one ffmpeg that decodes all of it."""

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from functions.convert import distribution
from functions.convert.demux.track import TrackInfo
from functions.convert.distribution import EncodedPiece
from functions.convert.ffmpeg.encoder import EncoderInput
from functions.convert.mp3 import assemble
from functions.convert.mp3.frame import samples_per_frame
from functions.convert.plan import RANGE_STEP, FrameRange, Plan, Seek, plan_for
from functions.convert.seek import excerpt, matroska
from functions.options import Options
from tests.support import clips, tracks
from tests.unit.convert.test_distribution import converted

#: Vowels that rise and fall, and hiss between them.
SPEECH = (
    "aevalsrc='0.4*sin(2*PI*(120*t+9*sin(2*PI*0.7*t)))*(0.5+0.5*sin(2*PI*3*t))*gt(sin(2*PI*0.31*t)\\,-0.6)"
    "+0.2*sin(2*PI*(710*t+30*sin(2*PI*0.4*t)))*(0.5+0.5*sin(2*PI*3*t))+0.05*random(0)*gt(sin(2*PI*1.3*t)\\,0.3)"
    "|0.3*sin(2*PI*(140*t+9*sin(2*PI*0.6*t)))+0.01*random(1)':d={seconds}:s={rate}"
)
SOUNDS = [clips.MUSIC, SPEECH, clips.NOISE, clips.SILENCE, clips.STEPS]


def taken(video: Path, options: Options | None = None) -> TrackInfo:
    """The track, as it is when a job is shared out."""
    with video.open("rb") as source:
        return tracks.take(source, video.parent, options or Options(bitrate=160))


def leaping(track: TrackInfo, options: Options, starts: list[int]) -> Plan:
    """The plan with these cuts and a leap for each."""
    assert excerpt.is_seekable(track, options)
    marks = excerpt.index_clusters(track)
    assert marks is not None
    pieces = tuple(FrameRange(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True))
    plan = excerpt.add_seeks(replace(plan_for(track, options, 1), ranges=pieces), track, marks)
    return Plan.from_json(plan.to_json())


def leaps(plan: Plan) -> int:
    """How many encoders begin after the beginning."""
    return sum(piece.seek is not None and piece.seek.sample > 0 for piece in plan.ranges)


def encoded(plan: Plan, track: TrackInfo, directory: Path) -> tuple[bytes, list[EncodedPiece]]:
    """Each piece of its own excerpt, laid end to end."""
    parts, sound = [], io.BytesIO()
    for piece in plan.ranges:
        (folder := directory / f"piece {piece.start}").mkdir(exist_ok=True)
        with track.path.open("rb") as source, (folder / "track").open("wb") as target:
            assert piece.seek is not None
            excerpt.write_excerpt(source, piece.seek, target)
        parts.append(
            distribution.encode_piece(
                EncoderInput(clips.ffmpeg(), plan, folder / "track", folder), piece, sound, lambda _: None
            )
        )
    return sound.getvalue(), parts


def joined(plan: Plan, track: TrackInfo, directory: Path) -> bytes:
    """The MP3 of all pieces."""
    sound, parts = encoded(plan, track, directory)
    assert distribution.pieces_fit(plan, parts)
    out = io.BytesIO()
    assemble.write_mp3(out, [], assemble.join_pieces(plan, [part.summary for part in parts], [sound], directory))
    return out.getvalue()


def serial(track: TrackInfo, mp3: Path, options: Options) -> bytes:
    """What one ffmpeg makes of a track from its beginning to its end."""
    plan = plan_for(track, options, 1)
    clips.run("-f", track.container, "-i", track.path, "-af", ",".join(plan.filters), *plan.quality, *clips.PLAIN, mp3)
    return mp3.read_bytes()


# Each row: a file, ffmpeg's arguments for it, and the sound's rate.
FILES = [
    ("pcm.wav", "-c:a pcm_s16le", 44100),
    ("float.wav", "-c:a pcm_f32le", 48000),
    ("pcm.avi", "-c:v mpeg4 -c:a pcm_s16le", 44100),
    ("24.mka", "-c:a pcm_s24le", 48000),
    ("flac.flac", "-c:a flac", 44100),
    ("blocks.flac", "-c:a flac -frame_size 1000 -ac 1", 32000),
    ("24.flac", "-c:a flac -sample_fmt s32 -bits_per_raw_sample 24", 48000),
    ("surround.flac", "-c:a flac -ac 6", 48000),
    ("flac.mkv", "-c:v mpeg4 -c:a flac", 22050),
    ("flac.ogg", "-c:a flac", 48000),
    ("vorbis.ogg", "-c:a libvorbis", 44100),
    ("vorbis.webm", "-c:v libvpx -deadline realtime -c:a libvorbis -q:a 9", 48000),
    ("mono.mkv", "-c:v mpeg4 -c:a libvorbis -ac 1 -q:a 0", 22050),
    ("low.ogg", "-c:a libvorbis -q:a -1 -ac 1", 8000),
    ("mp3.mp3", "-c:a libmp3lame -b:a 128k -write_xing 0", 44100),
    ("least.mp3", "-c:a libmp3lame -b:a 8k -ac 1 -write_xing 0", 24000),
    ("low.mp3", "-c:a libmp3lame -b:a 32k -write_xing 0", 48000),
    ("high.mp3", "-c:a libmp3lame -b:a 320k -write_xing 0", 44100),
    ("vbr.mp3", "-c:a libmp3lame -q:a 4 -write_xing 0", 32000),
    ("mp3.avi", "-c:v mpeg4 -c:a libmp3lame -b:a 96k", 48000),
    ("mp3.mkv", "-c:v mpeg4 -c:a libmp3lame -q:a 2", 44100),
    ("mp3.flv", "-c:v flv1 -c:a libmp3lame -b:a 64k", 44100),
    ("mp3.ts", "-c:v mpeg2video -c:a libmp3lame -b:a 192k", 48000),
]


@pytest.mark.parametrize(("name", "arguments", "rate"), FILES, ids=[row[0] for row in FILES])
def test_encoders_that_leap_make_the_mp3_of_one_that_does_not(
    name: str, arguments: str, rate: int, tmp_path: Path
) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), rate=rate, seconds=28.3, video="-c:v" in arguments)
    track, options = taken(video), Options(bitrate=160)
    frames = plan_for(track, options, 1).samples // samples_per_frame(rate)
    starts = [frames * part // 8 // RANGE_STEP * RANGE_STEP for part in (0, 5, 7)]
    plan = leaping(track, options, starts)
    assert leaps(plan) == 2
    assert joined(plan, track, tmp_path) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "160k")


CODECS = {
    "pcm_s16le": (".wav", ()),
    "pcm_f32le": (".mka", ()),
    "flac": (".flac", ("-frame_size", "777")),
    "libvorbis": (".ogg", ("-q:a", "1")),
    "libmp3lame": (".mkv", ("-b:a", "32k")),
}


@settings(
    max_examples=5,  # a dozen seconds each, and other ones in every run
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example("libmp3lame", 22050, 1, SPEECH, Options(vbr=2, mono=True), 50.0, {10, 20})
@example("libvorbis", 44100, 2, clips.STEPS, Options(bitrate=64, volume=-3.5), 27.0, {15, 21})
@example("flac", 22050, 1, clips.SILENCE, Options(bitrate=320), 20.6, {10, 18})
@given(
    codec=st.sampled_from(sorted(CODECS)),
    rate=st.sampled_from([8000, 11025, 16000, 22050, 32000, 44100, 48000]),
    channels=st.sampled_from([1, 2]),
    sound=st.sampled_from(SOUNDS),
    options=st.sampled_from([Options(bitrate=320), Options(bitrate=64), Options(vbr=0), Options(vbr=9, mono=True)]),
    seconds=st.floats(20, 40),
    cuts=st.sets(st.integers(4, 22), min_size=1, max_size=4),
)
def test_a_leap_to_any_place_of_any_sound(
    tmp_path: Path,
    codec: str,
    rate: int,
    channels: int,
    sound: str,
    options: Options,
    seconds: float,
    cuts: set[int],
) -> None:
    extension, arguments = CODECS[codec]
    video = tmp_path / f"sound{extension}"
    clips.clip(video, "-ac", channels, "-c:a", codec, *arguments, sound=sound, seconds=seconds, rate=rate)
    track = taken(video, options)
    plan = leaping(track, options, [0, *(at * RANGE_STEP for at in sorted(cuts))])
    assert joined(plan, track, tmp_path) == serial(track, tmp_path / "serial.mp3", options)


# Each row: a file, ffmpeg's arguments for it, and the options.
REST = [
    ("aac.mkv", "-c:a aac", {}),
    ("ac3.mkv", "-c:a ac3", {}),
    ("opus.webm", "-c:a libopus", {}),
    ("hires.flac", "-c:a flac -ar 96000", {}),
    ("mp3.mp4", "-c:a libmp3lame", {}),
    ("tagged.mp3", "-c:a libmp3lame", {}),
    ("phone.wav", "-c:a pcm_mulaw", {}),
    ("start.flac", "-c:a flac", {"start": 1.0}),
    ("end.flac", "-c:a flac", {"end": 1.0}),
    ("in.flac", "-c:a flac", {"fade_in": 1.0}),
    ("out.flac", "-c:a flac", {"fade_out": 1.0}),
    ("level.flac", "-c:a flac", {"normalize": True}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), REST, ids=[row[0] for row in REST])
def test_what_cannot_be_counted_or_forgotten_is_decoded_from_its_beginning(
    name: str, arguments: str, options: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excerpt, "MIN_SEEK_SECONDS", 0.0)
    video = clips.clip(tmp_path / name, *arguments.split(), seconds=15)
    asked = Options(bitrate=160, **options)  # type: ignore[arg-type]  # numbers, and one truth
    track = taken(video, asked)
    assert not excerpt.is_seekable(track, asked)
    plan = distribution.plan_pieces(track, asked, 0)
    assert plan is None or not any(piece.seek for piece in plan.ranges)


def test_encoders_leap_from_an_hour_on(tmp_path: Path) -> None:
    track = replace(
        taken(clips.clip(tmp_path / "a.flac", seconds=40, rate=8000)), duration=excerpt.MIN_SEEK_SECONDS - 1
    )
    plan = distribution.plan_pieces(track, Options(), 0)
    assert plan is not None
    assert len(plan.ranges) == distribution.MAX_PIECES
    assert not any(piece.seek for piece in plan.ranges)
    plan = distribution.plan_pieces(replace(track, duration=10 * excerpt.MIN_SEEK_SECONDS), Options(), 0)
    assert plan is not None
    assert len(plan.ranges) == distribution.MAX_SEEKING_PIECES
    assert all(piece.seek for piece in plan.ranges)
    lengths = {two.start - one.start for one, two in pairwise(plan.ranges)}
    assert max(lengths) - min(lengths) <= RANGE_STEP


def flac(directory: Path, seconds: float = 40) -> Path:
    return clips.clip(directory / "sound.mka", "-c:a", "flac", seconds=seconds, rate=16000)


def test_an_excerpt_is_the_part_that_is_needed(tmp_path: Path) -> None:
    track = taken(flac(tmp_path))
    plan = leaping(track, Options(), [0, 10 * RANGE_STEP, 11 * RANGE_STEP])
    size = track.path.stat().st_size
    for piece in plan.ranges[:2]:
        found = io.BytesIO()
        assert piece.seek is not None
        with track.path.open("rb") as source:
            excerpt.write_excerpt(source, piece.seek, found)
        assert len(found.getvalue()) == piece.seek.head + piece.seek.end - piece.seek.offset
    assert plan.ranges[1].seek is not None
    assert plan.ranges[1].seek.end - plan.ranges[1].seek.offset < size / 2


@pytest.mark.parametrize("harm", ["a bit", "the end", "the beginning"])
def test_an_excerpt_of_another_track_is_none(tmp_path: Path, harm: str) -> None:
    track = taken(flac(tmp_path))
    piece = leaping(track, Options(), [0, 10 * RANGE_STEP]).ranges[1]
    assert piece.seek is not None
    data = bytearray(track.path.read_bytes())
    if harm == "a bit":
        data[piece.seek.offset + 5000] ^= 1
    elif harm == "the end":
        del data[piece.seek.end - 1 :]
    else:
        data[:100] = bytes(100)
    with pytest.raises(excerpt.TrackChanged):
        excerpt.write_excerpt(io.BytesIO(data), piece.seek, io.BytesIO())


def test_a_leap_that_is_a_sample_off_is_seen_at_the_seam(tmp_path: Path) -> None:
    track = taken(flac(tmp_path))
    plan = leaping(track, Options(), [0, 10 * RANGE_STEP])
    wrong = plan.ranges[1]
    assert wrong.seek is not None
    wrong = replace(wrong, seek=replace(wrong.seek, sample=wrong.seek.sample + 1))
    plan = replace(plan, ranges=(plan.ranges[0], wrong))
    _, parts = encoded(plan, track, tmp_path)
    assert not distribution.pieces_fit(plan, parts)


def packets(file: Path) -> list[tuple[int, int]]:
    """Where in a file each packet begins and ends."""
    with file.open("rb") as source:
        matroska.head(source)
        return [
            (end - len(cluster) + start, end - len(cluster) + stop)
            for _, end, cluster in matroska.clusters(source)
            for start, stop, _ in matroska.packets(cluster)
        ]


def in_pieces_and_in_one(
    video: Path, options: dict[str, str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[bytes], list[str | None]]:
    """The MP3s and the warnings of a job that is shared out among encoders that leap, and of one that is not."""
    monkeypatch.setattr(excerpt, "MIN_SEEK_SECONDS", 0.0)
    one, many = (converted(video, options, directory / str(fanout), fanout) for fanout in (1e9, 0))
    assert (one[2], many[2]) == (0, 2)
    return [one[0], many[0]], [one[1], many[1]]


@pytest.mark.parametrize("codec", ["flac", "libvorbis"])
def test_a_job_whose_workers_leap_becomes_the_mp3_of_one_worker(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = clips.clip(tmp_path / "sound.mka", "-c:a", codec, seconds=40, rate=16000)
    (one, many), warnings = in_pieces_and_in_one(video, {"vbr": "4"}, tmp_path, monkeypatch)
    assert many == one
    assert warnings == [None, None]


def test_damage_that_no_header_shows_is_heard_as_by_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = flac(tmp_path)
    start, _ = packets(video)[20]
    with video.open("r+b") as file:
        file.seek(start + 6)  # behind the header, whose sum stays right
        file.write(b"\x04")  # a reserved kind of subframe (RFC 9639, 9.2.1): ffmpeg leaves the frame out
    (one, many), warnings = in_pieces_and_in_one(video, {}, tmp_path, monkeypatch)
    assert many == one
    assert warnings == ["Parts of the sound are damaged or missing and were left out."] * 2


@pytest.mark.parametrize("name", ["sound.flac", "sound.mp3"])
def test_a_file_that_is_cut_off_is_joined_of_its_pieces(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    video = clips.clip(tmp_path / name, *([] if name == "sound.flac" else ["-write_xing", 0]), seconds=40, rate=16000)
    options = Options(bitrate=96)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 9 // 10 + 111])
    track = taken(video, options)
    assert excerpt.is_seekable(track, options)
    assert excerpt.index_clusters(track) is not None
    (one, many), warnings = in_pieces_and_in_one(video, {"bitrate": "96"}, tmp_path, monkeypatch)
    assert many == one
    assert warnings[0] == warnings[1]
    assert "do not fit together" not in caplog.text


def test_a_track_that_is_not_what_it_seems_has_no_marks(tmp_path: Path) -> None:
    track = taken(flac(tmp_path))
    whole = track.path.read_bytes()
    spans = packets(track.path)
    for harm in ("header", "kind", "block", "cut", "other"):
        data = bytearray(whole)
        start, end = spans[20]
        if harm == "header":
            data[start] = 0
        elif harm == "kind":
            data[start + 3] &= 0x0F  # mono, where the others are stereo
        elif harm == "block":
            data[start - 1] |= 0x02  # laced
        elif harm == "cut":
            del data[end + 100 :]
        else:
            data[: len(data) // 2] = bytes(len(data) // 2)
        track.path.write_bytes(data)
        assert excerpt.index_clusters(track) is None, harm
    track.path.write_bytes(whole)
    assert excerpt.index_clusters(track) is not None
    assert (
        excerpt.index_clusters(replace(track, rate=15000)) is None
    )  # the packets do not add up to what the clock says


def test_mp3_that_changes_its_rate_midway_has_no_marks(tmp_path: Path) -> None:
    both = tmp_path / "both.mp3"
    with both.open("wb") as out:
        for rate in (44100, 48000):
            one = clips.clip(tmp_path / f"{rate}.mp3", *clips.PLAIN, "-write_xing", 0, rate=rate)
            out.write(one.read_bytes())
    track = taken(both)
    assert not excerpt.is_seekable(track, Options(bitrate=160)) or excerpt.index_clusters(track) is None


def test_a_plan_from_before_there_were_leaps_is_understood() -> None:
    plan = Plan(
        "matroska",
        8000,
        1,
        ("-b:a", "64k"),
        ("anull",),
        1,
        (FrameRange(0, 5, Seek(1, 2, 3, 4, 5)), FrameRange(5, None)),
    )
    data = plan.to_json()
    assert Plan.from_json(data) == plan
    for piece in data["pieces"]:
        del piece["leap"]
    assert Plan.from_json(data).ranges == (FrameRange(0, 5), FrameRange(5, None))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=20), at=st.floats(0, 1), anywhere=st.booleans())
def test_no_bytes_make_the_survey_fail(tmp_path: Path, data: bytes, at: float, anywhere: bool) -> None:
    path = tmp_path / "whole"
    if not path.exists():
        flac(tmp_path, seconds=6).rename(path)
    whole = path.read_bytes()
    start = int(at * (len(whole) if anywhere else 1000))
    (tmp_path / "track").write_bytes(whole[:start] + data + whole[start + len(data) :])
    track = TrackInfo(tmp_path / "track", "matroska", "flac", 16000, 2, 4.0, 0.0, 0, 0, 0, 0, {}, [], b"")
    marks = excerpt.index_clusters(track)
    assert marks is None or marks.marks[0].sample == 0
