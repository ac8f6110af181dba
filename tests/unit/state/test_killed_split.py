"""Kills edit and status at each kill point of a split and of the deletions after it."""

import io
from pathlib import Path

import pytest

from events.schema import JobId
from functions.convert import handlers
from functions.edit import splitting
from functions.edit.api import SplitRequest
from functions.media import open_mp3
from functions.mp3 import tags
from functions.mp3.cut import read_timeline
from tests.support.kill_points import ADA, OWNER, System, new_system
from tests.unit.state.test_killed import kill_everywhere, only_job_id, prepare, upload

pytestmark = pytest.mark.usefixtures("memoized")


def lengths(system: System) -> dict[JobId, int]:
    """The samples of the MP3 of each job; reading it verifies its checksum."""
    found = {}
    for job in system.for_status().page(OWNER, 100):
        with open_mp3(system.media.mp3s, job.stored) as reader:
            mp3 = reader.read()
        found[job.id] = read_timeline(io.BytesIO(mp3), tags.size_of(mp3)).length
        waveform = system.for_status().waveform(job)
        assert waveform is not None
        assert 0 <= waveform.points * waveform.point_samples - found[job.id] <= 2 * waveform.point_samples
    return found


def test_killed_split_makes_all_parts_or_none(place: Path, tmp_path: Path) -> None:
    uploaded = prepare(new_system(place / "for-split"), place / "uploaded-for-split", upload)
    job = only_job_id(uploaded)

    def split(system: System) -> None:
        splitting.split(job, ADA, SplitRequest([0.3]), system.for_splitting())

    def delete_all(system: System) -> None:
        for each in system.for_status().page(OWNER, 100):
            system.for_status().delete(each.id, OWNER)

    done = prepare(
        uploaded,
        place / "done-for-split",
        lambda system: handlers.convert(job, system.for_convert()),
        System.let_days_pass,
    )
    seen = set()
    # The first head is written like the tags of test_killed_edit.
    for _, killed in kill_everywhere(done, tmp_path / "split", split, "the writer's end"):
        seen.add(killed.count("jobs"))
        split(killed)
        killed.let_days_pass()
        killed.assert_tidy()
        found = lengths(killed)
        assert found.pop(job) == sum(found.values())
    assert seen == {1, 3}

    parts = prepare(done, place / "parts-for-split", split)

    def rename(system: System) -> None:
        splitting.split(job, ADA, SplitRequest([0.3], ["One", "Two"]), system.for_splitting())

    for _, killed in kill_everywhere(parts, tmp_path / "rename", rename, "the writer's end"):
        rename(killed)
        assert sorted(each.filename for each in killed.for_status().page(OWNER, 3))[:2] == [
            "a - 1 One.mp3",
            "a - 2 Two.mp3",
        ]
        killed.let_days_pass()
        killed.assert_tidy()
        assert len(lengths(killed)) == 3

    for _, killed in kill_everywhere(parts, tmp_path / "all", delete_all):
        delete_all(killed)
        killed.let_days_pass()
        killed.assert_tidy()
        assert not killed.blobs_on_disk()
