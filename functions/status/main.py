"""Lists, shows, follows and deletes jobs."""

import functools
import json
import os
import time
from dataclasses import dataclass
from typing import Any, Final

import functions_framework
import msgspec
from flask import Request, Response
from werkzeug.http import is_resource_modified

from events.errors import Mp3burstError
from functions import security_log
from functions.http_endpoint import (
    Routes,
    client_address,
    identify,
    iso_time,
    json_response,
    prepare_to_identify,
    read_json,
    read_query,
)
from functions.options import Options
from functions.presets import of_installation
from functions.push import pushed
from functions.shares import Shares, TooManyRequests
from functions.state.database import shared
from functions.state.jobs import Job, Jobs
from functions.state.presets import Presets
from functions.state.schema import UserId
from functions.state.watcher import JobWatcher
from functions.status import api, events, stages
from functions.status.estimate import MAX_JOBS, estimate
from functions.warm_up import before_first_request
from functions.waveform import Waveform

#: Internal states, and the status that users see in their place.
_STATUS: Final = {"encoding": "converting", "joining": "converting"}


class NoWaveform(Mp3burstError):
    """The waveform of an MP3 is not known."""

    status = 404


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The jobs, and what waiting for one takes.

    Attributes:
        watcher: watches jobs for all requests.
        shares: how many requests wait at once.
        streams: how many connections follow jobs at once, which take no threads.
        presets: the presets of users.
    """

    jobs: Jobs
    watcher: JobWatcher
    shares: Shares
    streams: Shares
    presets: Presets


@functions_framework.http
def status(request: Request) -> Response:
    """Handles GET /jobs, /jobs/events, /jobs/JOB and /jobs/JOB/waveform, DELETE /jobs/JOB and POST /estimate."""
    return _ROUTES.answer(request)


def _list(request: Request) -> Response:
    query = read_query(request, api.ListQuery)
    return json_response(listing(dependencies().jobs, _user(request), query))


def _get(request: Request, job: str) -> Response:
    wait = read_query(request, api.JobQuery).wait
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


def _waveform(request: Request, job: str) -> Response:
    jobs = dependencies().jobs
    found = jobs.finished(job, _user(request))
    waveform = jobs.waveform(found)
    if waveform is None:
        raise NoWaveform(
            "This MP3 has no waveform: its sound was copied or changes its format, or it is older than waveforms."
        )
    headers = {"ETag": f'"{found.mp3}"', "Cache-Control": "private, no-cache"}
    if request.if_none_match and not is_resource_modified(request.environ, headers["ETag"]):
        return Response(status=304, headers=headers)
    return json_response(shown_waveform(waveform), headers=headers)


def _events(request: Request) -> Response:
    owner = _user(request)
    deps = dependencies()
    end = deps.streams.take(owner, client_address(request, os.environ))
    push = events.JobEvents(owner, request.headers.get("Last-Event-ID", ""), deps.watcher, listed, end)
    response = pushed(request, push.first(), push, events.CONTENT_TYPE)
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _delete(request: Request, job: str) -> Response:
    identity = identify(request, os.environ)
    dependencies().jobs.delete(job, identity.user)
    security_log.record("job.deleted", user=identity.username, address=client_address(request, os.environ), job=job)
    return Response(status=204)


def _estimate(request: Request) -> Response:
    owner = _user(request)
    wanted = read_json(request, api.EstimateRequest)
    deps = dependencies()
    jobs = deps.jobs.page(owner, MAX_JOBS)
    options = Options.from_form(deps.presets.expand(wanted.options, owner))
    return json_response(estimate(wanted.seconds, options, jobs))


def listing(jobs: Jobs, owner: UserId, query: api.ListQuery) -> api.JobPage:
    """Returns a page of the owner's jobs, newest first."""
    page = jobs.page(owner, query.limit + 1, query.after)
    return api.JobPage(
        jobs=[listed(job) for job in page[: query.limit]],
        next=page[query.limit - 1].id if len(page) > query.limit else None,
    )


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


def listed(job: Job) -> api.ListedJob:
    """Returns the job as its owner sees it in a list."""
    return api.ListedJob(**_shown(job))


def in_detail(job: Job) -> api.DetailedJob:
    """Returns the job as its owner sees it, with the audio tracks of its video."""
    tracks = None if job.tracks is None else msgspec.json.decode(job.tracks, type=list[api.ListedTrack])
    return api.DetailedJob(**_shown(job), tracks=tracks)


def shown_waveform(waveform: Waveform) -> api.Waveform:
    """Returns the waveform as audiowaveform has it in JSON."""
    return api.Waveform(
        version=2,
        channels=1,
        sample_rate=waveform.rate,
        samples_per_pixel=waveform.point_samples,
        bits=8,
        length=waveform.points,
        data=memoryview(waveform.data).cast("b").tolist(),
    )


def _shown(job: Job) -> dict[str, Any]:
    """Returns the fields of ``api.ListedJob``."""
    return {
        "job": job.id,
        "fid": job.video,
        "filename": job.filename,
        "status": _status(job),
        "stage": stages.stage(job),
        "progress": round(stages.fraction(job), 3),
        "pieces": stages.pieces(job),
        "eta": stages.eta(job),
        "mp3": job.mp3,
        "duration": job.duration,
        "options": _options(job.options),
        "error": job.error,
        "error_code": job.error_code,
        "warning": job.warning,
        "receipt": stages.receipt(job),
        "created": iso_time(job.created_at),
        "finished": iso_time(job.finished_at),
        "source": job.source,
    }


@functools.lru_cache(1024)
def _options(options: Options) -> dict[str, str | float | bool | list[int]]:
    shown: dict[str, str | float | bool | list[int]] = json.loads(options.to_json())
    return shown


def _status(job: Job) -> str:
    return _STATUS.get(job.state, job.state)


def _user(request: Request) -> UserId:
    return identify(request, os.environ).user


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process."""
    database = shared(os.environ)
    jobs = Jobs(database)
    return Dependencies(
        jobs,
        JobWatcher(jobs),
        Shares.from_environ(os.environ),
        Shares.of_streams(os.environ),
        Presets(database, of_installation(os.environ)),
    )


before_first_request(prepare_to_identify)
_ROUTES = Routes(
    {
        api.LIST: _list,
        api.EVENTS: _events,
        api.SHOW: _get,
        api.WAVEFORM: _waveform,
        api.DELETE: _delete,
        api.ESTIMATE: _estimate,
    }
)
