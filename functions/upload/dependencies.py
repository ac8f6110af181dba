"""Builds the upload function's dependencies from the environment, and authorizes uploads."""

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from flask import Request

from events.publish import publisher
from functions.auth.allowance import FetchLimit
from functions.auth.tokens import Identity, NotAllowed
from functions.file_checks import MAX_BYTES
from functions.http_endpoint import identify, prepare_to_identify, take_share
from functions.media import Media, connect
from functions.media.connect import min_free
from functions.media.space import FreeSpace
from functions.outgoing.addresses import Policy
from functions.presets import of_installation
from functions.settings import number, switch
from functions.shares import Shares
from functions.state.blobs import Blobs
from functions.state.database import shared
from functions.state.fetches import Fetches
from functions.state.jobs import Jobs
from functions.state.outbox import Outbox
from functions.state.presets import Presets
from functions.state.quota import Quota
from functions.upload.tus.uploads import HOURS, Uploads
from functions.warm_up import before_first_request


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The stores, records and limits that an upload needs.

    Attributes:
        max_bytes: bytes of a file.
        quota: what a user may store.
        space: what the media stores have left.
        shares: how many uploads are received at once.
        callbacks: the addresses that may be told of the end of a job.
        fetches: the jobs whose videos are fetched from an address.
        fetch_limit: how many of them a user may have.
        sources: the addresses that videos may be fetched from; None if they may not.
    """

    media: Media
    blobs: Blobs
    jobs: Jobs
    uploads: Uploads
    outbox: Outbox
    presets: Presets
    fetches: Fetches
    fetch_limit: FetchLimit
    max_bytes: int = MAX_BYTES
    quota: Quota = field(default_factory=Quota)
    space: FreeSpace = field(default_factory=lambda: FreeSpace(lambda: None))
    shares: Shares = field(default_factory=lambda: Shares.from_environ({}))
    callbacks: Policy = field(default_factory=Policy)
    sources: Policy | None = None

    @contextlib.contextmanager
    def receiving(self, request: Request, identity: Identity) -> Iterator[None]:
        """Counts the request while its body is received.

        Raises:
            TooManyRequests: the user or the client's network has its share; nothing was received.
        """
        end = take_share(request, identity.user, self.shares)
        try:
            yield
        finally:
            end()


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process.

    Raises:
        BadSetting: a variable is missing or malformed.
    """
    database = shared(os.environ)
    media = connect(os.environ)
    return Dependencies(
        media=media,
        blobs=Blobs(database),
        jobs=Jobs(database),
        uploads=Uploads(database, number(os.environ, "UPLOAD_HOURS", HOURS, 0.25)),
        outbox=Outbox(database, publisher(os.environ, "/mp3burst/upload")),
        presets=Presets(database, of_installation(os.environ)),
        fetches=Fetches(database),
        fetch_limit=FetchLimit(database),
        max_bytes=int(number(os.environ, "MAX_UPLOAD_BYTES", MAX_BYTES, 1)),
        quota=Quota.from_environ(os.environ),
        space=FreeSpace(media.space, min_free(os.environ), mp3s=media.mp3_space),
        shares=Shares.from_environ(os.environ),
        callbacks=Policy.from_environ(os.environ),
        sources=Policy.for_fetching(os.environ) if switch(os.environ, "FETCH_URLS", default=False) else None,
    )


before_first_request(prepare_to_identify)


@before_first_request
def _connect() -> None:
    dependencies().media.videos.connect()


def authorize(request: Request) -> Identity:
    """Returns the identity of the user who uploads.

    Raises:
        NotAuthenticated: the request has no valid token.
        NotAllowed: UPLOAD_ROLE restricts uploads to another role.
    """
    identity = identify(request, os.environ)
    if os.environ.get("UPLOAD_ROLE", "") not in ("", identity.role):
        raise NotAllowed("Only administrators may upload here: ask one of them.")
    return identity
