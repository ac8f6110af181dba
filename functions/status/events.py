"""Streams all jobs of a user as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

The id of an event is ``TIME-QUIET``: the time of the look that it is from, by the database's clock in milliseconds, and
how many connections in a row have brought nothing new. A client that comes back with it is told what has ended since,
and is asked to wait the longer before it comes back again, the longer nothing has happened.
"""

import logging
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

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

    def last(self) -> bytes:
        """Returns the id and the time with which the client comes back."""
        quiet = self._quiet + 1 if self._is_quiet and not self._is_busy else 0
        wait = b"retry: %d\n" % retry(quiet)
        return wait + (b"\n" if self._at is None else b"id: %d-%d\n\n" % (self._at, min(quiet, 99)))

    def ended(self) -> None:
        """Stops following."""
        if self._stop is not None:
            self._stop()
        self._on_end()

    def _on_change(self, change: Change) -> None:
        if not change.is_first or change.jobs:
            self._is_quiet = False
        self._is_busy = change.is_busy
        self._at = change.at
        id_ = b"id: %d-0\n" % change.at
        if change.is_first:
            events = [_event(b"jobs", {"jobs": [self._show(job) for job in change.jobs]}, id_)]
        else:
            events = [_event(b"job", self._show(job), id_) for job in change.jobs]
            events += [_event(b"deleted", {"job": job}, id_) for job in change.deleted]
        if self._sink is not None:
            self._sink.send(b"".join(events))

    def _on_error(self, error: Exception) -> None:
        log.warning("Events of jobs are interrupted: %r", error)
        if self._sink is not None:
            self._sink.end()


def _event(name: bytes, data: object, id_: bytes) -> bytes:
    return b"event: %b\n%bdata: %b\n\n" % (name, id_, msgspec.json.encode(data))
