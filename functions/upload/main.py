"""Receives videos: POST /upload in one request or by an address, /files in several requests (``upload.tus``)."""

import functools
import sys

import functions_framework
from flask import Request, Response

from events.schema import VideoUploaded
from functions.auth.tokens import Identity
from functions.file_checks import StreamChecks, TooLarge
from functions.http_endpoint import Routes, Unprocessable, json_response, tell_limit
from functions.media import Description
from functions.operation import JSON
from functions.rate_limits import Tell
from functions.state.jobs import Job, NewJob, new_job_id
from functions.state.outbox import REQUEST_BUDGET
from functions.state.quota import Reservation
from functions.upload import api
from functions.upload.by_address import create_fetch, read_fields
from functions.upload.callback import take_callback
from functions.upload.dependencies import Dependencies, authorize, dependencies
from functions.upload.multipart import MAX_OVERHEAD, Form, parse_options, read
from functions.upload.tus import routes


@functions_framework.http
def upload(request: Request) -> Response:
    """Handles POST /upload, and every method of /files."""
    return routes.answer(request) if routes.matches(request) else _ROUTES.answer(request)


def _upload(request: Request) -> Response:
    identity = authorize(request)
    deps = dependencies()
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= 255:
        raise Unprocessable(
            "The Idempotency-Key must have 1 to 255 characters.", {"Idempotency-Key": "is empty or too long"}
        )
    job = deps.jobs.with_key(identity.user, key) if key else None
    tell = functools.partial(tell_limit, request)
    if job is None and request.mimetype == JSON:
        job = create_fetch(read_fields(request, deps), identity, key, deps, tell)
    elif job is None:
        request.max_content_length = sys.maxsize  # Our own limit is the file's, and its error has a message.
        if (request.content_length or 0) > deps.max_bytes + MAX_OVERHEAD:
            raise TooLarge(deps.max_bytes)
        deps.space.require(request.content_length or 0)
        with deps.receiving(request, identity):
            job = create_job(read(request), identity, key, deps, request.content_length, tell)
    return json_response(api.NewJob(job.id, job.video), 202, {"Location": f"/jobs/{job.id}"})


def create_job(
    form: Form,
    identity: Identity,
    key: str | None,
    deps: Dependencies,
    length: int | None = None,
    tell: Tell | None = None,
) -> Job:
    """Stores the file, records its job, and publishes VideoUploaded. A request that fails leaves nothing behind.

    Args:
        form: the upload; its file has not been read yet.
        identity: the owner.
        key: the Idempotency-Key; no job has it yet.
        deps: the function's dependencies.
        length: bytes of the request, if known; up to ``form.overhead`` of them are not the file's.
        tell: is told what is left of the owner's quota.

    Returns:
        The job: of concurrent requests with the same key all get the same one.

    Raises:
        TooManyJobs, QuotaFull: the user's quota is used up.
        DiskFull: the media store has too little space left.
        UnsupportedMediaType: the file is neither audio nor video.
        TooLarge: the file exceeds the limit.
        Unprocessable: the file is empty, an option or the callback is invalid, or as described at ``multipart.read``.
        ClientDisconnected, BadRequest: as described at ``multipart.read``.
    """
    callback = take_callback(form.fields, deps.callbacks)
    parse_options(
        form.fields, deps.presets, identity.user
    )  # Those before the file: a mistake in them is reported before 4 GB are received.
    new_id = new_job_id()
    description = Description(identity.user, new_id, form.filename, "application/octet-stream")
    grant = deps.quota.begin(identity, length or None, form.overhead, tell)
    with deps.blobs.writing(deps.media, "videos", description, grant) as video:
        reservation = Reservation(deps.blobs, video.blob, video.granted, functools.partial(deps.quota.grow, identity))
        checks = StreamChecks(reservation, deps.max_bytes, space=deps.space)
        for chunk in checks.apply(form.content):
            video.write(chunk)
        checks.finish()
        callback = take_callback(form.fields, deps.callbacks) or callback
        options = parse_options(form.fields, deps.presets, identity.user)
    job = deps.jobs.add(NewJob(new_id, identity.user, video.blob, form.filename, options, key, video.size, callback))
    if job.id == new_id:
        deps.outbox.emit(VideoUploaded(job.id), REQUEST_BUDGET)
    else:
        deps.blobs.discard(deps.media, "videos", video.blob)
    return job


_ROUTES = Routes({api.UPLOAD: _upload})
