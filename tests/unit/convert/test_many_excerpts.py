"""Random videos, long for their pieces: many encoders, each with its own part, make the bytes of one.

The gate tries a few. ``MP3BURST_EXCERPTS=300 ./scripts/test tests/unit/convert/test_many_excerpts.py`` tries 300 videos
and 3,000 places where a decoder of Opus begins. All follow from their numbers, so that one that fails can be repeated.
"""

import logging
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import pytest

from functions.convert import distribution
from tests.support import clips
from tests.unit.convert.test_distribution import converted
from tests.unit.convert.test_seek import SPEECH

CASES: Final = int(os.environ.get("MP3BURST_EXCERPTS", "3"))
#: ffmpeg's arguments for fragmented files, and for files without cues.
LAYOUTS: Final = {
    "piped.mkv": "-seekable 0",
    "piped.webm": "-seekable 0",
    "fragmented.mp4": "-movflags frag_keyframe+empty_moov",
    "edited.mp4": "-movflags frag_keyframe+empty_moov+delay_moov+default_base_moof",
    "indexed.mp4": "-movflags dash+frag_keyframe",
}
FRAGMENTED: Final = [name for name in LAYOUTS if name.endswith("mp4")]
#: Codecs: ffmpeg's arguments, and the containers that take them.
CODECS: Final = {
    "aac": ("-c:a aac -b:a 160k -aac_pns 0", ("mp4", "mov", "mkv", "piped.mkv", *FRAGMENTED)),
    "aac with noise": ("-c:a aac -b:a 64k -aac_pns 1", ("mp4", "mkv", "edited.mp4")),
    "alac": ("-c:a alac", ("mp4", "mov", "mkv", "edited.mp4")),
    "pcm": ("-c:a pcm_s16le", ("mov", "mkv", "piped.mkv")),
    "24 bits": ("-c:a pcm_s24le", ("mov", "mkv")),
    "flac": ("-c:a flac", ("mp4", "mkv", "piped.mkv", *FRAGMENTED)),
    "mp3": ("-c:a libmp3lame -b:a 96k", ("mp4", "mov", "mkv", *FRAGMENTED)),
    "vorbis": ("-c:a libvorbis -q:a 3", ("mkv", "webm", "piped.webm")),
    "opus": ("-c:a libopus -b:a 96k", ("mkv", "webm", "piped.webm", "mp4")),
    "opus of speech": ("-c:a libopus -b:a 16k -application voip", ("mkv", "webm")),
    "ac3": ("-c:a ac3", ("mp4", "mkv")),
}
OPTIONS: Final[list[dict[str, str]]] = [
    {},
    {"bitrate": "160"},
    {"vbr": "4"},
    {"mono": "1", "bitrate": "96"},
    {"volume": "-3.5"},
    {"start": "3.2"},
    {"start": "2", "end": "21.7", "fade_in": "1.5", "fade_out": "4"},
    {"end": "17"},
    {"gaps": "silence"},
]


#: What the log says of how a job was converted.
ENDS: Final = ("without extracting", ": extracting the track", "falls back")


@dataclass(frozen=True)
class Case:
    """What a video is, and what is asked for."""

    codec: str
    container: str
    rate: int
    channels: int
    sound: str
    seconds: float
    pieces: int
    options: dict[str, str]
    change: str

    @property
    def layout(self) -> list[str]:
        return LAYOUTS.get(self.container, "").split()

    def arguments(self, pns: str = "") -> list[str]:
        arguments = CODECS[self.codec][0].replace("-aac_pns 0", pns or "-aac_pns 0").split()
        video = "libvpx -deadline realtime -cpu-used 8" if self.container.endswith("webm") else "mpeg4"
        arguments += ["-ac", str(self.channels), *f"-c:v {video} -g 50".split()]
        arguments += self.layout
        if self.container.endswith(("mkv", "webm")):
            arguments += ["-cluster_time_limit", "2000"]
        return arguments


def case_of(number: int) -> Case:
    draw = random.Random(number)  # noqa: S311 - a case, not a secret
    codec = draw.choice(sorted(CODECS))
    return Case(
        codec=codec,
        container=draw.choice(CODECS[codec][1]),
        rate=48000 if codec.startswith("opus") else draw.choice([44100, 48000, 32000, 22050]),
        channels=draw.choice([1, 2]),
        sound=draw.choice([clips.MUSIC, SPEECH, clips.NOISE, clips.STEPS]),
        seconds=draw.uniform(22, 40),
        pieces=draw.choice([2, 3, 5, 64]),  # as many as the length allows
        options=draw.choice(OPTIONS),
        change=draw.choice(["", "", "", *sorted(CHANGES)]),
    )


def damaged(case: Case, video: Path) -> Path:
    """Damages packets at the cuts and beside them."""
    draw = random.Random(case.seconds)  # noqa: S311
    with av.open(str(video)) as container:
        packets = [
            (packet.pos, packet.size, packet.pts * packet.time_base)
            for packet in container.demux(audio=0)
            if packet.pts is not None and packet.size > 8
        ]
    with video.open("r+b") as file:
        for cut in range(1, case.pieces if case.pieces < 6 else 4):
            time = case.seconds * cut / min(case.pieces, 4) + draw.choice([-2.0, -0.1, 0.0, 0.1, 2.0])
            position, size, _ = min(packets, key=lambda packet: abs(packet[2] - time))
            file.seek((position or 0) + 6 + draw.randrange(size - 7))
            file.write(bytes([draw.randrange(256)]))
    return video


def late(case: Case, video: Path) -> Path:
    """Delays the sound."""
    result = video.with_stem(f"late {video.stem}")
    inputs = ("-i", video, "-itsoffset", 0.7, "-i", video, "-map", "0:v", "-map", "1:a")
    clips.run(*inputs, "-c", "copy", *case.layout, result)
    return result


def beheaded(case: Case, video: Path) -> Path:
    """Removes the beginning, which in an mp4 an edit list hides."""
    result = video.with_stem(f"beheaded {video.stem}")
    clips.run("-ss", 4.3, "-i", video, "-c", "copy", *case.layout, result)
    return result


def without_edit_list(case: Case, video: Path) -> Path:
    """Removes the edit list of an mp4, so that the encoder's delay is played."""
    result = video.with_stem(f"unedited {video.stem}")
    options = ("-use_editlist", 0) if video.suffix in (".mp4", ".mov") else ()
    clips.run("-i", video, "-c", "copy", *options, *case.layout, result)
    return result


def joined_with_noise(case: Case, video: Path) -> Path:
    """Appends a part whose decoder draws random numbers, if the codec is AAC."""
    noise = video.with_stem("noise")
    clips.clip(noise, *case.arguments("-aac_pns 1"), sound=clips.NOISE, rate=case.rate, seconds=12, video=True)
    result = video.with_stem(f"joined {video.stem}")
    (video.parent / "list").write_text(f"file '{video}'\nfile '{noise}'\n")
    clips.run("-f", "concat", "-safe", 0, "-i", video.parent / "list", "-c", "copy", *case.layout, result)
    return result


CHANGES: Final[dict[str, Callable[[Case, Path], Path]]] = {
    "damaged": damaged,
    "late": late,
    "beheaded": beheaded,
    "without edit list": without_edit_list,
    "joined with noise": joined_with_noise,
}


@pytest.mark.parametrize("number", range(CASES))
def test_many_encoders_make_the_mp3_of_one(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    case = case_of(number)
    video = tmp_path / f"a.{case.container}"
    clips.clip(video, *case.arguments(), sound=case.sound, rate=case.rate, seconds=case.seconds, video=True)
    if case.change:
        video = CHANGES[case.change](case, video)
    monkeypatch.setattr(distribution, "MIN_SEEKING_SECONDS", case.seconds / case.pieces)
    monkeypatch.setattr(distribution, "PIECE_SECONDS", case.seconds / case.pieces)
    one, many = (converted(video, case.options, tmp_path / str(fanout), fanout) for fanout in (1e9, 1))
    assert (many[:2], many.waveform) == (one[:2], one.waveform), case
    print(case, many[2], "pieces", *(end for end in ENDS if end in caplog.text))  # noqa: T201 - pytest shows it on request


#: ffmpeg's arguments for Opus that is all CELT.
CELT: Final = (
    "-b:a 96k",
    "-b:a 64k -ac 1",
    "-b:a 256k -frame_duration 10",
    "-b:a 48k -frame_duration 5 -application lowdelay",
    "-b:a 128k -frame_duration 2.5",
    "-b:a 160k -frame_duration 60 -application audio",
)
CUTS: Final = 10
#: Seconds of the sound before a range after which its encoder has to decode what the one before decodes.
SETTLED: Final = 1.0


@pytest.mark.parametrize("number", range(CASES))
def test_decoders_of_opus_agree_a_second_after_they_begin(number: int, tmp_path: Path) -> None:
    draw = random.Random(number)  # noqa: S311 - a case, not a secret
    track = tmp_path / "a.mka"
    sound = draw.choice([clips.MUSIC, clips.NOISE, clips.STEPS])
    arguments = draw.choice(CELT).split()
    clips.clip(track, "-c:a", "libopus", *arguments, sound=sound, rate=48000, seconds=6)
    with av.open(str(track)) as container:
        stream = container.streams.audio[0]
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
        extradata = stream.codec_context.extradata
    length = 6 / len(packets)

    def decoded(start: int, end: int | None) -> list[bytes]:
        context = av.CodecContext.create("opus", "r")
        context.extradata = extradata
        frames = [context.decode(av.Packet(packet)) for packet in packets[start:end]]
        return [b"".join(bytes(plane) for frame in some for plane in frame.planes) for some in frames]

    whole = decoded(0, None)
    settled = round(SETTLED / length)
    for cut in draw.sample(range(1, len(packets) - 2 * settled), CUTS):
        end = cut + 2 * settled
        assert decoded(cut, end)[settled:] == whole[cut + settled : end], (arguments, sound, cut)
