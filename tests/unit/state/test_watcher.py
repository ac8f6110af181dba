"""The job watcher: what a thousand waiting clients cost, and what each of them is told."""

import contextlib
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from unittest import mock

import pytest

from events.schema import JobId
from functions.media import new_blob_id
from functions.options import Options
from functions.state.database import DatabaseUnavailable
from functions.state.jobs import Job, JobNotFound, new_job_id
from functions.state.schema import UserId
from functions.state.watcher import JobWatcher
from tests.support.processes import wait_for


def job() -> Job:
    owner = UserId("a" * 32)
    return Job(
        new_job_id(), owner, "a.mp4", Options(), "uploaded", new_blob_id(), None, 0, 0, None, None, None, 0, None
    )


class Table:
    """The jobs, and how often all of them were read at once."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = {each.id: each for each in jobs}
        self.looks: list[int] = []
        self.error: Exception | None = None

    def read(self, ids: Collection[JobId]) -> dict[JobId, Job]:
        self.looks.append(len(ids))
        if self.error is not None:
            raise self.error
        return {each: self.jobs[each] for each in ids if each in self.jobs}


def test_a_thousand_watched_jobs_are_read_at_once_and_eight_times_a_second_at_most() -> None:
    table = Table(*(job() for _ in range(1000)))
    watcher = JobWatcher(table.read)
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        watches = [stack.enter_context(watcher.watching(each)) for each in table.jobs.values()]
        wait_for(lambda: len(table.looks) >= 9, "nine looks")
        assert time.monotonic() - began >= 1
        changed = replace(watches[700].job, state="converting")
        table.jobs[changed.id] = changed
        assert watches[700].wait(30) == changed
        assert watches[0].wait(0).state == "uploaded"
    assert max(table.looks) == 1000
    wait_for(lambda: "job-watcher" not in {thread.name for thread in threading.enumerate()}, "the thread to end")
    looks = len(table.looks)
    with watcher.watching(changed) as watch:
        table.jobs[changed.id] = replace(changed, state="done")
        assert watch.wait(30).state == "done"
    assert len(table.looks) > looks


def test_whatever_goes_wrong_reaches_those_who_wait() -> None:
    table = Table(job())
    [watched] = table.jobs.values()
    watcher = JobWatcher(table.read, interval=0.01)
    table.error = RuntimeError("a bug")
    with watcher.watching(watched) as watch, pytest.raises(RuntimeError, match="a bug"):
        watch.wait(30)
    table.error = None
    with watcher.watching(watched) as watch:
        table.jobs[watched.id] = replace(watched, state="done")
        assert watch.wait(30).state == "done"


def test_deleted_job_and_unavailable_database_end_the_wait() -> None:
    table = Table(job())
    [watched] = table.jobs.values()
    watcher = JobWatcher(table.read, interval=0.01)
    with watcher.watching(watched) as watch:
        table.error = DatabaseUnavailable("The database is away.")
        with pytest.raises(DatabaseUnavailable):
            watch.wait(30)
    table.error = None
    with watcher.watching(watched) as watch:
        table.jobs.clear()
        with pytest.raises(JobNotFound):
            watch.wait(30)


def test_watch_whose_thread_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(job())
    [watched] = table.jobs.values()
    watcher = JobWatcher(table.read, interval=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", mock.Mock(side_effect=RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError), watcher.watching(watched):
            pass
    with watcher.watching(watched) as watch:
        table.jobs[watched.id] = replace(watched, state="converting")
        assert watch.wait(30).state == "converting"
    wait_for(lambda: "job-watcher" not in {thread.name for thread in threading.enumerate()}, "the thread to end", 5)
