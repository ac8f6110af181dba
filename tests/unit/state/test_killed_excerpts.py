"""Kills the workers of a job that is split without its track, and of one that falls back, at each kill point."""

from pathlib import Path

import pytest

from events.schema import Event, PieceCut, PiecesEncoded, VideoUploaded
from functions.convert import distribution, handlers
from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.support import clips
from tests.support.kill_points import ADA, System, new_system
from tests.unit.state.test_killed import kill_everywhere, only_job, only_job_id, prepare
from tests.unit.state.test_killed_pieces import assert_completes

pytestmark = pytest.mark.usefixtures("memoized")


@pytest.fixture(scope="module")
def uploaded(place: Path) -> Path:
    """A system with a job whose sound needs no proof: two pieces at 8 kHz."""
    video = clips.clip(place / "a.m4a", "-c:a", "alac", "-ac", "1", seconds=30, rate=8000)

    def upload(system: System) -> None:
        create_job(Form("a.m4a", {}, iter([video.read_bytes()])), ADA, None, system.for_upload())

    return prepare(new_system(place / "empty"), place / "uploaded", upload)


@pytest.fixture(scope="module")
def size(uploaded: Path) -> int:
    """Bytes of the video."""
    return (uploaded.parent / "a.m4a").stat().st_size


@pytest.fixture(scope="module")
def mp3(uploaded: Path, place: Path) -> bytes:
    """The MP3 that one encoder makes."""
    system = System(
        prepare(uploaded, place / "alone", lambda system: system.convert(only_job(system).id, system.for_convert()))
    )
    content = system.bytes_of("mp3s", only_job(system).mp3)
    system.close()
    return content


def split(system: System) -> None:
    system.fanout_seconds = 0
    handlers.convert(only_job(system).id, system.for_convert())


@pytest.fixture(scope="module")
def planned(uploaded: Path, place: Path) -> Path:
    return prepare(uploaded, place / "planned", split)


@pytest.fixture(scope="module")
def half(planned: Path, place: Path) -> Path:
    """A system with one of two pieces encoded."""
    return prepare(
        planned, place / "half", lambda system: handlers.encode(only_job(system).id, 1, system.for_convert())
    )


@pytest.fixture(scope="module")
def encoded(half: Path, place: Path) -> Path:
    return prepare(
        half, place / "encoded", lambda system: handlers.encode(only_job(system).id, 0, system.for_convert())
    )


def assert_fell_back(system: System, mp3: bytes, *late: Event, size: int) -> None:
    """Asserts that the job falls back, if it has not yet, and is done with a track."""
    assert_completes(system, mp3, *late, size=size)
    assert only_job(system).audio is not None


def test_pieces_have_no_track(planned: Path) -> None:
    system = System(planned)
    assert system.count("pieces") == 2
    assert {row.state for row in system.rows("pieces")} == {"planned"}
    assert only_job(system).audio is None
    system.close()


def test_job_completes_after_its_indexer_is_killed(uploaded: Path, tmp_path: Path, mp3: bytes, size: int) -> None:
    job = only_job_id(uploaded)
    for _, system in kill_everywhere(uploaded, tmp_path, split, begin="read"):
        assert_completes(system, mp3, VideoUploaded(job), size=size)


def test_job_completes_after_an_encoder_of_an_excerpt_is_killed(
    half: Path, tmp_path: Path, mp3: bytes, size: int
) -> None:
    job = only_job_id(half)
    for _, system in kill_everywhere(half, tmp_path, lambda system: handlers.encode(job, 0, system.for_convert())):
        assert_completes(system, mp3, PieceCut(job, 0), PieceCut(job, 1), size=size)


def test_job_falls_back_after_its_encoder_is_killed(
    half: Path, tmp_path: Path, mp3: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = only_job_id(half)
    monkeypatch.setattr(handlers, "fetch_excerpt", lambda *_: None)
    for _, system in kill_everywhere(half, tmp_path, lambda system: handlers.encode(job, 0, system.for_convert())):
        assert_fell_back(system, mp3, PieceCut(job, 0), PieceCut(job, 1), VideoUploaded(job), size=size)


def test_job_falls_back_after_its_joiner_is_killed(
    encoded: Path, tmp_path: Path, mp3: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = only_job_id(encoded)
    fit = distribution.pieces_fit
    monkeypatch.setattr(
        handlers,
        "pieces_fit",
        lambda plan, pieces: all(one.excerpt is None for one in plan.ranges) and fit(plan, pieces),
    )
    for _, system in kill_everywhere(encoded, tmp_path, lambda system: handlers.join(job, system.for_convert())):
        assert_fell_back(system, mp3, PiecesEncoded(job), VideoUploaded(job), size=size)
