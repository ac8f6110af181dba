"""A video without its pictures leads to the same sound, report and cover as the complete video, and so to the same MP3.

What the demux child makes of both is compared, in this process: the converter knows nothing else of a video.
"""

import io
from pathlib import Path
from typing import Any

import av
import pytest

from client.errors import FileChanged
from client.sound import excerpt
from client.sound.view import View
from functions.convert.demux.child import matroska
from functions.convert.demux.child.audio_track import extract
from functions.convert.demux.child.description import Extracted
from tests.support import clips

#: Each row: a file, and ffmpeg's arguments for it.
VIDEOS = [
    ("aac.mp4", "-c:v libx264 -c:a aac"),
    ("faststart.mp4", "-c:v mpeg4 -c:a aac -movflags +faststart"),
    ("no-edits.mp4", "-c:v mpeg4 -c:a aac -use_editlist 0"),
    ("late.mp4", "-c:v mpeg4 -c:a aac -bsf:a setts=ts=TS+20000"),
    ("tagged.mp4", "-c:v mpeg4 -c:a aac -metadata title=Ärger -metadata artist=Ann"),
    ("two.mp4", "-c:v mpeg4 -c:a aac -map 0 -map 1 -map 0"),
    ("opus.mp4", "-c:v mpeg4 -c:a libopus"),
    ("ac3.mp4", "-c:v mpeg4 -c:a ac3"),
    ("mp3.mp4", "-c:v mpeg4 -c:a libmp3lame"),
    ("aac.mov", "-c:v mpeg4 -c:a aac"),
    ("alac.mov", "-c:v mjpeg -c:a alac -movflags +faststart"),
    ("pcm.mov", "-c:v mpeg4 -c:a pcm_s16le"),
    ("aac.mkv", "-c:v libx264 -c:a aac"),
    ("cues.mkv", "-c:v libx264 -c:a aac -g 5 -cues_to_front 1 -cluster_time_limit 200"),
    ("vorbis.mkv", "-c:v mpeg2video -c:a libvorbis"),
    ("flac.mkv", "-c:v libx264 -c:a flac -metadata title=Ärger"),
    ("surround.mkv", "-c:v libx264 -c:a ac3 -ac 6"),
    ("late.mkv", "-c:v libx264 -c:a aac -bsf:a setts=ts=TS+20000"),
    ("opus.webm", "-c:v libvpx -deadline realtime -c:a libopus"),
    ("vorbis.webm", "-c:v libvpx-vp9 -deadline realtime -c:a libvorbis"),
]


def extracted(content: bytes, copy: bool) -> tuple[Extracted, Any]:
    """Returns the report, and the track: as bytes, or of Matroska, which has random ids, the packets."""
    target = io.BytesIO()
    found = extract(io.BytesIO(content), target, None, copy)  # type: ignore[arg-type]
    assert isinstance(found, Extracted)
    if found.report.container != "matroska":
        return found, target.getvalue()
    with av.open(io.BytesIO(target.getvalue()), "r") as track:
        return found, [(packet.pts, packet.duration, bytes(packet)) for packet in track.demux(track.streams.audio[0])]


def content_of(view: View, step: int = 1 << 16) -> bytes:
    """Returns a view's bytes, read in steps that are not those of its spans."""
    with view:
        found = b"".join(view.read(offset, step) for offset in range(0, view.size, step))
        assert len(found) == view.size
        assert view.read(view.size, step) == b""
    return found


@pytest.fixture(autouse=True)
def _worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excerpt, "_WORTHWHILE", 1)  # the clips have few pictures


@pytest.mark.parametrize(("name", "arguments"), VIDEOS, ids=[row[0] for row in VIDEOS])
def test_sound_is_that_of_the_video(name: str, arguments: str, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), seconds=2.2, video=True)
    whole = video.read_bytes()

    sound = content_of(excerpt.open_sound(video, {}), 10_007)

    assert len(sound) < len(whole)
    assert extracted(sound, copy=True) == extracted(whole, copy=True)


@pytest.mark.parametrize("place", [(), ("-cues_to_front", 1)], ids=["cues behind", "cues in front"])
def test_cues_lead_to_the_same_clusters(place: tuple[object, ...], tmp_path: Path) -> None:
    """Encoders of a long video find their parts of it by the cues."""
    arguments = ("-c:v", "libx264", "-g", 5, "-c:a", "flac", "-cluster_time_limit", 200)
    video = clips.clip(tmp_path / "a.mkv", *arguments, *place, seconds=2.2, video=True)

    sound = content_of(excerpt.open_sound(video, {}))

    found, expected = (matroska.parse(io.BytesIO(content)) for content in (sound, video.read_bytes()))  # type: ignore[arg-type]
    assert [cluster.time for cluster in found.clusters] == [cluster.time for cluster in expected.clusters]
    assert len(found.clusters) >= 8
    for cluster in found.clusters:
        assert sound[cluster.offset : cluster.offset + 4] == bytes.fromhex("1f43b675")


@pytest.mark.parametrize("name", ["chapters.mp4", "chapters.mkv"])
def test_chapters_and_covers_stay(name: str, tmp_path: Path) -> None:
    (tmp_path / "meta").write_text(
        ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/10\nSTART=0\nEND=5\ntitle=One\n[CHAPTER]\nTIMEBASE=1/10\nSTART=5\nEND=11\n"
    )
    picture = ("-f", "lavfi", "-i", "testsrc=s=32x32:d=0.04", "-frames:v", "1")
    clips.run(*picture, tmp_path / "cover.png")
    cover: tuple[str, ...] = ("-attach", str(tmp_path / "cover.png"), "-metadata:s:t", "mimetype=image/png")
    maps: tuple[str, ...] = ()
    if name.endswith("mp4"):
        cover = ("-c:v:1", "copy", "-disposition:v:1", "attached_pic")
        maps = ("-i", str(tmp_path / "cover.png"), "-map", "3")
    inputs = ("-i", tmp_path / "meta", *maps[:2], "-map", "0", "-map", "1", *maps[2:], "-map_metadata", "2")
    video = clips.clip(tmp_path / name, *inputs, "-c:v:0", "libx264", "-c:a", "aac", *cover, seconds=2.2, video=True)

    sound, _ = extracted(content_of(excerpt.open_sound(video, {})), copy=False)

    assert sound == extracted(video.read_bytes(), copy=False)[0]
    assert [chapter.title for chapter in sound.report.chapters][:1] == ["One"]
    assert sound.cover


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fragmented.mp4", "-c:a aac -movflags frag_keyframe+empty_moov"),
        ("live.webm", "-c:v libvpx -deadline realtime -c:a libopus -live 1"),
        ("sound.m4a", "-vn -c:a aac"),
        ("video.avi", "-c:a pcm_s16le"),
        ("video.ts", "-c:a aac"),
    ],
    ids=lambda value: value.partition(" ")[0] if "." in value else "",
)
def test_other_files_are_uploaded_as_they_are(name: str, arguments: str, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), seconds=0.5, video="-vn" not in arguments)
    assert content_of(excerpt.open_sound(video, {})) == video.read_bytes()


def test_damaged_files_are_uploaded_as_they_are(tmp_path: Path) -> None:
    """Cut off anywhere, a file is complete in what is uploaded, or rather all of it is."""
    for name in ("a.mp4", "a.mkv"):
        whole = clips.clip(tmp_path / name, "-c:v", "libx264", "-c:a", "aac", seconds=0.5, video=True).read_bytes()
        for size in (0, 1, 7, 50, 700, len(whole) // 2, len(whole) - 1):
            (tmp_path / name).write_bytes(whole[:size])
            assert content_of(excerpt.open_sound(tmp_path / name, {})) == whole[:size]


def test_a_cover_from_the_video_needs_the_video(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mp4", "-c:v", "libx264", "-c:a", "aac", seconds=0.5, video=True)
    whole = video.stat().st_size
    for form, is_whole in (({"cover": "frame"}, True), ({"cover": "0.2"}, True), ({"cover": "none"}, False)):
        with excerpt.open_sound(video, form) as view:
            assert (view.size == whole) == is_whole


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(bytes(1000))
    with View(path) as view:
        view.check()
        path.write_bytes(bytes(900))
        with pytest.raises(FileChanged, match="was changed"):
            view.check()
        with pytest.raises(FileChanged, match="was shortened"):
            view.read(800, 200)
