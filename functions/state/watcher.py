"""Watches jobs for those who wait for them to change: one thread and one query at a time, however many wait."""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from events.schema import JobId
from functions.state.jobs import Job, JobNotFound

#: Seconds between two looks at the database.
INTERVAL: Final = 0.25


class Watch:
    """One job that somebody waits for. ``job`` is what the last look found."""

    def __init__(self, job: Job) -> None:
        self.job = job
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

    def found(self, job: Job | None) -> None:
        """Records what a look has found."""
        if job is None:
            self.failed(JobNotFound("The job was deleted."))
        elif job != self.job:
            self.job = job
            self._changed.set()

    def failed(self, error: Exception) -> None:
        """Ends the watch."""
        self.error = error
        self._changed.set()


class JobWatcher:
    """Looks at all watched jobs at once. Its thread runs only while jobs are watched."""

    def __init__(self, look: Callable[[Collection[JobId]], Mapping[JobId, Job]], interval: float = INTERVAL) -> None:
        """Starts nothing yet.

        Args:
            look: returns those of the jobs that exist, such as ``Jobs.with_ids``.
            interval: seconds between two looks.
        """
        self._look = look
        self._interval = interval
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._is_running = False

    @contextlib.contextmanager
    def watching(self, job: Job) -> Iterator[Watch]:
        """Watches a job in the ``with`` block, from the state in which the caller has read it."""
        watch = Watch(job)
        with self._lock:
            if not self._is_running:
                threading.Thread(target=self._run, name="job-watcher", daemon=True).start()
                self._is_running = True
            self._watches.add(watch)
        try:
            yield watch
        finally:
            with self._lock:
                self._watches.discard(watch)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(self._interval)
            with self._lock:
                watches = list(self._watches)
                if not watches:
                    self._is_running = False
                    return
            try:
                found = self._look({watch.job.id for watch in watches})
            except Exception as error:  # those who wait raise it
                for watch in watches:
                    watch.failed(error)
            else:
                for watch in watches:
                    watch.found(found.get(watch.job.id))
