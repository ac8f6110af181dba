"""Encoders that read only their own part of an mp4 make the bytes of one that reads all of it."""

from pathlib import Path

import pytest

from tests.support import clips
from tests.unit.convert.test_distribution import converted


@pytest.mark.parametrize(
    ("name", "arguments", "rate"),
    [
        ("alac.mp4", "-c:v mpeg4 -c:a alac", 44100),
        ("alac.mov", "-c:v mpeg4 -c:a alac -ac 1", 48000),
        ("flac.mp4", "-c:v mpeg4 -c:a flac", 48000),
        ("mp3.mp4", "-c:v mpeg4 -c:a libmp3lame -b:a 128k", 44100),
        ("aac.mp4", "-c:v mpeg4 -c:a aac -b:a 192k -aac_pns 0", 44100),
        ("aac.m4a", "-c:a aac -b:a 128k -aac_pns 0", 48000),
        ("mono.mp4", "-c:v mpeg4 -c:a aac -ac 1 -b:a 96k -aac_pns 0", 32000),
    ],
)
def test_pieces_of_a_video_make_the_mp3_of_one_encoder(name: str, arguments: str, rate: int, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), rate=rate, seconds=30, video="-c:v" in arguments)
    one, many = (converted(video, {"bitrate": "160"}, tmp_path / str(fanout), fanout) for fanout in (1e9, 0))
    assert many[2] >= 2
    assert many == (*one[:2], many[2])
