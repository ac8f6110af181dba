"""Uploads read as they come in: forms made by hand, with every fault, in pieces of every size."""

import io

import pytest
from flask import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from events.errors import Mp3burstError
from functions.http_endpoint import BadRequest, Unprocessable
from functions.options import Options
from functions.upload.multipart import ClientDisconnected, Form, parse_options, read
from functions.upload.sniff import UnsupportedMediaType

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
    """Gives a few bytes at a time; raises at the end where it is to break off."""

    def __init__(self, data: bytes, step: int, breaks: bool = False) -> None:
        self._data, self._step, self._breaks = memoryview(data), step, breaks

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        raise NotImplementedError

    def read(self, size: int = -1, /) -> bytes:
        size = min(self._step, size if size >= 0 else self._step)
        piece, self._data = bytes(self._data[:size]), self._data[size:]
        if not piece and self._breaks:
            raise ConnectionResetError
        return piece


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


def taken(form: Form) -> bytes:
    return b"".join(form.content)


def refusal(*parts: bytes) -> Mp3burstError:
    """What a form of these parts is refused for, at its beginning or while it is read."""
    with pytest.raises(Mp3burstError) as refused:
        taken(read(request(b"".join(parts))))
    return refused.value


@pytest.mark.parametrize("step", [1, 7, 64, 1 << 20])
def test_fields_before_and_behind_the_file(step: int) -> None:
    body = field("bitrate", "64k") + file(b"the\r\n--bytes\r\n--frontie") + field("vbr", " 2 ") + END
    form = read(request(body, step=step))
    assert form.fields == {"bitrate": "64k"}
    assert form.filename == "a.mp4"
    assert taken(form) == b"the\r\n--bytes\r\n--frontie"
    assert form.fields == {"bitrate": "64k", "vbr": "2"}


@given(content=st.binary(max_size=300), step=st.integers(1, 100))
@settings(max_examples=150)
def test_any_bytes_come_through_in_pieces_of_any_size(content: bytes, step: int) -> None:
    assert taken(read(request(file(content) + END, step=step))) == content


@pytest.mark.parametrize("cut", range(1, len(END) + 8))
def test_a_boundary_may_be_cut_anywhere(cut: int) -> None:
    """One read ends within the last boundary; werkzeug alone adds a CR to the file at one of these places."""
    body = file(b"HELLO") + END
    assert taken(read(request(body, step=len(body) - cut))) == b"HELLO"


def test_a_file_is_given_on_as_it_comes_in() -> None:
    form = read(request(file(bytes(5 << 20)) + END))
    assert max(len(piece) for piece in form.content) <= 2 << 20


def test_the_query_and_the_fields_are_one() -> None:
    form = read(request(field("track", "1") + file(b"x") + END, query="vbr=2&bitrate="))
    assert form.fields == {"vbr": "2", "bitrate": "", "track": "1"}
    assert parse_options(form.fields) == Options(vbr=2, track=1)


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
def test_a_form_of_the_wrong_fields_names_the_field(parts: list[bytes], culprit: str) -> None:
    error = refusal(*parts)
    assert isinstance(error, Unprocessable)
    assert error.fields.keys() == {culprit}


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
        "cut field",
        "no name",
        "endless header",
        "large",
        "huge",
        "many",
        "many behind",
    ],
)
def test_a_damaged_form(parts: list[bytes]) -> None:
    assert type(refusal(*parts)) is BadRequest


@pytest.mark.parametrize(
    "type_", ["", "text/plain", "application/json", "multipart/form-data", "multipart/mixed; boundary=a"]
)
def test_another_type(type_: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        read(request(b"x", type_))


@pytest.mark.parametrize("type_", ["video/mp4", "audio/x-wav", "VIDEO/MP4; codecs=avc1"])
def test_bare_bytes(type_: str) -> None:
    form = read(request(b"the bytes", type_, "filename=..%2Fa%20b.mp4&vbr=2", step=2))
    assert (form.filename, form.fields) == ("a b.mp4", {"vbr": "2"})
    assert taken(form) == b"the bytes"


@pytest.mark.parametrize("type_", ["video/mp4", f"multipart/form-data; boundary={BOUNDARY}"])
def test_a_client_that_goes_away(type_: str) -> None:
    with pytest.raises(ClientDisconnected):
        taken(read(request(file(b"x" * 100)[:-20], type_, step=50, breaks=True)))


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("Größe 日本.mp4", "Größe 日本.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\\\Users\\\\a.mp4", "a.mp4"),
        ("a\tb\x01\x7f.mp4", "ab.mp4"),
        ("\u202egpj.mp4", "gpj.mp4"),
        ("  a.mp4  ", "a.mp4"),
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
def test_file_names(given_name: str, kept: str) -> None:
    assert read(request(file(b"x", given_name) + END)).filename == kept


def test_file_names_as_other_clients_send_them() -> None:
    starred = file(b"x", "a.mp4", parameter="; filename*=UTF-8''%E6%97%A5%E6%9C%AC.mp4")
    assert read(request(starred + END)).filename == "日本.mp4"
    assert read(request(file(b"x", "a%22b.mp4") + END)).filename in ('a"b.mp4', "a%22b.mp4")
    assert read(request(field("filename", "b.mp4") + file(b"x") + END)).filename == "b.mp4"
