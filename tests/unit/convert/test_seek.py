"""Encoders that seek into the middle of a track make the bytes of one ffmpeg that decodes all of it."""

import io
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from functions.convert import distribution
from functions.convert.demux.track import TrackInfo
from functions.convert.distribution import EncodedPiece, JobPlan
from functions.convert.ffmpeg.encoder import EncoderInput
from functions.convert.plan import RANGE_STEP, FrameRange, Plan, Seek, plan_for, split_frames
from functions.convert.seek import excerpt, matroska
from functions.convert.seek.errors import TrackChanged
from functions.mp3.frame import samples_per_frame
from functions.options import Options
from tests.support import clips, tracks
from tests.unit.convert.test_distribution import converted
from tests.unit.convert.test_identity import not_repacked

#: Rising and falling vowels with hiss between them.
SPEECH = (
    "aevalsrc='0.4*sin(2*PI*(120*t+9*sin(2*PI*0.7*t)))*(0.5+0.5*sin(2*PI*3*t))*gt(sin(2*PI*0.31*t)\\,-0.6)"
    "+0.2*sin(2*PI*(710*t+30*sin(2*PI*0.4*t)))*(0.5+0.5*sin(2*PI*3*t))+0.05*random(0)*gt(sin(2*PI*1.3*t)\\,0.3)"
    "|0.3*sin(2*PI*(140*t+9*sin(2*PI*0.6*t)))+0.01*random(1)':d={seconds}:s={rate}"
)
SOUNDS = [clips.MUSIC, SPEECH, clips.NOISE, clips.SILENCE, clips.STEPS]


def taken(video: Path, options: Options | None = None) -> TrackInfo:
    """The extracted track."""
    with video.open("rb") as source:
        return tracks.take(source, video.parent, options or Options(bitrate=160))


def seeking(track: TrackInfo, options: Options, starts: list[int]) -> Plan:
    """The plan with ranges from these frames on and a seek for each, through JSON."""
    assert excerpt.is_seekable(track, options)
    clusters = excerpt.index_clusters(track)
    assert clusters is not None
    ranges = tuple(FrameRange(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True))
    plan = excerpt.add_seeks(replace(plan_for(track, options, 1), ranges=ranges), track, clusters)
    return Plan.from_json(plan.to_json())


def seeks(plan: Plan) -> int:
    """The number of encoders that do not start at the beginning."""
    return sum(piece.seek is not None and piece.seek.sample > 0 for piece in plan.ranges)


def encoded(plan: Plan, track: TrackInfo, directory: Path) -> tuple[bytes, list[EncodedPiece]]:
    """The frames of all pieces, each encoded from its own excerpt."""
    parts = []
    sound = io.BytesIO()
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
    return not_repacked([part.summary for part in parts], [sound])


def serial(track: TrackInfo, mp3: Path, options: Options) -> bytes:
    """The MP3 that one ffmpeg makes of a complete track."""
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
    ("lowest.mp3", "-c:a libmp3lame -b:a 8k -ac 1 -write_xing 0", 24000),
    ("low.mp3", "-c:a libmp3lame -b:a 32k -write_xing 0", 48000),
    ("high.mp3", "-c:a libmp3lame -b:a 320k -write_xing 0", 44100),
    ("vbr.mp3", "-c:a libmp3lame -q:a 4 -write_xing 0", 32000),
    ("mp3.avi", "-c:v mpeg4 -c:a libmp3lame -b:a 96k", 48000),
    ("mp3.mkv", "-c:v mpeg4 -c:a libmp3lame -q:a 2", 44100),
    ("mp3.flv", "-c:v flv1 -c:a libmp3lame -b:a 64k", 44100),
    ("mp3.ts", "-c:v mpeg2video -c:a libmp3lame -b:a 192k", 48000),
]


@pytest.mark.parametrize(("name", "arguments", "rate"), FILES, ids=[row[0] for row in FILES])
def test_seeking_encoders_make_the_mp3_of_one_that_does_not_seek(
    name: str, arguments: str, rate: int, tmp_path: Path
) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), rate=rate, seconds=28.3, video="-c:v" in arguments)
    track = taken(video)
    options = Options(bitrate=160)
    frames = plan_for(track, options, 1).samples // samples_per_frame(rate)
    starts = [frames * part // 8 // RANGE_STEP * RANGE_STEP for part in (0, 5, 7)]
    plan = seeking(track, options, starts)
    assert seeks(plan) == 2
    assert joined(plan, track, tmp_path) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "160k")


CODECS = {
    "pcm_s16le": (".wav", ()),
    "pcm_f32le": (".mka", ()),
    "flac": (".flac", ("-frame_size", "777")),
    "libvorbis": (".ogg", ("-q:a", "1")),
    "libmp3lame": (".mkv", ("-b:a", "32k")),
}


@settings(
    max_examples=5,  # a dozen seconds each, and different examples in every run
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example("libmp3lame", 22050, 1, SPEECH, Options(vbr=2, mono=True), 50.0, {10, 20})
@example("libvorbis", 44100, 2, clips.STEPS, Options(bitrate=64, volume=-3.5), 27.0, {15, 21})
@example("flac", 22050, 1, clips.SILENCE, Options(bitrate=320), 20.6, {10, 16})
@given(
    codec=st.sampled_from(sorted(CODECS)),
    rate=st.sampled_from([8000, 11025, 16000, 22050, 32000, 44100, 48000]),
    channels=st.sampled_from([1, 2]),
    sound=st.sampled_from(SOUNDS),
    options=st.sampled_from([Options(bitrate=320), Options(bitrate=64), Options(vbr=0), Options(vbr=9, mono=True)]),
    seconds=st.floats(20, 40),
    splits=st.sets(st.integers(4, 22), min_size=1, max_size=4),
)
def test_seek_to_any_place_of_any_sound(  # noqa: PLR0913 - one parameter for each thing that hypothesis varies
    tmp_path: Path,
    codec: str,
    rate: int,
    channels: int,
    sound: str,
    options: Options,
    seconds: float,
    splits: set[int],
) -> None:
    extension, arguments = CODECS[codec]
    video = tmp_path / f"sound{extension}"
    clips.clip(video, "-ac", channels, "-c:a", codec, *arguments, sound=sound, seconds=seconds, rate=rate)
    track = taken(video, options)
    frames = plan_for(track, options, 1).samples // samples_per_frame(rate)
    starts = [at * RANGE_STEP for at in sorted(splits) if at * RANGE_STEP < frames]
    plan = seeking(track, options, [0, *starts])
    assert joined(plan, track, tmp_path) == serial(track, tmp_path / "serial.mp3", options)


# Each row: a file, ffmpeg's arguments for it, and the options.
NOT_SEEKABLE = [
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


@pytest.mark.parametrize(("name", "arguments", "options"), NOT_SEEKABLE, ids=[row[0] for row in NOT_SEEKABLE])
def test_track_that_is_not_seekable_is_decoded_from_its_beginning(
    name: str, arguments: str, options: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excerpt, "MIN_SEEK_SECONDS", 0.0)
    video = clips.clip(tmp_path / name, *arguments.split(), seconds=15)
    asked = Options(bitrate=160, **options)  # type: ignore[arg-type]  # numbers and one bool
    track = taken(video, asked)
    assert not excerpt.is_seekable(track, asked)
    plan = distribution.plan_pieces(track, asked, 0)
    assert plan is None or not any(piece.seek for piece in plan.ranges)


def test_encoders_seek_from_an_hour_on(tmp_path: Path) -> None:
    track = replace(
        taken(clips.clip(tmp_path / "a.flac", seconds=40, rate=8000)), duration=excerpt.MIN_SEEK_SECONDS - 1
    )
    plan = distribution.plan_pieces(track, Options(), 0)
    assert plan is not None
    assert len(plan.ranges) == distribution.MAX_PIECES
    assert not any(piece.seek for piece in plan.ranges)
    plan = distribution.plan_pieces(replace(track, duration=10 * excerpt.MIN_SEEK_SECONDS), Options(), 0)
    assert plan is not None
    assert len(plan.ranges) == 60  # of ten minutes each
    assert all(piece.seek for piece in plan.ranges)
    first, *lengths = (after.start - before.start for before, after in pairwise(plan.ranges))
    assert max(lengths) - min(lengths) <= RANGE_STEP
    assert first <= 0.5 * max(lengths) + RANGE_STEP


@pytest.mark.parametrize(
    ("seconds", "limit", "expected"),
    [
        (45, 20, 2),
        (900, 20, 20),
        (900, 64, 30),
        (3600, 20, 20),
        (3600, 64, 64),
        (3600, 2, 6),
        (36_000, 20, 60),
        (36_000, 128, 128),
        (36_000, 256, 256),
        (86_400, 200, 200),
        (360_000, 20, distribution.MAX_SEEKING_PIECES),
    ],
)
def test_pieces_are_as_many_as_are_encoded_at_once(seconds: float, limit: int, expected: int) -> None:
    """Or a multiple of that, so that no worker waits for the others at the end, of half a minute to ten minutes."""
    assert distribution.seeking_pieces(seconds, limit) == expected


def test_the_first_of_many_pieces_is_ready_early() -> None:
    few = split_frames(100_000, 7, 0.0)
    assert few[1].start == pytest.approx(100_000 / 7, abs=RANGE_STEP)
    many = split_frames(100_000, 8, 0.0)
    assert many[1].start == pytest.approx(100_000 / 7.5 / 2, abs=RANGE_STEP)


def flac(directory: Path, seconds: float = 40) -> Path:
    return clips.clip(directory / "sound.mka", "-c:a", "flac", seconds=seconds, rate=16000)


def test_excerpt_contains_only_what_is_needed(tmp_path: Path) -> None:
    track = taken(flac(tmp_path))
    plan = seeking(track, Options(), [0, 10 * RANGE_STEP, 11 * RANGE_STEP])
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
def test_excerpt_of_a_changed_track_is_refused(tmp_path: Path, harm: str) -> None:
    track = taken(flac(tmp_path))
    piece = seeking(track, Options(), [0, 10 * RANGE_STEP]).ranges[1]
    assert piece.seek is not None
    data = bytearray(track.path.read_bytes())
    if harm == "a bit":
        data[piece.seek.offset + 5000] ^= 1
    elif harm == "the end":
        del data[piece.seek.end - 1 :]
    else:
        data[:100] = bytes(100)
    with pytest.raises(TrackChanged):
        excerpt.write_excerpt(io.BytesIO(data), piece.seek, io.BytesIO())


def test_seek_that_is_one_sample_off_is_detected_at_the_seam(tmp_path: Path) -> None:
    track = taken(flac(tmp_path))
    plan = seeking(track, Options(), [0, 10 * RANGE_STEP])
    wrong = plan.ranges[1]
    assert wrong.seek is not None
    wrong = replace(wrong, seek=replace(wrong.seek, sample=wrong.seek.sample + 1))
    plan = replace(plan, ranges=(plan.ranges[0], wrong))
    _, parts = encoded(plan, track, tmp_path)
    assert not distribution.pieces_fit(plan, parts)


def packets(file: Path) -> list[tuple[int, int]]:
    """Where each packet of a file starts and ends."""
    with file.open("rb") as source:
        matroska.head(source)
        return [
            (end - len(cluster) + start, end - len(cluster) + stop)
            for _, end, cluster in matroska.clusters(source)
            for start, stop, _ in matroska.packets(cluster)
        ]


def whole_and_split(
    video: Path, options: dict[str, str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[bytes], list[str | None]]:
    """The MP3s and the warnings of a job for one worker and of one that is split among encoders that seek."""
    monkeypatch.setattr(excerpt, "MIN_SEEK_SECONDS", 0.0)
    one, many = (converted(video, options, directory / str(fanout), fanout) for fanout in (1e9, 0))
    assert (one[2], many[2]) == (0, 2)
    assert one.waveform == many.waveform
    return [one[0], many[0]], [one[1], many[1]]


@pytest.mark.parametrize("codec", ["flac", "libvorbis"])
def test_job_of_seeking_workers_becomes_the_mp3_of_one_worker(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = clips.clip(tmp_path / "sound.mka", "-c:a", codec, seconds=40, rate=16000)
    (one, many), warnings = whole_and_split(video, {"vbr": "4"}, tmp_path, monkeypatch)
    assert many == one
    assert warnings == [None, None]


def test_damage_inside_a_packet_is_handled_as_by_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = flac(tmp_path)
    start, _ = packets(video)[20]
    with video.open("r+b") as file:
        file.seek(start + 6)  # after the header, whose checksum stays correct
        file.write(b"\x04")  # a reserved type of subframe (RFC 9639, 9.2.1): ffmpeg drops the frame
    (one, many), warnings = whole_and_split(video, {}, tmp_path, monkeypatch)
    assert many == one
    assert warnings == ["Parts of the sound are damaged or missing and were left out."] * 2


@pytest.mark.parametrize("name", ["sound.flac", "sound.mp3"])
def test_truncated_file_is_joined_from_its_pieces(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    video = clips.clip(tmp_path / name, *([] if name == "sound.flac" else ["-write_xing", 0]), seconds=40, rate=16000)
    options = Options(bitrate=96)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 9 // 10 + 111])
    track = taken(video, options)
    assert excerpt.is_seekable(track, options)
    assert excerpt.index_clusters(track) is not None
    (one, many), warnings = whole_and_split(video, {"bitrate": "96"}, tmp_path, monkeypatch)
    assert many == one
    assert warnings[0] == warnings[1]
    assert "do not fit together" not in caplog.text


def test_damaged_track_is_not_indexed(tmp_path: Path) -> None:
    track = taken(flac(tmp_path))
    original = track.path.read_bytes()
    spans = packets(track.path)
    for harm in ("header", "channels", "lacing", "truncation", "zeros"):
        data = bytearray(original)
        start, end = spans[20]
        if harm == "header":
            data[start] = 0
        elif harm == "channels":
            data[start + 3] &= 0x0F  # mono, while the others are stereo
        elif harm == "lacing":
            data[start - 1] |= 0x02  # laced
        elif harm == "truncation":
            del data[end + 100 :]
        else:
            data[: len(data) // 2] = bytes(len(data) // 2)
        track.path.write_bytes(data)
        assert excerpt.index_clusters(track) is None, harm
    track.path.write_bytes(original)
    assert excerpt.index_clusters(track) is not None
    # The packets do not add up to the clock.
    assert excerpt.index_clusters(replace(track, rate=15000)) is None


def test_mp3_that_changes_its_rate_is_not_indexed(tmp_path: Path) -> None:
    both = tmp_path / "both.mp3"
    with both.open("wb") as out:
        for rate in (44100, 48000):
            one = clips.clip(tmp_path / f"{rate}.mp3", *clips.PLAIN, "-write_xing", 0, rate=rate)
            out.write(one.read_bytes())
    track = taken(both)
    assert not excerpt.is_seekable(track, Options(bitrate=160)) or excerpt.index_clusters(track) is None


def test_plan_without_seeks_is_still_read() -> None:
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


def test_rows_of_a_running_installation_are_still_read() -> None:
    """The keys in the rows of jobs and pieces stay, whatever the attributes are called."""
    leap = {"head": 1, "offset": 2, "end": 3, "sample": 4, "crc": 5}
    plan = {
        "container": "matroska",
        "rate": 8000,
        "channels": 1,
        "quality": ["-b:a", "64k"],
        "filters": ["anull"],
        "samples": 1,
        "pieces": [{"start": 0, "end": 5, "leap": leap}, {"start": 5, "end": None, "leap": None}],
        "before": 7,
        "steady": True,
        "packets": 8,
        "bundled": True,
    }
    job = {"plan": plan, "head": "blob", "missing": 0.5, "errors": 1, "warning": None}
    assert json.loads(JobPlan.from_json(json.dumps(job)).to_json()) == job
    frames = {"start": 0, "frames": 1, "offset": 2, "size": 3, "crc": 4, "every": 5, "marks": [6], "bitrates": [64]}
    piece = {"sum": {**frames, "tag": "ff", "before": None, "last": 7}, "errors": 1, "reconfigured": False}
    assert json.loads(EncodedPiece.from_json(json.dumps(piece)).to_json()) == piece


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=20), at=st.floats(0, 1), anywhere=st.booleans())
def test_no_bytes_make_indexing_fail(tmp_path: Path, data: bytes, at: float, anywhere: bool) -> None:
    path = tmp_path / "original"
    if not path.exists():
        flac(tmp_path, seconds=6).rename(path)
    original = path.read_bytes()
    start = int(at * (len(original) if anywhere else 1000))
    (tmp_path / "track").write_bytes(original[:start] + data + original[start + len(data) :])
    track = TrackInfo(tmp_path / "track", "matroska", "flac", 16000, 2, 4.0, 0.0, 0, 0, 0, 0, {}, [], b"")
    clusters = excerpt.index_clusters(track)
    assert clusters is None or clusters.starts[0].sample == 0
