"""What the functions answer a client that was disconnected since it sent too slowly, and what they keep."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Request, Response
from werkzeug.test import EnvironBuilder

from functions.http_endpoint import RequestTooSlow
from functions.register.main import register
from functions.state.schema import UserId
from functions.upload.dependencies import dependencies
from functions.upload.main import upload
from tests.support.calls import bearer, functions

WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(600_000)
USER = {"Authorization": bearer("ann"), "Tus-Resumable": "1.0.0"}


class Stalling:
    """A body of which some bytes arrive before the server gives up."""

    def __init__(self, arrived: bytes) -> None:
        self._arrived = io.BytesIO(arrived)

    def read(self, size: int = -1) -> bytes:
        data = self._arrived.read(size)
        if not data:
            raise RequestTooSlow
        return data


@pytest.fixture(autouse=True)
def settings(tmp_path: Path) -> Iterator[None]:
    with functions(tmp_path):
        yield


def send(
    function: Callable[[Request], object],
    method: str,
    path: str,
    arrived: bytes = b"",
    length: int = 0,
    **headers: str,
) -> Response:
    named = {**USER, **{name.replace("_", "-"): value for name, value in headers.items()}}
    environ = EnvironBuilder(path, method=method, headers=list(named.items())).get_environ()
    environ |= {"wsgi.input": Stalling(arrived), "CONTENT_LENGTH": str(length), "REMOTE_ADDR": "192.0.2.1"}
    environ["CONTENT_TYPE"] = headers.get("Content_Type", "")
    response = function(Request(environ))
    assert isinstance(response, Response)
    return response


def check_too_slow(response: Response) -> None:
    assert (response.status_code, response.content_type) == (408, "application/problem+json")
    assert "too slowly" in response.get_json(force=True)["detail"]


def test_small_request() -> None:
    check_too_slow(send(register, "POST", "/register", b'{"name": ', 100))


def test_upload_leaves_nothing_behind(tmp_path: Path) -> None:
    check_too_slow(send(upload, "POST", "/upload", WAV[:300_000], len(WAV), Content_Type="audio/wav"))
    assert dependencies().jobs.page(UserId("f" * 32), 10) == []
    assert [path for path in (tmp_path / "videos").rglob("*") if path.is_file()] == []


def test_resumable_upload_keeps_what_has_arrived() -> None:
    created = send(upload, "POST", "/files", Upload_Length=str(len(WAV)))
    path = created.headers["Location"]
    part = {"Upload_Offset": "0", "Content_Type": "application/offset+octet-stream"}
    check_too_slow(send(upload, "PATCH", path, WAV[:524_288], len(WAV), **part))
    offset = send(upload, "HEAD", path).headers["Upload-Offset"]
    assert int(offset) == 524_288
