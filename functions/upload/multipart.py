"""Parses POST /upload as it arrives: the form's fields, and its one file chunk by chunk."""

import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, Final
from urllib.parse import parse_qsl

from flask import Request
from werkzeug import exceptions
from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from functions import code_pages
from functions.file_names import base_name
from functions.http_endpoint import BadRequest, Unprocessable
from functions.options import Options
from functions.sniff import UnsupportedMediaType
from functions.state.presets import Presets
from functions.state.schema import UserId

#: Bytes that are read at a time.
_CHUNK_SIZE: Final = 256 << 10
#: Bytes that are read at a time where a form's file has not begun.
_FIRST_CHUNK_SIZE: Final = 16 << 10
#: Bytes that the decoder may buffer: two chunks, and what it could not parse yet of the one before.
_MAX_BUFFER: Final = 3 * _CHUNK_SIZE
#: Bytes at the end of a chunk that may belong to a boundary, which has up to 70 characters (RFC 2046, 5.1.1).
_BOUNDARY_TAIL: Final = 256
_MAX_BOUNDARY: Final = 70
#: Bytes of a field's value: a file name is the longest.
_MAX_FIELD_SIZE: Final = 4 << 10
#: Characters of a field's name.
_MAX_FIELD_NAME: Final = 64
_MAX_PARTS: Final = 50
#: Bytes that a form may have in addition to its file's. The headers of a part cost 0.4 us of CPU time per byte.
MAX_OVERHEAD: Final = 64 << 10
#: A backslash in a header, and what it escapes. Browsers and curl 7.81 and later escape nothing: before any other
#: character it is one of a Windows path.
_BACKSLASH: Final = re.compile(rb'\\([\\"]?)')
#: How bytes that are not UTF-8 are kept until their code page is known (PEP 383).
_ESCAPED: Final = "surrogateescape"
#: The name of the form's field that has the file.
FILE_FIELD: Final = "file"


class ClientDisconnected(BadRequest):
    """The connection was lost before the client had sent everything."""


@dataclass
class Form:
    """An upload that is arriving.

    Attributes:
        filename: the file's base name.
        fields: the fields before the file; those after it are added while ``content`` is read.
        content: the file's bytes in chunks.
        overhead: the maximum number of bytes in the request that are not the file's.
    """

    filename: str
    fields: dict[str, str]
    content: Iterator[bytes]
    overhead: int = 0


def read(request: Request) -> Form:
    """Parses an upload up to its file; the file is read through the form's ``content``.

    Raises:
        UnsupportedMediaType: the Content-Type is neither multipart/form-data nor video/* nor audio/*.
        Unprocessable: there is no file, or a file in a field with another name than ``file``. Reading ``content`` to
            the end raises it for a second file and for a field that was sent twice.
        BadRequest: the form is malformed; also while ``content`` is read.
        ClientDisconnected: the connection was lost; also while ``content`` is read.
    """
    fields = query_fields(request)
    content_type, parameters = parse_options_header(request.headers.get("Content-Type"))
    content_type = content_type.lower()
    boundary = parameters.get("boundary", "").encode("latin-1", "replace")
    if content_type == "multipart/form-data" and 1 <= len(boundary) <= _MAX_BOUNDARY:
        events = _events(request.stream, boundary)
        name = _read_up_to_file(events, fields)
        return Form(base_name(fields.pop("filename", "") or name), fields, _content(events, fields), MAX_OVERHEAD)
    if content_type.startswith(("video/", "audio/")):
        return Form(base_name(fields.pop("filename", "")), fields, _chunks(request.stream))
    raise UnsupportedMediaType(
        f"Send a multipart/form-data form with the video in the field {FILE_FIELD}, "
        "or the video itself with a video/* or audio/* Content-Type."
    )


def query_fields(request: Request) -> dict[str, str]:
    """Returns the fields of the query; the first of each name."""
    fields: dict[str, str] = {}
    for name, value in parse_qsl(request.query_string.decode("latin-1"), keep_blank_values=True, errors=_ESCAPED):
        fields.setdefault(_decoded(name), _decoded(value))
    return fields


def _decoded(text: str) -> str:
    """Decodes what was not UTF-8, as file names from curl on Windows are not."""
    return code_pages.decode_all([text])[0]


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    received = 0
    while True:
        try:
            chunk = stream.read(_FIRST_CHUNK_SIZE if received < MAX_OVERHEAD else _CHUNK_SIZE)
        except (exceptions.ClientDisconnected, OSError) as error:
            raise ClientDisconnected("The connection was lost: send the file again.") from error
        if not chunk:
            return
        received += len(chunk)
        yield chunk


def _events(stream: IO[bytes], boundary: bytes) -> Iterator[Event]:
    decoder = _Decoder(boundary)
    for chunk in itertools.chain(_with_complete_boundaries(_chunks(stream), boundary), (None,)):
        with _translated_errors():
            decoder.receive_data(chunk)
        while True:
            with _translated_errors():
                event = decoder.next_event()
            if isinstance(event, NeedData):
                break
            yield event
            if isinstance(event, Epilogue):
                return


class _Decoder(MultipartDecoder):
    """Refuses a form that has more than MAX_OVERHEAD bytes in addition to its first file.

    Accepts file names with bytes that are not UTF-8 or with backslashes that escape nothing, unlike Werkzeug 3.1.
    """

    def __init__(self, boundary: bytes) -> None:
        super().__init__(boundary, max_form_memory_size=_MAX_BUFFER, max_parts=_MAX_PARTS)
        self._overhead = 0
        self._is_in_file = False
        self._has_file = False

    def next_event(self) -> Event:
        """Returns the next event. Raises RequestEntityTooLarge if the form is too long, ValueError if malformed."""
        buffered = len(self.buffer)
        # If the headers of the next part end within the limit, its event says more: it may be a second file.
        if self._has_file and not self._is_in_file and self.buffer.find(b"\r\n\r\n", 0, MAX_OVERHEAD) < 0:
            self._check(buffered)
        event = super().next_event()
        if not self._is_in_file:
            self._overhead += buffered - len(self.buffer)
            self._check(len(self.buffer) if isinstance(event, NeedData) else 0)
        if isinstance(event, File):
            event = replace(event, name=_decoded(event.name or ""), filename=_decoded(event.filename))
            self._has_file = True
            self._is_in_file = True
        elif isinstance(event, Field):
            event = replace(event, name=_decoded(event.name or ""))
        elif isinstance(event, Data) and not event.more_data:
            self._is_in_file = False
        return event

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        headers = super()._parse_headers(_BACKSLASH.sub(_escaped, data).decode("latin-1").encode())
        return Headers([(name, value.encode("latin-1").decode("utf-8", _ESCAPED)) for name, value in headers])

    def _check(self, buffered: int) -> None:
        if self._overhead + buffered > MAX_OVERHEAD:
            raise RequestEntityTooLarge


def _escaped(backslash: re.Match[bytes]) -> bytes:
    return backslash[0] if backslash[1] else rb"\\"


def _with_complete_boundaries(chunks: Iterator[bytes], boundary: bytes) -> Iterator[bytes]:
    """Yields the same bytes, in chunks that never end directly after a boundary.

    Werkzeug 3.1's decoder would take the CR before such a boundary for the last byte of the file.
    """
    ends_after_boundary = re.compile(rb"--%s(?:-|[ \t]{1,64})\Z" % re.escape(boundary))
    pending = b""
    tail = b""
    for chunk in chunks:
        pending += chunk
        tail = (tail + chunk[-_BOUNDARY_TAIL:])[-_BOUNDARY_TAIL:]
        if len(pending) > _CHUNK_SIZE or not ends_after_boundary.search(tail):
            yield pending
            pending = b""
    yield pending


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Turns the decoder's errors into BadRequest."""
    try:
        yield
    except RequestEntityTooLarge as error:
        raise BadRequest(
            "The form has too many fields, or its headers are too long: send only the file and its options."
        ) from error
    except ValueError as error:
        raise BadRequest("The form is malformed: send multipart/form-data as defined in RFC 7578.") from error


def _read_up_to_file(events: Iterator[Event], fields: dict[str, str]) -> str:
    """Adds the fields before the file to ``fields`` and returns the file's name."""
    for event in events:
        if isinstance(event, File):
            if event.name != FILE_FIELD:
                name = event.name[:_MAX_FIELD_NAME]
                raise Unprocessable(
                    f"Send the video in the field {FILE_FIELD}.", {name: f"must be called {FILE_FIELD}"}
                )
            return event.filename
        if isinstance(event, Field):
            _read_field(event.name, events, fields)
    raise Unprocessable(f"The form has no file: send the video in the field {FILE_FIELD}.", {FILE_FIELD: "is missing"})


def _content(events: Iterator[Event], fields: dict[str, str]) -> Iterator[bytes]:
    """Yields the file's bytes, then adds the fields after it to ``fields``."""
    for event in events:
        if isinstance(event, Data):
            yield bytes(event.data)
        elif isinstance(event, File):
            name = event.name[:_MAX_FIELD_NAME]
            raise Unprocessable("The form has two files: send one at a time.", {name: "is a second file"})
        elif isinstance(event, Field):
            _read_field(event.name, events, fields)


def _read_field(name: str, events: Iterator[Event], fields: dict[str, str]) -> None:
    if name == FILE_FIELD:
        raise Unprocessable(
            f"The field {FILE_FIELD} is not a file: send it with a file name.",
            {FILE_FIELD: "must be a file with a file name"},
        )
    if len(name) > _MAX_FIELD_NAME:
        raise BadRequest(f"The name of a field is too long: the limit is {_MAX_FIELD_NAME} characters.")
    if name in fields:
        raise Unprocessable(f"The field {name} was sent twice: send it once.", {name: "was sent twice"})
    value = b""
    for event in events:
        if isinstance(event, Data):
            value += event.data
            if len(value) > _MAX_FIELD_SIZE:
                raise BadRequest(f"The field {name} is too long: the limit is {_MAX_FIELD_SIZE} bytes.")
            if not event.more_data:
                break
    fields[name] = code_pages.decode(value).strip()


def parse_options(fields: Mapping[str, str], presets: Presets, owner: UserId) -> Options:
    """Returns the options that the fields ask for. Empty fields, which web forms send too, are ignored.

    Args:
        fields: the options, and a preset.
        presets: the presets of users.
        owner: who uploads.

    Raises:
        BadOption: an option or the preset is unknown, or a value is invalid.
    """
    expanded = presets.expand(fields, owner)
    return Options.from_form({name: value for name, value in expanded.items() if value})
