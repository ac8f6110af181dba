"""Shares of an instance: whom they refuse, and what the functions do about it."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Response

from functions.download.main import dependencies as download_dependencies
from functions.shares import Shares, TooManyRequests
from functions.status.main import dependencies as status_dependencies
from functions.upload.dependencies import dependencies as upload_dependencies
from tests.support.calls import Call, bearer, functions

USER = "f" * 32
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(600)
HEADERS = {"Authorization": bearer("ann"), "Tus-Resumable": "1.0.0"}


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    with functions(tmp_path) as patch:
        patch.setenv("REQUESTS_PER_USER", "2")
        yield patch


def upload(**headers: str) -> Call:
    return Call("upload", "POST", "/upload", body=WAV, headers={**HEADERS, "Content-Type": "audio/wav", **headers})


def test_a_user_has_a_quarter_a_network_half_and_all_have_three_quarters() -> None:
    shares = Shares.from_environ({"THREADS": "32"})
    ends = [shares.take("ann", f"192.0.2.{n}") for n in range(8)]
    with pytest.raises(TooManyRequests):
        shares.take("ann", "192.0.2.9")
    ends += [shares.take(f"user {n}", f"2001:db8::{n}") for n in range(16)]
    with pytest.raises(TooManyRequests):
        shares.take("another user, all shares are taken", "192.0.2.9")
    for _ in range(2):
        ends[0]()
    shares.take("ann", "192.0.2.9")
    ends[1]()
    with pytest.raises(TooManyRequests):
        shares.take("user 16", "2001:db8::1:2:3:4")


def test_simultaneous_requests_get_no_more_than_the_share() -> None:
    shares = Shares(100, 5, 100)
    gate = threading.Barrier(20)
    taken = []

    def take() -> None:
        gate.wait(30)
        with contextlib.suppress(TooManyRequests):
            taken.append(shares.take("ann", "192.0.2.1"))

    threads = [threading.Thread(target=take) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(taken) == 5


@pytest.mark.usefixtures("settings")
def test_uploads_beyond_the_share_are_refused_before_their_body_is_read() -> None:
    ends = [upload_dependencies().shares.take(USER, "192.0.2.1") for _ in range(2)]
    refused = upload().send()
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert refused.headers["RateLimit-Policy"] == '"transfers";q=2;qu="concurrent-requests"'
    assert refused.headers["RateLimit"] == '"transfers";r=0;t=5'
    created = Call("upload", "POST", "/files", headers={**HEADERS, "Upload-Length": "620"}).send()
    assert created.status_code == 201
    part = {**HEADERS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    patch = Call("upload", "PATCH", created.headers["Location"], body=WAV, headers=part)
    assert patch.send().status_code == 429
    ends[0]()
    assert [upload().send().status_code for _ in range(3)] == [202] * 3
    ends[1]()
    assert upload().send().headers["RateLimit"].startswith('"transfers";r=1, "jobs";r=195, "storage";r=')
    accepted = patch.send()
    assert (accepted.status_code, accepted.headers["RateLimit"]) == (204, '"transfers";r=1')


@pytest.mark.usefixtures("settings")
def test_downloads_count_until_they_have_ended(settings: pytest.MonkeyPatch) -> None:
    fid = "0" * 24
    call = Call("download", "GET", "/download", f"fid={fid}", headers=HEADERS)
    assert [call.send().status_code for _ in range(3)] == [404] * 3
    settings.setattr("functions.download.main.find", lambda *_: ())
    settings.setattr("functions.download.main.respond", lambda _: Response(status=304))
    assert [call.send().status_code for _ in range(3)] == [304] * 3
    settings.setattr("functions.download.main.respond", lambda _: Response(iter([b"1"]), direct_passthrough=True))
    open_downloads = [call.send() for _ in range(2)]
    assert [each.headers["RateLimit"] for each in open_downloads] == ['"transfers";r=1', '"transfers";r=0']
    refused = call.send()
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    open_downloads[0].close()
    assert call.send().status_code == 200
    assert download_dependencies().shares is not upload_dependencies().shares


@pytest.mark.usefixtures("settings")
def test_waits_beyond_the_share_are_answered_at_once() -> None:
    job = upload().send().get_json()["job"]
    ends = [status_dependencies().shares.take(USER, "192.0.2.1") for _ in range(2)]
    wait = Call("status", "GET", f"/jobs/{job}", "wait=25", headers=HEADERS)
    answers: list[Response] = []
    thread = threading.Thread(target=lambda: answers.append(wait.send()))
    thread.start()
    thread.join(15)
    assert [answer.get_json()["status"] for answer in answers] == ["uploaded"]
    for end in ends:
        end()
