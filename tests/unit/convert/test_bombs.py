"""Small files whose sound is long, or that claim sound of an implausible kind."""

import functools
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from functions.convert.budget import MAX_CHANNELS, MAX_RATE, MIN_RATE, check_plausible
from functions.convert.errors import UnusableMedia
from functions.convert.ffmpeg.encoder import encoder_limits
from functions.convert.plan import FrameRange, Plan
from functions.state.jobs import Job
from functions.state.quota import Quota
from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.support import clips
from tests.support.kill_points import ADA, System, new_system
from tests.unit.state.test_killed import only_job, prepare

HOUR = 3600
#: Seconds of sound in the longest file: more than two hours.
LONG = 2 * HOUR + 60

Flac = Callable[..., Path]


@pytest.fixture(scope="module")
def flac(tmp_path_factory: pytest.TempPathFactory) -> Flac:
    """Makes FLAC, each file once; as ``make_flac``."""

    @functools.cache
    def make(seconds: int, claimed: int | None = None) -> Path:
        return make_flac(tmp_path_factory.mktemp("flac"), seconds, claimed)

    return make


def make_flac(directory: Path, seconds: int, claimed: int | None) -> Path:
    """Makes FLAC of constant frames at 8 kHz, 1.6 bytes a second, whose header claims ``claimed`` seconds."""
    path = directory / "constant.flac"
    sound = ("-f", "lavfi", "-i", f"aevalsrc=0:s=8000:d={seconds}")
    clips.run(*sound, "-c:a", "flac", "-frame_size", 65535, "-compression_level", 0, path)
    if claimed is not None:
        data = bytearray(path.read_bytes())
        # STREAMINFO begins at 8; bytes 10 to 17 of it have 36 bits of the number of samples at their end (RFC 9639).
        (packed,) = struct.unpack_from(">Q", data, 18)
        struct.pack_into(">Q", data, 18, packed >> 36 << 36 | claimed * 8000)
        path.write_bytes(data)
    return path


def wave(directory: Path, rate: int, size: int, channels: int = 1) -> Path:
    """Makes a WAV of 8 bits."""
    path = directory / "wave.wav"
    head = struct.pack("<4sI8sIHHIIHH", b"RIFF", 36 + size, b"WAVEfmt ", 16, 1, channels, rate, rate, channels, 8)
    path.write_bytes(head + struct.pack("<4sI", b"data", size) + b"\x80" * size)
    return path


def run(video: Path, place: Path, set_limits: Callable[[System], None], **options: str) -> tuple[Job, System, float]:
    """Converts a file until its job ends; returns the job and the CPU seconds that its programs used."""

    def work(system: System) -> None:
        create_job(Form(video.name, options, iter([video.read_bytes()])), ADA, None, system.for_upload())

    system = System(prepare(new_system(place / "empty"), place / "uploaded", work))
    set_limits(system)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    system.convert(only_job(system).id, system.for_convert(system.deliver))
    system.let_days_pass()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    system.assert_tidy()
    return only_job(system), system, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def limits(size: int = 0, max_seconds: float = 1e9, fanout: float = 1e9) -> Callable[[System], None]:
    def set_limits(system: System) -> None:
        system.quota = Quota(size=size)
        system.max_seconds = max_seconds
        system.fanout_seconds = fanout

    return set_limits


in_one_or_pieces = pytest.mark.parametrize("fanout", [1e9, 60], ids=["one", "pieces"])


@in_one_or_pieces
def test_a_long_mp3_must_fit_into_the_quota(flac: Flac, fanout: float, tmp_path: Path) -> None:
    """45 kB of FLAC made an MP3 of 170 MB under a quota of 50 MB, and took 16 CPU seconds; this is a third of it."""
    job, system, cpu = run(flac(LONG), tmp_path, limits(17_000_000, 24 * HOUR, fanout))
    assert job.state == "failed"
    assert job.error is not None
    assert "You may store 17000000 bytes" in job.error
    assert cpu < 5
    system.close()


@in_one_or_pieces
def test_sound_longer_than_the_limit_is_refused(flac: Flac, fanout: float, tmp_path: Path) -> None:
    job, system, cpu = run(flac(LONG), tmp_path, limits(0, 2 * HOUR, fanout))
    assert job.error == "The sound of this file is longer than the limit of 2 hours: set end to 7200 or less."
    assert cpu < 5
    system.close()


def test_a_part_of_long_sound_is_converted(flac: Flac, tmp_path: Path) -> None:
    job, system, _ = run(flac(LONG), tmp_path, limits(10_000_000, 2 * HOUR), start="60", end="120")
    assert (job.state, job.error) == ("done", None)
    assert job.duration == pytest.approx(60, abs=0.1)
    system.close()


@in_one_or_pieces
def test_sound_longer_than_announced_stops_at_the_limit(flac: Flac, fanout: float, tmp_path: Path) -> None:
    video = flac(HOUR, claimed=200)
    job, system, cpu = run(video, tmp_path, limits(0, 600, fanout))
    assert job.error == "The sound of this file is longer than the limit of 600 seconds: set end to 600 or less."
    assert cpu < 8
    system.close()


@in_one_or_pieces
@pytest.mark.parametrize("options", [{}, {"vbr": "9"}], ids=["cbr", "vbr"])
def test_sound_longer_than_announced_stops_at_the_quota(
    flac: Flac, fanout: float, options: dict[str, str], tmp_path: Path
) -> None:
    video = flac(HOUR, claimed=200)
    job, system, cpu = run(video, tmp_path, limits(4_000_000, 24 * HOUR, fanout), **options)
    assert job.error is not None
    assert "You may store 4000000 bytes" in job.error
    assert cpu < 30
    system.close()


@in_one_or_pieces
def test_an_mp3_that_fits_exactly_is_made(flac: Flac, fanout: float, tmp_path: Path) -> None:
    video = flac(200)
    job, system, _ = run(video, tmp_path, limits(0, 200, fanout))
    size = sum(row.size for row in system.rows("blobs"))
    system.close()
    for number, (less, state) in enumerate(((0, "done"), (3000, "failed"))):
        (tmp_path / f"{number}").mkdir()
        job, system, _ = run(video, tmp_path / f"{number}", limits(size - less, 200, fanout))
        assert (job.state, job.error is None) == (state, state == "done")
        system.close()


def test_a_sample_rate_of_one_is_refused(tmp_path: Path) -> None:
    """44 kB of WAV at 1 Hz made an MP3 of 354 MB, and took 32 CPU seconds."""
    job, system, cpu = run(wave(tmp_path, 1, 44200), tmp_path, limits())
    assert job.error == (
        "The sound of this file has a sample rate of 1 Hz, and only 4000 to 768000 Hz can be converted: "
        "the file may be damaged."
    )
    assert cpu < 2
    system.close()


def test_plausible_sound_is_accepted() -> None:
    for rate, channels in ((MIN_RATE, 1), (8000, 1), (MAX_RATE, 2), (48000, MAX_CHANNELS), (0, 0)):
        check_plausible(rate, channels)
    for rate, channels in ((1, 1), (MIN_RATE - 1, 1), (MAX_RATE + 1, 1), (48000, MAX_CHANNELS + 1)):
        with pytest.raises(UnusableMedia, match="can be converted"):
            check_plausible(rate, channels)


def test_limits_do_not_grow_with_what_a_file_claims() -> None:
    def limits_of(samples: int, packets: int, max_seconds: float = 86400) -> dict[str, int]:
        plan = Plan(
            "matroska", 48000, 2, ("-b:a", "320k"), ("anull",), samples, (FrameRange(0, None),), packets=packets
        )
        return encoder_limits(plan, FrameRange(0, None), max_seconds)

    day = 86400 * 48000
    most = limits_of(day, 10**7)
    assert most["FSIZE"] < 2.1 * 86400 * 40000
    assert most["CPU"] <= 86400 + 60
    assert limits_of(1000 * day, 10**9) == most
    assert limits_of(1000 * day, 2) == limits_of(60 * 48000, 2)
