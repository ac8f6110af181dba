"""The stream of a user's jobs: whatever the client has taken by when, it has everything in the end."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from events.schema import JobId
from functions.media import BlobId
from functions.options import Options
from functions.state.jobs import Job
from functions.state.schema import UserId
from functions.state.watcher import Change
from functions.status.events import JobEvents

OWNER = UserId("a" * 32)
JOBS = [
    Job(JobId(f"{n:032x}"), OWNER, "a.mp4", Options(), "uploaded", BlobId("b" * 24), None, 0, 0, *(None,) * 3, 1, None)
    for n in range(500)
]


class Client:
    """A client that takes the stream piece by piece, and the looks at the database that it is told of."""

    wake = staticmethod(lambda: None)
    end = staticmethod(lambda: None)

    def __init__(self) -> None:
        self.push = JobEvents(OWNER, "", self, lambda job: {"job": job.id, "done": job.done}, lambda: None)  # type: ignore[arg-type]
        self.push.begin(self)
        self.received = b""

    def follow(self, _: UserId, __: int | None, on_change: Callable[[Change], None], ___: object) -> Callable[[], None]:
        self._on_change = on_change
        return lambda: None

    def look(self, at: int, *jobs: Job, deleted: tuple[JobId, ...] = (), is_first: bool = False) -> None:
        self._on_change(Change(at, list(jobs), list(deleted), is_first, is_busy=True))

    def take(self) -> bytes:
        piece = self.push.take()
        self.received += piece
        return piece

    def rest(self) -> list[dict[str, Any]]:
        """Takes everything; returns the events, their data decoded."""
        while self.take():
            pass
        *complete, rest = self.received.decode().split("\n\n")
        assert rest == ""
        fields = [dict(line.split(": ", 1) for line in event.splitlines()) for event in complete]
        return [{**each, "data": json.loads(each["data"])} for each in fields]


@pytest.fixture
def client() -> Client:
    return Client()


def test_list_is_one_event_in_pieces_whose_size_does_not_depend_on_the_number_of_jobs(client: Client) -> None:
    jobs = [replace(job, id=JobId(f"{n}-{job.id}")) for n in range(10) for job in JOBS]
    client.look(7, *jobs, is_first=True)
    assert 30_000 < len(client.take()) < 34_000
    [event] = client.rest()
    assert (event["event"], event["id"]) == ("jobs", "7-0")
    assert [job["job"] for job in event["data"]["jobs"]] == [job.id for job in jobs]


def test_what_changes_before_the_client_has_it_is_sent_once(client: Client) -> None:
    client.look(1, *JOBS, *(replace(job, id=JobId("x" + job.id)) for job in JOBS), is_first=True)
    client.take()
    first, last = JOBS[0], replace(JOBS[-1], id=JobId("x" + JOBS[-1].id))
    deleted = JobId("x" + JOBS[-2].id)
    for done in (1, 2):
        client.look(1 + done, replace(first, done=done), replace(last, done=done))
    client.look(4, deleted=(deleted,))
    listed, changed = client.rest()
    by_id = {job["job"]: job["done"] for job in listed["data"]["jobs"]}
    assert (by_id[first.id], by_id[last.id], len(by_id)) == (0, 2, 999)
    assert (listed["id"], changed["id"], changed["data"]) == ("1-0", "4-0", {"job": first.id, "done": 2})


def test_client_that_leaves_between_changes_comes_back_with_the_look_before_them(client: Client) -> None:
    client.look(1, is_first=True)
    client.rest()
    client.look(2, *(replace(job, id=JobId(f"{n}-{job.id}")) for n in range(3) for job in JOBS))
    client.take()
    assert b"id:" not in client.received.partition(b"event: job\n")[2]
    assert client.push.last() == b"retry: 1000\nid: 1-0\n\n"
    assert len(client.rest()) == 1501
    assert client.push.last() == b"retry: 1000\nid: 2-0\n\n"


def test_list_that_is_cut_off_has_no_end(client: Client) -> None:
    client.look(1, *JOBS, *(replace(job, id=JobId("x" + job.id)) for job in JOBS), is_first=True)
    client.take()
    assert client.push.last() == b""
