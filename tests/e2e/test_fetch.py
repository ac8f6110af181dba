"""Uploads by an address, on a platform of real processes and with a real server of files."""

import os
import signal
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from functions.auth.allowance import subject_id
from functions.state.database import Database
from functions.state.schema import logins
from tests.e2e.client import PASSWORD, Answer, Client, wave_bytes
from tests.e2e.test_client import Terminal
from tests.support.platform import Platform, start
from tests.support.processes import wait_for
from tests.support.servers.source import FileServer, Served

SOUND = wave_bytes(2)
#: So long that progress is saved before half of it is there.
LONG = SOUND + bytes(20 << 20)


@pytest.fixture(scope="module")
def fetching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that fetches files, also from 127.0.0.1."""
    env = {"FETCH_URLS": "on", "FETCH_NETWORKS": "127.0.0.1/32"}
    with start(tmp_path_factory.mktemp("fetching") / "data", env=env) as running:
        yield running


@pytest.fixture
def user(fetching: Platform) -> Client:
    return Client(fetching.url).sign_up()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/a.wav": Served(SOUND), "/long.wav": Served(LONG)}) as running:
        yield running


def begin(user: Client, url: str, **fields: str) -> dict[str, Any]:
    answer = user.post_json("/upload", {"url": url, **fields})
    assert answer.status == 202, answer.body
    created: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/jobs/{created['job']}"
    return created


def mp3_of_upload(user: Client, content: bytes, name: str) -> bytes:
    return user.download(user.convert(BytesIO(content), name)["mp3"]).body


def test_mp3_is_that_of_an_ordinary_upload(user: Client, server: FileServer) -> None:
    created = begin(user, f"{server.url}/a.wav", bitrate="128k")
    job = user.wait(created["job"])
    assert (job["status"], job["filename"], job["fid"]) == ("done", "a.wav", created["fid"])
    assert job["options"] == {"bitrate": 128}
    assert job["receipt"]["video_bytes"] == len(SOUND)
    assert 0 <= job["receipt"]["fetch"] < 60
    ordinary = user.wait(user.upload(BytesIO(SOUND), "a.wav", {"bitrate": "128k"})["job"])
    assert ordinary["receipt"]["fetch"] is None
    assert user.download(job["mp3"]).body == user.download(ordinary["mp3"]).body


def test_one_key_makes_one_job(user: Client, server: FileServer) -> None:
    body = b'{"url": "%s/a.wav"}' % server.url.encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": "once"}
    answers = [user.call("POST", "/upload", body, headers) for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()


def test_progress_is_shown_and_a_deletion_stops_it(fetching: Platform, user: Client, server: FileServer) -> None:
    file = server.files["/long.wav"]
    file.hold = threading.Event()
    file.hold_at = len(LONG) // 2
    job = begin(user, f"{server.url}/long.wav")["job"]
    try:
        shown = wait_for(lambda: (found := user.job(job))["progress"] >= 0.4 and found, "half of the file", 20)
        assert (shown["status"], shown["stage"], shown["eta"], shown["mp3"]) == ("fetching", "fetching", None, None)
        assert shown["progress"] <= 0.5
        assert user.call("DELETE", f"/jobs/{job}").status == 204
        wait_for(lambda: not any(one["inflight"] for one in fetching.instances("fetch")), "the end of the fetch", 30)
    finally:
        file.hold.set()
    assert user.jobs()["jobs"] == []


def test_killed_fetch_continues_where_it_was(fetching: Platform, user: Client, server: FileServer) -> None:
    expected = mp3_of_upload(user, LONG, "long.wav")
    file = server.files["/long.wav"]
    file.hold = threading.Event()
    file.hold_at = len(LONG) // 2
    job = begin(user, f"{server.url}/long.wav")["job"]
    wait_for(lambda: user.job(job)["progress"] >= 0.4, "half of the file", 20)
    [busy] = [one for one in fetching.instances("fetch") if one["inflight"]]
    os.kill(busy["pid"], signal.SIGKILL)
    file.hold.set()
    file.hold = None
    ended = user.wait(job, 90)
    assert (ended["status"], ended["error"]) == ("done", None)
    assert user.download(ended["mp3"]).body == expected
    start_of_rest = int((server.requests[-1].range or "bytes=0-").removeprefix("bytes=").rstrip("-"))
    assert 8 << 20 <= start_of_rest <= len(LONG) // 2
    assert len(server.requests) == 2


def test_file_that_is_not_there_fails_its_job_with_a_code(user: Client, server: FileServer) -> None:
    job = user.wait(begin(user, f"{server.url}/other.wav")["job"])
    assert (job["status"], job["error_code"]) == ("failed", "source-not-found")
    assert "404" in job["error"]


def test_page_is_refused(user: Client, server: FileServer) -> None:
    server.files["/watch"] = Served(b"<!doctype html><p>A video", headers={"Content-Type": "text/html"})
    job = user.wait(begin(user, f"{server.url}/watch?v=1")["job"])
    assert (job["status"], job["error_code"]) == ("failed", "not-media")
    assert "a web page" in job["error"]


def test_redirect_to_a_private_address_is_refused(user: Client, server: FileServer) -> None:
    server.files["/start"] = Served(status=302, headers={"Location": f"http://127.0.0.2:{server.port}/a.wav"})
    job = user.wait(begin(user, f"{server.url}/start")["job"])
    assert (job["status"], job["error_code"]) == ("failed", "address-refused")
    assert [request.path for request in server.requests] == ["/start"]


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.2/a.mp4", "http://169.254.169.254/latest/meta-data", "http://[::1]/a.mp4", "ftp://x/a.mp4"),
        *("http://2130706433/a.mp4", "https://user:password@example.org/a.mp4", "file:///etc/passwd", "x", ""),
    ],
)
def test_addresses_that_are_not_allowed_are_refused_at_once(user: Client, url: str) -> None:
    assert "url" in user.post_json("/upload", {"url": url}).problem(422)["errors"]
    assert user.jobs()["jobs"] == []


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "url"),
        ({"url": 5}, "url"),
        ({"url": "https://example.org/a.mp4", "bitrate": "5k"}, "bitrate"),
        ({"url": "https://example.org/a.mp4", "mono": True}, "mono"),
        ({"url": "https://example.org/a.mp4", "colour": "red"}, "colour"),
        ({"url": "https://example.org/a.mp4", "callback": "http://10.0.0.1/"}, "callback"),
    ],
)
def test_invalid_fields_are_named(user: Client, fields: dict[str, Any], wrong: str) -> None:
    assert wrong in user.post_json("/upload", fields).problem(422)["errors"]


@pytest.fixture
def terminal(fetching: Platform, user: Client, tmp_path: Path) -> Terminal:
    found = Terminal(tmp_path, fetching.url)
    found.mp3burst("login", fetching.url, "--username", user.username, typed=f"{PASSWORD}\n")
    return found


def test_command_converts_a_file_at_an_address(terminal: Terminal, user: Client, server: FileServer) -> None:
    server.files["/My talk.wav"] = server.files["/My%20talk.wav"] = Served(SOUND)
    url = f"{server.url}/My%20talk.wav?x=1"
    (done,) = terminal.json("convert", url, "--bitrate", "128k")
    assert (done["file"], done["status"], done["mp3"]) == (url, "done", "My talk.mp3")
    job = user.job(done["job"])
    assert (job["options"], job["filename"]) == ({"bitrate": 128}, "My talk.wav")
    assert (terminal.home / "My talk.mp3").read_bytes() == user.download(job["mp3"]).body
    _, err = terminal.mp3burst("convert", url, status=1)
    assert "My talk.mp3 exists" in err
    _, err = terminal.mp3burst("convert", f"{server.url}/other.wav", status=1)
    assert "404" in err
    _, err = terminal.mp3burst("convert", url, "--local", "-o", "/", status=1)
    assert "Only a server" in err


def test_killed_command_finds_its_job_again(terminal: Terminal, user: Client, server: FileServer) -> None:
    file = server.files["/a.wav"]
    file.hold = threading.Event()
    url = f"{server.url}/a.wav"
    process = terminal.start("convert", url)
    wait_for(lambda: user.jobs()["jobs"], "the job")
    process.kill()
    process.communicate()
    file.hold.set()
    (done,) = terminal.json("convert", url)
    assert [job["job"] for job in user.jobs()["jobs"]] == [done["job"]]
    (again,) = terminal.json("convert", url, "--overwrite")
    assert again["job"] != done["job"]


def test_user_who_has_had_too_many_files_fetched_waits(fetching: Platform, user: Client, server: FileServer) -> None:
    begin(user, f"{server.url}/a.wav")
    full = logins.update().values(clears_at=logins.c.clears_at + 2_000_001)
    database = Database(f"sqlite:///{fetching.data / 'mp3burst.db'}")
    mine = full.where(logins.c.subject == subject_id("fetches", user.user))
    database.run(lambda connection: connection.execute(mine))
    database.close()
    answer = user.post_json("/upload", {"url": f"{server.url}/a.wav"})
    answer.problem(429)
    assert int(answer.headers["Retry-After"]) <= 20
    assert len(user.jobs()["jobs"]) == 1


def refused(answer: Answer) -> str:
    detail: str = answer.problem(403)["detail"]
    return detail


def test_server_that_does_not_fetch_says_so(platform: Platform, tmp_path: Path) -> None:
    me = Client(platform.url).sign_up()
    assert "does not fetch" in refused(me.post_json("/upload", {"url": "https://example.org/a.mp4"}))
    assert "does not fetch" in refused(me.post_json("/upload", {}))
    terminal = Terminal(tmp_path, platform.url)
    terminal.mp3burst("login", platform.url, "--username", me.username, typed=f"{PASSWORD}\n")
    _, err = terminal.mp3burst("convert", "https://example.org/a.mp4", status=1)
    assert "This server does not fetch files from addresses: download the file, and upload it." in err
