"""Takes in videos."""

import sys
from collections.abc import Iterator

import functions_framework
from flask import Request, Response

from events.schema import VideoUploaded
from functions.auth.accounts import UserId
from functions.auth.tokens import Identity
from functions.http_endpoint import Routes, Unprocessable, json_response
from functions.media import Description
from functions.options import Options
from functions.state.jobs import Job, NewJob, new_job_id
from functions.upload.dependencies import PUBLISH_BUDGET, Dependencies, authorize, dependencies, too_large
from functions.upload.limits import STEP
from functions.upload.multipart import BESIDE, Form, WrongType, limited, options_from, options_in, read, with_room
from functions.upload.sniff import ENOUGH, is_media
from functions.upload.tus import routes


@functions_framework.http
def upload(request: Request) -> Response:
    """POST /upload in one request, and /files in as many as it takes."""
    return routes.answer(request) if routes.is_meant(request) else _ROUTES.answer(request)


def _upload(request: Request) -> Response:
    identity = authorize(request)
    deps, key = dependencies(), request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= 255:
        raise Unprocessable(
            "The Idempotency-Key must have 1 to 255 characters.", {"Idempotency-Key": "is empty or too long"}
        )
    job = deps.jobs.with_key(identity.user, key) if key else None
    if job is None:
        request.max_content_length = sys.maxsize  # Ours is for the file, and has a sentence.
        if (request.content_length or 0) > deps.max_bytes + BESIDE:
            raise too_large(deps.max_bytes)
        job = create_job(read(request), identity, key, deps, request.content_length)
    return json_response({"job": job.id, "fid": job.video}, 202, {"Location": f"/jobs/{job.id}"})


def create_job(form: Form, identity: Identity, key: str | None, deps: Dependencies, length: int | None = None) -> Job:
    """Store the file, put its job on record, and tell convert. A request that fails leaves nothing behind.

    Args:
        form: the upload, of whose file nothing has been read yet.
        identity: who uploads.
        key: the Idempotency-Key, which no job has yet.
        deps: what it takes.
        length: bytes of the request, if they are known; a form takes some of them.

    Raises:
        TooManyJobs, QuotaFull: the user has too much already.
        WrongType: it is neither audio nor video. TooLarge: it is over the limit.
        Unprocessable: it is empty, an option is wrong, or one of the faults that ``form.read`` names.
    """
    _options(form)  # Those before the file; a mistake there need not wait for 4 GB.
    new_id = new_job_id()
    about = Description(identity.user, new_id, form.filename, "application/octet-stream")
    admit = deps.quota.begin(identity, length, form.beside) if length else deps.quota.begin(identity, STEP, STEP)
    with deps.blobs.writing(deps.media, "videos", about, admit) as video:

        def grow(size: int) -> int:
            return deps.blobs.grow(video.blob, deps.quota.grow(identity, size + STEP, STEP))

        content = limited(form.content, deps.max_bytes, lambda: too_large(deps.max_bytes))
        for chunk in _checked(with_room(content, 0, video.granted, grow)):
            video.write(chunk)
        options = _options(form)
    job = deps.jobs.add(NewJob(new_id, UserId(identity.user), video.blob, form.filename, options, key, video.size))
    if job.id == new_id:
        deps.outbox.emit(VideoUploaded(job.id), PUBLISH_BUDGET)
    else:
        deps.blobs.discard(deps.media, "videos", video.blob)
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
    return options_from(options_in(form.fields))


_ROUTES = Routes({"POST /upload": _upload})
