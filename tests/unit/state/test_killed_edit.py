"""Kills edit at each of its kill points: the MP3 has its old tags or its new ones, and nothing is left behind."""

from pathlib import Path

import pytest

from functions.convert import handlers
from functions.edit import tagging
from functions.edit.api import TagChange
from functions.media import open_mp3
from functions.mp3 import tags
from functions.state.jobs import Job
from tests.support.kill_points import ADA, System, new_system
from tests.unit.state.test_killed import kill_everywhere, only_job, only_job_id, prepare, upload

pytestmark = pytest.mark.usefixtures("memoized")


def content_of(system: System) -> bytes:
    with open_mp3(system.media.mp3s, Job.from_row(only_job(system)).stored) as mp3:
        return mp3.read()


def test_killed_edit_leaves_old_or_new_tags(place: Path, tmp_path: Path) -> None:
    uploaded = prepare(new_system(place / "for-edit"), place / "uploaded-for-edit", upload)
    job = only_job_id(uploaded)

    def change(system: System, title: str = "New") -> None:
        tagging.change(job, ADA, TagChange(title=title), system.for_edit())

    done = prepare(
        uploaded,
        place / "done-for-edit",
        lambda system: handlers.convert(job, system.for_convert()),
        lambda system: change(system, "Old"),
    )
    system = System(done)
    before = content_of(system)
    sound = before[tags.size_of(before) :]
    system.close()
    titles = set()
    for _, killed in kill_everywhere(done, tmp_path, change):
        content = content_of(killed)
        title = tags.read(content[: tags.size_of(content)]).fields["title"]
        assert title in ("Old", "New")
        titles.add(title)
        assert content[tags.size_of(content) :] == sound
        change(killed)
        killed.let_days_pass()
        content = content_of(killed)
        assert tags.read(content[: tags.size_of(content)]).fields["title"] == "New"
        assert only_job(killed).mp3_size == len(content)
        killed.assert_tidy()
    assert titles == {"Old", "New"}
