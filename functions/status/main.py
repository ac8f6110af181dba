"""Lists, shows and deletes jobs."""

import functools
import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import functions_framework
from flask import Request, Response

from functions import security_log
from functions.http_endpoint import Routes, Unprocessable, client_address, identify, json_response
from functions.shares import Shares, TooManyRequests
from functions.state.database import Database, url
from functions.state.jobs import STEPS, Job, Jobs
from functions.state.schema import UserId
from functions.state.watcher import JobWatcher

#: The longest time, in seconds, that a request may wait for its job to change.
MAX_WAIT: Final = 25.0
#: Jobs in one page of the list.
_PAGE_SIZE: Final = 50
_MAX_PAGE_SIZE: Final = 500
#: Internal states, and the status that users see in their place.
_STATUS: Final = {"encoding": "converting", "joining": "converting"}


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The jobs, and what waiting for one takes.

    Attributes:
        watcher: watches jobs for all requests.
        shares: how many requests wait at once.
    """

    jobs: Jobs
    watcher: JobWatcher
    shares: Shares


@functions_framework.http
def status(request: Request) -> Response:
    """Handles GET /jobs, GET /jobs/JOB and DELETE /jobs/JOB."""
    return _ROUTES.answer(request)


def _list(request: Request) -> Response:
    limit = int(_query_number(request, "limit", _PAGE_SIZE, 1, _MAX_PAGE_SIZE))
    return json_response(listing(dependencies().jobs, _user(request), limit, request.args.get("after")))


def _get(request: Request, job: str) -> Response:
    wait = _query_number(request, "wait", 0, 0, MAX_WAIT)
    owner = _user(request)
    deps = dependencies()
    found = deps.jobs.get(job, owner)
    if wait and not found.finished_at:
        try:
            end = deps.shares.take(owner, client_address(request, os.environ))
        except TooManyRequests:
            return json_response(in_detail(found))  # An early response is always correct.
        try:
            found = await_change(found, deps.watcher, wait)
        finally:
            end()
    return json_response(in_detail(found))


def _delete(request: Request, job: str) -> Response:
    identity = identify(request, os.environ)
    dependencies().jobs.delete(job, identity.user)
    security_log.record("job.deleted", user=identity.username, address=client_address(request, os.environ), job=job)
    return Response(status=204)


def listing(jobs: Jobs, owner: UserId, limit: int, after: str | None) -> dict[str, Any]:
    """Returns a page of the owner's jobs, newest first.

    ``next`` is the value of ``after`` for the next page, None on the last one.
    """
    page = jobs.page(owner, limit + 1, after)
    return {
        "jobs": [as_shown(job) for job in page[:limit]],
        "next": page[limit - 1].id if len(page) > limit else None,
    }


def await_change(job: Job, watcher: JobWatcher, wait: float) -> Job:
    """Returns the job as soon as its status changes or it is finished, or after ``wait`` seconds.

    Raises:
        JobNotFound: it was deleted while waiting.
    """
    deadline = time.monotonic() + wait
    current = job
    with watcher.watching(job) as watch:
        while (
            _status(current) == _status(job) and not current.finished_at and (left := deadline - time.monotonic()) > 0
        ):
            current = watch.wait(left)
    return current


def as_shown(job: Job) -> dict[str, Any]:
    """Returns the job as users see it, ready for JSON."""
    total = job.total or STEPS
    return {
        "job": job.id,
        "fid": job.video,
        "filename": job.filename,
        "status": _status(job),
        "progress": 1.0 if job.state == "done" else round(min(job.done / total, 1.0), 3),
        "mp3": job.mp3,
        "duration": job.duration,
        "options": json.loads(job.options.to_json()),
        "error": job.error,
        "warning": job.warning,
        "created": _iso(job.created_at),
        "finished": _iso(job.finished_at),
    }


def in_detail(job: Job) -> dict[str, Any]:
    """Returns the job as ``as_shown`` does, and the audio tracks of its video; None until they are known."""
    return {**as_shown(job), "tracks": None if job.tracks is None else json.loads(job.tracks)}


def _status(job: Job) -> str:
    return _STATUS.get(job.state, job.state)


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _query_number(request: Request, name: str, default: float, minimum: float, maximum: float) -> float:
    text = request.args.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not minimum <= value <= maximum:
        message = f"{name} is invalid: use a number from {minimum:g} to {maximum:g}."
        raise Unprocessable(message, {name: f"must be a number from {minimum:g} to {maximum:g}"})
    return value


def _user(request: Request) -> UserId:
    return identify(request, os.environ).user


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process."""
    jobs = Jobs(Database(url(os.environ)))
    return Dependencies(jobs, JobWatcher(jobs.with_ids), Shares.from_environ(os.environ))


_ROUTES = Routes({"GET /jobs": _list, "GET /jobs/<job>": _get, "DELETE /jobs/<job>": _delete})
