"""Takes in videos."""

import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import functions_framework
from flask import Request, Response

from events.errors import Mp3burstError
from events.publish import publisher
from events.schema import VideoUploaded
from functions.blobs import Blobs
from functions.database import Database, url
from functions.jobs import Job, Jobs, new_job_id
from functions.media import Description, Media, connect
from functions.options import BadOption, Options
from functions.outbox import Outbox
from functions.routing import Routes, Unprocessable, as_json
from functions.settings import number
from functions.tokens import Identity, NotAllowed, verifier
from functions.upload.form import Form, WrongType, limited, options_in, read
from functions.upload.sniff import ENOUGH, is_media

#: Seconds that an upload waits for the broker; sweep does what it does not.
PUBLISH_BUDGET: Final = 1.0
MAX_BYTES: Final = 8 << 30


class TooLarge(Mp3burstError):
    """The file is larger than MAX_UPLOAD_BYTES."""

    status = 413


@dataclass(frozen=True, slots=True)
class Dock:
    """What an upload takes."""

    media: Media
    blobs: Blobs
    jobs: Jobs
    outbox: Outbox
    max_bytes: int = MAX_BYTES


@functions_framework.http
def upload(request: Request) -> Response:
    """POST /upload."""
    return _ROUTES.answer(request)


def _upload(request: Request) -> Response:
    identity = verifier(os.environ).bearer(request.headers.get("Authorization"))
    if os.environ.get("UPLOAD_ROLE", "") not in ("", identity.role):
        raise NotAllowed("Only administrators may upload here: ask one of them.")
    dock, key = _dock(), request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= 255:
        raise Unprocessable(
            "The Idempotency-Key must have 1 to 255 characters.", {"Idempotency-Key": "is empty or too long"}
        )
    job = dock.jobs.with_key(identity.user, key) if key else None
    if job is None:
        request.max_content_length = sys.maxsize  # Ours is for the file, and has a sentence.
        if (request.content_length or 0) > dock.max_bytes + (1 << 20):
            raise _too_large(dock.max_bytes)
        job = take_in(read(request), identity, key, dock)
    return as_json({"job": job.id, "fid": job.video}, 202, {"Location": f"/jobs/{job.id}"})


def take_in(form: Form, identity: Identity, key: str | None, dock: Dock) -> Job:
    """Store the file, put its job on record, and tell convert. A request that fails leaves nothing behind.

    Raises:
        WrongType: it is neither audio nor video. TooLarge: it is over the limit.
        Unprocessable: it is empty, an option is wrong, or one of the faults that ``form.read`` names.
    """
    _options(form)  # Those before the file; a mistake there need not wait for 4 GB.
    about = Description(identity.user, new_job_id(), form.filename, "application/octet-stream")
    with dock.blobs.writing(dock.media, "videos", about) as video:
        content = _checked(limited(form.content, dock.max_bytes, lambda: _too_large(dock.max_bytes)))
        for chunk in content:
            video.write(chunk)
        options = _options(form)
    job = dock.jobs.add(about.job, identity.user, video.blob, form.filename, options, key)
    if job.id == about.job:
        dock.outbox.emit(VideoUploaded(job.id), PUBLISH_BUDGET)
    else:
        dock.blobs.discard(dock.media, "videos", video.blob)
    return job


def _checked(content: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, once the first of them have been found to be those of audio or video."""
    head = b""
    for chunk in content:
        head += chunk
        if len(head) >= ENOUGH:
            break
    if not head:
        raise Unprocessable("The file is empty: choose another.", {"file": "is empty"})
    if not is_media(head[:ENOUGH]):
        raise WrongType("This file is neither audio nor video: choose another.")
    yield head
    yield from content


def _options(form: Form) -> Options:
    try:
        return Options.from_form(options_in(form.fields))
    except BadOption as error:
        raise Unprocessable(str(error), {error.field: str(error)}) from error


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"The file is too large: at most {most} bytes are taken.")


@functools.cache
def _dock() -> Dock:
    database = Database(url(os.environ))
    outbox = Outbox(database, publisher(os.environ, "/mp3burst/upload"))
    most = int(number(os.environ, "MAX_UPLOAD_BYTES", MAX_BYTES, 1))
    return Dock(connect(os.environ), Blobs(database), Jobs(database), outbox, most)


_ROUTES = Routes({"POST /upload": _upload})
