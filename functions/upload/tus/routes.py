"""Uploads in as many requests as it takes, by tus 1.0 (https://tus.io/protocols/resumable-upload), at /files."""

import sys
from email.utils import formatdate
from typing import Final

from flask import Request, Response

from events.errors import Mp3burstError
from functions.auth.tokens import Identity
from functions.http_endpoint import BadRequest, Routes, Unprocessable
from functions.upload.dependencies import Dependencies, authorize, dependencies, too_large
from functions.upload.limits import STEP
from functions.upload.multipart import WrongType, base_name, options_from
from functions.upload.tus.headers import ALGORITHMS, VERSION, Checksum, metadata, new_length, number
from functions.upload.tus.receive import check_offset, chunks, complete, discard, receive
from functions.upload.tus.uploads import Upload

_EXTENSIONS: Final = "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination"
_PART: Final = "application/offset+octet-stream"


class WrongVersion(Mp3burstError):
    """The client speaks another version of tus, or none."""

    status = 412


def is_meant(request: Request) -> bool:
    """Whether the request is one for this module."""
    return request.path == "/files" or request.path.startswith("/files/")


def answer(request: Request) -> Response:
    """Answer a request to /files or /files/UPLOAD."""
    if override := request.headers.get("X-HTTP-Method-Override"):
        request.environ.update(REQUEST_METHOD=override.strip().upper())
    response = _ROUTES.answer(request)
    if request.method == "HEAD":
        response.set_data(b"")  # whatever method it stood for, the line expects no body
    if not response.content_length:
        response.headers.pop("Content-Type", None)
    response.headers["Tus-Resumable"] = VERSION
    response.headers["Cache-Control"] = "no-store"
    if response.status_code == WrongVersion.status:
        response.headers["Tus-Version"] = VERSION
    return response


def _discover(_: Request, **__: str) -> Response:
    headers = {
        "Tus-Version": VERSION,
        "Tus-Extension": _EXTENSIONS,
        "Tus-Max-Size": str(dependencies().max_bytes),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }
    return Response(status=204, headers=headers)


def _create(request: Request) -> Response:
    speaker, deps = _speaker(request), dependencies()
    if "Upload-Concat" in request.headers:
        raise BadRequest("Uploads are not put together here: send the file as one upload, without Upload-Concat.")
    length, about = new_length(request.headers), request.headers.get("Upload-Metadata", "")
    name, fields = metadata(about)
    options = options_from(fields)
    _check_length(length, deps)
    has_body = bool(request.content_length) or "chunked" in request.headers.get("Transfer-Encoding", "").lower()
    if has_body:
        _check_part(request, length if length is not None else deps.max_bytes)
    checksum = _checksum(request)
    admit = deps.quota.begin(speaker, STEP, STEP) if length is None else deps.quota.begin(speaker, length)
    upload = deps.uploads.begin(speaker.user, base_name(name), options, about, length, admit)
    if has_body:
        try:
            upload = receive(upload, 0, chunks(request.stream), deps, speaker, checksum)
        except Mp3burstError:
            discard(upload, deps)  # Its client never hears where it is.
            raise
    return Response(status=201, headers={"Location": f"/files/{upload.id}", **_progress(upload, deps)})


def _offset(request: Request, upload: str) -> Response:
    deps, owner = dependencies(), _speaker(request).user
    found = deps.uploads.find(upload, owner)
    headers = {"Upload-Length": str(found.length)} if found.length is not None else {"Upload-Defer-Length": "1"}
    if found.about:
        headers["Upload-Metadata"] = found.about
    return Response(status=200, headers={**headers, **_progress(found, deps)})


def _append(request: Request, upload: str) -> Response:
    speaker, deps = _speaker(request), dependencies()
    offset, length = number(request.headers, "Upload-Offset"), number(request.headers, "Upload-Length")
    if offset is None:
        raise BadRequest("Send Upload-Offset, the byte at which this part begins.")
    checksum = _checksum(request)
    found = deps.uploads.find(upload, speaker.user)
    if length is not None:
        if found.length not in (None, length) or length < found.received:
            raise BadRequest("Upload-Length is not that of this upload.")
        _check_length(length, deps)
    check_offset(found, offset)
    _check_part(request, (found.length or length or deps.max_bytes) - offset)
    if found.state != "done" and not found.is_whole:
        length = None if found.length else length
        found = receive(found, offset, chunks(request.stream), deps, speaker, checksum, length)
    return Response(status=204, headers=_progress(found, deps))


def _terminate(request: Request, upload: str) -> Response:
    deps, owner = dependencies(), _speaker(request).user
    discard(deps.uploads.find(upload, owner), deps)
    return Response(status=204)


def _speaker(request: Request) -> Identity:
    """The user who asks; WrongVersion before anything else is looked at."""
    if request.headers.get("Tus-Resumable") != VERSION:
        raise WrongVersion(f"This is tus {VERSION}: say so in Tus-Resumable.")
    request.max_content_length = sys.maxsize  # Ours is for the file, and has a sentence.
    return authorize(request)


def _check_length(length: int | None, deps: Dependencies) -> None:
    if length == 0:
        raise Unprocessable("The file is empty: choose another.", {"Upload-Length": "is 0"})
    if length is not None and length > deps.max_bytes:
        raise too_large(deps.max_bytes)


def _check_part(request: Request, most: int) -> None:
    """Refuse a body that is no part of a file, or longer than what is left of it."""
    if request.mimetype != _PART:
        raise WrongType(f"Send the bytes of the file with Content-Type: {_PART}.")
    if (request.content_length or 0) > most:
        raise too_large(most)


def _checksum(request: Request) -> Checksum | None:
    header = request.headers.get("Upload-Checksum")
    return None if header is None else Checksum(header)


def _progress(upload: Upload, deps: Dependencies) -> dict[str, str]:
    """How far the upload is, and until when it waits, or which job it has become."""
    headers = {"Upload-Offset": str(upload.received)}
    if upload.is_whole:
        headers["Mp3burst-Job"] = complete(upload, deps)
    elif upload.expires_at is not None:
        headers["Upload-Expires"] = formatdate(upload.expires_at / 1000, usegmt=True)
    return headers


_ROUTES = Routes(
    {
        "OPTIONS /files": _discover,
        "OPTIONS /files/<upload>": _discover,
        "POST /files": _create,
        "HEAD /files/<upload>": _offset,
        "PATCH /files/<upload>": _append,
        "DELETE /files/<upload>": _terminate,
    }
)
