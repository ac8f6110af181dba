"""Kills fetch at each of its kill points: the job is done once, and its MP3 is that of an ordinary upload."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.schema import ConversionFailed, FetchDue, JobId, Mp3Ready
from functions.fetch import download
from functions.state.deleted_users import DeletedUsers
from functions.upload.by_address import create_fetch
from tests.support.databases import make_past
from tests.support.kill_points import ADA, OWNER, System
from tests.support.servers.source import FileServer, Served
from tests.unit.state.test_killed import (
    SOUND,
    assert_done,
    assert_mailed,
    converted,
    empty,
    kill_everywhere,
    mp3,
    only_job,
    only_job_id,
    prepare,
    uploaded,
)

__all__ = ["converted", "empty", "mp3", "uploaded"]  # fixtures
pytestmark = pytest.mark.usefixtures("memoized")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/a.wav": Served(SOUND)}) as running:
        yield running


@pytest.fixture
def begun(empty: Path, tmp_path: Path, server: FileServer) -> Path:
    """A system with a job whose video is to be fetched, and whose event was lost."""
    return prepare(empty, tmp_path / "begun", lambda system: begin(system, f"{server.url}/a.wav"))


def begin(system: System, url: str) -> JobId:
    return create_fetch({"url": url}, ADA, None, system.for_upload()).id


def fetch(system: System) -> None:
    download.fetch(JobId(only_job(system).id), system.for_fetch())


def test_killed_request_is_one_job_or_none(empty: Path, tmp_path: Path, server: FileServer, mp3: bytes) -> None:
    (tmp_path / "systems").mkdir()
    seen = Counter[int]()
    for _, system in kill_everywhere(empty, tmp_path / "systems", lambda system: begin(system, f"{server.url}/a.wav")):
        seen[system.count("jobs")] += 1
        system.let_days_pass_soon()
        if system.count("jobs"):
            assert_done(system, mp3)
        else:
            system.assert_tidy()
    assert min(seen[0], seen[1]) >= 2


@pytest.mark.parametrize(("has_length", "etag"), [(True, '"1"'), (False, "")])
def test_killed_fetch_is_continued_or_begun_again(
    begun: Path,
    tmp_path: Path,
    server: FileServer,
    mp3: bytes,
    has_length: bool,
    etag: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "_CHUNK", 3000)
    monkeypatch.setattr(download, "SAVE_INTERVAL", -1.0)  # after each chunk
    (tmp_path / "systems").mkdir()
    server.files["/a.wav"] = Served(SOUND, etag=etag, has_length=has_length, headers={"Last-Modified": ""})
    offsets = set()
    for _, system in kill_everywhere(begun, tmp_path / "systems", fetch):
        file = server.files["/a.wav"]
        make_past(system.database, "jobs", "lease_until")  # so that the dead worker is not waited for
        server.requests.clear()
        download.fetch(JobId(only_job(system).id), system.for_fetch())
        download.fetch(JobId(only_job(system).id), system.for_fetch())
        assert len(server.requests) <= 1
        offsets |= {request.range for request in server.requests}
        server.files["/a.wav"] = Served(status=404)  # nothing asks for it any more
        system.let_days_pass_soon()
        assert_done(system, mp3)
        assert only_job(system).fetched_at is not None
        server.files["/a.wav"] = file
    assert (offsets - {None} != set()) == bool(etag)


def test_killed_fetch_of_what_is_no_media_fails_the_job_once(begun: Path, tmp_path: Path, server: FileServer) -> None:
    server.files["/a.wav"] = Served(b"<!doctype html>" + b" " * 1000)
    (tmp_path / "systems").mkdir()
    for _, system in kill_everywhere(begun, tmp_path / "systems", fetch):
        make_past(system.database, "jobs", "lease_until")
        fetch(system)
        system.let_days_pass_soon()
        job = only_job(system)
        assert (job.state, job.error_code) == ("failed", "not-media")
        assert_mailed(system, ConversionFailed(job.id))
        assert (system.blobs_on_disk(), system.count("blobs")) == (set(), 0)


def test_lost_event_is_emitted_by_sweep(begun: Path, mp3: bytes) -> None:
    system = System(begun)
    assert system.published() == [FetchDue(only_job(system).id)]
    system.let_days_pass_soon()
    assert_done(system, mp3)
    assert_mailed(system, Mp3Ready(only_job(system).id))
    system.close()


def test_events_that_are_delivered_twice_change_nothing(begun: Path, mp3: bytes) -> None:
    system = System(begun)
    job = only_job_id(begun)
    for _ in range(2):
        system.deliver(FetchDue(job))
    system.let_days_pass()
    assert_done(system, mp3)
    system.close()


def test_deleted_account_leaves_nothing_of_a_fetch(begun: Path) -> None:
    system = System(begun)
    DeletedUsers(system.database).delete(OWNER)
    system.let_days_pass()
    assert [system.count(table) for table in ("jobs", "blobs", "users")] == [0, 0, 0]
    system.close()
