"""Watches jobs for those who wait for them to change: one thread and one query at a time, however many wait."""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from events.schema import JobId
from functions.state.jobs import Job, JobNotFound, Recent
from functions.state.schema import UserId

#: Seconds between two looks at the database.
INTERVAL: Final = 0.25
#: Milliseconds that a transaction which ends a job may take to become visible.
_MARGIN: Final = 10_000


class Table(Protocol):
    """What the watcher uses of Jobs."""

    def recent(self, owners: Collection[UserId], since: int | None) -> Recent:
        """Returns the owners' jobs that are unfinished or have finished since a time by the database's clock."""

    def with_ids(self, ids: Collection[JobId]) -> dict[JobId, Job]:
        """Returns those of the jobs that exist."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a look has found.

    Attributes:
        at: the time of the look by the database's clock, in milliseconds since 1970.
        jobs: those that have changed; at first all that are unfinished or have just finished.
        deleted: the ids of those that were deleted.
        is_first: whether this is the follower's first look.
        is_busy: whether a job is unfinished.
    """

    at: int
    jobs: list[Job]
    deleted: list[JobId]
    is_first: bool
    is_busy: bool


class _Watcher(Protocol):
    """Somebody who waits for jobs of an owner."""

    owner: UserId

    def since(self) -> int | None:
        """Returns since when jobs have finished that a look must find, by the database's clock; None if it need not."""

    def missing(self, found: Mapping[JobId, Job]) -> set[JobId]:
        """Returns the known unfinished jobs that a look has not found, so that they have finished or were deleted."""

    def found(self, at: int, jobs: Mapping[JobId, Job]) -> None:
        """Is told what a look has found: at least the owner's unfinished jobs, and what was missing."""

    def failed(self, error: Exception) -> None:
        """Is told that a look has failed."""


class Watch:
    """One job that somebody waits for. ``job`` is what the last look found."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.owner = job.owner
        self.error: Exception | None = None
        self._changed = threading.Event()

    def wait(self, seconds: float) -> Job:
        """Returns the job as soon as it has changed since the last call, or after so many seconds.

        Raises:
            JobNotFound: it was deleted.
            Exception: the last look failed, such as DatabaseUnavailable.
        """
        self._changed.wait(seconds)
        self._changed.clear()
        if self.error is not None:
            raise self.error
        return self.job

    def since(self) -> int | None:
        """Finished jobs that are not found are looked up."""
        return None

    def missing(self, found: Mapping[JobId, Job]) -> set[JobId]:
        """Returns the job's id if it was not found."""
        return {self.job.id} - found.keys()

    def found(self, _: int, jobs: Mapping[JobId, Job]) -> None:
        """Records what a look has found."""
        job = jobs.get(self.job.id)
        if job is None:
            self.failed(JobNotFound("The job was deleted."))
        elif job != self.job:
            self.job = job
            self._changed.set()

    def failed(self, error: Exception) -> None:
        """Ends the watch."""
        self.error = error
        self._changed.set()


class _Follower:
    """Somebody who is told of all jobs of an owner, on the watcher's thread."""

    def __init__(
        self,
        owner: UserId,
        since: int | None,
        on_change: Callable[[Change], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self.owner = owner
        self.failed = on_error
        self._on_change = on_change
        self._since = since
        self._known: dict[JobId, Job] | None = None
        self._looked = 0

    def since(self) -> int | None:
        last = self._since if self._known is None else self._looked
        return None if last is None else last - _MARGIN

    def missing(self, found: Mapping[JobId, Job]) -> set[JobId]:
        known = self._known or {}
        return {id_ for id_, job in known.items() if not job.finished_at} - found.keys()

    def found(self, at: int, jobs: Mapping[JobId, Job]) -> None:
        is_first = self._known is None
        known = self._known or {}
        since = (self._since or at) if is_first else self._looked
        # Others may have looked further back.
        current = {
            id_: job
            for id_, job in jobs.items()
            if id_ in known or not job.finished_at or job.finished_at >= since - _MARGIN
        }
        changed = [job for id_, job in current.items() if known.get(id_) != job]
        deleted = [id_ for id_, job in known.items() if not job.finished_at and id_ not in current]
        self._known = current
        self._looked = at
        if is_first or changed or deleted:
            is_busy = any(not job.finished_at for job in current.values())
            self._on_change(Change(at, changed, deleted, is_first, is_busy))


class JobWatcher:
    """Looks at the jobs of all who wait at once. Its thread runs only while somebody waits."""

    def __init__(self, table: Table, interval: float = INTERVAL) -> None:
        """Starts nothing yet.

        Args:
            table: the jobs.
            interval: seconds between two looks.
        """
        self._table = table
        self._interval = interval
        self._lock = threading.Lock()
        self._watchers: set[_Watcher] = set()
        self._is_running = False

    @contextlib.contextmanager
    def watching(self, job: Job) -> Iterator[Watch]:
        """Watches an unfinished job in the ``with`` block, from the state in which the caller has read it."""
        watch = Watch(job)
        self._add(watch)
        try:
            yield watch
        finally:
            self._remove(watch)

    def follow(
        self,
        owner: UserId,
        since: int | None,
        on_change: Callable[[Change], None],
        on_error: Callable[[Exception], None],
    ) -> Callable[[], None]:
        """Tells of all jobs of an owner, as soon as they change.

        Args:
            owner: whose jobs.
            since: the time of the caller's last look, by the database's clock: the first call of ``on_change`` includes
                the jobs that have finished since then, in the last hour (``functions.state.jobs.RECENT``). None if
                there was none.
            on_change: is called on the watcher's thread, first with all unfinished jobs; must not wait.
            on_error: is called instead if a look fails; nothing is called after that.

        Returns:
            What ends it.
        """
        follower = _Follower(owner, since, on_change, on_error)
        self._add(follower)
        return lambda: self._remove(follower)

    def _add(self, watcher: _Watcher) -> None:
        with self._lock:
            if not self._is_running:
                threading.Thread(target=self._run, name="job-watcher", daemon=True).start()
                self._is_running = True
            self._watchers.add(watcher)

    def _remove(self, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.discard(watcher)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(self._interval)
            with self._lock:
                watchers = list(self._watchers)
                if not watchers:
                    self._is_running = False
                    return
            try:
                self._look(watchers)
            except Exception as error:  # those who wait raise it
                for watcher in watchers:
                    self._remove(watcher)
                    watcher.failed(error)

    def _look(self, watchers: Collection[_Watcher]) -> None:
        times = [since for each in watchers if (since := each.since()) is not None]
        recent = self._table.recent({each.owner for each in watchers}, min(times, default=None))
        by_owner: dict[UserId, dict[JobId, Job]] = {}
        for job in recent.jobs:
            by_owner.setdefault(job.owner, {})[job.id] = job
        missing = {id_ for each in watchers for id_ in each.missing(by_owner.get(each.owner, {}))}
        for job in self._table.with_ids(missing).values() if missing else ():
            by_owner.setdefault(job.owner, {})[job.id] = job
        for each in watchers:
            each.found(recent.at, by_owner.get(each.owner, {}))
