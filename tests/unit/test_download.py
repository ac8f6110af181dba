"""File names and byte ranges of downloads, without a store."""

import re
from urllib.parse import unquote

import pytest
from flask import Request, Response
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from events.schema import JobId
from functions.download.main import disposition, respond
from functions.media import BlobId, Description, new_blob_id
from functions.options import Options
from functions.state.jobs import Job
from functions.state.schema import UserId
from tests.support.fakes import MemoryStore

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)
BLOB = BlobId("5a" * 12)
ETAG = f'"{BLOB}"'
JOB = Job(JobId("j"), UserId("o"), "a.mp4", Options(), "done", new_blob_id(), BLOB, 0, 0, None, None, 1.0, 0, 0)


def ask(method: str = "GET", **headers: str) -> Response:
    store = MemoryStore()
    with store.create(BLOB, Description("o", "j", "a.mp3", "audio/mpeg")) as writer:
        writer.write(CONTENT)
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    request = Request(EnvironBuilder("/download", method=method, headers=named).get_environ())
    return respond(request, JOB, store.open(BLOB))


def body_of(answer: Response) -> bytes:
    return b"".join(bytes(chunk) for chunk in answer.iter_encoded())


def test_complete_download() -> None:
    answer = ask()
    assert (answer.status_code, body_of(answer)) == (200, CONTENT)
    assert answer.headers["Content-Length"] == str(SIZE)
    assert answer.headers["ETag"] == ETAG
    assert ask("HEAD").headers["Content-Length"] == str(SIZE)


@pytest.mark.parametrize(
    ("requested", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1-2", 1, 3),
        ("bytes=100-", 100, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes=0-{SIZE}", 0, SIZE),
        ("bytes=5-999999999999", 5, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        (f"bytes=-{SIZE}", 0, SIZE),
        (f"bytes=-{SIZE + 1}", 0, SIZE),
        ("Bytes = 3 - 4 ", 3, 5),
    ],
)
def test_range(requested: str, start: int, stop: int) -> None:
    answer = ask(Range=requested)
    assert (answer.status_code, body_of(answer)) == (206, CONTENT[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("requested", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0"])
def test_range_beyond_the_end_is_not_satisfiable(requested: str) -> None:
    answer = ask(Range=requested)
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "requested",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=2-1",
        "bytes=a-",
        "lines=0-1",
        "bytes=0-1,3-4",
        "bytes=+1-2",
        "bytes=٣-٤",
    ],
)
def test_invalid_and_multiple_ranges_are_ignored(requested: str) -> None:
    answer = ask(Range=requested) if requested.isascii() else ask(Range=requested.encode().decode("latin-1"))
    assert (answer.status_code, body_of(answer)) == (200, CONTENT)


@given(st.text(alphabet="bytes=0123456789-, ", max_size=40))
def test_any_range_header_gets_a_valid_status(requested: str) -> None:
    assert ask(Range=requested).status_code in (200, 206, 416)


@pytest.mark.parametrize(
    ("condition", "status"),
    [(ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200), (BLOB, 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)],
)
def test_if_range(condition: str, status: int) -> None:
    assert ask(Range="bytes=0-0", If_Range=condition).status_code == status


@pytest.mark.parametrize(
    ("condition", "status"), [(ETAG, 304), (f"W/{ETAG}", 304), (f'"a", {ETAG}', 304), ("*", 304), ('"a"', 200)]
)
def test_if_none_match(condition: str, status: int) -> None:
    assert ask(If_None_Match=condition).status_code == status


@pytest.mark.parametrize(
    ("name", "ascii_name"),
    [
        ("a.mp3", "a.mp3"),
        ("Größe.mp3", "Groe.mp3"),
        ("日本.mp3", "audio.mp3"),
        ('a"b\\c.mp3', "abc.mp3"),
        ("a%41.mp3", "a41.mp3"),
        ("a;b=c.mp3", "a;b=c.mp3"),
        ("a\r\nX: y.mp3", "aX: y.mp3"),
        ("", "audio.mp3"),
    ],
)
def test_ascii_file_name(name: str, ascii_name: str) -> None:
    assert disposition(name).startswith(f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_disposition_is_one_safe_line_that_encodes_the_name(name: str) -> None:
    found = re.fullmatch(
        r"attachment; filename=\"([ !#-\[\]-~]+)\"; filename\*=UTF-8''([A-Za-z0-9%._~-]*)", disposition(name)
    )
    assert found
    assert unquote(found[2]) == name
