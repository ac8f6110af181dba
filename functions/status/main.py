"""Says how jobs stand, and deletes them."""

import functools
import json
import os
import time
from datetime import UTC, datetime
from typing import Any, Final

import functions_framework
from flask import Request, Response

from functions.auth.tokens import verifier
from functions.http_endpoint import Routes, Unprocessable, as_json
from functions.state.database import Database, url
from functions.state.jobs import STEPS, Job, Jobs

#: Seconds that an answer may be held until a job changes.
LONGEST_WAIT: Final = 25.0
_LOOK: Final = 0.25
_PAGE, _LARGEST_PAGE = 50, 500
_SHOWN: Final = {"encoding": "converting", "joining": "converting"}


@functions_framework.http
def status(request: Request) -> Response:
    """GET /jobs, GET and DELETE /jobs/JOB."""
    return _ROUTES.answer(request)


def _list(request: Request) -> Response:
    limit = int(_query_number(request, "limit", _PAGE, 1, _LARGEST_PAGE))
    return as_json(listing(_jobs(), _user(request), limit, request.args.get("after")))


def _get(request: Request, job: str) -> Response:
    wait = _query_number(request, "wait", 0, 0, LONGEST_WAIT)
    return as_json(shown(await_change(_jobs(), job, _user(request), wait)))


def _delete(request: Request, job: str) -> Response:
    _jobs().delete(job, _user(request))
    return Response(status=204)


def listing(jobs: Jobs, owner: str, limit: int, after: str | None) -> dict[str, Any]:
    """A page of the owner's jobs, newest first; ``next`` is what to pass as ``after`` for the next one."""
    page = jobs.page(owner, limit + 1, after)
    return {
        "jobs": [shown(job) for job in page[:limit]],
        "next": page[limit - 1].id if len(page) > limit else None,
    }


def await_change(jobs: Jobs, job: str, owner: str, wait: float) -> Job:
    """The job, as soon as its state is no longer what it was, or after ``wait`` seconds.

    Raises:
        JobNotFound: there is no such job, or it is gone in the meantime.
    """
    end = time.monotonic() + wait
    first = now = jobs.get(job, owner)
    while _status(now) == _status(first) and not now.finished_at and (left := end - time.monotonic()) > 0:
        time.sleep(min(_LOOK, left))
        now = jobs.get(job, owner)
    return now


def shown(job: Job) -> dict[str, Any]:
    """The job as users see it."""
    whole = job.total or STEPS
    return {
        "job": job.id,
        "fid": job.video,
        "filename": job.filename,
        "status": _status(job),
        "progress": 1.0 if job.state == "done" else round(min(job.done / whole, 1.0), 3),
        "mp3": job.mp3,
        "duration": job.duration,
        "options": json.loads(job.options.to_json()),
        "error": job.error,
        "warning": job.warning,
        "created": _iso(job.created_at),
        "finished": _iso(job.finished_at),
    }


def _status(job: Job) -> str:
    return _SHOWN.get(job.state, job.state)


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _query_number(request: Request, name: str, default: float, least: float, most: float) -> float:
    text = request.args.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise Unprocessable(f"{name} must be a number from {least:g} to {most:g}.", {name: "is out of range"})
    return value


def _user(request: Request) -> str:
    return verifier(os.environ).bearer(request.headers.get("Authorization")).user


@functools.cache
def _jobs() -> Jobs:
    return Jobs(Database(url(os.environ)))


_ROUTES = Routes({"GET /jobs": _list, "GET /jobs/<job>": _get, "DELETE /jobs/<job>": _delete})
