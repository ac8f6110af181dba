"""Parsing of POST /upload: hand-made forms, with every fault, in chunks of every size."""

import base64
import io
from urllib.parse import quote

import pytest
from flask import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from events.errors import Mp3burstError
from functions.http_endpoint import BadRequest, Unprocessable
from functions.sniff import UnsupportedMediaType
from functions.upload.multipart import ClientDisconnected, Form, read
from functions.upload.tus.headers import parse_metadata

BOUNDARY = "frontier"
END = f"--{BOUNDARY}--\r\n".encode()


def field(name: str, value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + data + b"\r\n"


def file(content: bytes, filename: str = "a.mp4", name: str = "file", parameter: str = "") -> bytes:
    disposition = f'form-data; name="{name}"; filename="{filename}"{parameter}'
    head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\nContent-Type: video/mp4\r\n\r\n"
    return head.encode() + content + b"\r\n"


class Trickle(io.RawIOBase):
    """A stream that returns a few bytes per read, and may raise ConnectionResetError in place of its end."""

    def __init__(self, data: bytes, step: int, breaks: bool = False) -> None:
        self._data = memoryview(data)
        self._step = step
        self._breaks = breaks

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        raise NotImplementedError

    def read(self, size: int = -1, /) -> bytes:
        size = min(self._step, size if size >= 0 else self._step)
        chunk = bytes(self._data[:size])
        self._data = self._data[size:]
        if not chunk and self._breaks:
            raise ConnectionResetError
        return chunk


def request(
    body: bytes,
    type_: str = f"multipart/form-data; boundary={BOUNDARY}",
    query: str = "",
    step: int = 1 << 20,
    breaks: bool = False,
) -> Request:
    environ = EnvironBuilder("/upload", query_string=query, method="POST").get_environ()
    environ.pop("CONTENT_LENGTH", None)
    environ |= {"CONTENT_TYPE": type_, "wsgi.input": Trickle(body, step, breaks), "wsgi.input_terminated": True}
    return Request(environ)


def content_of(form: Form) -> bytes:
    return b"".join(form.content)


def refusal(*parts: bytes) -> Mp3burstError:
    """Returns the error that a form of these parts raises, at once or while its content is read."""
    with pytest.raises(Mp3burstError) as refused:
        content_of(read(request(b"".join(parts))))
    return refused.value


@pytest.mark.parametrize("step", [1, 7, 64, 1 << 20])
def test_fields_before_and_after_the_file(step: int) -> None:
    body = field("bitrate", "64k") + file(b"the\r\n--bytes\r\n--frontie") + field("vbr", " 2 ") + END
    form = read(request(body, step=step))
    assert form.fields == {"bitrate": "64k"}
    assert form.filename == "a.mp4"
    assert content_of(form) == b"the\r\n--bytes\r\n--frontie"
    assert form.fields == {"bitrate": "64k", "vbr": "2"}


@given(content=st.binary(max_size=300), step=st.integers(1, 100))
@settings(max_examples=150)
def test_any_content_is_parsed_from_chunks_of_any_size(content: bytes, step: int) -> None:
    assert content_of(read(request(file(content) + END, step=step))) == content


@pytest.mark.parametrize("rest", range(1, len(END) + 8))
def test_a_read_may_end_anywhere_within_a_boundary(rest: int) -> None:
    """At one of these positions werkzeug alone adds a CR to the file."""
    body = file(b"HELLO") + END
    assert content_of(read(request(body, step=len(body) - rest))) == b"HELLO"


def test_a_file_is_yielded_as_it_arrives() -> None:
    form = read(request(file(bytes(5 << 20)) + END))
    assert max(len(chunk) for chunk in form.content) <= 2 << 20


def test_query_parameters_and_form_fields_are_merged() -> None:
    form = read(request(field("track", "1") + file(b"x") + END, query="vbr=2&bitrate="))
    assert form.fields == {"vbr": "2", "bitrate": "", "track": "1"}


@pytest.mark.parametrize(
    ("parts", "culprit"),
    [
        ([END], "file"),
        ([field("bitrate", "64k"), END], "file"),
        ([field("file", "a.mp4"), END], "file"),
        ([file(b"x"), file(b"y"), END], "file"),
        ([file(b"x"), file(b"y", name="other"), END], "other"),
        ([file(b"x", name="video"), END], "video"),
        ([field("vbr", "1"), field("vbr", "1"), file(b"x"), END], "vbr"),
        ([field("vbr", "1"), file(b"x"), field("vbr", "2"), END], "vbr"),
        ([file(b"x"), field("file", "y"), END], "file"),
    ],
)
def test_a_wrong_field_is_named_in_the_error(parts: list[bytes], culprit: str) -> None:
    error = refusal(*parts)
    assert isinstance(error, Unprocessable)
    assert error.fields.keys() == {culprit}


@pytest.mark.parametrize("size", [100, 30_000, 100_000, 371_612, 600_000])
def test_a_second_file_of_any_size_is_named(size: int) -> None:
    error = refusal(file(bytes(size), "a.mp4"), file(bytes(size), "b.mp4"))
    assert isinstance(error, Unprocessable)
    assert error.fields == {"file": "is a second file"}


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [file(b"x")],
        [file(b"x")[:-2]],
        [field("vbr", "1")[:-4]],
        [f"--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nx\r\n".encode(), END],
        [f"--{BOUNDARY}\r\nX: ".encode(), b"x" * (3 << 20)],
        [field("vbr", b"1" * (17 << 10)), file(b"x"), END],
        [field("vbr", b"1" * (3 << 20)), file(b"x"), END],
        [*(field(f"f{n}", "") for n in range(60)), file(b"x"), END],
        [file(b"x"), *(field(f"f{n}", "") for n in range(60)), END],
    ],
    ids=[
        "nothing",
        "no end",
        "no line end",
        "truncated field",
        "no name",
        "endless header",
        "large",
        "huge",
        "many",
        "many after the file",
    ],
)
def test_a_malformed_form_is_refused(parts: list[bytes]) -> None:
    assert type(refusal(*parts)) is BadRequest


@pytest.mark.parametrize(
    "type_", ["", "text/plain", "application/json", "multipart/form-data", "multipart/mixed; boundary=a"]
)
def test_another_content_type_is_refused(type_: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        read(request(b"x", type_))


@pytest.mark.parametrize("type_", ["video/mp4", "audio/x-wav", "VIDEO/MP4; codecs=avc1"])
def test_a_file_without_a_form(type_: str) -> None:
    form = read(request(b"the bytes", type_, "filename=..%2Fa%20b.mp4&vbr=2", step=2))
    assert (form.filename, form.fields) == ("a b.mp4", {"vbr": "2"})
    assert content_of(form) == b"the bytes"


@pytest.mark.parametrize("type_", ["video/mp4", f"multipart/form-data; boundary={BOUNDARY}"])
def test_a_lost_connection_raises_client_disconnected(type_: str) -> None:
    with pytest.raises(ClientDisconnected):
        content_of(read(request(file(b"x" * 100)[:-20], type_, step=50, breaks=True)))


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("Größe 日本.mp4", "Größe 日本.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\\\Users\\\\a.mp4", "a.mp4"),
        ("a\tb\x01\x7f.mp4", "ab.mp4"),
        ("\u202egpj.mp4", "gpj.mp4"),
        ("  a.mp4  ", "a.mp4"),
        ("C:\\Users\\me\\Video 1.mp4", "Video 1.mp4"),  # nothing is escaped: Windows programs, curl 7.81 and later
        ('a\\"b.mp4', 'a"b.mp4'),
        ("👨\u200d👩\u200d👧.mp4", "👨\u200d👩\u200d👧.mp4"),
        ("می\u200cخواهم.mp4", "می\u200cخواهم.mp4"),  # noqa: RUF001
        ("\u200d.mp4\u200c", ".mp4"),
        ("a\u2066b\u2069\u200e\ufeff\u2028.mp4", "ab.mp4"),
        ("10.22.11\u202fAM\u3000東京.mov", "10.22.11\u202fAM\u3000東京.mov"),  # macOS, Japanese
        ("\U0001fae8\uf8ff.mp4", "\U0001fae8\uf8ff.mp4"),  # an emoji newer than Python's Unicode, Apple's logo
        ("", "upload"),
        ("...", "..."),
        ("/", "upload"),
        ("x" * 300 + ".mp4", "x" * 251 + ".mp4"),
        ("x" * 300, "x" * 255),
        ("a." + "x" * 300, ("a." + "x" * 300)[:255]),
        ("a' or 1=1; --.mp4", "a' or 1=1; --.mp4"),
        ("<script>.mp4", "<script>.mp4"),
    ],
)
def test_file_names_are_reduced_to_a_safe_base_name(given_name: str, expected: str) -> None:
    assert read(request(file(b"x", given_name) + END)).filename == expected


@pytest.mark.parametrize(
    ("code_page", "name"),
    [
        ("cp1252", "café.mp4"),
        ("cp1252", "Größe 1.mp4"),
        ("cp1250", "Święta noc.mp4"),
        ("cp1251", "Группа крови.mp4"),
        ("cp932", "ソング 表.mp4"),  # has backslashes as second bytes
        ("gb18030", "月亮代表我的心.mp4"),
    ],
)
def test_file_names_in_the_code_page_of_a_windows_client_are_decoded(code_page: str, name: str) -> None:
    data = name.encode(code_page)
    body = file(b"x", "NAME") + END
    assert read(request(body.replace(b"NAME", data))).filename == name
    assert read(request(field("filename", "NAME").replace(b"NAME", data) + body)).filename == name
    assert read(request(b"x", "video/mp4", f"filename={quote(data)}")).filename == name
    metadata = f"filename {base64.b64encode(data).decode()}"
    assert parse_metadata(metadata)[0] == name


def test_file_names_in_the_forms_that_other_clients_send() -> None:
    starred = file(b"x", "a.mp4", parameter="; filename*=UTF-8''%E6%97%A5%E6%9C%AC.mp4")
    assert read(request(starred + END)).filename == "日本.mp4"
    assert read(request(file(b"x", "a%22b.mp4") + END)).filename in ('a"b.mp4', "a%22b.mp4")
    assert read(request(field("filename", "b.mp4") + file(b"x") + END)).filename == "b.mp4"
