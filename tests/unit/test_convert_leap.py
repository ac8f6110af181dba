"""Encoders that leap into the middle of a track: the bytes of one ffmpeg that decodes all of it."""

import io
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from functions.convert import cut, encode, engine, fanout, leap, planning, probe, splice
from functions.convert.cut import Piece, Plan
from functions.convert.probe import Track
from functions.options import Options
from tests import clips

#: Vowels that rise and fall, and hiss between them.
SPEECH = (
    "aevalsrc='0.4*sin(2*PI*(120*t+9*sin(2*PI*0.7*t)))*(0.5+0.5*sin(2*PI*3*t))*gt(sin(2*PI*0.31*t)\\,-0.6)"
    "+0.2*sin(2*PI*(710*t+30*sin(2*PI*0.4*t)))*(0.5+0.5*sin(2*PI*3*t))+0.05*random(0)*gt(sin(2*PI*1.3*t)\\,0.3)"
    "|0.3*sin(2*PI*(140*t+9*sin(2*PI*0.6*t)))+0.01*random(1)':d={seconds}:s={rate}"
)
SOUNDS = [clips.MUSIC, SPEECH, clips.NOISE, clips.SILENCE, clips.STEPS]


def taken(video: Path, options: Options | None = None) -> Track:
    """The track, as it is when a job is shared out."""
    with video.open("rb") as source:
        return engine.take(source, video.parent, options or Options(bitrate=160), lambda _: None)


def leaping(track: Track, options: Options, starts: list[int]) -> Plan:
    """The plan with these cuts and a leap for each."""
    assert leap.possible(track, options)
    marks = leap.survey(track)
    assert marks is not None
    pieces = tuple(Piece(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True))
    plan = leap.leaping(replace(planning.plan_for(track, options, 1), pieces=pieces), track, marks)
    return Plan.from_json(plan.to_json())


def leaps(plan: Plan) -> int:
    """How many encoders begin after the beginning."""
    return sum(piece.leap is not None and piece.leap.sample > 0 for piece in plan.pieces)


def joined(plan: Plan, track: Track, directory: Path) -> bytes:
    """Each piece of its own excerpt, laid end to end."""
    parts, sound = [], io.BytesIO()
    for piece in plan.pieces:
        (folder := directory / f"piece {piece.start}").mkdir(exist_ok=True)
        with track.path.open("rb") as source, (folder / "track").open("wb") as target:
            assert piece.leap is not None
            leap.excerpt(source, piece.leap, target)
        parts.append(fanout.encode_piece(clips.ffmpeg(), plan, piece, folder / "track", sound, lambda _: None))
    assert fanout.joinable(plan, parts)
    return engine.tag_of([part.sum for part in parts]) + sound.getvalue()


# Each row: a file, ffmpeg's arguments for it, and the sound's rate.
FILES = [
    ("pcm.wav", "-c:a pcm_s16le", 44100),
    ("float.wav", "-c:a pcm_f32le", 48000),
    ("phone.mka", "-ac 1 -c:a pcm_mulaw", 8000),
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
    ("mp3.mp3", "-c:a libmp3lame -b:a 128k", 44100),
    ("least.mp3", "-c:a libmp3lame -b:a 8k -ac 1", 24000),
    ("low.mp3", "-c:a libmp3lame -b:a 32k", 48000),
    ("high.mp3", "-c:a libmp3lame -b:a 320k", 44100),
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
    video = clips.clip(tmp_path / name, *arguments.split(), rate=rate, seconds=31.7, video="-c:v" in arguments)
    track, options = taken(video), Options(bitrate=160)
    frames = planning.plan_for(track, options, 1).samples // (1152 if rate >= 32000 else 576)
    starts = [frames * part // 8 // cut.STEP * cut.STEP for part in (0, 4, 5, 7)]
    plan = leaping(track, options, starts)
    assert leaps(plan) >= 2
    assert joined(plan, track, tmp_path) == serial(track, tmp_path / "serial.mp3", options)


def serial(track: Track, mp3: Path, options: Options) -> bytes:
    """What one ffmpeg makes of a track from its beginning to its end."""
    plan = planning.plan_for(track, options, 1)
    clips.run("-f", track.container, "-i", track.path, "-af", ",".join(plan.filters), *plan.quality, *clips.PLAIN, mp3)
    return mp3.read_bytes()
