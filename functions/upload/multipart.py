"""Reads an upload as it comes in: the fields, and the one file piece by piece."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Final

from flask import Request
from werkzeug import exceptions
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from events.errors import Mp3burstError
from functions.http_endpoint import BadRequest, Unprocessable
from functions.options import BadOption, Options

_CHUNK: Final = 256 << 10
#: What the decoder may hold: two chunks, and what it could not use of the one before.
_BUFFER: Final = 3 * _CHUNK
#: As much of the end of a chunk as may belong to a boundary: it has up to 70 characters (RFC 2046, 5.1.1).
_TAIL: Final = 256
_FIELD_BYTES: Final = 16 << 10
_PARTS: Final = 50
#: Bytes that a form may have beside its file.
BESIDE: Final = 1 << 20
FILE: Final = "file"


class ClientDisconnected(BadRequest):
    """The client went away before it had sent everything."""


class WrongType(Mp3burstError):
    """What was sent is neither a form with a file nor audio or video."""

    status = 415


class Form:
    """An upload that is coming in. ``fields`` has what stood before the file, and fills up while the file is read.

    ``beside`` is how many bytes of the request, at most, are not the file's.
    """

    def __init__(self, filename: str, fields: dict[str, str], content: Iterator[bytes], beside: int = 0) -> None:
        self.filename, self.fields, self.content, self.beside = filename, fields, content, beside


def read(request: Request) -> Form:
    """Begin to read the upload: as far as the file, whose bytes are then read through ``content``.

    Raises:
        WrongType: it is neither multipart/form-data nor video/... nor audio/....
        Unprocessable: no file, or a file in a field that is not called ``file``. Reading ``content`` to the end raises
            it too, for a second file and for a field that is given twice.
        BadRequest: the form is damaged. ClientDisconnected: the client went away; also while ``content`` is read.
    """
    fields: dict[str, str] = dict(request.args.items())
    kind, options = parse_options_header(request.headers.get("Content-Type"))
    kind = kind.lower()
    if kind == "multipart/form-data" and options.get("boundary"):
        events = _events(request.stream, options["boundary"].encode("latin-1", "replace"))
        name = _up_to_file(events, fields)
        return Form(base_name(fields.pop("filename", "") or name), fields, _content(events, fields), BESIDE)
    if kind.startswith(("video/", "audio/")):
        return Form(base_name(fields.pop("filename", "")), fields, _chunks(request.stream))
    raise WrongType("Send a form with the video in its field file, or the video itself with a video/ or audio/ type.")


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while True:
        try:
            chunk = stream.read(_CHUNK)
        except (exceptions.ClientDisconnected, OSError) as error:
            raise ClientDisconnected("The upload broke off: send it again.") from error
        if not chunk:
            return
        yield chunk


def _events(stream: IO[bytes], boundary: bytes) -> Iterator[Event]:
    decoder = MultipartDecoder(boundary, max_form_memory_size=_BUFFER, max_parts=_PARTS)

    for chunk in itertools.chain(_whole_boundaries(_chunks(stream), boundary), (None,)):
        with _plain_errors():
            decoder.receive_data(chunk)
        while True:
            with _plain_errors():
                event = decoder.next_event()
            if isinstance(event, NeedData):
                break
            yield event
            if isinstance(event, Epilogue):
                return


def _whole_boundaries(chunks: Iterator[bytes], boundary: bytes) -> Iterator[bytes]:
    """The same bytes, but no chunk ends just behind a boundary.

    There werkzeug 3.1's decoder takes the CR in front of the boundary for the last byte of the file.
    """
    cut = re.compile(rb"--%s(?:-|[ \t]{1,64})\Z" % re.escape(boundary))
    held = tail = b""
    for chunk in chunks:
        held += chunk
        tail = (tail + chunk[-_TAIL:])[-_TAIL:]
        if len(held) > _CHUNK or not cut.search(tail):
            yield held
            held = b""
    yield held


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except RequestEntityTooLarge as error:
        raise BadRequest("The form has too many fields, or headers without an end.") from error
    except ValueError as error:
        raise BadRequest("The form is damaged: send multipart/form-data as RFC 7578 has it.") from error


def _up_to_file(events: Iterator[Event], fields: dict[str, str]) -> str:
    """Read fields until the file begins; its name."""
    for event in events:
        if isinstance(event, File):
            if event.name != FILE:
                raise Unprocessable(f"Send the video in the field {FILE}.", {event.name: f"must be called {FILE}"})
            return event.filename
        if isinstance(event, Field):
            _read_field(event.name, events, fields)
    raise Unprocessable(f"There is no file: send the video in the field {FILE}.", {FILE: "is missing"})


def _content(events: Iterator[Event], fields: dict[str, str]) -> Iterator[bytes]:
    """The file's bytes, then the fields behind it."""
    for event in events:
        if isinstance(event, Data):
            yield bytes(event.data)
        elif isinstance(event, File):
            raise Unprocessable("There are two files: send one at a time.", {event.name: "is one file too many"})
        elif isinstance(event, Field):
            _read_field(event.name, events, fields)


def _read_field(name: str, events: Iterator[Event], fields: dict[str, str]) -> None:
    if name == FILE:
        raise Unprocessable(f"The field {FILE} holds no file.", {FILE: "must be a file with a file name"})
    if name in fields:
        raise Unprocessable(f"{name} is given twice.", {name: "is given twice"})
    value = b""
    for event in events:
        if isinstance(event, Data):
            value += event.data
            if len(value) > _FIELD_BYTES:
                raise BadRequest(f"The form's field {name} is too long.")
            if not event.more_data:
                break
    fields[name] = value.decode("utf-8", "replace").strip()


def base_name(name: str) -> str:
    """A file name without folders and control characters, 255 characters at most, its ending kept."""
    name = name.replace("\\", "/").rpartition("/")[2]
    name = "".join(character for character in name if character.isprintable()).strip() or "upload"
    stem, dot, ending = name.rpartition(".")
    if len(name) > 255 and len(ending) <= 16:
        return stem[: 254 - len(ending)] + dot + ending
    return name[:255]


def limited(content: Iterator[bytes], most: int, error: Callable[[], Mp3burstError]) -> Iterator[bytes]:
    """The same bytes; raises the error when they are more than ``most``."""
    total = 0
    for chunk in content:
        total += len(chunk)
        if total > most:
            raise error()
        yield chunk


def with_room(content: Iterator[bytes], had: int, room: int, grow: Callable[[int], int]) -> Iterator[bytes]:
    """The same bytes; asks for more room before there are more than it has.

    Args:
        content: what comes in.
        had: bytes that were there before.
        room: bytes for which there is room.
        grow: makes room for so many at least, and says for how many; may refuse.
    """
    total = had
    for chunk in content:
        total += len(chunk)
        if total > room:
            room = grow(total)
        yield chunk


def options_in(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields that were filled in: a web form sends the empty ones too."""
    return {name: value for name, value in fields.items() if value}


def options_from(fields: Mapping[str, str]) -> Options:
    """The options that these fields ask for.

    Raises:
        Unprocessable: one is unknown, or has a value that makes no sense.
    """
    try:
        return Options.from_form(fields)
    except BadOption as error:
        raise Unprocessable(str(error), {error.field: str(error)}) from error
