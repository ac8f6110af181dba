"""Edits requested with an upload, and their effect on the MP3."""

import io
from pathlib import Path
from typing import Any

import av
import pytest
from mutagen import id3

from tests.e2e.client import Client, field, file_part
from tests.e2e.test_http import leaves_nothing
from tests.support import clips
from tests.support.platform import Platform

ID3: Any = id3.ID3  # mutagen has no types


def test_upload_is_edited(me: Client, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "talk.mp4", "-c:v", "mpeg4", "-c:a", "aac", seconds=6, video=True)
    after = [field("fade_out", "0.5"), field("volume", "-3dB"), field("normalize", "")]
    before = [field("start", "0:01.5"), field("end", "5"), field("mono", "true"), field("cover", "0:02")]
    answer = me.post_form([*before, file_part("talk.mp4", video.read_bytes()), *after])
    assert answer.status == 202, answer.body
    job = me.wait(answer.json()["job"])
    assert job["status"] == "done", job
    edits = {"start": 1.5, "end": 5.0, "fade_out": 0.5, "volume": -3.0, "mono": True, "cover": 2.0}
    assert job["options"] == edits
    assert job["warning"] is None
    assert job["duration"] == pytest.approx(3.5)
    content = me.download(job["mp3"]).body
    (picture,) = ID3(io.BytesIO(content)).getall("APIC")
    assert picture.data.startswith(b"\xff\xd8\xff")
    with av.open(io.BytesIO(content), "r") as mp3:
        sound = mp3.streams.audio[0]
        assert sound.channels == 1
        assert sum(frame.samples for frame in mp3.decode(sound)) == pytest.approx(3.5 * 48000, abs=1152)


def test_start_after_the_end_of_the_audio_fails_the_job(me: Client, tmp_path: Path) -> None:
    sound = clips.clip(tmp_path / "short.wav", seconds=1)
    with sound.open("rb") as file:
        job = me.convert(file, "short.wav", {"start": "9"})
    assert (job["status"], job["mp3"]) == ("failed", None)
    assert job["error"] == "The sound ends at 1.0 seconds: choose a start before that, not 9."


def test_job_lists_the_tracks_of_its_video(me: Client, tmp_path: Path) -> None:
    sound = clips.clip(tmp_path / "sound.wav", seconds=1)
    video = tmp_path / "two.mkv"
    named = ("-metadata:s:a:1", "language=fra", "-metadata:s:a:1", "title=A b")
    clips.run("-i", sound, "-map", 0, "-map", 0, *named, video)
    unknown = {"codec": "vorbis", "channels": 2, "language": None, "title": None}
    tracks = [
        {**unknown, "number": 0, "default": True},
        {**unknown, "number": 1, "default": False, "language": "fra", "title": "A b"},
    ]
    for track, status in (("2", "failed"), ("1", "done")):
        with video.open("rb") as file:
            job = me.convert(file, "two.mkv", {"track": track})
        assert (job["status"], job["tracks"]) == (status, tracks)


def test_two_mono_tracks_become_stereo(me: Client, tmp_path: Path) -> None:
    sound = clips.clip(tmp_path / "sound.wav", seconds=2)
    clips.run("-i", sound, "-filter_complex", "[0:a]channelsplit", "-c:a", "pcm_s16le", video := tmp_path / "pair.mov")
    with video.open("rb") as file:
        job = me.convert(file, "pair.mov", {"track": "0,1"})
    assert (job["status"], job["options"], job["warning"]) == ("done", {"track": [0, 1]}, None)
    assert [track["channels"] for track in job["tracks"]] == [1, 1]
    with av.open(io.BytesIO(me.download(job["mp3"]).body), "r") as mp3:
        assert mp3.streams.audio[0].channels == 2
    problem = me.post_form([field("track", "1,1"), file_part("pair.mov", video.read_bytes())]).problem(422)
    assert problem["detail"] == "track names track 1 twice: name two different mono tracks for left and right."


def test_invalid_edits_are_rejected_before_and_after_the_file(platform: Platform, me: Client, tmp_path: Path) -> None:
    data = clips.clip(tmp_path / "short.wav", seconds=1).read_bytes()
    for parts in (
        [field("start", "3"), field("end", "2"), file_part("a.wav", data)],
        [field("start", "3"), file_part("a.wav", data), field("end", "2")],
    ):
        problem = me.post_form(parts).problem(422)
        assert problem["errors"].keys() == {"end"}
    leaves_nothing(platform, me)
