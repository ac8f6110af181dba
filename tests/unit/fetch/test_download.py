"""What fetch does with each answer of a server."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from events.schema import ConversionFailed, FetchDue, JobId, VideoUploaded
from functions.fetch import download
from functions.media import Checkpoint, Media, MediaUnavailable
from functions.outgoing.client import Response
from functions.state.fetches import Fetches
from functions.state.leases import LeaseLost, LeaseTerms
from functions.state.quota import Quota
from functions.state.schema import metadata
from functions.upload.by_address import create_fetch
from tests.e2e.client import wave_bytes
from tests.support.fakes import MemoryAppender, MemoryStore
from tests.support.kill_points import ADA, System, new_system
from tests.support.servers.source import FileServer, Request, Served

SOUND = wave_bytes(20)
SOUND += bytes(3_500_000 - len(SOUND))
MINUTE = 60_000


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    made = System(new_system(tmp_path / "system"))
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/talk.wav": Served(SOUND)}) as running:
        yield running


def begin(system: System, url: str, **fields: str) -> JobId:
    """Uploads by an address, as a client does."""
    return create_fetch({"url": url, **fields}, ADA, None, system.for_upload()).id


def fetch(system: System, url: str, **changes: Any) -> Any:
    """Uploads by an address and makes one attempt; returns the job's row."""
    return attempt(system, begin(system, url), **changes)


def attempt(system: System, job: JobId, **changes: Any) -> Any:
    download.fetch(job, replace(system.for_fetch(), **changes))
    return row(system)


def row(system: System) -> Any:
    [found] = system.rows("jobs")
    return found


def assert_fetched(system: System, content: bytes = SOUND) -> None:
    job = row(system)
    assert (job.state, job.error, job.size, job.fetching) == ("uploaded", None, len(content), None)
    assert (job.attempts, job.lease, job.lease_until, job.total) == (0, None, None, 0)
    assert system.bytes_of("videos", job.video) == content
    [blob] = system.rows("blobs")
    assert (blob.id, blob.size, blob.expires_at) == (job.video, len(content), None)
    assert system.published()[-1] == VideoUploaded(job.id)


def assert_failed(system: System, code: str, *words: str) -> None:
    job = row(system)
    assert (job.state, job.error_code, job.fetching, job.due_at) == ("failed", code, None, None)
    assert job.error.endswith(".")
    assert all(word in job.error for word in words), job.error
    assert ConversionFailed(job.id) in system.published()
    assert [blob for blob, _ in system.for_fetch().blobs.expired(10)] == [job.video]
    system.let_days_pass()
    assert (system.blobs_on_disk(), system.count("blobs")) == (set(), 0)


def test_file_is_fetched_as_if_it_had_been_uploaded(system: System, server: FileServer) -> None:
    job = begin(system, f"{server.url}/talk.wav?sig=1#t=5", bitrate="128k")
    before = row(system)
    assert (before.id, before.state, before.filename) == (job, "fetching", "talk.wav")
    assert before.options == '{"bitrate": 128}'
    assert system.published() == [FetchDue(job)]
    attempt(system, job)
    assert_fetched(system)
    assert row(system).filename == "talk.wav"
    assert server.requests == [Request("/talk.wav?sig=1", None, None)]
    download.fetch(job, system.for_fetch())  # the broker delivers the event again
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="Über uns.wav"', "Über uns.wav"),
        ("attachment; filename*=UTF-8''%C3%9Cber%20uns.wav", "Über uns.wav"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ("inline", "talk.wav"),
    ],
)
def test_server_names_the_file(system: System, server: FileServer, disposition: str, name: str) -> None:
    disposition = disposition.encode().decode("latin-1")
    server.files["/talk.wav"].headers = {"Content-Disposition": disposition}
    assert fetch(system, f"{server.url}/talk.wav").filename == name


def test_name_that_the_user_gives_stays(system: System, server: FileServer) -> None:
    server.files["/talk.wav"].headers = {"Content-Disposition": 'attachment; filename="other.wav"'}
    attempt(system, begin(system, f"{server.url}/talk.wav", filename="mine.wav"))
    assert row(system).filename == "mine.wav"


def test_lost_connections_are_continued_within_one_attempt(system: System, server: FileServer) -> None:
    server.files["/talk.wav"].cuts = [1_000_000, 0, 300_000]
    fetch(system, f"{server.url}/talk.wav")
    assert_fetched(system)
    assert [request.range for request in server.requests] == [
        *(None, "bytes=1000000-", "bytes=1000000-", "bytes=1300000-"),
    ]
    assert {request.if_range for request in server.requests[1:]} == {'"1"'}
    assert server.sent == len(SOUND)


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_file_without_a_strong_validator_is_begun_again(system: System, server: FileServer, etag: str) -> None:
    server.files["/talk.wav"].etag = etag
    server.files["/talk.wav"].headers = {"Last-Modified": ""}
    server.files["/talk.wav"].cuts = [1_000_000]
    fetch(system, f"{server.url}/talk.wav")
    assert_fetched(system)
    assert [request.range for request in server.requests] == [None, None]


def test_old_date_is_a_validator(system: System, server: FileServer) -> None:
    server.files["/talk.wav"].etag = ""
    server.files["/talk.wav"].cuts = [1_000_000]
    fetch(system, f"{server.url}/talk.wav")
    assert_fetched(system)
    assert server.requests[1].if_range == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert server.sent == len(SOUND)


@pytest.mark.parametrize(
    ("etag", "later"),
    [
        ("", {"Last-Modified": ""}),
        ('"1"', {"ETag": "", "Last-Modified": ""}),
        ('"1"', {"ETag": ""}),
    ],
)
def test_version_need_not_be_named_with_each_part(
    system: System, server: FileServer, etag: str, later: dict[str, str]
) -> None:
    server.files["/talk.wav"].etag = etag
    server.files["/talk.wav"].partial_headers = later
    server.files["/talk.wav"].cuts = [1_000_000, 700_000]
    fetch(system, f"{server.url}/talk.wav")
    assert_fetched(system)
    assert [request.range for request in server.requests] == [None, "bytes=1000000-", "bytes=1700000-"]
    assert server.requests[1].if_range == server.requests[2].if_range
    assert server.sent == len(SOUND)


@pytest.mark.parametrize(
    "date",
    [
        *("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Mon, 01 Jan 2020 00:00:00 +99999999999999999"),
        *("Thu, 01 Jan 1970 00:00:00 GMT" + " x" * 30_000, "Thu, 01 Jan 1970\r\n 00:00:00 GMT", "yesterday"),
    ],
)
def test_date_that_is_none_is_no_validator(system: System, server: FileServer, date: str) -> None:
    server.files["/talk.wav"].etag = ""
    server.files["/talk.wav"].headers = {"Last-Modified": date}
    server.files["/talk.wav"].cuts = [1_000_000]
    fetch(system, f"{server.url}/talk.wav")
    assert_fetched(system)
    assert [request.if_range for request in server.requests] == [None, None]


def test_file_that_changes_meanwhile_is_never_mixed(system: System, server: FileServer) -> None:
    other = SOUND + wave_bytes(1)
    job = begin(system, f"{server.url}/talk.wav")
    server.files["/talk.wav"].cuts = [2_000_000, 0, 0, 0, 0]
    attempt(system, job)
    assert row(system).state == "fetching"
    server.files["/talk.wav"] = Served(other, etag='"2"')
    system.let_a_day_pass()
    make_free(system)
    attempt(system, job)
    assert_fetched(system, other)
    assert [request.range for request in server.requests[-1:]] == ["bytes=2000000-"]


def make_free(system: System) -> None:
    """Lets a job be claimed again that was postponed, and its blob live."""
    jobs, blobs = metadata.tables["jobs"], metadata.tables["blobs"]
    with system.database.engine.begin() as connection:
        connection.execute(update(jobs).values(lease_until=None))
        connection.execute(update(blobs).values(expires_at=blobs.c.expires_at + 86_400_000))


def test_server_that_lies_about_a_range_is_asked_for_all(system: System, server: FileServer) -> None:
    file = server.files["/talk.wav"]
    file.cuts = [1_000_000]
    file.headers = {"Content-Range": f"bytes 0-{len(SOUND) - 1}/{len(SOUND)}"}
    job = begin(system, f"{server.url}/talk.wav")

    def pause(_: float) -> None:
        file.status = 200

    attempt(system, job, pause=pause)
    assert [request.range for request in server.requests[:2]] == [None, "bytes=1000000-"]
    assert_fetched(system)


def test_an_attempt_that_takes_long_is_handed_on(
    system: System, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_some = threading.Event()
    real = Response.read

    def read(response: Response, size: int) -> bytes:
        chunk = real(response, size)
        read_some.set()
        return chunk

    monkeypatch.setattr(Response, "read", read)
    job = begin(system, f"{server.url}/talk.wav")
    attempt(system, job, clock=lambda: download.SECONDS * read_some.is_set())
    found = row(system)
    assert (found.state, found.lease, found.lease_until) == ("fetching", None, None)
    assert system.published() == [FetchDue(job), FetchDue(job)]
    attempt(system, job)
    assert_fetched(system)
    received = int((server.requests[1].range or "")[len("bytes=") : -1])
    assert 0 < received < len(SOUND)


def test_server_that_sends_nothing_useful_is_left_alone(system: System, server: FileServer) -> None:
    job = begin(system, f"{server.url}/talk.wav")

    def clock() -> float:
        """All of the attempt's time passes until a head is there."""
        return download.SECONDS * len(server.requests)

    for n in range(1, 5):
        found = attempt(system, job, clock=clock)
        assert (found.state, found.attempts, found.lease) == ("fetching", n, None)
        assert found.lease_until is not None
        make_free(system)
    attempt(system, job, clock=clock)
    assert_failed(system, "timed-out", "9 minutes")


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_server_that_cannot_send_now_is_left_alone(system: System, server: FileServer, status: int) -> None:
    server.files["/talk.wav"].status = status
    server.files["/talk.wav"].headers = {"Retry-After": "600"} if status == 503 else {}
    job = begin(system, f"{server.url}/talk.wav")
    waits = (10, 10, 10, 30) if status == 503 else (0.5, 2, 10, 30)
    for n, minutes in enumerate(waits, 1):
        found = attempt(system, job)
        assert (found.state, found.attempts, found.lease) == ("fetching", n, None)
        due = (found.due_at - found.stage_at) / MINUTE
        assert minutes <= due < minutes + 1
        download.fetch(job, system.for_fetch())  # the broker delivers the event again
        assert len(server.requests) == n
        make_free(system)
    attempt(system, job)
    assert_failed(system, "source-unavailable", str(status))


def test_attempts_count_anew_after_progress(system: System, server: FileServer) -> None:
    job = begin(system, f"{server.url}/talk.wav")
    for n in range(1, 9):
        server.files["/talk.wav"].cuts = [100_000, 0, 0, 0, 0]
        found = attempt(system, job)
        assert (found.state, found.attempts) == ("fetching", n)
        make_free(system)
    attempt(system, job)
    assert_fetched(system)


@pytest.mark.parametrize(
    ("served", "code", "word"),
    [
        (Served(status=404), "source-not-found", "404"),
        (Served(status=410), "source-not-found", "410"),
        (Served(status=403), "source-denied", "403"),
        (Served(status=204), "source-error", "204"),
        (Served(SOUND, headers={"Content-Encoding": "gzip"}), "source-error", "compressed"),
        (Served(b"<!DOCTYPE html><title>A video</title>" + b" " * 600), "not-media", "a web page"),
        (
            Served(b"<script></script> " * 40, headers={"Content-Type": "text/html; charset=utf-8"}),
            *("not-media", "a web page"),
        ),
        (Served(b"#EXTM3U\n" * 100), "not-media", "a playlist"),
        (Served(b"<html>"), "not-media", "a web page"),
        (Served(b""), "not-media", "empty"),
        (Served(SOUND * 4), "too-large", "4000000 bytes"),
        (Served(SOUND * 4, has_length=False), "too-large", "4000000 bytes"),
    ],
)
def test_file_that_cannot_be_fetched_fails_its_job(
    system: System, server: FileServer, served: Served, code: str, word: str
) -> None:
    server.files["/talk.wav"] = served
    fetch(system, f"{server.url}/talk.wav", max_bytes=4_000_000)
    assert_failed(system, code, word)
    assert len(server.requests) == 1


def test_announced_length_is_refused_before_any_byte_is_read(system: System, server: FileServer) -> None:
    hold = threading.Event()
    server.files["/talk.wav"].hold = hold
    fetch(system, f"{server.url}/talk.wav", max_bytes=1000)
    hold.set()
    assert_failed(system, "too-large", "1000 bytes")


@pytest.mark.parametrize("has_length", [True, False])
def test_file_beyond_the_quota_fails_its_job(system: System, server: FileServer, has_length: bool) -> None:
    server.files["/talk.wav"].has_length = has_length
    fetch(system, f"{server.url}/talk.wav", quota=Quota(size=1_000_000))
    assert_failed(system, "quota-full", "You may store 1000000 bytes")


def test_file_of_unknown_length_is_fetched(system: System, server: FileServer) -> None:
    server.files["/talk.wav"].has_length = False
    fetch(system, f"{server.url}/talk.wav")
    assert_fetched(system)


def test_redirects_are_followed_to_allowed_addresses(system: System, server: FileServer) -> None:
    server.files["/a b"] = Served(status=302, headers={"Location": f"//127.0.0.1:{server.port}/talk.wav#x"})
    server.files["/start"] = Served(status=307, headers={"Location": "a b"})
    server.files["/a%20b"] = server.files["/a b"]
    fetch(system, f"{server.url}/start")
    assert_fetched(system)
    assert [request.path for request in server.requests] == ["/start", "/a%20b", "/talk.wav"]


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.2:{port}/talk.wav", "http://localhost.:{port}/", "http://169.254.169.254/latest/meta-data"),
        *("http://[::1]:{port}/talk.wav", "http://2130706433:{port}/talk.wav", "file:///etc/passwd", "ftp://x/y"),
        *("http://user:password@127.0.0.1:{port}/talk.wav", "http://[::ffff:127.0.0.1]:{port}/", "http://8.8.8.8:22/"),
        *("http://[", "//[::1", "http://[abc]/", "http://a:99999/"),
    ],
)
def test_redirect_to_a_private_address_is_refused(system: System, server: FileServer, location: str) -> None:
    server.files["/start"] = Served(status=302, headers={"Location": location.format(port=server.port)})
    fetch(system, f"{server.url}/start")
    assert_failed(system, "address-refused")
    assert [request.path for request in server.requests] == ["/start"]


def test_endless_redirects_end(system: System, server: FileServer) -> None:
    server.files["/start"] = Served(status=302, headers={"Location": "/start"})
    fetch(system, f"{server.url}/start")
    assert_failed(system, "too-many-redirects")
    assert len(server.requests) == 6


def test_name_that_resolves_to_a_private_address_is_refused(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    job = begin(system, "http://public.example/talk.wav")
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    attempt(system, job)
    assert_failed(system, "address-refused", "public internet")


@pytest.mark.parametrize(
    ("errno", "state", "code"), [(socket.EAI_NONAME, "failed", "host-unknown"), (socket.EAI_AGAIN, "fetching", None)]
)
def test_unknown_host(
    system: System, errno: int, state: str, code: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(errno, "no")

    job = begin(system, "https://nowhere.example/a.mp4")
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = attempt(system, job)
    assert (found.state, found.error_code) == (state, code)


def test_server_that_nobody_listens_on_is_left_alone(system: System) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = fetch(system, f"http://127.0.0.1:{port}/a.mp4")
    assert (found.state, found.lease, found.attempts) == ("fetching", None, 1)


def test_server_that_stops_sending_is_left_in_time(system: System, server: FileServer) -> None:
    hold = threading.Event()
    server.files["/talk.wav"].hold = hold
    job = begin(system, f"{server.url}/talk.wav")
    for _ in range(5):
        make_free(system)
        attempt(system, job, idle_seconds=0.1)
    hold.set()
    assert_failed(system, "timed-out", "0.1 seconds")


def test_server_that_never_completes_its_head_is_left_in_time(system: System, server: FileServer) -> None:
    hold = server.files["/talk.wav"].hold_head = threading.Event()
    job = begin(system, f"{server.url}/talk.wav")
    for _ in range(5):
        make_free(system)
        attempt(system, job, head_seconds=0.1)
    hold.set()
    assert_failed(system, "timed-out", "0.1 seconds")


def test_time_for_a_fetch_is_limited(system: System, server: FileServer) -> None:
    job = begin(system, f"{server.url}/talk.wav")
    jobs = metadata.tables["jobs"]
    with system.database.engine.begin() as connection:
        connection.execute(update(jobs).values(created_at=jobs.c.created_at - 12 * 60 * MINUTE))
    attempt(system, job)
    assert_failed(system, "timed-out", "12 hours")
    assert server.requests == []


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """Lets a server go on at the end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("where", ["hold_head", "hold"])
def test_worker_whose_job_is_deleted_leaves_its_server(
    system: System, server: FileServer, hold: threading.Event, where: str
) -> None:
    setattr(server.files["/talk.wav"], where, hold)
    terms = LeaseTerms(lease=5_000, renewal=50, due=10_000)
    job = begin(system, f"{server.url}/talk.wav")
    worker = Worker(system, job, fetches=Fetches(system.database, terms))
    worker.wait_until(lambda: bool(server.requests))
    if where == "hold":  # all of the file is reserved right before it is read
        worker.wait_until(lambda: system.rows("blobs")[0].size == len(SOUND))
    system.for_status().delete(job, ADA.user)
    worker.join(20)  # a server may send nothing for 30 seconds
    assert worker.has_lost_its_lease


class Worker(threading.Thread):
    """Makes an attempt in a thread of its own."""

    def __init__(self, system: System, job: JobId, **changes: Any) -> None:
        super().__init__(daemon=True)
        self._system = system
        self._job = job
        self._changes = changes
        self.has_lost_its_lease = False
        self.start()

    def run(self) -> None:
        try:
            attempt(self._system, self._job, **self._changes)
        except LeaseLost:
            self.has_lost_its_lease = True

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            assert self.is_alive()
            self.join(0.01)


def test_worker_whose_job_is_deleted_leaves_nothing(system: System, server: FileServer, hold: threading.Event) -> None:
    server.files["/talk.wav"].hold = hold
    job = begin(system, f"{server.url}/talk.wav")
    worker = Worker(system, job)
    worker.wait_until(lambda: bool(server.requests))
    system.for_status().delete(job, ADA.user)
    system.let_days_pass()
    hold.set()
    worker.join(20)
    assert worker.has_lost_its_lease
    system.let_days_pass()
    assert (system.blobs_on_disk(), system.count("blobs"), system.count("jobs")) == (set(), 0, 0)


def test_worker_whose_job_is_deleted_and_whose_store_fails_leaves_nothing(
    system: System, server: FileServer, hold: threading.Event
) -> None:
    """The store has kept what it was given, but its answer is lost."""
    server.files["/talk.wav"].hold = hold
    job = begin(system, f"{server.url}/talk.wav")
    failures: list[MediaUnavailable] = []

    class FailingAppender(MemoryAppender):
        def _put(self, first: int, blocks: list[bytes]) -> None:
            super()._put(first, blocks)
            raise MediaUnavailable

    class FailingStore(MemoryStore):
        def append(self, blob: str, checkpoint: Checkpoint, writer: int) -> MemoryAppender:
            return FailingAppender(self, blob, checkpoint, writer)

    class Fetching(Worker):
        def run(self) -> None:
            try:
                super().run()
            except MediaUnavailable as error:
                failures.append(error)

    store = FailingStore()
    worker = Fetching(system, job, media=Media(store, MemoryStore(), MemoryStore()))
    # All of the file is reserved once its blob is there, and before it is read.
    worker.wait_until(lambda: system.rows("blobs")[0].size == len(SOUND))
    system.for_status().delete(job, ADA.user)
    system.let_days_pass()
    hold.set()
    worker.join(20)
    assert failures
    assert (store.parts, store.blobs) == ({}, {})


def test_worker_whose_job_has_failed_meanwhile_leaves_nothing(
    system: System, server: FileServer, hold: threading.Event
) -> None:
    server.files["/talk.wav"].hold_head = hold
    job = begin(system, f"{server.url}/talk.wav")
    worker = Worker(system, job)
    worker.wait_until(lambda: bool(server.requests))
    system.let_a_day_pass()  # the worker is believed dead
    fetches = system.for_fetch().fetches
    successor = fetches.claim(job)
    assert successor is not None
    assert fetches.fail(successor, "The server does not send the file.")
    system.let_days_pass()
    hold.set()
    worker.join(20)
    assert worker.has_lost_its_lease
    assert (system.blobs_on_disk(), system.count("blobs")) == (set(), 0)
