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
from tests.support.kill_points import ADA, OWNER, House, found
from tests.unit.state.test_killed import SOUND, deaths, has_told, prepared, quick_convert, the_job

PARTS = (1000, len(SOUND))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found(tmp_path_factory.mktemp("houses") / "empty")


def begin(house: House) -> Upload:
    """POST, whose answer the client has got."""
    deps = house.for_upload()
    upload = deps.uploads.begin(OWNER, "a.wav", Options(), "", len(SOUND), deps.quota.begin(ADA, len(SOUND)))
    (house.directory / "location").write_text(upload.id)
    return upload


def go_on(house: House) -> str:
    """Ask where the upload is and send the rest in parts; the job."""
    deps = house.for_upload()
    upload = deps.uploads.find((house.directory / "location").read_text(), OWNER)
    while not upload.is_complete:
        end = next(end for end in PARTS if end > upload.received)
        content = SOUND[upload.received : end]
        upload = receive(upload, Part(upload.received, iter([content[:500], content[500:]])), deps, ADA)
    return complete(upload, deps)


def is_one_job(house: House) -> None:
    job = the_job(house)
    assert job.state == "done"
    assert house.bytes_of("videos", job.video) == SOUND
    has_told(house, Mp3Ready(job.id))
    house.is_tidy()


def test_an_upload_that_is_killed_is_gone_on_with_or_forgotten(empty: Path, tmp_path: Path) -> None:
    begun, outcomes = prepared(empty, tmp_path / "begun", begin), Counter[int]()
    kept = set[int]()
    (tmp_path / "houses").mkdir()
    for _, house in deaths(begun, tmp_path / "houses", go_on):
        house.close()
        left = House(shutil.copytree(house.directory, tmp_path / "left"))
        left.convert = house.convert = quick_convert
        left.days_pass()
        outcomes[left.count("jobs")] += 1
        if left.count("jobs"):
            is_one_job(left)
        else:
            assert [left.count(table) for table in ("uploads", "blobs", "mails")] == [0, 0, 0]
            left.is_tidy()
        left.close()
        shutil.rmtree(left.directory)

        make_past(house.database, "uploads", "lease_until")  # or it would be waited for
        kept.add(house.rows("uploads")[0].received)
        job = go_on(house)
        assert go_on(house) == job == the_job(house).id
        house.days_pass()
        is_one_job(house)
    assert min(outcomes[0], outcomes[1]) >= 3
    assert kept == {0, *PARTS}


def part(house: House, size: int) -> None:
    deps = house.for_upload()
    upload = deps.uploads.find((house.directory / "location").read_text(), OWNER)
    receive(upload, Part(upload.received, iter([SOUND[upload.received : upload.received + size]])), deps, ADA)


def test_deleting_that_is_killed_leaves_an_upload_or_nothing(empty: Path, tmp_path: Path) -> None:
    begun = prepared(empty, tmp_path / "begun", begin, lambda house: part(house, 1000))
    (tmp_path / "houses").mkdir()

    def end(house: House) -> None:
        deps = house.for_upload()
        discard(deps.uploads.find((house.directory / "location").read_text(), OWNER), deps)

    for _, house in deaths(begun, tmp_path / "houses", end):
        with contextlib.suppress(UploadNotFound, UploadGone):
            end(house)
        house.days_pass()
        assert [house.count(table) for table in ("uploads", "blobs", "jobs")] == [0, 0, 0]
        house.is_tidy()
