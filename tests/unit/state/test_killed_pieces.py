"""Kills the workers of a split conversion at each of their kill points: same MP3, one mail, nothing left behind."""

import functools
import json
from pathlib import Path

import pytest
from sqlalchemy import update

from events.schema import Event, Mp3Ready, PieceCut, PiecesEncoded, VideoUploaded
from functions.convert import handlers
from functions.convert.mp3.summary import PieceSummary
from functions.state.schema import pieces
from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.e2e.client import wave_bytes
from tests.support.kill_points import ADA, System, exit_status, fork, new_system
from tests.unit.state.test_killed import assert_mailed, kill_everywhere, only_job, only_job_id, prepare, waveform_of

pytestmark = pytest.mark.usefixtures("memoized")

#: Long enough for two pieces; at 8 kHz it is encoded quickly.
SOUND = wave_bytes(30)


def upload(system: System) -> None:
    create_job(Form("a.wav", {}, iter([SOUND])), ADA, None, system.for_upload())


@pytest.fixture(scope="module")
def uploaded(place: Path) -> Path:
    return prepare(new_system(place / "empty"), place / "uploaded", upload)


@pytest.fixture(scope="module")
def mp3(uploaded: Path, place: Path) -> bytes:
    """The MP3 that one encoder makes."""
    system = System(
        prepare(uploaded, place / "alone", lambda system: system.convert(only_job(system).id, system.for_convert()))
    )
    content = system.bytes_of("mp3s", only_job(system).mp3)
    system.close()
    return content


@pytest.fixture(scope="module")
def split(uploaded: Path, place: Path) -> Path:
    def split_job(system: System) -> None:
        system.fanout_seconds = 0
        handlers.convert(only_job(system).id, system.for_convert())

    return prepare(uploaded, place / "split", split_job)


@pytest.fixture(scope="module")
def half(split: Path, place: Path) -> Path:
    """A system with one of two pieces encoded."""
    return prepare(split, place / "half", lambda system: handlers.encode(only_job(system).id, 1, system.for_convert()))


@pytest.fixture(scope="module")
def encoded(half: Path, place: Path) -> Path:
    return prepare(
        half, place / "encoded", lambda system: handlers.encode(only_job(system).id, 0, system.for_convert())
    )


def assert_done(system: System, mp3: bytes, size: int) -> None:
    job = only_job(system)
    assert (job.state, job.error) == ("done", None)
    assert system.bytes_of("mp3s", job.mp3) == mp3
    assert job.waveform == waveform_of(system.bytes_of("videos", job.video))
    assert job.created_at <= job.started_at <= job.read_at <= job.encoded_at <= job.finished_at
    assert (job.size, job.mp3_size) == (size, len(mp3))
    assert 1 <= job.pods <= 4
    assert_mailed(system, Mp3Ready(job.id))
    system.assert_tidy()


def assert_completes(system: System, mp3: bytes, *late: Event, size: int = len(SOUND)) -> None:
    """Asserts that sweep alone completes the job, and that delivering every event again afterwards changes nothing."""
    system.fanout_seconds = 0
    published = system.published()
    system.let_days_pass()
    assert_done(system, mp3, size)
    for event in [*published, *late]:
        system.deliver(event)
    assert_done(system, mp3, size)


def test_two_pieces_were_published(split: Path) -> None:
    system = System(split)
    assert system.count("pieces") == 2
    assert {type(event) for event in system.published()} == {VideoUploaded, PieceCut}
    system.close()


def test_job_completes_after_its_splitter_is_killed(uploaded: Path, tmp_path: Path, mp3: bytes) -> None:
    job = only_job_id(uploaded)

    def split_job(system: System) -> None:
        system.fanout_seconds = 0
        handlers.convert(job, system.for_convert())

    for _, system in kill_everywhere(uploaded, tmp_path, split_job, begin="read"):
        assert_completes(system, mp3, VideoUploaded(job))


def test_job_completes_after_an_encoder_is_killed(half: Path, tmp_path: Path, mp3: bytes) -> None:
    """Kills the encoder of the last piece, which completes the set."""
    job = only_job_id(half)
    for _, system in kill_everywhere(half, tmp_path, lambda system: handlers.encode(job, 0, system.for_convert())):
        assert_completes(system, mp3, PieceCut(job, 0), PieceCut(job, 1))


def test_job_completes_after_its_joiner_is_killed(encoded: Path, tmp_path: Path, mp3: bytes) -> None:
    job = only_job_id(encoded)
    for _, system in kill_everywhere(encoded, tmp_path, lambda system: handlers.join(job, system.for_convert())):
        assert_completes(system, mp3, PiecesEncoded(job))


@pytest.mark.parametrize("old", [(0,), (0, 1)])
def test_pieces_of_the_version_before_are_joined_without_a_waveform(
    encoded: Path, tmp_path: Path, mp3: bytes, old: tuple[int, ...]
) -> None:
    system = System(prepare(encoded, tmp_path / "system"))
    plans = {row.n: json.loads(row.plan) for row in system.rows("pieces")}
    assert all(plan.pop("points") for plan in plans.values())
    changes = [update(pieces).where(pieces.c.n == n).values(plan=json.dumps(plans[n])) for n in old]
    system.database.run(lambda connection: [connection.execute(change) for change in changes])
    handlers.join(only_job(system).id, system.for_convert())
    job = only_job(system)
    assert (job.state, job.waveform, system.bytes_of("mp3s", job.mp3)) == ("done", None, mp3)
    system.close()


def test_version_before_joins_new_pieces(encoded: Path) -> None:
    system = System(encoded)
    for row in system.rows("pieces"):
        values = json.loads(row.plan)  # as EncodedPiece.from_json did, which took what it knew
        assert PieceSummary.from_json(values["sum"]).frames > 0
        assert (values["errors"], values["reconfigured"], "marked" in values) == (0, False, False)
    system.close()


def test_pieces_delivered_three_times_at_once_and_out_of_order(split: Path, tmp_path: Path, mp3: bytes) -> None:
    system = System(prepare(split, tmp_path / "system"))
    job = only_job(system).id
    system.close()
    order = [1, 0, 1, 1, 0, 0]

    def work(n: int) -> None:
        System(tmp_path / "system").deliver(PieceCut(job, n))

    pids = [fork(functools.partial(work, n), tmp_path / "system") for n in order]
    assert [exit_status(pid, 90) for pid in pids] == [0] * 6
    system = System(tmp_path / "system")
    system.let_days_pass()
    assert_done(system, mp3, len(SOUND))
    system.close()
