"""Converts the video of a job to its MP3. Three services run from one image: convert, encode and join."""

import functions_framework
from cloudevents.http import CloudEvent

from events.schema import PieceCut, PiecesEncoded, VideoUploaded
from functions.convert import handlers
from functions.convert.demux.spawner import spawner
from functions.convert.dependencies import dependencies
from functions.event_endpoint import handling, received


@functions_framework.cloud_event
def convert(event: CloudEvent) -> None:
    """Handles dev.mp3burst.video.uploaded."""
    if isinstance(uploaded := received(event), VideoUploaded):
        with handling(uploaded):
            spawner.prepare()
            handlers.convert(uploaded.job, dependencies())
            spawner.prepare()  # for the next event


@functions_framework.cloud_event
def encode(event: CloudEvent) -> None:
    """Handles dev.mp3burst.piece.cut."""
    if isinstance(piece := received(event), PieceCut):
        with handling(piece):
            handlers.encode(piece.job, piece.n, dependencies())


@functions_framework.cloud_event
def join(event: CloudEvent) -> None:
    """Handles dev.mp3burst.pieces.encoded."""
    if isinstance(encoded := received(event), PiecesEncoded):
        with handling(encoded):
            handlers.join(encoded.job, dependencies())
