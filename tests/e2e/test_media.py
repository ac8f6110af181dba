"""Converts every container, codec and kind of damage through the platform's real processes and decodes the MP3s.

The ffmpeg that encodes for the product makes the clips, and decodes them to measure how long they are. If
MP3BURST_MEDIA names a folder, the files in it are converted too.
"""

import io
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import imageio_ffmpeg  # type: ignore[import-untyped]  # it carries no types
import pytest
from mutagen import id3

from tests.e2e.client import Client
from tests.support import clips
from tests.support.platform import Platform
from tests.support.servers import program

FFMPEG: Final[str] = imageio_ffmpeg.get_ffmpeg_exe()
ID3: Final[Any] = id3.ID3  # mutagen has no types
DAMAGED: Final = "damaged"
EARLY: Final = "truncated"
SILENT: Final = "This file has no audio track: choose a file with sound."
NO_MEDIA: Final = "This is not a video or audio file, or it is incomplete or damaged: check that it plays."
NO_INDEX: Final = (
    "The file's index is missing: the recording was not finished, or the file is incomplete. Copy it again, or repair "
    "it with the program that recorded it."
)


@dataclass(frozen=True)
class Case:
    """A file and the expected result of its conversion.

    Attributes:
        name: the file's name, which says what is special about it.
        make: ffmpeg's arguments, or a function that makes the file at the given path.
        damage: how the file is then damaged: ``truncate`` keeps 60 %, ``corrupt`` changes some of its bytes.
        options: the upload's options.
        error: the error message of the job, if it fails.
        warning: a part of the job's warning, if it has one.
        copied: whether the MP3 consists of the source's packets; None if both are allowed.
        title: the expected title, if it is not the name; None if any is allowed.
    """

    name: str
    make: tuple[str, ...] | Callable[[Path], Path]
    damage: str = ""
    options: tuple[tuple[str, str], ...] = ()
    error: str = ""
    warning: str = ""
    copied: bool | None = False
    title: str | None = ""

    def __str__(self) -> str:
        return self.name  # otherwise a failed assertion shows the whole MP3

    @property
    def track(self) -> int:
        return int(dict(self.options).get("track", 0))


def sound(seconds: float = 4, rate: int = 44100, layout: str = "stereo", tone: int = 440) -> tuple[str, ...]:
    """Returns ffmpeg's arguments for an input of a tone and noise."""
    source = (
        f"aevalsrc='0.3*sin(2*PI*{tone}*t)+0.05*(random(0)-0.5)':s={rate}:d={seconds},aformat=channel_layouts={layout}"
    )
    return "-f", "lavfi", "-i", source


def picture(seconds: float = 4) -> tuple[str, ...]:
    """Returns ffmpeg's arguments for an input of pictures."""
    return "-f", "lavfi", "-i", f"testsrc2=s=128x96:r=10:d={seconds}"


def video(codec: str, audio: Sequence[str], *more: str, seconds: float = 4, rate: int = 44100) -> tuple[str, ...]:
    """Returns ffmpeg's arguments for a video with sound."""
    return (*picture(seconds), *sound(seconds, rate), "-c:v", codec, "-c:a", *audio, *more)


AAC: Final = ("aac", "-b:a", "96k")
MP3: Final = ("libmp3lame", "-b:a", "96k")
#: MP3 frames only.
RAW: Final = ("-id3v2_version", "0", "-write_xing", "0")


def begun_late(*arguments: str, skipped: int = 0, header: bytes = b"") -> Callable[[Path], Path]:
    """Makes a recording that begins inside a frame or packet, or behind a recorder's own header."""

    def make(path: Path) -> Path:
        ffmpeg(*arguments, f"file:{path}")
        path.write_bytes(header + path.read_bytes()[skipped:])
        return path

    return make


MADE: Final = (
    Case("aac.mp4", video("libx264", AAC, "-metadata", "title=Ein Stück"), title="Ein Stück"),
    Case("alac.mov", video("mpeg4", ("alac",))),
    Case("pcm.mov", video("mpeg4", ("pcm_s16be",), rate=48000)),
    Case("flac.mkv", video("libx264", ("flac",), rate=48000)),
    Case("opus.webm", video("libvpx", ("libopus",), rate=48000)),
    Case("vorbis.webm", video("libvpx", ("libvorbis",))),
    Case("pcm.avi", video("mpeg4", ("pcm_s16le",))),
    Case("ac3.avi", video("mpeg4", ("ac3",), rate=48000)),
    Case("aac.flv", video("flv", AAC)),
    Case("aac.ts", video("mpeg2video", AAC, rate=48000)),
    Case("mp2.mpg", video("mpeg2video", ("mp2",), "-r", "25", rate=48000)),
    Case("vorbis.ogg", (*sound(), "-c:a", "libvorbis", "-metadata", "TITLE=日本"), title="日本"),
    Case("opus.opus", (*sound(rate=48000), "-c:a", "libopus")),
    Case("wma.wma", (*sound(), "-c:a", "wmav2")),
    Case("wmv.wmv", video("wmv2", ("wmav2",))),
    Case("flac.flac", sound()),
    Case("pcm.wav", sound()),
    Case("aac.m4a", (*sound(), "-c:a", *AAC)),
    Case("adts.aac", (*sound(), "-c:a", *AAC)),
    Case("cbr.mp3", (*sound(), "-c:a", *MP3, "-metadata", "title=T"), copied=True, title="T"),
    Case("vbr.mp3", (*sound(), "-c:a", "libmp3lame", "-q:a", "4"), copied=True),
    Case("in-mp4.mp4", video("libx264", MP3), copied=True),
    Case("in-mkv.mkv", video("libx264", MP3), copied=True),
    Case("in-avi.avi", video("mpeg4", MP3), copied=True),
    Case("in-flv.flv", video("flv", MP3), copied=True),
    Case("in-ts.ts", video("mpeg2video", MP3), copied=True),
    Case("encoded-again.mp3", (*sound(), "-c:a", *MP3), options=(("bitrate", "64k"),)),
    Case("vbr-option.wav", sound(), options=(("vbr", "4"),)),
    Case("320.wav", sound(rate=48000), options=(("bitrate", "320k"),)),
    Case(
        "two-tracks.mkv",
        (*sound(4, 48000), *sound(2, 44100, "mono", 880), "-map", "0", "-map", "1", "-c:a", "flac"),
        options=(("track", "1"),),
        warning="no sound for about 2 of its 4 seconds",
    ),
    Case(
        "no-such-track.mkv",
        (*sound(4), *sound(2), "-map", "0", "-map", "1", "-c:a", "flac"),
        options=(("track", "2"),),
        error="There is no audio track 2 in this file: choose one from 0 to 1.",
    ),
    Case("surround.m4a", (*sound(layout="5.1", rate=48000), "-c:a", *AAC)),
    Case("surround.flac", sound(layout="5.1", rate=48000)),
    Case("quad.wav", sound(layout="quad")),
    Case("mono.m4a", (*sound(layout="mono"), "-c:a", *AAC)),
    *(Case(f"{rate}.wav", sound(rate=rate)) for rate in (8000, 11025, 12000, 16000, 22050, 24000, 32000, 96000)),
    Case("odd-rate.wav", sound(rate=37800)),
    Case("192000.flac", sound(rate=192000)),
    Case("8000.m4a", (*sound(rate=8000, layout="mono"), "-c:a", "aac")),
    Case("22050.mkv", (*sound(rate=22050), "-c:a", "libvorbis")),
    Case("fragmented.mp4", video("libx264", AAC, "-movflags", "frag_keyframe+empty_moov")),
    Case("live.mkv", video("libx264", AAC, "-live", "1")),
    Case(
        "late-sound.mkv",
        (*picture(), "-itsoffset", "1.5", *sound(2), "-c:v", "libx264", "-c:a", "flac"),
        warning="no sound for about 2 of its 4 seconds (1.5 at the start, 0.5 at the end)",
    ),
    Case("tiny.wav", sound(0.05)),
    Case("one-second.m4a", (*sound(1), "-c:a", *AAC)),
    Case("long.m4a", (*sound(300), "-c:a", *AAC)),
    Case("long.opus", (*sound(120, 48000), "-c:a", "libopus", "-b:a", "48k")),
    Case("truncated.mkv", video("libx264", AAC, seconds=20), damage="truncate", warning=EARLY),
    Case("truncated.wav", sound(20), damage="truncate", warning=EARLY),
    Case("truncated.mp3", (*sound(20), "-c:a", *MP3), damage="truncate", warning=EARLY, copied=True),
    Case("truncated.ts", video("mpeg2video", AAC, seconds=20), damage="truncate"),  # a stream states no length
    Case("truncated-index.mp4", video("libx264", AAC), damage="truncate", error=NO_INDEX),
    Case(
        "truncated-faststart.mp4",
        video("libx264", AAC, "-movflags", "+faststart", seconds=20),
        damage="truncate",
        warning=EARLY,
    ),
    Case("corrupt.m4a", (*sound(20), "-c:a", *AAC), damage="corrupt", warning=DAMAGED),
    Case("corrupt.flac", sound(20), damage="corrupt", warning=DAMAGED),
    Case("corrupt.mkv", video("libx264", AAC, seconds=20), damage="corrupt", warning=DAMAGED),
    # libav drops damaged pages without a word, so they are a gap.
    Case("corrupt.ogg", (*sound(20), "-c:a", "libvorbis"), damage="corrupt", warning="of its 20 seconds"),
    Case("corrupt.mp3", (*sound(20), "-c:a", *MP3), damage="corrupt", warning=DAMAGED, copied=None),
    Case("corrupt.ts", video("mpeg2video", AAC, seconds=20), damage="corrupt", warning=DAMAGED),
    Case("silent.mp4", (*picture(), "-c:v", "libx264", "-an"), error=SILENT),
    Case("silent.webm", (*picture(), "-c:v", "libvpx", "-an"), error=SILENT),
    *(Case(name, clips.realistic, copied="mp3" in name) for name in clips.REALISTIC),
    Case("tagged.mp3", clips.tagged_mp3, copied=True, title="Roulette (Ärger mix)"),
    Case("a+b & 'c' \"d\" «日本».wav", sound(1)),
    Case("inside-a-frame.mp3", begun_late(*sound(), "-c:a", *MP3, *RAW, skipped=150), copied=True),
    Case("inside-a-packet.ts", begun_late(*video("mpeg2video", ("mp2",), rate=48000), skipped=100), title=None),
    Case(
        "surveillance.mp4",
        begun_late(*video("mpeg2video", ("mp2",), "-r", "25", "-f", "mpeg", rate=48000), header=b"IMKH" + bytes(36)),
    ),
    Case("wave64.w64", sound()),
)


def given() -> Iterator[Case]:
    """Yields a case for each file in the folder MP3BURST_MEDIA, which is optional."""
    if folder := os.environ.get("MP3BURST_MEDIA"):
        for path in sorted(Path(folder).iterdir()):
            with av.open(str(path)) as container:
                error = "" if container.streams.audio else SILENT
            yield Case(path.name, lambda _, path=path: path, error=error, copied=None, title=None)  # type: ignore[misc]  # mypy takes no default in a lambda


CASES: Final = {case.name: case for case in (*MADE, *given())}
GOOD: Final = [name for name, case in CASES.items() if not case.error]


@dataclass(frozen=True, repr=False)
class Conversion:
    """A file, its job and its MP3."""

    case: Case
    source: Path
    job: dict[str, Any]
    mp3: bytes


def ffmpeg(*arguments: str) -> bytes:
    command = [FFMPEG, "-nostdin", "-hide_banner", "-v", "error", "-y", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout


def prepare(case: Case, directory: Path) -> Path:
    """Makes the file of a case."""
    path = directory / case.name
    if callable(case.make):
        return case.make(path)
    ffmpeg(*case.make, *("-bitexact", "-threads", "1"), f"file:{path}")
    data = bytearray(path.read_bytes())
    if case.damage == "truncate":
        path.write_bytes(data[: len(data) * 6 // 10])
    elif case.damage == "corrupt":
        for place in (3, 5, 7):
            start = len(data) * place // 10
            data[start : start + 400] = bytes(byte ^ 0x5A for byte in data[start : start + 400])
        path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def conversions(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Conversion]:
    """Converts every case: uploads all of them, then waits for each."""
    directory = tmp_path_factory.mktemp("clips")
    me = Client(platform.url).sign_up()

    def upload(case: Case) -> tuple[Path, str]:
        source = prepare(case, directory)
        with source.open("rb") as file:
            return source, me.upload(file, case.name, dict(case.options))["job"]

    with ThreadPoolExecutor(4) as threads:
        uploads = list(threads.map(upload, CASES.values()))
    ended = {}
    for case, (source, id_) in zip(CASES.values(), uploads, strict=True):
        job = me.wait(id_, 200)
        mp3 = me.download(job["mp3"]).body if job["status"] == "done" else b""
        ended[case.name] = Conversion(case, source, job, mp3)
    return ended


@pytest.fixture(params=CASES)
def converted(request: pytest.FixtureRequest, conversions: dict[str, Conversion]) -> Conversion:
    return conversions[request.param]


@pytest.fixture(params=GOOD)
def good(request: pytest.FixtureRequest, conversions: dict[str, Conversion]) -> Conversion:
    assert conversions[request.param].job["status"] == "done", conversions[request.param].job
    return conversions[request.param]


def decoded(path: Path, track: int, rate: int) -> int:
    """Returns how many samples ffmpeg decodes from an audio track, without those that the file says to skip."""
    arguments = ("-i", f"file:{path}", "-map", f"0:a:{track}", "-ac", "1", "-ar", str(rate), "-f", "s16le", "pipe:1")
    command = [FFMPEG, "-nostdin", "-hide_banner", "-v", "quiet", *arguments]
    return len(subprocess.run(command, check=False, capture_output=True, timeout=120).stdout) // 2


def packets(source: Path | io.BytesIO) -> Iterator[bytes]:
    with av.open(str(source) if isinstance(source, Path) else source, "r") as container:
        for packet in container.demux(container.streams.audio[0]):
            if packet.size:
                yield bytes(packet)


def test_the_job_ends_as_expected(converted: Conversion) -> None:
    case = converted.case
    job = converted.job
    assert job["status"] == ("failed" if case.error else "done"), job
    assert job["error"] == (case.error or None)
    if case.warning:
        assert case.warning in (job["warning"] or "")
    else:
        assert job["warning"] is None


def test_the_mp3_is_as_long_as_the_source(good: Conversion, tmp_path: Path) -> None:
    mp3 = tmp_path / "out.mp3"
    mp3.write_bytes(good.mp3)
    with av.open(str(mp3)) as container:
        rate = container.streams.audio[0].rate
    actual = decoded(mp3, 0, rate)
    expected = decoded(good.source, good.case.track, rate)
    frame = 1152 if rate >= 32000 else 576
    assert abs(actual - expected) <= frame, f"{actual} samples at {rate} Hz, not {expected}"
    assert good.job["duration"] == pytest.approx(actual / rate, abs=frame / rate)


def test_ffmpeg_decodes_the_mp3_without_complaint(good: Conversion, tmp_path: Path) -> None:
    mp3 = tmp_path / "out.mp3"
    mp3.write_bytes(good.mp3)
    command = [FFMPEG, "-nostdin", "-v", "error", "-i", str(mp3), "-f", "null", "-"]
    errors = subprocess.run(command, check=True, capture_output=True, timeout=60).stderr
    assert not errors, errors.decode(errors="replace")


def test_mpg123_decodes_the_mp3_without_complaint(good: Conversion, tmp_path: Path) -> None:
    mpg123 = program("mpg123")
    mp3 = tmp_path / "out.mp3"
    mp3.write_bytes(good.mp3)
    tested = subprocess.run([mpg123, "-q", "-t", str(mp3)], check=False, capture_output=True, timeout=60)
    assert (tested.returncode, tested.stderr) == (0, b"")


def test_only_mp3_is_copied_packet_for_packet(good: Conversion) -> None:
    if good.case.copied:
        source = b"".join(packets(good.source))
        copied = b"".join(packets(io.BytesIO(good.mp3)))
        if good.case.damage == "truncate":  # up to the last complete frame
            assert len(source) - 2000 < len(copied) <= len(source)
            source = source[: len(copied)]
        assert copied == source
        assert good.mp3.endswith(source[-1000:])
    elif good.case.copied is False:
        assert b"LAME" in good.mp3[:8000] or b"Lavc" in good.mp3[:8000]


def test_the_mp3_has_the_title_and_the_cover(good: Conversion) -> None:
    assert good.mp3.startswith(b"ID3\x03")
    tags = ID3(io.BytesIO(good.mp3))
    if good.case.title is not None:
        assert str(tags["TIT2"]) == (good.case.title or good.case.name.rpartition(".")[0])
    if good.case.name == "tagged.mp3":
        (expected,) = ID3(str(good.source)).getall("APIC")
        (actual,) = tags.getall("APIC")
        assert actual.data == expected.data


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("header-only.mkv", b"\x1a\x45\xdf\xa3" + os.urandom(5000), NO_MEDIA),
        ("ftyp-only.mp4", b"\x00\x00\x00\x20ftypisom" + bytes(20) + b"nonsense" * 1000, NO_INDEX),
        ("riff.wav", b"RIFF\xff\xff\xff\xffWAVEjunk" + bytes(3000), ""),
        ("sync.mp3", b"\xff\xfb\x90\x64" + bytes(5000), ""),
    ],
)
def test_a_file_that_only_looks_like_a_video_fails(me: Client, name: str, content: bytes, error: str) -> None:
    job = me.convert(io.BytesIO(content), name)
    assert job["status"] == "failed"
    assert job["mp3"] is None
    assert job["error"].endswith(".")
    assert not error or job["error"] == error


def test_the_mp3_has_the_requested_bit_rate_or_quality(conversions: dict[str, Conversion]) -> None:
    def rates(name: str) -> set[int]:
        with av.open(io.BytesIO(conversions[name].mp3), "r") as container:
            stream = container.streams.audio[0]
            return {
                round(packet.size * 8 / 1152 * stream.rate / 1000) for packet in container.demux(stream) if packet.size
            }

    assert rates("320.wav") == {320}
    assert rates("encoded-again.mp3") <= {63, 64, 65}
    assert rates("pcm.wav") <= {191, 192, 193}
    assert len(rates("vbr-option.wav")) > 1
