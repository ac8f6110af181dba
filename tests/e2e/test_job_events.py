"""A process of status whose clients follow their jobs: what they are told, and what a thousand of them cost."""

import contextlib
import http.client
import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from functions.options import Options
from functions.state.database import Database
from functions.state.jobs import new_job_id
from functions.state.schema import jobs, now, users
from tests.support.calls import bearer
from tests.support.databases import sqlite
from tests.support.paths import ROOT
from tests.support.processes import descendants, wait_for
from tests.support.servers import free_port
from tests.unit.auth.test_tokens import KEY, public_pem

OWNER = "a" * 32


@dataclass(frozen=True)
class Status:
    """A process of status, its database and its port."""

    database: Database
    port: int
    process: subprocess.Popen[bytes]

    def add(self, owner: str = OWNER, state: str = "converting", **values: object) -> str:
        job = new_job_id()
        row = {"id": job, "owner": owner, "filename": "a.mp4", "options": Options().to_json(), "state": state}
        statement = insert(jobs).values(**{**row, "lease": "t", "created_at": now(), "stage_at": now(), **values})
        self.database.run(lambda connection: connection.execute(statement))
        return job

    def add_many(self, count: int, owner: str) -> Sequence[str]:
        ids = [new_job_id() for _ in range(count)]
        row = {"owner": owner, "filename": "a" * 250, "options": Options().to_json(), "state": "uploaded"}
        statement = insert(jobs).values(created_at=now(), attempts=0, total=0, done=0)
        with self.database.engine.begin() as connection:
            connection.execute(statement, [{"id": id_, **row} for id_ in ids])
        return ids

    def change(self, job: str, **values: object) -> None:
        statement = update(jobs).where(jobs.c.id == job).values(**values)
        self.database.run(lambda connection: connection.execute(statement))

    def follow(self, owner: str = OWNER, last_id: str | None = None, receive_buffer: int = 0) -> "Stream":
        return Stream(self.port, owner, last_id, receive_buffer)


@contextlib.contextmanager
def serving(directory: Path, owners: int = 1, **env: str) -> Iterator[Status]:
    port = free_port()
    with sqlite(directory) as database:
        rows = [
            {"id": owner_id(n), "username": f"{n}@example.org", "email": f"{n}@example.org", "name": "Ada"}
            for n in range(owners)
        ]
        with database.engine.begin() as connection:
            connection.execute(insert(users).values(password_hash="", role="user", created_at=0, confirmed_at=0), rows)
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "FUNCTION_SOURCE": "functions/status/main.py",
            "FUNCTION_TARGET": "status",
            "DATABASE_URL": database.engine.url.render_as_string(),
            "TOKEN_PUBLIC_KEYS": public_pem(KEY),
            "LOG_KEY": "a key",
            "BIND_ADDRESS": "127.0.0.1",
            "PORT": str(port),
            "THREADS": "8",
            "STREAMS": "1000",
            "TIMEOUT_SECONDS": "5",
            **env,
        }
        with subprocess.Popen([sys.executable, "-m", "infra.serve"], cwd=ROOT, env=env) as process:
            try:
                wait_for(lambda: listens(port), "the server to listen")
                yield Status(database, port, process)
            finally:
                process.terminate()


def owner_id(n: int) -> str:
    return OWNER if n == 0 else f"{n:032x}"


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


class Stream:
    """A client that follows the jobs of a user."""

    def __init__(self, port: int, owner: str, last_id: str | None, receive_buffer: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
        if receive_buffer:
            self._connection.sock = socket.socket()
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self._connection.sock.settimeout(40)
            self._connection.sock.connect(("127.0.0.1", port))
        headers = {"Authorization": bearer("ada", owner)} | ({"Last-Event-ID": last_id} if last_id else {})
        self._connection.request("GET", "/jobs/events", headers=headers)
        self.response = self._connection.getresponse()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self.response.close()

    def next(self) -> dict[str, str]:
        """Returns the fields of the next event; none at the end of the stream."""
        fields: dict[str, str] = {}
        for line in iter(self.response.readline, b""):
            if line == b"\n" and fields:
                return fields
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name.strip(":\n"):
                fields[name] = value
        return fields


@pytest.fixture(scope="module")
def status(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Status]:
    with serving(tmp_path_factory.mktemp("status"), 18, THREADS="1") as server:
        yield server


def test_stream_tells_of_each_change_and_of_what_happened_in_between(status: Status) -> None:
    first = status.add()
    with status.follow() as stream:
        assert stream.response.status == 200
        assert stream.response.headers["Content-Type"] == "text/event-stream"
        assert stream.response.headers["X-Accel-Buffering"] == "no"
        assert stream.response.headers["Cache-Control"] == "no-store"
        assert stream.next() == {"retry": "1000"}
        event = stream.next()
        [shown] = json.loads(event["data"])["jobs"]
        assert (event["event"], shown["job"], shown["stage"]) == ("jobs", first, "reading")
        status.change(first, done=500, total=1000)
        event = stream.next()
        shown = json.loads(event["data"])
        assert (event["event"], shown["job"], shown["stage"], shown["progress"]) == ("job", first, "encoding", 0.5)
        assert shown["eta"] is not None
        second = status.add()
        assert json.loads(stream.next()["data"])["job"] == second
        status.database.run(lambda connection: connection.execute(jobs.delete().where(jobs.c.id == second)))
        event = stream.next()
        assert (event["event"], json.loads(event["data"])) == ("deleted", {"job": second})
        last_id = event["id"]
    status.change(first, state="done", finished_at=now())
    with status.follow(last_id=last_id) as stream:
        stream.next()
        [shown] = json.loads(stream.next()["data"])["jobs"]
        assert (shown["job"], shown["stage"], shown["progress"]) == (first, "done", 1.0)


def test_client_with_a_small_buffer_gets_two_thousand_jobs(status: Status) -> None:
    owner = owner_id(17)
    ids = status.add_many(2000, owner)
    with status.follow(owner, receive_buffer=4096) as stream:
        stream.next()
        event = stream.next()
        assert event["event"] == "jobs"
        assert sorted(job["job"] for job in json.loads(event["data"])["jobs"]) == sorted(ids)
        status.change(ids[0], state="done", finished_at=now())
        assert json.loads(stream.next()["data"])["job"] == ids[0]


def test_streams_take_no_threads_and_end_after_25_seconds_with_a_growing_retry(status: Status) -> None:
    with contextlib.ExitStack() as stack:
        owners = [owner_id(n) for n in range(1, 17)]
        began = time.monotonic()
        busy = status.add(owner=owners[1])
        streams = [stack.enter_context(status.follow(owner)) for owner in owners]
        assert [stream.next() for stream in streams] == [{"retry": "1000"}] * 16
        snapshots = [stream.next() for stream in streams]
        assert json.loads(snapshots[0]["data"]) == {"jobs": []}
        # The one thread answers meanwhile.
        with status.follow(owners[0], last_id=f"{int(time.time() * 1000)}-3") as stream:
            assert stream.next() == {"retry": "8000"}
        last = streams[0].next()
        assert 24 < time.monotonic() - began < 35
        assert last["retry"] == "2000"
        assert last["id"].endswith("-1")
        assert streams[0].next() == {}
        # Something is being done for this one, so it comes back soon.
        last = streams[1].next()
        assert (last["retry"], last["id"].endswith("-0")) == ("1000", True)
    status.change(busy, state="done", finished_at=now())


def test_too_many_streams_of_a_user_are_refused_until_one_ends(tmp_path: Path) -> None:
    with serving(tmp_path, REQUESTS_PER_USER="2", STREAMS="10") as status, status.follow(), status.follow() as second:
        with status.follow() as refused:
            assert (refused.response.status, refused.response.headers["Retry-After"]) == (429, "5")
        second.__exit__()

        def follows() -> bool:
            with status.follow() as stream:
                return stream.response.status == 200

        wait_for(follows, "the place of the one that has left")


def test_a_stopping_process_ends_its_streams_at_once(tmp_path: Path) -> None:
    with serving(tmp_path) as status, status.follow() as stream:
        stream.next()
        stream.next()
        began = time.monotonic()
        status.process.terminate()
        assert stream.next()["retry"] == "2000"
        assert stream.next() == {}
        assert time.monotonic() - began < 10


def test_a_thousand_clients_learn_of_a_change_from_a_process_of_120_megabytes(tmp_path: Path) -> None:
    clients = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with (
        serving(tmp_path, clients, REQUESTS_PER_ADDRESS="2000") as status,
        contextlib.ExitStack() as stack,
        selectors.DefaultSelector() as selector,
    ):
        for n in range(clients):
            status.add(owner=owner_id(n))
        for n in range(clients):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", status.port), timeout=30))
            head = f"GET /jobs/events HTTP/1.1\r\nHost: h\r\nAuthorization: {bearer('ada', owner_id(n))}\r\n\r\n"
            client.sendall(head.encode())
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ, n)
        received = [b""] * clients
        _receive(selector, received, b"event: jobs", 60)
        statement = update(jobs).values(done=100, total=1000)
        status.database.run(lambda connection: connection.execute(statement))
        began = time.monotonic()
        delays = sorted(seconds - began for seconds in _receive(selector, received, b"event: job\n", 30))
        [worker] = descendants(status.process.pid)
        text = Path(f"/proc/{worker}/status").read_text()
        megabytes = int(text.partition("VmHWM:")[2].split()[0]) / 1024
        # On a machine that does nothing else it takes less than a second.
        assert delays[989] <= 5
        assert megabytes <= 120


def _receive(selector: selectors.BaseSelector, received: list[bytes], what: bytes, seconds: float) -> list[float]:
    """Receives until each client has got what is expected; returns when each of them had."""
    times = [0.0] * len(received)
    deadline = time.monotonic() + seconds
    while not all(times):
        assert time.monotonic() < deadline, f"{times.count(0.0)} clients did not get {what!r}"
        for key, _ in selector.select(1):
            assert isinstance(key.fileobj, socket.socket)
            received[key.data] += key.fileobj.recv(1 << 16)
            if what in received[key.data] and not times[key.data]:
                times[key.data] = time.monotonic()
    return times
