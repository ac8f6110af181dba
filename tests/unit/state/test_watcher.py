"""The job watcher: what a thousand waiting clients cost, and what each of them is told."""

import contextlib
import secrets
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Self
from unittest import mock

import pytest

from events.schema import JobId
from functions.media import new_blob_id
from functions.options import Options
from functions.state.database import DatabaseUnavailable
from functions.state.jobs import Job, JobNotFound, Jobs, Recent, new_job_id
from functions.state.schema import UserId
from functions.state.watcher import Change, JobWatcher
from tests.support.databases import queries, sqlite
from tests.support.processes import wait_for


def job(owner: UserId | None = None) -> Job:
    owner = owner or UserId(secrets.token_hex(16))
    return Job(
        new_job_id(), owner, "a.mp4", Options(), "uploaded", new_blob_id(), None, 0, 0, None, None, None, 0, None
    )


def is_recent(job: Job, since: int | None) -> bool:
    return job.finished_at is None or (since is not None and job.finished_at >= since)


class Table:
    """The jobs, the owners of each look, and the ids of each look for what has disappeared."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = {each.id: each for each in jobs}
        self.now = 1_000_000
        self.looks: list[int] = []
        self.lookups: list[set[JobId]] = []
        self.error: Exception | None = None

    def recent(self, owners: Collection[UserId], since: int | None) -> Recent:
        self.looks.append(len(owners))
        self.now += 1
        if self.error is not None:
            raise self.error
        return Recent(
            self.now, [each for each in self.jobs.values() if each.owner in owners and is_recent(each, since)]
        )

    def with_ids(self, ids: Collection[JobId]) -> dict[JobId, Job]:
        self.lookups.append(set(ids))
        return {each: self.jobs[each] for each in ids if each in self.jobs}

    def put(self, job: Job) -> Job:
        self.jobs[job.id] = job
        return job


def test_a_thousand_watched_jobs_are_read_at_once_and_eight_times_a_second_at_most() -> None:
    table = Table(*(job() for _ in range(1000)))
    watcher = JobWatcher(table)
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
    assert table.lookups == []
    wait_for(lambda: "job-watcher" not in {thread.name for thread in threading.enumerate()}, "the thread to end")
    looks = len(table.looks)
    with watcher.watching(changed) as watch:
        table.jobs[changed.id] = replace(changed, state="done")
        assert watch.wait(30).state == "done"
    assert len(table.looks) > looks


def test_look_for_a_thousand_owners_is_one_statement(tmp_path: Path) -> None:
    """With the one for what has disappeared, four looks a second are eight reads of the database at most."""
    with sqlite(tmp_path) as database:
        table = Jobs(database)
        with queries(database) as executed:
            table.recent([UserId(secrets.token_hex(16)) for _ in range(1000)], 1)
            assert len(executed) == 1
            table.with_ids([new_job_id() for _ in range(1000)])
            assert len(executed) == 2


def test_whatever_goes_wrong_reaches_those_who_wait() -> None:
    table = Table(job())
    [watched] = table.jobs.values()
    watcher = JobWatcher(table, interval=0.01)
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
    watcher = JobWatcher(table, interval=0.01)
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
    watcher = JobWatcher(table, interval=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", mock.Mock(side_effect=RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError), watcher.watching(watched):
            pass
    with watcher.watching(watched) as watch:
        table.jobs[watched.id] = replace(watched, state="converting")
        assert watch.wait(30).state == "converting"
    wait_for(lambda: "job-watcher" not in {thread.name for thread in threading.enumerate()}, "the thread to end", 5)


class Followed:
    """What a follower was told."""

    def __init__(self, watcher: JobWatcher, owner: UserId, since: int | None = None) -> None:
        self.changes: list[Change] = []
        self.errors: list[Exception] = []
        self.stop = watcher.follow(owner, since, self.changes.append, self.errors.append)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def next(self) -> Change:
        wait_for(lambda: self.changes, "a change")
        return self.changes.pop(0)


def test_follower_is_told_of_new_changed_finished_and_deleted_jobs_of_the_owner() -> None:
    first = job()
    table = Table(first, job())
    watcher = JobWatcher(table, interval=0.01)
    with Followed(watcher, first.owner) as followed:
        found = followed.next()
        assert (found.jobs, found.deleted, found.is_first, found.is_busy) == ([first], [], True, True)
        second = table.put(job(first.owner))
        assert followed.next().jobs == [second]
        # As old as a job whose end became visible late; longer ago than finished jobs are looked for.
        done = table.put(replace(first, state="done", finished_at=1))
        assert followed.next().jobs == [done]
        del table.jobs[second.id]
        found = followed.next()
        assert (found.jobs, found.deleted, found.is_busy) == ([], [second.id], False)
        looks = len(table.looks)
        wait_for(lambda: len(table.looks) > looks + 3, "looks that find nothing new")
        assert followed.changes == []


@pytest.mark.parametrize("clocks", [0, 3_600_000, -3_600_000])
def test_follower_that_comes_back_is_told_what_has_ended_since(clocks: int) -> None:
    """Whatever the difference is between the clocks of the database and the function."""
    owner = UserId("a" * 32)
    table = Table()
    table.now = int(time.time() * 1000) + clocks
    before = table.put(replace(job(owner), state="done", finished_at=table.now - 120_000))
    since = table.put(replace(job(owner), state="done", finished_at=table.now - 60_000))
    watcher = JobWatcher(table, interval=0.01)
    with Followed(watcher, owner) as others:
        assert others.next().jobs == []
        with Followed(watcher, owner, table.now - 90_000) as followed:
            assert followed.next().jobs == [since]
            # The look that went back that far tells the other one nothing, nor does one that goes back further.
            with Followed(watcher, owner, table.now - 150_000) as last:
                assert last.next().jobs == [before, since]
            assert others.changes == followed.changes == []


def test_unavailable_database_ends_following() -> None:
    table = Table(job())
    [owner] = {each.owner for each in table.jobs.values()}
    watcher = JobWatcher(table, interval=0.01)
    followed = Followed(watcher, owner)
    followed.next()
    table.error = DatabaseUnavailable("The database is away.")
    wait_for(lambda: followed.errors, "the error")
    table.error = None
    wait_for(lambda: "job-watcher" not in {thread.name for thread in threading.enumerate()}, "the thread to end", 5)
    assert len(followed.errors) == 1
