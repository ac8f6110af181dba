"""An upload in parts is killed at every moment (``tests.support.kill_points``): what the client finds that goes on with
it, and what is left where none does.
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
    return new_system(tmp_path_factory.mktemp("houses") / "empty")


def begin(system: System) -> Upload:
    """POST, whose answer the client has got."""
    deps = system.for_upload()
    upload = deps.uploads.begin(OWNER, "a.wav", Options(), "", len(SOUND), deps.quota.begin(ADA, len(SOUND)))
    (system.directory / "location").write_text(upload.id)
    return upload


def go_on(system: System) -> str:
    """Ask where the upload is and send the rest in parts; the job."""
    deps = system.for_upload()
    upload = deps.uploads.find((system.directory / "location").read_text(), OWNER)
    while not upload.is_complete:
        end = next(end for end in PARTS if end > upload.received)
        content = SOUND[upload.received : end]
        upload = receive(upload, Part(upload.received, iter([content[:500], content[500:]])), deps, ADA)
    return complete(upload, deps)


def is_one_job(system: System) -> None:
    job = only_job(system)
    assert job.state == "done"
    assert system.bytes_of("videos", job.video) == SOUND
    assert_mailed(system, Mp3Ready(job.id))
    system.assert_tidy()


def test_an_upload_that_is_killed_is_gone_on_with_or_forgotten(empty: Path, tmp_path: Path) -> None:
    begun, outcomes = prepare(empty, tmp_path / "begun", begin), Counter[int]()
    kept = set[int]()
    (tmp_path / "houses").mkdir()
    for _, system in kill_everywhere(begun, tmp_path / "houses", go_on):
        system.close()
        left = System(shutil.copytree(system.directory, tmp_path / "left"))
        left.convert = system.convert = quick_convert
        left.let_days_pass()
        outcomes[left.count("jobs")] += 1
        if left.count("jobs"):
            is_one_job(left)
        else:
            assert [left.count(table) for table in ("uploads", "blobs", "mails")] == [0, 0, 0]
            left.assert_tidy()
        left.close()
        shutil.rmtree(left.directory)

        make_past(system.database, "uploads", "lease_until")  # or it would be waited for
        kept.add(system.rows("uploads")[0].received)
        job = go_on(system)
        assert go_on(system) == job == only_job(system).id
        system.let_days_pass()
        is_one_job(system)
    assert min(outcomes[0], outcomes[1]) >= 3
    assert kept == {0, *PARTS}


def part(system: System, size: int) -> None:
    deps = system.for_upload()
    upload = deps.uploads.find((system.directory / "location").read_text(), OWNER)
    receive(upload, Part(upload.received, iter([SOUND[upload.received : upload.received + size]])), deps, ADA)


def test_deleting_that_is_killed_leaves_an_upload_or_nothing(empty: Path, tmp_path: Path) -> None:
    begun = prepare(empty, tmp_path / "begun", begin, lambda system: part(system, 1000))
    (tmp_path / "houses").mkdir()

    def end(system: System) -> None:
        deps = system.for_upload()
        discard(deps.uploads.find((system.directory / "location").read_text(), OWNER), deps)

    for _, system in kill_everywhere(begun, tmp_path / "houses", end):
        with contextlib.suppress(UploadNotFound, UploadGone):
            end(system)
        system.let_days_pass()
        assert [system.count(table) for table in ("uploads", "blobs", "jobs")] == [0, 0, 0]
        system.assert_tidy()
