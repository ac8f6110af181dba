"""Changes finished MP3s without encoding them again: their tags."""

import functools
import os
from dataclasses import dataclass

import functions_framework
from flask import Request, Response

from functions.edit import api, tagging
from functions.edit.tagging import Tagging
from functions.http_endpoint import Routes, identify, json_response, read_json, take_share
from functions.media import connect
from functions.shares import Shares
from functions.state.blobs import Blobs
from functions.state.database import shared
from functions.state.jobs import Jobs
from functions.state.quota import Quota
from functions.state.tags import Tags


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What edit needs.

    Attributes:
        tagging: reads and changes tags.
        shares: how many changes are received at once.
    """

    tagging: Tagging
    shares: Shares


@functions_framework.http
def edit(request: Request) -> Response:
    """Handles GET and PATCH /jobs/JOB/tags."""
    return _ROUTES.answer(request)


def _show_tags(request: Request, job: str) -> Response:
    return json_response(tagging.show(job, identify(request, os.environ), dependencies().tagging))


def _change_tags(request: Request, job: str) -> Response:
    identity = identify(request, os.environ)
    deps = dependencies()
    end = take_share(request, identity.user, deps.shares)
    try:
        wanted = read_json(request, api.TagChange, api.MAX_BODY)
        return json_response(tagging.change(job, identity, wanted, deps.tagging))
    finally:
        end()


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process."""
    database = shared(os.environ)
    parts = Tagging(
        media=connect(os.environ),
        jobs=Jobs(database),
        tags=Tags(database),
        blobs=Blobs(database),
        quota=Quota.from_environ(os.environ),
    )
    return Dependencies(parts, Shares.from_environ(os.environ))


_ROUTES = Routes({api.SHOW_TAGS: _show_tags, api.CHANGE_TAGS: _change_tags})
