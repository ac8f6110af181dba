"""Streams all jobs of a user as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

The id of an event is ``TIME-QUIET``: the time of the look that it is from, by the database's clock in milliseconds, and
how many connections in a row have brought nothing new. A client that comes back with it is told what has ended since,
but not more than an hour ago, and is asked to wait the longer before it comes back again, the longer nothing has
happened.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from events.schema import JobId
from functions.push import Sink
from functions.state.jobs import Job
from functions.state.schema import UserId
from functions.state.watcher import Change, JobWatcher

CONTENT_TYPE: Final = "text/event-stream"
#: Seconds after which a connection ends, and between two signs of life.
SECONDS: Final = 25.0
_BEAT_SECONDS: Final = 10.0
#: Milliseconds before a client comes back: at first, and at most.
_RETRY: Final = 1_000
_MAX_RETRY: Final = 30_000
#: Bytes from which on a piece of the stream is long enough.
_PIECE: Final = 32 << 10
_ID: Final = re.compile(r"(\d{1,15})-(\d{1,2})", re.ASCII)
log = logging.getLogger(__name__)


def retry(quiet: int) -> int:
    """Returns the milliseconds after which a client comes back, given how many connections have brought nothing."""
    return min(_RETRY << min(quiet, 10), _MAX_RETRY)


class JobEvents:
    """One connection (``functions.push.Push``)."""

    seconds = SECONDS
    beat = b":\n\n"
    beat_seconds = _BEAT_SECONDS

    def __init__(
        self,
        owner: UserId,
        last_id: str,
        watcher: JobWatcher,
        show: Callable[[Job], Any],
        on_end: Callable[[], None],
    ) -> None:
        """Prepares the connection.

        Args:
            owner: whose jobs.
            last_id: the client's Last-Event-ID; anything else than an id of ours is ignored.
            watcher: tells of changes.
            show: returns a job as users see it.
            on_end: is called once when the connection has ended.
        """
        found = _ID.fullmatch(last_id)
        self._owner = owner
        self._since = int(found[1]) if found else None
        self._at = self._since
        self._sent = self._since  # the time of the look of which the client has everything
        self._lock = threading.Lock()
        self._list: dict[JobId, Job] | None = None  # what is left of the first event; None before and after it
        self._listed = 0  # the time of the look that it is from
        self._has_begun_list = False
        self._changes: dict[JobId, Job | None] = {}  # what is left of later ones; None for a job that was deleted
        self._quiet = int(found[2]) if found else 0
        self._watcher = watcher
        self._show = show
        self._on_end = on_end
        self._is_busy = False
        self._is_quiet = True
        self._stop: Callable[[], None] | None = None
        self._sink: Sink | None = None

    def first(self) -> bytes:
        """Returns the first bytes of the stream."""
        return b"retry: %d\n\n" % retry(self._quiet)

    def begin(self, sink: Sink) -> None:
        """Follows the jobs."""
        self._sink = sink
        self._stop = self._watcher.follow(self._owner, self._since, self._on_change, self._on_error)

    def take(self) -> bytes:
        """Returns the next piece of the stream: a part of the list of jobs, or some changes."""
        with self._lock:
            if self._list is not None:
                return b"".join(self._take_list(self._list))
            return b"".join(self._take_changes())

    def last(self) -> bytes:
        """Returns the id and the time with which the client comes back."""
        with self._lock:
            if self._list is not None and self._has_begun_list:
                return b""  # a client discards an event without its end
            quiet = self._quiet + 1 if self._is_quiet and not self._is_busy else 0
            wait = b"retry: %d\n" % retry(quiet)
            return wait + (b"\n" if self._sent is None else b"id: %d-%d\n\n" % (self._sent, min(quiet, 99)))

    def ended(self) -> None:
        """Stops following."""
        if self._stop is not None:
            self._stop()
        self._on_end()

    def _on_change(self, change: Change) -> None:
        with self._lock:
            if not change.is_first or change.jobs:
                self._is_quiet = False
            self._is_busy = change.is_busy
            self._at = change.at
            if change.is_first:
                self._list = {job.id: job for job in change.jobs}
                self._listed = change.at
            else:
                self._add(change)
        if self._sink is not None:
            self._sink.wake()

    def _add(self, change: Change) -> None:
        """Adds what has changed. Of a job whose change was not taken yet, only the newest state is sent."""
        unsent = self._list or {}
        for job in change.jobs:
            if job.id in unsent:
                unsent[job.id] = job
            else:
                self._changes[job.id] = job
        for deleted in change.deleted:
            if unsent.pop(deleted, None) is None:
                self._changes[deleted] = None

    def _take_list(self, unsent: dict[JobId, Job]) -> Iterator[bytes]:
        """Yields some of the first event, in the order of the jobs, and its end behind the last of them."""
        comma = b","
        if not self._has_begun_list:
            self._has_begun_list = True
            comma = b""
            yield b'event: jobs\nid: %d-0\ndata: {"jobs":[' % self._listed
        size = 0
        while unsent and size < _PIECE:
            encoded = msgspec.json.encode(self._show(unsent.pop(next(iter(unsent)))))
            yield comma + encoded
            comma = b","
            size += len(encoded)
        if not unsent:
            self._list = None
            self._sent = self._listed
            yield b"]}\n\n"

    def _take_changes(self) -> Iterator[bytes]:
        """Yields some of the later events. Only the last has an id: a client without it is told of all again."""
        size = 0
        while self._changes and size < _PIECE:
            id_ = next(iter(self._changes))
            job = self._changes.pop(id_)
            name = b"deleted" if job is None else b"job"
            data = msgspec.json.encode({"job": id_} if job is None else self._show(job))
            yield b"event: %b\n%bdata: %b\n\n" % (name, b"" if self._changes else b"id: %d-0\n" % (self._at or 0), data)
            size += len(data)
        if not self._changes:
            self._sent = self._at

    def _on_error(self, error: Exception) -> None:
        log.warning("Events of jobs are interrupted: %r", error)
        if self._sink is not None:
            self._sink.end()
