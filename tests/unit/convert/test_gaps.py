"""Parts of a file without sound are left out or become silence, with the chapters; a warning says how long they are."""

import math
from array import array
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import pytest
from mutagen import id3

from functions.convert import gaps, silence
from functions.convert.gaps import Gap
from functions.options import BadOption, Options
from tests.support import clips
from tests.unit.convert import test_identity
from tests.unit.convert.test_damaged_media import convert

ID3: Any = id3.ID3  # mutagen has no types
HOLE = "aselect='not(between(t,5,15))'"
LEFT_OUT = "This file has no sound for about 10 of its 20 seconds (10 in between): these are left out."
SILENT = "This file has no sound for about 10 of its 20 seconds (10 in between): the MP3 is silent there."
CHAPTERS = """;FFMETADATA1
[CHAPTER]
TIMEBASE=1/1
START=0
END={first}
title=before
[CHAPTER]
TIMEBASE=1/1
START={first}
END={second}
title=after
[CHAPTER]
TIMEBASE=1/1
START={second}
END={end}
title=last
"""


def make(path: Path, *arguments: object, times: tuple[int, int, int] = (15, 18, 20), filters: str = HOLE) -> Path:
    """Makes 20 seconds of sound and pictures with chapters, by default without sound from 5 to 15 seconds."""
    (notes := path.with_name("chapters")).write_text(
        CHAPTERS.format(first=times[0], second=times[1], end=times[2]), encoding="utf-8"
    )
    sound = ("-f", "lavfi", "-i", clips.MUSIC.format(seconds=20, rate=48000))
    pictures = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=5:d=20")
    clips.run(*sound, *pictures, "-i", notes, "-map_metadata", 2, "-g", 5, "-af", filters, *arguments, path)
    return path


def chapters(mp3: Path) -> list[float]:
    """Returns where the chapters start, in milliseconds."""
    return sorted(chapter.start_time for chapter in ID3(mp3).getall("CHAP"))


FRAGMENTED = "-c:v mpeg4 -c:a aac -movflags frag_keyframe+empty_moov"
HOLES = [
    ("a.mkv", "-c:v mpeg4 -c:a aac"),
    ("a.mp4", "-c:v mpeg4 -c:a aac"),
    ("fragmented.mp4", FRAGMENTED),
    ("a.mov", "-c:v mpeg4 -c:a alac"),
    ("a.webm", "-c:v libvpx -deadline realtime -c:a libopus"),
    ("a.flv", "-c:v flv1 -c:a aac -ar 44100"),
    ("a.ts", "-c:v mpeg2video -r 25 -c:a mp2"),
    ("a.wmv", "-c:v wmv2 -c:a wmav2"),
]
WITH_CHAPTERS = (".mkv", ".mp4", ".mov", ".webm")


@pytest.mark.parametrize(("name", "arguments"), HOLES, ids=[row[0] for row in HOLES])
def test_hole_is_left_out_with_its_chapters_and_a_warning(name: str, arguments: str, tmp_path: Path) -> None:
    result, mp3 = convert(make(tmp_path / name, *arguments.split()), tmp_path)
    assert result.duration == pytest.approx(10, abs=0.1)
    assert result.warning == LEFT_OUT
    if name.endswith(WITH_CHAPTERS):
        assert chapters(mp3) == pytest.approx([0, 5000, 8000], abs=30)


@pytest.mark.parametrize(("name", "arguments"), HOLES, ids=[row[0] for row in HOLES])
def test_hole_becomes_silence_on_request(name: str, arguments: str, tmp_path: Path) -> None:
    video = make(tmp_path / name, *arguments.split())
    result, mp3 = convert(video, tmp_path, Options(gaps="silence"))
    assert result.duration == pytest.approx(20, abs=0.1)
    assert clips.samples(mp3, 48000, 2) == pytest.approx(result.duration * 48000, abs=2)
    assert result.warning == SILENT
    if name.endswith(WITH_CHAPTERS):
        assert chapters(mp3) == pytest.approx([0, 15000, 18000], abs=30)
    sound = array("h", clips.run("-i", mp3, "-ac", 1, "-ar", 48000, "-f", "s16le", "-"))
    assert max(map(abs, sound[5 * 48000 + 9600 : 15 * 48000 - 9600])) < 3
    assert max(map(abs, sound[4 * 48000 : 5 * 48000])) > 1000
    assert max(map(abs, sound[15 * 48000 : 16 * 48000])) > 1000


def test_silence_does_not_depend_on_the_ranges_or_the_way_of_decoding(tmp_path: Path) -> None:
    # Three holes, a resampled track, a start within a hole and a fade-out that needs the exact length.
    filters = (
        "aselect='not(between(t,2,4)+between(t,9,12)+between(t,13,13.4))',aresample=22050,aformat=channel_layouts=mono"
    )
    video = make(tmp_path / "a.mp4", "-c:v", "mpeg4", "-c:a", "aac", filters=filters)
    for options in (Options(gaps="silence"), Options(gaps="silence", start=3.3, end=18.7, fade_out=2, vbr=5)):
        made = {test_identity.convert(video, tmp_path, options, encoders)[1] for encoders in (1, 2, 3)}
        assert len(made) == 1


def test_holes_are_filled_where_they_are(tmp_path: Path) -> None:
    video = tmp_path / "a.mka"
    holes = "aselect='not(between(t,2,4)+between(t,9,12)+between(t,13,13.4))'"
    clips.run(
        "-f", "lavfi", "-i", "sine=1000:r=48000:d=16", "-af", f"{holes},asetnsamples=480", "-c:a", "pcm_s16le", video
    )
    result, mp3 = convert(video, tmp_path, Options(gaps="silence"))
    sound = array("h", clips.run("-i", mp3, "-ac", 1, "-ar", 48000, "-f", "s16le", "-"))
    loud = [max(map(abs, sound[at : at + 4800])) > 1000 for at in range(0, len(sound) - 4800, 4800)]
    expected = [not (2 <= n / 10 < 4 or 9 <= n / 10 < 12 or 13 <= n / 10 < 13.4) for n in range(len(loud))]
    assert sum(found != wanted for found, wanted in zip(loud, expected, strict=True)) <= 6  # a tenth at each edge
    assert result.duration == pytest.approx(16, abs=0.05)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_chapters_follow_late_sound(name: str, tmp_path: Path) -> None:
    codec = "alac" if name == "a.mov" else "aac"
    (notes := tmp_path / "chapters").write_text(CHAPTERS.format(first=4, second=6, end=10), encoding="utf-8")
    sound = ("-itsoffset", 2, "-f", "lavfi", "-i", clips.MUSIC.format(seconds=8, rate=48000))
    pictures = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=10")
    clips.run(*sound, *pictures, "-i", notes, "-map_metadata", 2, "-c:v", "mpeg4", "-c:a", codec, tmp_path / name)
    result, mp3 = convert(tmp_path / name, tmp_path)
    assert result.duration == pytest.approx(8, abs=0.1)
    assert chapters(mp3) == pytest.approx([0, 2000, 4000], abs=30)
    assert (
        result.warning == "This file has no sound for about 2 of its 10 seconds (2 at the start): these are left out."
    )
    result, mp3 = convert(tmp_path / name, tmp_path, Options(gaps="silence"))
    assert result.duration == pytest.approx(10, abs=0.1)
    assert chapters(mp3) == pytest.approx([0, 4000, 6000], abs=30)


def test_mp3_with_a_hole_is_copied_only_if_the_hole_is_left_out(tmp_path: Path) -> None:
    video = make(tmp_path / "a.mkv", "-c:v", "mpeg4", "-c:a", "libmp3lame")
    result, _ = convert(video, tmp_path)
    assert (result.copied, result.warning) == (True, LEFT_OUT)
    result, _ = convert(video, tmp_path, Options(gaps="silence"))
    assert (result.copied, result.warning) == (False, SILENT)
    assert result.duration == pytest.approx(20, abs=0.1)


def test_short_hole_is_a_missing_part(tmp_path: Path) -> None:
    video = make(tmp_path / "a.mp4", "-c:v", "mpeg4", "-c:a", "aac", filters="aselect='not(between(t,5,5.5))'")
    assert convert(video, tmp_path)[0].warning == "Parts of the sound are damaged or missing and were left out."
    assert convert(video, tmp_path, Options(gaps="silence"))[0].warning is None


@pytest.mark.parametrize(("count", "off"), [(999, 0.001), (1001, 0.5), (2500, 2), (9000, 6.5), (27_000, 14)])
def test_number_of_gaps_is_bounded_and_sound_stays_near_its_place(count: int, off: float) -> None:
    lengths = [0.4 if number != count // 2 else 600.0 for number in range(count)]
    collected = gaps.GapList()
    for number, length in enumerate(lengths):
        collected.add(Gap(0.2 * number, length))
    found = collected.gaps
    assert min(count, gaps.MAX_GAPS / 2) <= len(found) <= gaps.MAX_GAPS
    assert gaps.total(found) == pytest.approx(sum(lengths))
    assert len(silence.silence_filters(found)[0]) < 100_000  # the limit for an argument is 131,072
    silent = 0.0
    filled = 0.0
    rest = iter([*found, Gap(math.inf, 0.0)])
    following = next(rest)
    for number, length in enumerate(lengths):
        silent += length
        middle = 0.2 * number + 0.1  # of the sound after this gap
        while following.start < middle:
            filled += following.length
            following = next(rest)
        assert filled == pytest.approx(silent, abs=off), number


#: Containers of a listener's sound in Opus. In mp4 a packet lasts until the next one.
SPARSE = ["a.mka", "a.mp4", "fragmented.mp4", "live.webm"]
_SPARSE_ARGUMENTS = {
    "fragmented.mp4": "-movflags +frag_keyframe+empty_moov -frag_duration 1000000",
    "live.webm": "-live 1",
}


def sparse(path: Path, pauses: list[float]) -> Path:
    """Makes a track of Opus whose encoder sends nothing in pauses: seconds from one packet of 20 ms to the next."""
    sound = clips.clip(path.with_name("sound.opus"), "-c:a", "libopus", seconds=10)
    made = path.with_name("sparse.mka")
    with av.open(str(sound)) as source, av.open(str(made), "w", format="matroska") as out:
        packets = [bytes(packet) for packet in source.demux(source.streams.audio[0]) if packet.size]
        track = out.add_stream_from_template(source.streams.audio[0])
        time = 0.0
        for number, pause in enumerate(pauses):
            packet: Any = av.Packet(packets[number % len(packets)])
            packet.pts = packet.dts = round(time * 1000)
            packet.duration = 20
            packet.time_base = Fraction(1, 1000)
            packet.stream = track
            out.mux(packet)
            time += pause
    clips.run("-i", made, "-c", "copy", *_SPARSE_ARGUMENTS.get(path.name, "").split(), path)
    return path


@pytest.mark.parametrize("name", SPARSE)
def test_silence_of_somebody_who_listens_is_a_gap(name: str, tmp_path: Path) -> None:
    video = sparse(tmp_path / name, ([0.4] * 100 + [0.02] * 50) * 2)  # 40 s of silence, 1 s of speech, and again
    result, _ = convert(video, tmp_path)
    assert result.duration == pytest.approx(6, abs=0.1)
    assert result.warning == (
        "This file has no sound for about 76 of its 82 seconds (76 in between): these are left out."
    )
    result, mp3 = convert(video, tmp_path, Options(gaps="silence"))
    assert result.duration == pytest.approx(82, abs=0.1)
    assert clips.samples(mp3, 48000, 2) == pytest.approx(82 * 48000, abs=9600)


@pytest.mark.parametrize("name", ["a.mka", "a.mp4"])
def test_many_gaps_stay_near_where_they_are(name: str, tmp_path: Path) -> None:
    beat = [0.02] * 9 + [0.42]
    result, mp3 = convert(sparse(tmp_path / name, beat * 1500), tmp_path, Options(gaps="silence", bitrate=32))
    assert result.duration == pytest.approx(1500 * 0.6, abs=0.5)
    sound = array("h", clips.run("-i", mp3, "-ac", 1, "-ar", 8000, "-f", "s16le", "-"))
    silent = [max(map(abs, sound[at : at + 800])) < 100 for at in range(0, len(sound) - 800, 800)]
    assert max(len(list(run)) for is_silent, run in groupby(silent) if is_silent) < 40  # of 0.1 s


def test_other_words_for_gaps_are_refused() -> None:
    assert Options.from_form({"gaps": "skip"}) == Options()
    assert Options.from_form({"gaps": "Silence"}).gaps == "silence"
    with pytest.raises(BadOption, match="gaps must be skip or silence"):
        Options.from_form({"gaps": "noise"})
