"""Fetches videos from the addresses that users name in place of a file."""

import functools
import os

import functions_framework
from cloudevents.http import CloudEvent

from events.publish import publisher
from events.schema import FetchDue
from functions.event_endpoint import handling, received
from functions.fetch import download
from functions.fetch.download import Dependencies
from functions.file_checks import MAX_BYTES
from functions.media import connect
from functions.media.connect import min_free
from functions.media.space import FreeSpace
from functions.outgoing.addresses import Policy
from functions.settings import number
from functions.state.blobs import Blobs
from functions.state.database import shared
from functions.state.fetches import Fetches
from functions.state.outbox import Outbox
from functions.state.quota import Quota


@functions_framework.cloud_event
def fetch(event: CloudEvent) -> None:
    """Handles dev.mp3burst.fetch.due."""
    if isinstance(due := received(event), FetchDue):
        with handling(due):
            download.fetch(due.job, dependencies())


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process.

    Raises:
        BadSetting: a variable is missing or invalid.
    """
    database = shared(os.environ)
    media = connect(os.environ)
    return Dependencies(
        media=media,
        blobs=Blobs(database),
        fetches=Fetches(database, places=int(number(os.environ, "PLACES", 0))),
        outbox=Outbox(database, publisher(os.environ, "/mp3burst/fetch")),
        policy=Policy.for_fetching(os.environ),
        max_bytes=int(number(os.environ, "MAX_UPLOAD_BYTES", MAX_BYTES, 1)),
        quota=Quota.from_environ(os.environ),
        space=FreeSpace(media.space, min_free(os.environ), mp3s=media.mp3_space),
    )
