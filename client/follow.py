"""Follows a user's jobs by the server-sent events of ``GET /jobs/events``."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import urllib3
from urllib3 import BaseHTTPResponse

from client.errors import RequestRefused, Unreachable
from client.server import Retries, Server
from events.errors import TryAgain

_ENDED: Final = ("done", "failed")
Job = dict[str, Any]


class _Event(NamedTuple):
    name: str
    data: str


def has_ended(job: Job) -> bool:
    """Returns whether nothing more happens to the job."""
    return job["status"] in _ENDED


class Follower:
    """Follows jobs until they end."""

    def __init__(self, server: Server, waiting: Callable[[], set[str]]) -> None:
        """Prepares to follow; ``waiting`` returns the ids of the jobs whose end is awaited, which may change."""
        self._server = server
        self._waiting = waiting
        self._last_id = ""
        self._retry = 1.0
        self._known: dict[str, Job] = {}

    def changes(self) -> Iterator[Job]:
        """Yields awaited jobs as they are and whenever they change, until none is awaited any more.

        A job that was deleted is yielded as failed.

        Raises:
            TryAgain: the server could not be reached often enough.
        """
        retries = Retries()
        while self._waiting():
            try:
                yield from self._connection()
                retries.progressed()
            except TryAgain as error:
                retries.pause(error)

    def _connection(self) -> Iterator[Job]:
        headers = {"Accept": "text/event-stream"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        response = self._server.request("GET", "/jobs/events", headers=headers, stream=True)
        try:
            for event in self._events(response):
                self._take(event)
                yield from self._awaited(event)
                if not self._waiting():
                    return
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"The connection to {self._server.url} was lost: try again.") from error
        finally:
            response.close()
        time.sleep(self._retry)

    def _take(self, event: _Event) -> None:
        data = self._server.parse(event.data) if event.data else {}
        if event.name == "jobs":
            self._known |= {job["job"]: job for job in data["jobs"]}
        elif event.name == "job":
            self._known[data["job"]] = data
        elif event.name == "deleted":
            self._known[data["job"]] = _deleted(data["job"])

    def _awaited(self, event: _Event) -> Iterator[Job]:
        for job in self._waiting():
            found = self._known.pop(job, None)
            if found is not None:
                yield found
            elif event.name == "jobs":  # which does not have those that ended before the first connection
                yield find(self._server, job)

    def _events(self, response: BaseHTTPResponse) -> Iterator[_Event]:
        """Parses a stream; signs of life are yielded as events without a name, after the first one."""
        name = ""
        data: list[str] = []
        for line in _lines(response):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                self._last_id = value
            elif field == "retry" and value.isdigit():
                self._retry = int(value) / 1000
            elif not line:
                yield _Event(name, "\n".join(data))
                name = ""
                data = []


def find(server: Server, job: str) -> Job:
    """Returns a job as it is now; one that does not exist any more as failed."""
    try:
        found: Job = server.json("GET", f"/jobs/{job}")
    except RequestRefused as error:
        if error.code != 404:
            raise
        return _deleted(job)
    return found


def _deleted(job: str) -> Job:
    return {"job": job, "status": "failed", "error": "The job was deleted.", "warning": None, "mp3": None}


def _lines(response: BaseHTTPResponse) -> Iterator[str]:
    rest = b""
    for chunk in response.read_chunked() if response.chunked else response.stream(1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").removesuffix("\r")
