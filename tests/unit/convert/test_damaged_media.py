"""Damaged, unusual and empty files: playable audio is kept, and the user gets a clear message."""

import importlib
import io
import math
import re
import struct
import subprocess
from array import array
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from functions.convert import pipeline
from functions.convert.demux.child import audio_track, opus_links
from functions.convert.demux.protocol import FaultReport
from functions.convert.errors import UnusableMedia
from functions.convert.ffmpeg import encoder
from functions.convert.ffmpeg.encoder import EncoderInput
from functions.convert.plan import FrameRange, Plan
from functions.mp3.frame import DECODER_DELAY, parse_header
from functions.options import Options
from tests.support import clips
from tests.support.servers import program


def convert(video: Path, directory: Path, options: Options | None = None) -> tuple[pipeline.Result, Path]:
    mp3 = directory / "out.mp3"
    with video.open("rb") as source, mp3.open("wb") as out:
        result = pipeline.to_mp3(
            source,
            out,
            pipeline.Settings(options=options or Options(), filename=video.name, encoders=2),
            directory=directory,
            on_progress=lambda _: None,
        )
    return result, mp3


def pitch(mp3: Path) -> float:
    """Returns the frequency of a tone, from its zero crossings."""
    sound = array("h", clips.run("-i", mp3, "-ac", 1, "-ar", 48000, "-f", "s16le", "-"))[4800:-4800]
    crossings = sum(before < 0 <= after for before, after in pairwise(sound))
    return crossings / (len(sound) / 48000)


def tone(frequency: float) -> str:
    return f"sine=f={frequency}:d={{seconds}}:r={{rate}}"


def test_requested_track_is_converted(tmp_path: Path) -> None:
    low, high = (clips.clip(tmp_path / f"{name}.wav", sound=tone(name), seconds=3) for name in (440, 1760))
    video = tmp_path / "two.mkv"
    clips.run("-i", low, "-i", high, "-map", 0, "-map", 1, "-c:a", "aac", video)
    for track, frequency in ((0, 440), (1, 1760)):
        _, mp3 = convert(video, tmp_path, Options(track=track))
        assert pitch(mp3) == pytest.approx(frequency, rel=0.01)
    with pytest.raises(UnusableMedia, match="no audio track 2 in this file: choose one from 0 to 1"):
        convert(video, tmp_path, Options(track=2))


def _two_tracks(path: Path, *arguments: str) -> Path:
    """Makes a file with a low tone in track 0 and a high one in track 1."""
    low, high = (clips.clip(path.with_name(f"{name}.wav"), sound=tone(name), seconds=3) for name in (440, 1760))
    clips.run("-i", low, "-i", high, "-map", 0, "-map", 1, "-c:a", "aac", *arguments, path)
    return path


def test_default_track_is_converted_if_none_is_requested(tmp_path: Path) -> None:
    for name in ("default.mkv", "default.mp4"):
        video = _two_tracks(tmp_path / name, "-disposition:a:0", "0", "-disposition:a:1", "default")
        result, mp3 = convert(video, tmp_path)
        assert pitch(mp3) == pytest.approx(1760, rel=0.01)
        assert result.warning is None
        _, mp3 = convert(video, tmp_path, Options(track=0))
        assert pitch(mp3) == pytest.approx(440, rel=0.01)


def test_track_that_can_be_decoded_takes_the_place_of_one_that_cannot(tmp_path: Path) -> None:
    video = _two_tracks(tmp_path / "two.mov")
    data = bytearray(video.read_bytes())
    entry = data.index(b"mp4a", data.index(b"stsd"))
    size = int.from_bytes(data[entry - 4 : entry], "big")
    content = data[entry + 4 : entry - 4 + size]
    for kind in (b"esds", b"wave", b"mp4a"):
        content = content.replace(kind, b"xxxx")
    data[entry : entry - 4 + size] = b"apac" + content  # a codec of Apple's that has no decoder
    video.write_bytes(data)
    result, mp3 = convert(video, tmp_path)
    assert pitch(mp3) == pytest.approx(1760, rel=0.01)
    assert result.warning == "Audio track 0 of this file is empty or cannot be decoded: track 1 was converted."
    with pytest.raises(UnusableMedia, match="in a format that cannot be decoded") as failure:
        convert(video, tmp_path, Options(track=0))
    assert [track.codec for track in failure.value.tracks] == ["", "aac"]


def test_track_with_sound_takes_the_place_of_an_empty_one(tmp_path: Path) -> None:
    video = _two_tracks(tmp_path / "empty.ts", "-streamid", "0:257", "-streamid", "1:258")
    data = bytearray(video.read_bytes())
    for start in range(0, len(data), 188):
        if (data[start + 1] & 0x1F, data[start + 2]) == (1, 1):  # the first track's packets become padding
            data[start + 1 : start + 3] = b"\x1f\xff"
    video.write_bytes(data)
    result, mp3 = convert(video, tmp_path)
    assert pitch(mp3) == pytest.approx(1760, rel=0.01)
    assert result.warning == "Audio track 0 of this file is empty or cannot be decoded: track 1 was converted."


TRUNCATED = [
    ("faststart.mp4", "-c:v mpeg4 -c:a aac -movflags +faststart"),
    ("truncated.mkv", "-c:v mpeg4 -c:a aac"),
    ("truncated.webm", "-c:v libvpx -deadline realtime -c:a libopus"),
    ("truncated.flv", "-c:v flv1 -c:a aac"),
    ("truncated.flac", "-vn"),
]


@pytest.mark.parametrize(("name", "arguments"), TRUNCATED, ids=[row[0] for row in TRUNCATED])
def test_truncated_file_is_converted_with_a_warning(name: str, arguments: str, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), seconds=10, video="-vn" not in arguments)
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    result, mp3 = convert(video, tmp_path)
    assert 3 < result.duration < 7.5
    assert clips.samples(mp3, 48000, 2) == pytest.approx(result.duration * 48000, abs=1152)
    assert result.warning is not None
    assert re.search(r"truncated: about [345] seconds", result.warning)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("truncated.avi", "-c:v mpeg4 -c:a ac3"), ("truncated.wmv", "-c:v wmv2 -c:a wmav2"), ("truncated.wav", "-vn")],
)
def test_truncated_last_packet_causes_a_warning_if_no_header_declares_a_length(
    name: str, arguments: str, tmp_path: Path
) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), seconds=10, video="-vn" not in arguments)
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2 + 1])
    result, _ = convert(video, tmp_path)
    assert 3 < result.duration < 7.5
    assert result.warning is not None


def _zeros(data: bytearray, place: int) -> None:
    data[place : place + len(data) // 10] = bytes(len(data) // 10)


def _insertion(data: bytearray, place: int) -> None:
    data.insert(place, 0)


def _end_of_adx(data: bytearray, place: int) -> None:
    start = int.from_bytes(data[2:4], "big") + 4
    place -= (place - start) % 36  # two channels of 18 bytes
    data[place : place + 2] = b"\x80\x01"


#: What makes libav take a file to be complete where it is damaged, without an error: a clip, and the damage.
SILENTLY_DAMAGED = [
    ("a.adx", "", _end_of_adx),
    ("a.dv", "-s 720x576 -r 25 -ar 48000", _insertion),
    ("a.nut", "-ar 22050 -c:a adpcm_swf", _zeros),
    ("a.opus", "-ar 48000", _zeros),
    ("a.voc", "", _zeros),
]


def test_sound_of_less_than_half_of_a_short_file_causes_a_warning(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mkv", "-c:v", "mpeg4", "-af", "atrim=duration=0.4", seconds=1.2, video=True)
    result, _ = convert(video, tmp_path)
    assert result.warning is not None
    assert "no sound for about 0.8 of its 1.2 seconds" in result.warning


@pytest.mark.parametrize(("name", "arguments", "damage"), SILENTLY_DAMAGED, ids=[row[0] for row in SILENTLY_DAMAGED])
def test_rest_that_libav_does_not_read_causes_a_warning(
    name: str, arguments: str, damage: Callable[[bytearray, int], None], tmp_path: Path
) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), seconds=1, video=name == "a.dv")
    intact, _ = convert(video, tmp_path, Options(bitrate=64))
    assert intact.warning is None
    data = bytearray(video.read_bytes())
    damage(data, len(data) // 10)
    video.write_bytes(data)
    result, _ = convert(video, tmp_path, Options(bitrate=64))
    assert result.duration < 0.5
    assert re.match(r"Only 0\.\d of [01]\.\d seconds of sound could be decoded: the rest", result.warning or "")


def test_large_picture_after_the_sound_is_not_damage(tmp_path: Path) -> None:
    picture = tmp_path / "cover.png"
    clips.run("-f", "lavfi", "-i", "nullsrc=s=300x300,geq=random(1)*255:128:128", "-frames:v", "1", picture)
    tagged = clips.clip(tmp_path / "a.mp3", "-i", picture, "-map", "0", "-map", "1", "-c:v", "copy", seconds=0.1)
    video = clips.clip(tmp_path / "a.wav", "-ac", "1", seconds=0.5)
    tag = tagged.read_bytes()
    data = bytearray(video.read_bytes() + b"id3 " + len(tag).to_bytes(4, "little") + tag + bytes(len(tag) % 2))
    assert len(tag) > len(data) / 2
    data[4:8] = (len(data) - 8).to_bytes(4, "little")
    video.write_bytes(data)
    result, _ = convert(video, tmp_path)
    assert result.warning is None


def test_audio_much_longer_than_declared_is_converted(tmp_path: Path) -> None:
    sound = clips.clip(tmp_path / "sound.flac", sound=clips.SILENCE, seconds=200)
    video = tmp_path / "a.mkv"
    clips.run("-i", sound, "-c", "copy", "-bsf:a", "setts=ts=N:duration=1:time_base=1/1000", video)
    result, mp3 = convert(video, tmp_path, Options(bitrate=320))
    assert result.duration == pytest.approx(200, abs=0.001)
    assert clips.samples(mp3, 48000, 2) == 200 * 48000


def test_audio_longer_than_its_packets_can_hold_is_rejected(tmp_path: Path) -> None:
    track = clips.clip(tmp_path / "track.flac", sound=clips.SILENCE, seconds=200)
    plan = Plan("flac", 48000, 2, ("-b:a", "320k"), ("anull",), 1, (FrameRange(0, None),), packets=1)
    with pytest.raises(UnusableMedia, match="takes far more time or space than its length accounts for"):
        encoder.encode(EncoderInput(clips.ffmpeg(), plan, track, tmp_path), plan.ranges, 1, lambda _: None)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("intact.mkv", "-c:v mpeg4 -c:a libvorbis"),
        ("intact.mp4", "-c:v mpeg4 -c:a aac"),
        ("intact.avi", "-c:v mpeg4 -c:a ac3"),
        ("intact.ts", "-c:v mpeg2video -c:a aac"),
    ],
)
def test_sound_that_ends_before_the_pictures_is_not_damaged(name: str, arguments: str, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / name, "-af", "atrim=duration=3", *arguments.split(), seconds=8, video=True)
    result, _ = convert(video, tmp_path)
    assert result.duration == pytest.approx(3, abs=0.1)
    assert result.warning == ("This file has no sound for about 5 of its 8 seconds (5 at the end): these are left out.")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("broken.ts", "-c:a aac"), ("broken.mp4", "-c:a aac -movflags +faststart"), ("broken.mkv", "-c:v mpeg4 -c:a ac3")],
)
def test_damaged_packets_in_the_middle_are_left_out(name: str, arguments: str, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), seconds=10, video="-c:v" in arguments)
    data = bytearray(video.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(range(7, 247)) * 12 + bytes(120)
    video.write_bytes(data)
    result, mp3 = convert(video, tmp_path)
    assert 9 < result.duration < 10.2
    clips.samples(mp3, 48000, 2)
    assert result.warning == "Parts of the sound are damaged or missing and were left out."


@pytest.mark.parametrize(("kept", "message"), [(20, "Only 4 of 20 seconds"), (0.6, "Only 0 of 20 seconds")])
def test_share_that_could_be_decoded_is_stated(kept: float, message: str, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mka", "-c:a", "ac3", seconds=20)
    data = video.read_bytes()
    places = [found.start() for found in re.finditer(b"\x0b\x77", data)]
    end = places[round(len(places) * kept / 100)]
    video.write_bytes(data[:end] + data[end:].replace(b"\x0b\x77", b"\0\0"))
    if kept < 1:
        with pytest.raises(UnusableMedia, match=f"{message} of sound could be decoded. The file is damaged or copy-"):
            convert(video, tmp_path)
        return
    result, _ = convert(video, tmp_path)
    assert result.warning is not None
    assert re.match(message, result.warning)


def test_packet_that_the_container_rejects_is_left_out(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.3gp", "-ac", 1, "-c:a", "libopencore_amrnb", "-b:a", "12.2k", seconds=4, rate=8000)
    data = bytearray(video.read_bytes())
    data[4:8] = b"skip"  # so that libav demuxes it
    data[data.index(b"mdat") + 4 + 50 * 32] = 4  # the shortest type of frame, in the 32 bytes of the longest
    video.write_bytes(data)
    result, _ = convert(video, tmp_path)
    assert result.duration == pytest.approx(4, abs=0.1)
    assert result.warning == "Parts of the sound are damaged or missing and were left out."


@pytest.mark.parametrize(("value", "rate"), [(math.nan, 44100), (math.inf, 44100), (1e8, 44100), (math.nan, 96000)])
def test_samples_that_are_no_sound_are_silenced(value: float, rate: int, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.wav", "-c:a", "pcm_f32le", sound=tone(440), seconds=12, rate=rate)
    data = bytearray(video.read_bytes())
    place = len(data) // 2 // 4 * 4 + data.index(b"data") % 4
    data[place : place + 4] = struct.pack("<f", value)
    video.write_bytes(data)
    result, mp3 = convert(video, tmp_path)
    assert result.duration == pytest.approx(12, abs=1e-6)
    assert result.warning is None
    assert pitch(mp3) == pytest.approx(440, rel=0.001)


def _text(path: Path) -> None:
    path.write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nnot a video\n")


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _noise(path: Path) -> None:
    path.write_bytes(bytes(index * 7919 % 251 for index in range(100_000)))


def _picture(path: Path) -> None:
    clips.run("-f", "lavfi", "-i", "testsrc=s=64x64", "-frames:v", 1, path)


def _no_track(path: Path) -> None:
    clips.run("-f", "lavfi", "-i", "testsrc=s=96x64:r=25:d=3", "-c:v", "libx264", path)


def _without_index(path: Path) -> None:
    intact = clips.clip(path.with_name("intact.mp4"), "-c:a", "aac", seconds=3).read_bytes()
    path.write_bytes(intact[: len(intact) // 2])


def _undecodable(path: Path) -> None:
    clips.clip(path, "-c:a", "aac", seconds=3)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = b"\xff" * (end - start)
    path.write_bytes(data)


def _far_away(path: Path) -> None:
    intact = clips.clip(path, "-c:a", "alac", seconds=3).read_bytes()
    chunk = intact.index(b"info")
    path.write_bytes(intact[: chunk + 4] + (1 << 62).to_bytes(8, "big") + intact[chunk + 12 :])


def _only_a_tag(path: Path) -> None:
    intact = clips.clip(path.with_name("intact.mp3"), "-id3v2_version", "0", "-b:a", "64k", seconds=0.5).read_bytes()
    frame = parse_header(intact)
    assert frame is not None
    path.write_bytes(intact[: frame.size])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("text.mp4", _text, "not a video or audio file"),
        ("empty.mp4", _nothing, "not a video or audio file"),
        ("noise.mp4", _noise, "not a video or audio file"),
        ("tag.mp3", _only_a_tag, "."),
        ("picture.jpg", _picture, "no audio track"),
        ("silent.mp4", _no_track, "no audio track"),
        ("half.mp4", _without_index, "The file's index is missing: the recording was not finished"),
        ("garbage.mp4", _undecodable, "cannot be decoded"),
    ],
)
def test_unusable_file_is_rejected_with_a_message(
    name: str, make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(UnusableMedia) as caught:
        convert(tmp_path / name, tmp_path)
    assert re.search(message, str(caught.value))
    assert str(caught.value).endswith(".")
    assert (tmp_path / "out.mp3").read_bytes() == b""


def test_file_that_only_ffmpeg_opens_is_converted(tmp_path: Path) -> None:
    _far_away(tmp_path / "far.caf")
    result, mp3 = convert(tmp_path / "far.caf", tmp_path)
    assert result.duration == pytest.approx(3)
    assert clips.samples(mp3, 48000, 2) == 3 * 48000


@pytest.mark.parametrize("name", ["hls.mp4", "concat.mp4", "dash.mp4"])
def test_file_cannot_reference_other_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = clips.clip(tmp_path / "other.ts", "-c:a", "aac", seconds=2)
    texts = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{other}\n#EXT-X-ENDLIST\n",
        "concat.mp4": "ffconcat version 1.0\nfile other.ts\n",
        "dash.mp4": f"<MPD><Period><AdaptationSet><Representation><BaseURL>file:{other}</BaseURL></Representation>"
        "</AdaptationSet></Period></MPD>",
    }
    video = tmp_path / name
    video.write_text(texts[name])
    with pytest.raises(UnusableMedia):
        convert(video, tmp_path)
    # The same holds outside the demux child, in a process that may open files.
    with io.FileIO(video) as source, (tmp_path / "track").open("wb") as target:
        assert isinstance(audio_track.extract(source, target, 0, False), FaultReport)


# ffmpeg supports at most one frame of padding: for 1 to 46 samples beyond a frame its decoders return extra silence.
@pytest.mark.parametrize("samples", [47, 1151, 1152, 1200, 47_999])
def test_two_decoders_return_every_sample(samples: int, tmp_path: Path) -> None:
    mpg123 = program("mpg123")
    video = clips.clip(tmp_path / "short.wav", "-af", f"atrim=end_sample={samples}", seconds=2)
    result, mp3 = convert(video, tmp_path)
    assert result.duration == pytest.approx(samples / 48000, abs=1e-9)
    assert clips.samples(mp3, 48000, 2) == samples
    # mpg123 writes nothing but the samples with -s: 16 bits, two channels
    decoded = subprocess.run([mpg123, "-q", "-s", "-r", "48000", "--stereo", str(mp3)], capture_output=True, check=True)
    assert len(decoded.stdout) // 4 == samples


def test_two_decoders_return_every_sample_of_joined_ranges(tmp_path: Path) -> None:
    mpg123 = program("mpg123")
    video = clips.clip(tmp_path / "long.mkv", "-c:a", "aac", seconds=25, rate=44100)
    samples = clips.samples(video, 44100, 2)
    result, mp3 = convert(video, tmp_path)
    assert result.duration == pytest.approx(samples / 44100, abs=1e-6)
    assert clips.samples(mp3, 44100, 2) == samples
    decoded = subprocess.run([mpg123, "-q", "-s", "-r", "44100", "--stereo", str(mp3)], capture_output=True, check=True)
    assert len(decoded.stdout) // 4 == samples
    found = subprocess.run([program("mp3val"), str(mp3)], capture_output=True, text=True, check=True).stdout
    assert "WARNING" not in found
    assert "PROBLEM" not in found


def packets(path: Path) -> list[bytes]:
    """Returns the packets of the first audio track, as PyAV reads them."""
    import av

    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


def _mp3(path: Path, *arguments: str) -> Path:
    original = clips.clip(path.with_name("source.mp3"), *arguments, seconds=6.1, rate=44100)
    if path.suffix != ".mp3":
        clips.run("-i", original, "-c", "copy", path)
        return path
    return original


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.flv", "a.ts", "a.mp3"])
@pytest.mark.parametrize("quality", [("-b:a", "128k"), ("-q:a", "3")], ids=["cbr", "vbr"])
def test_mp3_audio_is_copied_bit_for_bit(name: str, quality: tuple[str, str], tmp_path: Path) -> None:
    video = _mp3(tmp_path / name, *quality)
    result, mp3 = convert(video, tmp_path)
    assert result.copied
    assert result.warning is None
    source = packets(video)
    if b"Info" in source[0][:40] or b"Xing" in source[0][:40]:
        source = source[1:]  # a tag that was stored in the container as if it were audio
    assert packets(mp3) == source
    assert clips.without_id3(mp3.read_bytes()).endswith(b"".join(source))
    mpg123 = program("mpg123")
    done = subprocess.run([mpg123, "-q", "-s", str(mp3)], capture_output=True, check=True)
    assert not done.stderr
    if name in ("a.mp3", "a.mp4"):  # the others do not store the delay
        assert result.duration == pytest.approx(6.1, abs=0.03)
        assert clips.samples(mp3, 44100, 2) == clips.samples(video, 44100, 2) == round(6.1 * 44100)


def test_mp3s_laid_end_to_end_are_copied_without_the_tags_between_them(tmp_path: Path) -> None:
    sound = ("-f", "lavfi", "-i", clips.MUSIC.format(seconds=4, rate=44100))
    cover = tmp_path / "cover.jpg"
    clips.run("-f", "lavfi", "-i", "nullsrc=s=200x200,geq=random(1)*255:128:128", "-frames:v", 1, cover)
    picture = ("-i", cover, "-map", 0, "-map", 1, "-c:v", "copy", "-disposition:v", "attached_pic")
    video = tmp_path / "joined.mp3"
    parts = []
    for number, extra in enumerate([(), picture, ("-id3v2_version", 0)]):
        part = tmp_path / f"{number}.mp3"
        clips.run(*sound, *extra, "-b:a", "64k", "-metadata", "title=T", "-write_id3v1", 1, part)
        parts.append(part.read_bytes())
    video.write_bytes(b"".join(parts))
    result, mp3 = convert(video, tmp_path)
    assert result.copied
    assert result.warning is None
    frames = packets(tmp_path / "0.mp3")
    assert packets(mp3) == frames * 3
    assert result.duration == pytest.approx((len(frames) * 3 * 1152 - 1105) / 44100)
    encoded, _ = convert(video, tmp_path, Options(bitrate=64))
    assert encoded.warning is None
    assert encoded.duration == pytest.approx(result.duration, abs=0.001)


LYRICS_2 = b"LYRICSBEGIN" + b"IND00002" + b"10" + b"LYR01200" + b"hello world\n" * 100 + b"001238" + b"LYRICS200"
LYRICS_1 = b"LYRICSBEGIN" + b"[00:02]hello\r\n" * 30 + b"LYRICSEND"


@pytest.mark.parametrize("lyrics", [LYRICS_1, LYRICS_2], ids=["1", "2"])
@pytest.mark.parametrize("id3v1", [b"", b"TAG".ljust(128, b"\0")], ids=["alone", "ID3v1"])
def test_lyrics_at_the_end_of_an_mp3_are_not_damage(lyrics: bytes, id3v1: bytes, tmp_path: Path) -> None:
    plain = clips.clip(tmp_path / "a.mp3", "-b:a", "64k", "-id3v2_version", 0, seconds=3)
    video = tmp_path / "b.mp3"
    video.write_bytes(plain.read_bytes() + lyrics + id3v1)
    result, mp3 = convert(video, tmp_path)
    assert (result.copied, result.warning) == (True, None)
    assert packets(mp3) == packets(plain)
    video.write_bytes((plain.read_bytes() + lyrics + id3v1) * 2)
    result, mp3 = convert(video, tmp_path)
    assert (result.copied, result.warning) == (True, None)
    assert packets(mp3) == packets(plain) * 2


def test_padding_of_more_than_a_frame_is_kept(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mp3", "-b:a", "64k", "-id3v2_version", 0, seconds=3.7, rate=24000)
    data = bytearray(video.read_bytes())
    at = data.index(b"Info") + 141  # as LAME 3.98 writes it: a delay of 576 and a padding of 1423 samples
    data[at : at + 3] = (576 << 12 | 1423).to_bytes(3, "big")
    video.write_bytes(data)
    result, mp3 = convert(video, tmp_path)
    assert result.copied
    assert clips.samples(mp3, 24000, 2) == clips.samples(video, 24000, 2) == 88_433
    assert result.duration == pytest.approx(88_433 / 24000)
    _, mp3 = convert(video, tmp_path, Options(bitrate=64))
    assert clips.samples(mp3, 24000, 2) == 88_433


@pytest.mark.parametrize("name", ["a.mp3", "a.avi"])
def test_mp3_without_a_delay_does_not_get_one(name: str, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / name, "-c:a", "libmp3lame", "-write_xing", 0, seconds=2, rate=44100)
    result, mp3 = convert(video, tmp_path)
    assert result.copied
    assert clips.samples(mp3, 44100, 2) == clips.samples(video, 44100, 2) == 1152 * len(packets(video))


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_padding_without_a_delay_does_not_cut_off_the_start(name: str, tmp_path: Path) -> None:
    video = _mp3(tmp_path / name, "-b:a", "128k")
    if name == "a.mp4":
        data = bytearray(video.read_bytes())
        clock = int.from_bytes(data[(at := data.index(b"mvhd") + 16) : at + 4], "big")
        at = data.index(b"elst") + 12  # version and flags, one edit
        end = 1152 * len(packets(video)) - 20  # as if by a clock of milliseconds
        data[at : at + 8] = struct.pack(">Ii", end * clock // 44100, 0)
        video.write_bytes(data)
    result, mp3 = convert(video, tmp_path)
    assert result.copied
    assert clips.samples(mp3, 44100, 2) == 1152 * len(packets(video))


@pytest.mark.parametrize("begin", [100, 1105, 4000, 5000, 50_000])
def test_edit_list_of_mp3_audio_is_applied(begin: int, tmp_path: Path) -> None:
    video = _mp3(tmp_path / "a.mp4", "-b:a", "128k")
    data = bytearray(video.read_bytes())
    at = data.index(b"elst") + 16  # version and flags, one edit, its length, its start
    assert int.from_bytes(data[at : at + 4], "big") == 1105
    data[at : at + 4] = begin.to_bytes(4, "big")
    video.write_bytes(data)
    result, mp3 = convert(video, tmp_path)
    assert result.copied == (DECODER_DELAY <= begin < 4096 + DECODER_DELAY)  # the limits of LAME's tag
    assert clips.samples(mp3, 44100, 2) == clips.samples(video, 44100, 2)


@pytest.mark.parametrize("name", ["short-mp3.mp4", "long-mp3.mp4", "tagged.mp3"])
def test_mp3_audio_is_copied_from_realistic_files(name: str, tmp_path: Path) -> None:
    make = clips.tagged_mp3 if name == "tagged.mp3" else clips.realistic
    video = make(tmp_path / name)
    result, mp3 = convert(video, tmp_path)
    assert result.copied
    assert packets(mp3) == packets(video)
    # What libav decodes from the source, priming included, exact to the sample at the start.
    assert result.duration == pytest.approx(clips.samples(video, 44100, 2) / 44100, abs=1153 / 44100)


def test_requested_bit_rate_is_encoded(tmp_path: Path) -> None:
    result, mp3 = convert(clips.realistic(tmp_path / "short-mp3.mp4"), tmp_path, Options(bitrate=64))
    assert not result.copied
    assert mp3.stat().st_size < 9.7 * 64_000 / 8 + 4000


def test_tags_and_cover_are_copied(tmp_path: Path) -> None:
    ID3: Any = importlib.import_module("mutagen.id3").ID3  # it has no types
    video = clips.tagged_mp3(tmp_path / "tagged.mp3")
    result, mp3 = convert(video, tmp_path)
    source = ID3(video)
    tags = ID3(mp3)
    assert tags.version == (2, 3, 0)
    assert result.title == str(tags["TIT2"]) == str(source["TIT2"])
    for frame in ("TPE1", "TALB", "TRCK"):
        assert str(tags[frame]) == str(source[frame])
    assert str(tags["TDRC"]) == "2005"
    assert tags.getall("APIC")[0].data == source.getall("APIC")[0].data
    assert len(tags.getall("APIC")[0].data) > 1_000_000  # sizes that need more than 7 bits per byte


def test_title_is_the_file_name_if_there_are_no_tags(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "Mañana, 明日.v2.mkv", "-c:a", "aac", seconds=1)
    result, mp3 = convert(video, tmp_path)
    ID3: Any = importlib.import_module("mutagen.id3").ID3  # it has no types
    assert result.title == str(ID3(mp3)["TIT2"]) == "Mañana, 明日.v2"


def test_six_channels_are_mixed_into_two(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "six.mkv", "-ac", 6, "-c:a", "flac", sound=tone(500), seconds=2)
    _, mp3 = convert(video, tmp_path)
    assert pitch(mp3) == pytest.approx(500, rel=0.01)
    sound = array("h", clips.run("-i", mp3, "-f", "s16le", "-"))
    assert math.sqrt(sum(value * value for value in sound) / len(sound)) > 500
    assert io.BytesIO(mp3.read_bytes()).read(3) == b"ID3"


def test_file_with_more_tags_than_fit_in_a_report_is_converted(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mkv", "-c:a", "aac", seconds=2)
    tags = tmp_path / "tags"
    lines = ["title=Grüße 🎬", *(f"T{number}={'🎬' * 4000}" for number in range(400))]
    tags.write_text("\n".join([";FFMETADATA1", *lines, ""]), encoding="utf-8")
    full = tmp_path / "full.mkv"
    clips.run("-i", video, "-i", tags, "-map_metadata", 1, "-map", 0, "-c", "copy", full)
    result, _ = convert(full, tmp_path)
    assert result.title == "Grüße 🎬"


def test_chained_opus_of_stereo_and_mono_is_converted_as_a_whole(tmp_path: Path) -> None:
    links = [
        clips.clip(tmp_path / f"{channels}.opus", "-c:a", "libopus", "-ac", channels, seconds=1).read_bytes()
        for channels in (2, 1)
    ]
    video = tmp_path / "chain.opus"
    video.write_bytes(links[1] + links[0] + links[1])
    result, mp3 = convert(video, tmp_path)
    assert result.warning is None
    assert clips.samples(mp3, 48000, 2) == 3 * 48000


def test_chained_vorbis_of_stereo_and_mono_has_a_warning_with_the_share_that_is_read(tmp_path: Path) -> None:
    links = [
        clips.clip(tmp_path / f"{channels}.ogg", "-c:a", "libvorbis", "-ac", channels, seconds=1).read_bytes()
        for channels in (2, 1)
    ]
    video = tmp_path / "chain.ogg"
    video.write_bytes(links[1] + links[0] + links[0])
    result, _ = convert(video, tmp_path)
    assert re.match(r"Only 1\.0 of [34]\.\d seconds of sound could be decoded", result.warning or "")


def test_damaged_opus_outside_ogg_is_not_searched_for_links(tmp_path: Path) -> None:
    video = tmp_path / "a.webm"
    video.write_bytes(b"\x1aE\xdf\xa3" + bytes(3 << 20) + b"OggS\0\2")
    with video.open("rb", buffering=0) as source:
        assert opus_links.with_two_channels(source, video.stat().st_size) is None
        assert source.tell() < 100


def test_complete_gxf_without_pictures_is_not_called_damaged(tmp_path: Path) -> None:
    sound = ("-c:a", "pcm_s16le", "-ac", 1)
    result, _ = convert(clips.clip(tmp_path / "a.gxf", *sound, seconds=12), tmp_path)
    assert 12 <= result.duration < 12.3
    assert result.warning is None
