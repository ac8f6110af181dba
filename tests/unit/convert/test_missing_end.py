"""A warning that the end of a file is missing is true in every container: there if it is, and only then."""

import io
import re
import struct
import wave
from pathlib import Path

import pytest

from functions.convert import silence
from functions.convert.demux.child import audio_track
from functions.convert.demux.child.description import Extracted
from functions.convert.demux.protocol import Fault, FaultReport, TrackReport
from functions.convert.demux.track import track_info
from functions.convert.mp3.assemble import warning_for
from functions.options import Options
from tests.support import clips
from tests.unit.convert.test_damaged_media import convert

SOUND = ("-f", "lavfi", "-i", "sine=440:r=48000:d=6", "-ac", "2")
PICTURES = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=6", "-g", "25")
FRAGMENTED = "-c:v mpeg4 -c:a aac -movflags frag_keyframe+empty_moov"


def make(path: Path, arguments: str, *more: object) -> Path:
    """Makes six seconds of sound, with pictures if the arguments name their codec."""
    clips.run(*SOUND, *(PICTURES if "-c:v" in arguments else ()), *arguments.split(), *more, path)
    return path


def reported(video: Path) -> TrackReport:
    """Returns the demux child's report."""
    with io.FileIO(video) as source, video.with_suffix(".track").open("wb") as target:
        extracted = audio_track.extract(source, target, 0, True)
    assert isinstance(extracted, Extracted), extracted
    return extracted.report


def warning(video: Path) -> str | None:
    """Returns the warning that the demux child's report leads to."""
    track = track_info(reported(video), video, b"")
    errors = track.errors + silence.unmentioned(track, Options())
    return warning_for(track.missing, track.truncated, errors, silence.warning_for(track, Options()), None)


#: Containers that can be made with a clock that starts late: name, arguments.
LATE_CLOCKS = [
    ("a.mkv", "-c:v mpeg4 -c:a aac"),
    ("a.mka", "-c:a libvorbis"),
    ("flac.mka", "-c:a flac"),
    ("a.webm", "-c:v libvpx -deadline realtime -c:a libopus"),
    ("live.webm", "-c:a libopus -live 1"),
    ("a.mp4", "-c:v mpeg4 -c:a aac"),
    ("fragmented.mp4", FRAGMENTED),
    ("a.mov", "-c:a pcm_s16le"),
    ("mp3.avi", "-c:v mpeg4 -c:a libmp3lame"),
    ("a.flv", "-c:v flv1 -c:a aac -ar 44100"),
    ("a.wmv", "-c:v wmv2 -c:a wmav2"),
    ("a.wma", "-c:a wmav2"),
    ("a.ts", "-c:v mpeg2video -c:a mp2"),
    ("a.mpg", "-c:v mpeg2video -c:a mp2"),
    ("a.vob", "-c:v mpeg2video -c:a ac3"),
    ("a.ogg", "-c:a libvorbis"),
    ("a.opus", "-c:a libopus"),
    ("a.oga", "-c:a flac"),
    ("a.nut", "-c:v mpeg4 -c:a aac"),
    ("a.mxf", "-c:v mpeg2video -c:a pcm_s16le"),
    ("a.wtv", "-c:v mpeg2video -c:a mp2"),
]


#: The same with seconds. ffmpeg fills that time of an AVI with empty chunks, which soon are more than the sound.
LATE = [(*row, 5) for row in LATE_CLOCKS] + [(*row, 600) for row in LATE_CLOCKS if not row[0].endswith(".avi")]


@pytest.mark.parametrize(("name", "arguments", "offset"), LATE, ids=[f"{row[0]}-{row[2]}" for row in LATE])
def test_complete_file_whose_clock_starts_late_has_no_warning(
    name: str, arguments: str, offset: int, tmp_path: Path
) -> None:
    video = make(tmp_path / name, arguments, "-output_ts_offset", offset)
    assert warning(video) is None
    assert reported(video).unread == 0


@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
def test_broadcast_whose_clock_begins_anew_has_no_warning(name: str, tmp_path: Path) -> None:
    wrap = (1 << 33) / 90_000  # ISO/IEC 13818-1, 2.4.3.7: 33 bits at 90 kHz
    video = make(tmp_path / name, "-c:v mpeg2video -c:a mp2", "-output_ts_offset", wrap - 5)
    assert warning(video) is None
    result, _ = convert(video, tmp_path, Options(cover=1.0))
    assert result.warning != "This file has no video to take a cover from."


ABOUT_THREE = r"^The file is truncated: about [234] seconds are missing at the end\.$"
END = r"^The file is truncated: its end is missing\.$"
#: Containers, cut in half: name, arguments, the warning. Broadcasts and bare frames declare no length.
HALVES = [
    ("a.mkv", "-c:v mpeg4 -c:a aac", ABOUT_THREE),
    ("a.webm", "-c:v libvpx -deadline realtime -c:a libopus", ABOUT_THREE),
    ("faststart.mp4", "-c:v mpeg4 -c:a aac -movflags +faststart", ABOUT_THREE),
    ("fragmented.mp4", FRAGMENTED, END),
    ("indexed.mp4", "-c:v mpeg4 -c:a aac -movflags +dash+frag_keyframe", END),
    ("pcm.mov", "-c:a pcm_s16le -movflags +faststart", ABOUT_THREE),
    ("mp3.avi", "-c:v mpeg4 -c:a libmp3lame", ABOUT_THREE),
    ("pcm.avi", "-c:v mpeg4 -c:a pcm_s16le", ABOUT_THREE),
    ("ac3.avi", "-c:v mpeg4 -c:a ac3", ABOUT_THREE),
    ("sound.avi", "-c:a libmp3lame", ABOUT_THREE),
    ("a.flv", "-c:v flv1 -c:a aac -ar 44100", ABOUT_THREE),
    ("a.wmv", "-c:v wmv2 -c:a wmav2", ABOUT_THREE),
    ("a.wma", "-c:a wmav2", ABOUT_THREE),
    ("a.mxf", "-c:v mpeg2video -c:a pcm_s16le", ABOUT_THREE),
    ("a.rm", "-c:a ac3", ABOUT_THREE),
    ("a.wav", "", ABOUT_THREE),
    ("rf64.wav", "-rf64 always", ABOUT_THREE),
    ("a.w64", "", ABOUT_THREE),
    ("a.aiff", "", ABOUT_THREE),
    ("a.caf", "", ABOUT_THREE),
    ("a.au", "", ABOUT_THREE),
    ("a.flac", "", ABOUT_THREE),
    ("a.tta", "", ABOUT_THREE),
    ("a.apm", "-f apm", ABOUT_THREE),
    ("a.asf", "-f argo_asf", ABOUT_THREE),
    ("a.ast", "", ABOUT_THREE),
    ("a.kvag", "-f kvag", ABOUT_THREE),
    ("a.smjpeg", "-f smjpeg", ABOUT_THREE),
    ("a.wv", "", ABOUT_THREE),
    ("a.mp3", "", ABOUT_THREE),
    ("a.ogg", "-c:a libvorbis", END),
    ("a.opus", "-c:a libopus", END),
    ("a.oga", "-c:a flac", END),
    ("a.voc", "-c:a pcm_u8", END),
    ("a.ts", "-c:v mpeg2video -c:a mp2", None),
    ("a.mpg", "-c:v mpeg2video -c:a mp2", None),
    ("a.vob", "-c:v mpeg2video -c:a ac3", None),
    ("untagged.mp3", "-write_xing 0", None),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), HALVES, ids=[row[0] for row in HALVES])
def test_half_of_a_file_has_a_warning_if_that_can_be_known(
    name: str, arguments: str, expected: str | None, tmp_path: Path
) -> None:
    video = make(tmp_path / name, arguments)
    assert warning(video) is None
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2 + 1])
    found = warning(video)
    assert found is None if expected is None else re.match(expected, found or "")


@pytest.mark.parametrize(
    ("format_", "arguments"), [("wav", ""), ("caf", ""), ("avi", "-c:a libmp3lame"), ("au", ""), ("flac", "")]
)
def test_streamed_file_whose_header_has_placeholders_has_no_warning(
    format_: str, arguments: str, tmp_path: Path
) -> None:
    video = tmp_path / f"a.{format_}"
    video.write_bytes(clips.run(*SOUND, *arguments.split(), "-f", format_, "pipe:1"))
    assert warning(video) is None


def test_riff_of_an_odd_size_without_padding_has_no_warning(tmp_path: Path) -> None:
    video = tmp_path / "a.wav"
    with wave.open(str(video), "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(bytes(range(100, 151)) * 801)
    assert video.stat().st_size % 2
    assert warning(video) is None


def test_length_that_no_file_has_is_not_missing(tmp_path: Path) -> None:
    video = make(tmp_path / "a.mka", "-c:a libvorbis")
    data = bytearray(video.read_bytes())
    struct.pack_into(">d", data, data.index(b"\x44\x89\x88") + 3, 9.2e15)  # Duration, in milliseconds
    video.write_bytes(data)
    result, _ = convert(video, tmp_path)
    assert result.duration == pytest.approx(6, abs=0.1)
    assert result.warning is None


def test_caf_of_a_size_that_no_file_has_is_converted(tmp_path: Path) -> None:
    video = make(tmp_path / "a.caf", "")
    data = bytearray(video.read_bytes())
    struct.pack_into(">q", data, data.index(b"data") + 4, 1 << 62)
    video.write_bytes(data)
    result, _ = convert(video, tmp_path)
    assert result.duration == pytest.approx(6, abs=0.1)


def test_first_part_of_an_avi_has_the_length_of_its_own_sound_as_missing(tmp_path: Path) -> None:
    video = make(tmp_path / "a.avi", "-c:v mpeg4 -q:v 31 -c:a libmp3lame -b:a 64k")
    data = video.read_bytes()
    video.write_bytes(data[: len(data) * 6 // 10])  # a fifth of the complete file is its index
    result, _ = convert(video, tmp_path)
    assert result.warning == f"The file is truncated: about {6 - result.duration:.0f} seconds are missing at the end."


@pytest.mark.parametrize(("arguments", "seconds"), [("-c:a libmp3lame", 6), ("-c:v mpeg4 -c:a libmp3lame", 1)])
def test_sound_that_stops_within_the_first_half_of_a_complete_avi_is_damaged(
    arguments: str, seconds: int, tmp_path: Path
) -> None:
    video = make(tmp_path / "a.avi", arguments, "-t", str(seconds))
    data = bytearray(video.read_bytes())
    start = data.index(b"movi")
    end = data.rindex(b"idx1")
    damage = range(start + (end - start) * 4 // 10, end)
    data[damage.start : damage.stop] = bytes(len(damage))
    video.write_bytes(data)
    result, _ = convert(video, tmp_path)
    expected = rf"Only [02]\.\d of {seconds}\.\d seconds of sound could be decoded: the rest is damaged\."
    assert re.fullmatch(expected, result.warning or "")


def test_pauses_too_short_for_gaps_count_if_less_than_half_has_sound(tmp_path: Path) -> None:
    video = make(tmp_path / "a.dv", "-target pal-dv -c:v dvvideo", "-t", "1")
    frame = 144_000  # 25 per second
    data = bytearray(video.read_bytes())
    assert len(data) == 25 * frame
    for number in (*range(1, 7), *range(16, 25)):
        data[number * frame : (number + 1) * frame] = bytes(frame)
    video.write_bytes(data)
    result, _ = convert(video, tmp_path)
    assert result.warning == "Only 0.4 of 1.0 seconds of sound could be decoded: the rest is damaged."


def _boxes(data: bytes) -> list[tuple[bytes, int, int]]:
    found = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], at, at + size))
        at += size
    return found


@pytest.mark.parametrize("rest", [0, 3, 120])
def test_recording_that_ends_within_a_fragments_header_is_kept_up_to_there(rest: int, tmp_path: Path) -> None:
    video = make(tmp_path / "a.mp4", FRAGMENTED)
    data = video.read_bytes()
    starts = [start for kind, start, _ in _boxes(data) if kind == b"moof"]
    video.write_bytes(data[: starts[4] + rest])
    result, _ = convert(video, tmp_path)
    assert result.duration == pytest.approx(4, abs=0.1)
    assert result.warning == ("The file is truncated: its end is missing." if rest else None)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_recording_without_an_index_says_so(suffix: str, tmp_path: Path) -> None:
    video = make(tmp_path / f"a.{suffix}", "-c:v mpeg4 -c:a aac")
    data = video.read_bytes()
    video.write_bytes(data[: data.rindex(b"moov") - 4])
    with io.FileIO(video) as source, (tmp_path / "track").open("wb") as target:
        report = audio_track.extract(source, target, 0, False)
    assert isinstance(report, FaultReport)
    assert report.fault == Fault.INDEX


def test_data_behind_the_last_box_is_not_taken_for_a_missing_end(tmp_path: Path) -> None:
    video = make(tmp_path / "a.mp4", FRAGMENTED)
    video.write_bytes(video.read_bytes() + b"\x7f\xff\xff\xffSEFH" + bytes(100))
    assert warning(video) is None
