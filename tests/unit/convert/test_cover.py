"""The cover of the MP3: a frame of the video, none, or the picture embedded in the source."""

import base64
import errno
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mutagen
import pytest
from mutagen import flac as flac_tags
from mutagen import id3
from PIL import Image

from functions.convert import cover
from functions.convert.__main__ import main
from functions.convert.demux.track import TrackInfo, VideoExcerpt
from functions.convert.errors import OutOfResources, TemporaryStorageFull
from functions.options import Options
from tests.support import clips, tracks
from tests.support.processes import is_alive, shell_program, wait_for
from tests.unit.convert.test_identity import convert

ID3: Any = id3.ID3  # mutagen has no types
APIC: Any = id3.APIC
flac: Any = flac_tags
#: Three seconds each of black, red and blue. They are uniform except for red, which has a white stripe.
COLORS = (
    "color=black:s=96x64:r=10:d=3[a];color=red:s=96x64:r=10:d=3,drawbox=x=40:w=8:color=white:t=fill[b];"
    "color=blue:s=96x64:r=10:d=3[c];[a][b][c]concat=n=3,format=yuv420p"
)


def colors(path: Path, *arguments: object) -> Path:
    """Makes a video of three colors, with audio."""
    clips.run("-f", "lavfi", "-i", COLORS, "-f", "lavfi", "-i", "sine=d=9", *arguments, path)
    return path


def picture(mp3: bytes) -> Image.Image | None:
    """Returns the cover of an MP3."""
    found = ID3(io.BytesIO(mp3)).getall("APIC")
    assert len(found) <= 1
    return Image.open(io.BytesIO(found[0].data)) if found else None


def color_of(image: Image.Image | None) -> str:
    """Returns the color of a picture's corner."""
    assert image is not None
    red, green, blue = (value > 128 for value in image.convert("RGB").getpixel((4, 4)))  # type: ignore[union-attr]
    return {(True, False, False): "red", (False, False, True): "blue", (False, False, False): "black"}[red, green, blue]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("one-key-frame.mp4", "-c:v libx264 -g 1000 -c:a aac"),
        ("vp8.webm", "-c:v libvpx -deadline realtime -c:a libopus"),
    ],
)
def test_cover_is_the_frame_at_the_requested_second(name: str, arguments: str, tmp_path: Path) -> None:
    video = colors(tmp_path / name, *arguments.split())
    for second, color in ((4.5, "red"), (8.0, "blue")):
        result, mp3 = convert(video, tmp_path, Options(cover=second), 1)
        assert color_of(picture(mp3)) == color
        assert result.warning is None
    result, mp3 = convert(video, tmp_path, Options(cover=60.0), 1)
    assert picture(mp3) is None
    assert result.warning == "The cover position is past the end of the video: choose an earlier one."


def test_black_frame_at_the_beginning_is_not_chosen(tmp_path: Path) -> None:
    video = colors(tmp_path / "a.mkv", "-c:v", "mpeg4", "-c:a", "libmp3lame")
    result, mp3 = convert(video, tmp_path, Options(cover="frame"), 1)
    assert color_of(picture(mp3)) == "red"
    assert result.copied
    assert result.warning is None


def test_cover_has_the_aspect_ratio_and_rotation_of_the_video(tmp_path: Path) -> None:
    wide = colors(tmp_path / "wide.mkv", "-c:v", "mpeg4", "-vf", "scale=1800:1200,setsar=3/2", "-t", 1, "-c:a", "aac")
    image = picture(convert(wide, tmp_path, Options(cover=0.5), 1)[1])
    assert image is not None
    assert (image.size, image.format) == ((1280, 569), "JPEG")
    plain = colors(tmp_path / "plain.mp4", "-c:v", "mpeg4", "-t", 1, "-c:a", "aac")
    turned = tmp_path / "turned.mp4"
    clips.run("-display_rotation", 90, "-i", plain, "-c", "copy", turned)
    image = picture(convert(turned, tmp_path, Options(cover=0.5), 1)[1])
    assert image is not None
    assert image.size == (64, 96)


def test_embedded_picture_is_kept_or_removed(tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    clips.run("-f", "lavfi", "-i", "color=blue:s=32x32", "-frames:v", 1, still)
    song = tmp_path / "song.mp3"
    sound = clips.clip(tmp_path / "sound.wav", seconds=2)
    clips.run("-i", sound, "-i", still, "-map", 0, "-map", 1, "-c:v", "copy", "-disposition:v", "attached_pic", song)
    for options, format_, is_warned in (
        (Options(), "PNG", False),
        (Options(start=1.0), "PNG", False),
        (Options(cover="frame"), "PNG", True),
        (Options(cover="none"), None, False),
    ):
        result, mp3 = convert(song, tmp_path, options, 1)
        found = picture(mp3)
        assert (found.format if found else None) == format_
        assert (result.warning == "This file has no video to take a cover from.") == is_warned


def image(kind: str, color: str, side: int = 64) -> bytes:
    """Returns a picture in one of Pillow's formats."""
    file = io.BytesIO()
    Image.new("P" if kind == "GIF" else "RGB", (side, side), color).save(file, kind)
    return file.getvalue()


def picture_block(data: bytes, kind: int) -> Any:
    block = flac.Picture()
    block.data = data
    block.type = kind
    block.mime = "image/png"
    return block


def song_with(path: Path, *pictures: tuple[bytes, int]) -> Path:
    """Makes a song with these pictures of these types (ID3v2.3, 4.15)."""
    codec = {".flac": "flac", ".mp3": "libmp3lame", ".opus": "libopus"}[path.suffix]
    song: Any = mutagen.File(clips.clip(path, "-c:a", codec, seconds=1))
    for number, (data, kind) in enumerate(pictures):
        if path.suffix == ".flac":
            song.add_picture(picture_block(data, kind))
        elif path.suffix == ".mp3":
            song.tags.add(APIC(0, "image/png", kind, str(number), data))
        else:
            encoded = base64.b64encode(picture_block(data, kind).write()).decode()
            song["metadata_block_picture"] = [*song.get("metadata_block_picture", []), encoded]
    song.save()
    return path


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.opus"])
def test_front_cover_is_chosen_among_several(name: str, tmp_path: Path) -> None:
    icon, back, front, artist = (image("PNG", color) for color in ("black", "black", "red", "blue"))
    song = song_with(tmp_path / name, (icon, 1), (back, 4), (front, 3), (artist, 8))
    assert color_of(picture(convert(song, tmp_path, Options(), 1)[1])) == "red"
    song = song_with(tmp_path / name, (icon, 1), (artist, 8))
    assert color_of(picture(convert(song, tmp_path, Options(), 1)[1])) == "blue"


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "BMP", "GIF", "TIFF"])
def test_picture_that_few_players_show_becomes_a_jpeg(kind: str, tmp_path: Path) -> None:
    result, mp3 = convert(song_with(tmp_path / "a.flac", (image(kind, "red"), 3)), tmp_path, Options(), 1)
    found = picture(mp3)
    assert found is not None
    assert (found.format, found.size, color_of(found)) == ("JPEG", (64, 64), "red")
    assert result.warning is None


@pytest.mark.parametrize(
    ("level", "mode", "kind"),
    [(32768, "I;16", "TIFF"), (32768, "I;16", "JPEG2000"), (32768, "I", "TIFF"), (0.5, "F", "TIFF")],
)
def test_gray_of_many_bits_is_as_bright_as_in_eight(level: float, mode: str, kind: str, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new(mode, (64, 64), level).save(file, kind)
    found = picture(convert(song_with(tmp_path / "a.flac", (file.getvalue(), 3)), tmp_path, Options(), 1)[1])
    assert found is not None
    assert found.convert("L").getpixel((4, 4)) == pytest.approx(128, abs=2)


def test_transparent_picture_has_a_white_ground(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(file, "WEBP")
    found = picture(convert(song_with(tmp_path / "a.flac", (file.getvalue(), 3)), tmp_path, Options(), 1)[1])
    assert found is not None
    assert found.getpixel((4, 4)) == (255, 255, 255)


def test_attached_pictures_of_matroska_become_the_cover(tmp_path: Path) -> None:
    song = clips.clip(tmp_path / "song.mka", "-c:a", "flac", seconds=1)
    attached: list[object] = []
    for number, (name, color) in enumerate([("small_cover", "black"), ("cover_land", "blue"), ("cover", "red")]):
        path = tmp_path / f"{name}.webp"
        path.write_bytes(image("WEBP", color))
        attached += ["-attach", path, f"-metadata:s:t:{number}", "mimetype=image/webp"]
    clips.run("-i", song, "-c", "copy", *attached, tmp_path / "attached.mka")
    found = picture(convert(tmp_path / "attached.mka", tmp_path, Options(), 1)[1])
    assert found is not None
    assert (found.format, color_of(found)) == ("JPEG", "red")


@pytest.mark.parametrize("data", [image("WEBP", "red")[:60], image("GIF", "red", 6000)], ids=["damaged", "huge"])
def test_picture_that_cannot_be_decoded_is_left_out_with_a_warning(data: bytes, tmp_path: Path) -> None:
    result, mp3 = convert(song_with(tmp_path / "a.flac", (data, 3)), tmp_path, Options(), 1)
    assert picture(mp3) is None
    assert result.warning == "The picture embedded in this file cannot be decoded and was left out."


def test_full_disk_is_not_the_fault_of_the_picture(track: TrackInfo) -> None:
    track.path.with_name("picture").symlink_to("/dev/full")
    with (
        pytest.raises(TemporaryStorageFull),
        cover.rendering(replace(track, excerpt=None, cover=image("WEBP", "red")), clips.ffmpeg()),
    ):
        pass


def test_no_space_for_a_process_is_not_the_fault_of_the_picture(
    track: TrackInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with (
        pytest.raises(OutOfResources),
        cover.rendering(replace(track, excerpt=None, cover=image("WEBP", "red")), clips.ffmpeg()),
    ):
        pass


_PEAK = """
import io, pathlib, re, sys
from functions.convert.demux.child import audio_track
with io.FileIO(sys.argv[1]) as source, open(sys.argv[2], "wb") as target:
    extracted = audio_track.extract(source, target, 0, False)
assert len(extracted.cover) == int(sys.argv[3])
print(re.search(r"VmHWM:\\s+([0-9]+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.parametrize("name", ["a.m4a", "a.mka"])
def test_memory_does_not_grow_with_the_pixels_of_the_picture(name: str, tmp_path: Path) -> None:
    sound = clips.clip(tmp_path / "sound.wav", seconds=1)
    peaks = []
    for side in (100, 12_000):
        still = tmp_path / "still.png"
        Image.new("L", (side, side)).save(still, compress_level=1)
        song = tmp_path / f"{side}{name}"
        files: tuple[object, ...] = ("-attach", still, "-metadata:s:t", "mimetype=image/png")
        if name != "a.mka":
            files = ("-i", still, "-map", 0, "-map", 1, "-c:v", "copy", "-disposition:v", "attached_pic")
        clips.run("-i", sound, *files, song)
        size = str(still.stat().st_size)
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, song, tmp_path / "track", size], capture_output=True, check=True
        )
        peaks.append(int(done.stdout) >> 10)
    assert peaks[1] < peaks[0] + 30


@pytest.mark.parametrize("name", ["a.m4a", "a.mp3", "a.mkv"])
def test_too_large_picture_is_left_out_with_a_warning(name: str, tmp_path: Path) -> None:
    image = tmp_path / "large.png"
    Image.new("RGB", (2400, 2400)).save(image, compress_level=0)
    assert image.stat().st_size > 16 << 20
    files: tuple[object, ...] = ("-i", image, "-map", 0, "-map", 1, "-c:v", "copy", "-disposition:v", "attached_pic")
    if name == "a.mkv":
        files = ("-attach", image, "-metadata:s:t", "mimetype=image/png", "-metadata:s:t", "filename=cover.png")
    sound = clips.clip(tmp_path / "sound.wav", seconds=1)
    clips.run("-i", sound, *files, tmp_path / name)
    result, mp3 = convert(tmp_path / name, tmp_path, Options(), 1)
    assert picture(mp3) is None
    assert result.warning == "The picture embedded in this file is larger than 16 MB and was left out."
    result, _ = convert(tmp_path / name, tmp_path, Options(cover="none"), 1)
    assert result.warning is None


def test_undecodable_video_has_no_cover_but_its_audio_is_complete(tmp_path: Path) -> None:
    video = colors(tmp_path / "a.mkv", "-c:v", "libx264", "-c:a", "aac")
    intact = convert(video, tmp_path, Options(), 1)[1]
    video.write_bytes(video.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/ASP"))
    result, mp3 = convert(video, tmp_path, Options(cover=4.0), 1)
    assert picture(mp3) is None
    assert result.warning == "The video cannot be decoded at the cover position: choose another one."
    assert clips.without_id3(mp3) == clips.without_id3(intact)


def large_video(path: Path) -> Path:
    """Makes a video of frames of 8192 x 8192."""
    source = ["-f", "lavfi", "-i", "color=red:s=8192x8192:r=2:d=1"]
    clips.run(*source, "-f", "lavfi", "-i", "sine=d=1", "-c:v", "mjpeg", "-q:v", 31, "-c:a", "aac", path)
    return path


def test_frames_that_take_too_much_memory_make_no_cover(tmp_path: Path) -> None:
    result, mp3 = convert(large_video(tmp_path / "a.mkv"), tmp_path, Options(cover=0.5), 1)
    assert picture(mp3) is None
    assert result.warning is not None
    assert result.warning.startswith("The frames of this video are too large for a cover")


def test_large_frames_that_no_header_announces_are_not_decoded(track: TrackInfo, tmp_path: Path) -> None:
    excerpt = VideoExcerpt(large_video(tmp_path / "large.mkv"), (0.5,), 1.0)
    with cover.rendering(replace(track, excerpt=excerpt), clips.ffmpeg()) as picture:
        assert picture(lambda: None) == (b"", "The video cannot be decoded at the cover position: choose another one.")


def test_cover_of_8k_has_enough_memory(tmp_path: Path) -> None:
    video = tmp_path / "a.mkv"
    source = ["-f", "lavfi", "-i", "color=red:s=8192x4320:r=2:d=1"]
    clips.run(*source, "-f", "lavfi", "-i", "sine=d=1", "-c:v", "mjpeg", "-q:v", 31, "-c:a", "aac", video)
    result, mp3 = convert(video, tmp_path, Options(cover=0.5), 1)
    assert color_of(picture(mp3)) == "red"
    assert result.warning is None


def test_a_browser_recording_has_a_cover(tmp_path: Path) -> None:
    result, mp3 = convert(clips.realistic(tmp_path / "recording.webm"), tmp_path, Options(cover="frame", end=1.0), 1)
    assert picture(mp3) is not None
    assert result.warning is None


@pytest.fixture
def track(tmp_path: Path) -> TrackInfo:
    video = colors(tmp_path / "a.mkv", "-c:v", "mpeg4", "-c:a", "aac")
    with video.open("rb") as source:
        return tracks.take(source, tmp_path, Options(cover=1.0))


@pytest.mark.usefixtures("unconfined")
def test_video_decoder_has_no_environment_and_no_network(
    track: TrackInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    log = tmp_path / "log"
    program = shell_program(tmp_path / "ffmpeg", f"env >>{log}; ls -l /proc/self/ns/net /proc/self/fd >>{log}; exit 1")
    with cover.rendering(track, program) as picture:
        assert picture(lambda: None) == (b"", "The video cannot be decoded at the cover position: choose another one.")
    output = log.read_text()
    assert "SECRET" not in output
    assert "net:[" in output
    assert str(Path("/proc/self/ns/net").readlink()) not in output


@pytest.mark.usefixtures("unconfined")
def test_error_while_waiting_leaves_no_process(track: TrackInfo, tmp_path: Path) -> None:
    started = tmp_path / "started"
    program = shell_program(tmp_path / "ffmpeg", f"echo $$ >{started}; exec sleep 100")

    def stop() -> None:
        wait_for(lambda: started.exists() and bool(started.read_text().strip()))
        raise RuntimeError("the lease is lost")

    with pytest.raises(RuntimeError, match="lease"), cover.rendering(track, program) as picture:
        picture(stop)
    wait_for(lambda: not is_alive(int(started.read_text())))


def test_command_makes_a_cover_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = colors(tmp_path / "a.mkv", "-c:v", "mpeg4", "-c:a", "aac")
    monkeypatch.chdir(tmp_path)
    assert main(["a.mkv", "--cover", "0:04"]) == 0
    assert color_of(picture(video.with_suffix(".mp3").read_bytes())) == "red"
