"""Kills a resumable upload at every effect (``tests.support.kill_points``).

Afterwards the client must be able to resume it, and nothing may be left if no client does.
"""

import contextlib
import shutil
from collections import Counter
from pathlib import Path

import pytest

from events.schema import Mp3Ready
from functions.options import Options
from functions.upload.tus.receive import Part, complete, discard, receive
from functions.upload.tus.uploads import Upload, UploadGone, UploadNotFound
from tests.support.databases import make_past
from tests.support.kill_points import ADA, OWNER, System, new_system
from tests.unit.state.test_killed import SOUND, assert_mailed, kill_everywhere, only_job, prepare, quick_convert

PARTS = (1000, len(SOUND))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_system(tmp_path_factory.mktemp("systems") / "empty")


def begin(system: System) -> Upload:
    """Creates an upload, and saves its id as a client does that has received the response."""
    deps = system.for_upload()
    upload = deps.uploads.begin(OWNER, "a.wav", Options(), "", len(SOUND), deps.quota.begin(ADA, len(SOUND)))
    (system.directory / "location").write_text(upload.id)
    return upload


def resume(system: System) -> str:
    """Sends the missing parts of the upload, and returns the job's id."""
    deps = system.for_upload()
    upload = deps.uploads.find((system.directory / "location").read_text(), OWNER)
    while not upload.is_complete:
        end = next(end for end in PARTS if end > upload.received)
        content = SOUND[upload.received : end]
        upload = receive(upload, Part(upload.received, iter([content[:500], content[500:]])), deps, ADA)
    return complete(upload, deps)


def assert_one_finished_job(system: System) -> None:
    job = only_job(system)
    assert job.state == "done"
    assert system.bytes_of("videos", job.video) == SOUND
    assert_mailed(system, Mp3Ready(job.id))
    system.assert_tidy()


def test_a_killed_upload_can_be_resumed_or_is_deleted_later(empty: Path, tmp_path: Path) -> None:
    begun = prepare(empty, tmp_path / "begun", begin)
    outcomes = Counter[int]()
    offsets: set[int] = set()
    (tmp_path / "systems").mkdir()
    for _, system in kill_everywhere(begun, tmp_path / "systems", resume):
        system.close()
        abandoned = System(shutil.copytree(system.directory, tmp_path / "left"))
        abandoned.convert = system.convert = quick_convert
        abandoned.let_days_pass()
        outcomes[abandoned.count("jobs")] += 1
        if abandoned.count("jobs"):
            assert_one_finished_job(abandoned)
        else:
            assert [abandoned.count(table) for table in ("uploads", "blobs", "mails")] == [0, 0, 0]
            abandoned.assert_tidy()
        abandoned.close()
        shutil.rmtree(abandoned.directory)

        make_past(system.database, "uploads", "lease_until")  # so that the dead request is not waited for
        offsets.add(system.rows("uploads")[0].received)
        job = resume(system)
        assert resume(system) == job == only_job(system).id
        system.let_days_pass()
        assert_one_finished_job(system)
    assert min(outcomes[0], outcomes[1]) >= 3
    assert offsets == {0, *PARTS}


def send_part(system: System, size: int) -> None:
    deps = system.for_upload()
    upload = deps.uploads.find((system.directory / "location").read_text(), OWNER)
    receive(upload, Part(upload.received, iter([SOUND[upload.received : upload.received + size]])), deps, ADA)


def test_a_killed_deletion_can_be_repeated_or_completes_later(empty: Path, tmp_path: Path) -> None:
    begun = prepare(empty, tmp_path / "begun", begin, lambda system: send_part(system, 1000))
    (tmp_path / "systems").mkdir()

    def delete(system: System) -> None:
        deps = system.for_upload()
        discard(deps.uploads.find((system.directory / "location").read_text(), OWNER), deps)

    for _, system in kill_everywhere(begun, tmp_path / "systems", delete):
        with contextlib.suppress(UploadNotFound, UploadGone):
            delete(system)
        system.let_days_pass()
        assert [system.count(table) for table in ("uploads", "blobs", "jobs")] == [0, 0, 0]
        system.assert_tidy()
