"""Handles /files: resumable uploads by tus 1.0 (https://tus.io/protocols/resumable-upload)."""

import functools
import sys
from email.utils import formatdate
from typing import Final

from flask import Request, Response

from events.errors import Mp3burstError
from functions.auth.tokens import Identity
from functions.file_checks import TooLarge
from functions.file_names import base_name
from functions.http_endpoint import BadRequest, Routes, Unprocessable, tell_limit
from functions.sniff import UnsupportedMediaType
from functions.upload.callback import take_callback
from functions.upload.dependencies import Dependencies, authorize, dependencies
from functions.upload.multipart import parse_options
from functions.upload.tus import api
from functions.upload.tus.api import PART_TYPE, VERSION
from functions.upload.tus.headers import (
    CHECKSUM_ALGORITHMS,
    Checksum,
    byte_count,
    length_of_new_upload,
    parse_metadata,
)
from functions.upload.tus.receive import Part, check_length, check_offset, chunks, complete, discard, receive
from functions.upload.tus.uploads import Upload

_EXTENSIONS: Final = "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination"


class WrongVersion(Mp3burstError):
    """The request does not have the header Tus-Resumable: 1.0.0."""

    status = 412


def matches(request: Request) -> bool:
    """Returns whether the request is for /files or below."""
    return request.path == "/files" or request.path.startswith("/files/")


def answer(request: Request) -> Response:
    """Handles a request to /files or /files/UPLOAD."""
    if override := request.headers.get("X-HTTP-Method-Override"):
        request.environ.update(REQUEST_METHOD=override.strip().upper())
    response = _ROUTES.answer(request)
    if request.method == "HEAD":
        response.set_data(b"")  # Even if another method was sent and overridden: the client expects no body.
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
        "Tus-Checksum-Algorithm": ",".join(CHECKSUM_ALGORITHMS),
    }
    return Response(status=204, headers=headers)


def _create(request: Request) -> Response:
    identity = _authorize(request)
    deps = dependencies()
    if "Upload-Concat" in request.headers:
        raise BadRequest("Concatenation is not supported: send the file as one upload, without Upload-Concat.")
    length = length_of_new_upload(request.headers)
    metadata = request.headers.get("Upload-Metadata", "")
    filename, fields = parse_metadata(metadata)
    take_callback(fields, deps.callbacks)  # the job takes it from the metadata once the file is complete
    options = parse_options(fields, deps.presets, identity.user)
    _check_length(length, deps)
    has_body = bool(request.content_length) or "chunked" in request.headers.get("Transfer-Encoding", "").lower()
    if has_body:
        _check_body(request, length if length is not None else deps.max_bytes)
    checksum = _checksum(request)
    deps.space.require(length or 0)
    grant = deps.quota.begin(identity, length, tell=functools.partial(tell_limit, request))
    upload = deps.uploads.begin(identity.user, base_name(filename), options, metadata, length, grant)
    if has_body:
        try:
            with deps.receiving(request, identity):
                upload = receive(upload, Part(0, chunks(request.stream), checksum), deps, identity)
        except Mp3burstError:
            discard(upload, deps)  # An error response has no Location: the client could not resume.
            raise
    return Response(status=201, headers={"Location": f"/files/{upload.id}", **_progress(upload, deps)})


def _offset(request: Request, upload: str) -> Response:
    owner = _authorize(request).user
    deps = dependencies()
    found = deps.uploads.find(upload, owner)
    headers = {"Upload-Length": str(found.length)} if found.length is not None else {"Upload-Defer-Length": "1"}
    if found.about:
        headers["Upload-Metadata"] = found.about
    return Response(status=200, headers={**headers, **_progress(found, deps)})


def _append(request: Request, upload: str) -> Response:
    identity = _authorize(request)
    deps = dependencies()
    offset = byte_count(request.headers, "Upload-Offset")
    length = byte_count(request.headers, "Upload-Length")
    if offset is None:
        raise BadRequest("Send Upload-Offset, the offset in the file at which this part begins.")
    checksum = _checksum(request)
    found = deps.uploads.find(upload, identity.user)
    if length is not None:
        check_length(found, length)
        _check_length(length, deps)
    check_offset(found, offset)
    _check_body(request, (found.length or length or deps.max_bytes) - offset)
    if found.state != "done" and not found.is_complete:
        deps.space.require(request.content_length or 0)
        part = Part(offset, chunks(request.stream), checksum, None if found.length else length)
        with deps.receiving(request, identity):
            found = receive(found, part, deps, identity)
    return Response(status=204, headers=_progress(found, deps))


def _terminate(request: Request, upload: str) -> Response:
    owner = _authorize(request).user
    deps = dependencies()
    discard(deps.uploads.find(upload, owner), deps)
    return Response(status=204)


def _authorize(request: Request) -> Identity:
    """Returns the user's identity; a wrong version is refused before anything else is checked."""
    if request.headers.get("Tus-Resumable") != VERSION:
        raise WrongVersion(f"This server speaks tus {VERSION}: send Tus-Resumable: {VERSION}.")
    request.max_content_length = sys.maxsize  # Our own limit is the file's, and its error has a message.
    return authorize(request)


def _check_length(length: int | None, deps: Dependencies) -> None:
    if length == 0:
        raise Unprocessable("The file is empty: choose another.", {"Upload-Length": "is 0"})
    if length is not None and length > deps.max_bytes:
        raise TooLarge(deps.max_bytes)


def _check_body(request: Request, limit: int) -> None:
    """Refuses a body that is not part of a file, or longer than ``limit`` bytes."""
    if request.mimetype != PART_TYPE:
        raise UnsupportedMediaType(f"Send the bytes of the file with Content-Type: {PART_TYPE}.")
    if (request.content_length or 0) > limit:
        raise TooLarge(limit)


def _checksum(request: Request) -> Checksum | None:
    header = request.headers.get("Upload-Checksum")
    return None if header is None else Checksum(header)


def _progress(upload: Upload, deps: Dependencies) -> dict[str, str]:
    """Returns the headers with the upload's offset and its job, and when it expires unless it is complete."""
    headers = {"Upload-Offset": str(upload.received)}
    if upload.is_complete:
        headers["Mp3burst-Job"] = complete(upload, deps)
        return headers
    headers["Mp3burst-Future-Job"] = upload.job
    if upload.expires_at is not None:
        headers["Upload-Expires"] = formatdate(upload.expires_at / 1000, usegmt=True)
    return headers


_ROUTES = Routes(
    {
        api.DISCOVER: _discover,
        api.DISCOVER_BELOW: _discover,
        api.CREATE: _create,
        api.OFFSET: _offset,
        api.APPEND: _append,
        api.TERMINATE: _terminate,
    }
)
