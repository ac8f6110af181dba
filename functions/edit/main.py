"""Changes and splits finished MP3s without encoding them again."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import functions_framework
from flask import Request, Response

from functions.auth.tokens import Identity
from functions.edit import api, splitting, tagging
from functions.edit.splitting import Splitting
from functions.edit.tagging import Tagging
from functions.http_endpoint import Routes, identify, json_response, prepare_to_identify, read_json, take_share
from functions.media import connect
from functions.shares import Shares
from functions.state.blobs import Blobs
from functions.state.database import shared
from functions.state.jobs import Jobs
from functions.state.parts import Parts
from functions.state.quota import Quota
from functions.state.tags import Tags
from functions.warm_up import before_first_request


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What edit needs.

    Attributes:
        tagging: reads and changes tags.
        splitting: splits MP3s.
        shares: how many changes are received at once.
    """

    tagging: Tagging
    splitting: Splitting
    shares: Shares


@functions_framework.http
def edit(request: Request) -> Response:
    """Handles GET and PATCH /jobs/JOB/tags, and POST /jobs/JOB/split."""
    return _ROUTES.answer(request)


def _show_tags(request: Request, job: str) -> Response:
    return json_response(tagging.show(job, identify(request, os.environ), dependencies().tagging))


def _change_tags(request: Request, job: str) -> Response:
    identity = identify(request, os.environ)
    deps = dependencies()
    with _transferring(request, identity, deps):
        wanted = read_json(request, api.TagChange, api.MAX_BODY)
        return json_response(tagging.change(job, identity, wanted, deps.tagging))


def _split(request: Request, job: str) -> Response:
    identity = identify(request, os.environ)
    deps = dependencies()
    with _transferring(request, identity, deps):
        wanted = read_json(request, api.SplitRequest)
        return json_response(splitting.split(job, identity, wanted, deps.splitting), 201)


@contextmanager
def _transferring(request: Request, identity: Identity, deps: Dependencies) -> Iterator[None]:
    """Counts the request among the user's transfers."""
    end = take_share(request, identity.user, deps.shares)
    try:
        yield
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
    return Dependencies(parts, Splitting(parts, Parts(database)), Shares.from_environ(os.environ))


@before_first_request
def _connect() -> None:
    dependencies().tagging.media.mp3s.connect()


before_first_request(prepare_to_identify)
_ROUTES = Routes({api.SHOW_TAGS: _show_tags, api.CHANGE_TAGS: _change_tags, api.SPLIT: _split})
