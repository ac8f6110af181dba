"""Turns the video of a job into its MP3: three services of one image, convert, encode and join."""

import functools
import logging
import os
from typing import Final

import functions_framework
from cloudevents.http import CloudEvent

from events.errors import with_cause
from events.publish import publisher
from events.schema import Event, PieceCut
from functions.convert import pipeline
from functions.convert.cpus import MOST_ENCODERS, available_cores
from functions.convert.demux import track as probe
from functions.convert.demux.spawner import readers
from functions.convert.demux.track import Track
from functions.convert.dependencies import Workshop, mp3_name
from functions.convert.distribution import MOST_LEAPS, MOST_PIECES, pieces_of
from functions.convert.errors import UnusableMedia
from functions.convert.ffmpeg.binary import ffmpeg_of
from functions.convert.handlers import encode_one, join_pieces, share_out
from functions.convert.workspace import workplace
from functions.event_endpoint import handling, received
from functions.media import BlobCorrupt, BlobNotFound, Description, connect
from functions.settings import number
from functions.state.blobs import Blobs
from functions.state.database import Database, url
from functions.state.jobs import GIVEN_UP, Job, Jobs, Outcome
from functions.state.leases import Keeper, Lease
from functions.state.outbox import Outbox
from functions.state.pieces import Pieces

#: Seconds of sound from which on a job is shared out.
FANOUT_SECONDS: Final = 900.0
log = logging.getLogger(__name__)


@functions_framework.cloud_event
def convert(event: CloudEvent) -> None:
    """Eats dev.mp3burst.video.uploaded."""
    if (uploaded := received(event)) is not None:
        with handling(uploaded):
            readers.prepare()
            convert_video(uploaded.job, _workshop())
            readers.prepare()  # for the next event, should there be one


@functions_framework.cloud_event
def encode(event: CloudEvent) -> None:
    """Eats dev.mp3burst.piece.cut."""
    if isinstance(cut := received(event), PieceCut):
        with handling(cut):
            encode_one(cut.job, cut.n, _workshop())


@functions_framework.cloud_event
def join(event: CloudEvent) -> None:
    """Eats dev.mp3burst.pieces.encoded."""
    if (encoded := received(event)) is not None:
        with handling(encoded):
            join_pieces(encoded.job, _workshop())


def convert_video(job: str, workshop: Workshop) -> None:
    """Make the job's MP3, or share the work out, or record why there can be none; emit the events that say so.

    Raises:
        TryAgain: something was away, and the job has been given back.
    """
    lease = workshop.jobs.claim(job)
    if lease is None:
        log.info("job %s: nothing to convert, or another does", job)
        return
    events = _failed(lease, GIVEN_UP, workshop) if lease.spent else _attempt(lease, workshop)
    workshop.outbox.emit_all(events)


def _attempt(lease: Lease, workshop: Workshop) -> list[Event]:
    """One try; the events to emit, none where the job went to another or is gone."""
    job, progress = lease.row.id, [0.0]
    try:
        with workshop.jobs.keep(lease, lambda: progress[0]) as keeper:
            return _convert(lease, keeper, progress, workshop)
    except UnusableMedia as error:
        log.info("job %s: %s", job, with_cause(error))
        return _failed(lease, str(error), workshop)
    except (BlobNotFound, BlobCorrupt):
        log.exception("job %s: its video cannot be read", job)
        return _failed(lease, "The stored video is lost or damaged: upload it again.", workshop)
    except Exception as error:
        workshop.jobs.release(lease, error)
        raise


def _convert(lease: Lease, keeper: Keeper, progress: list[float], workshop: Workshop) -> list[Event]:
    job = Job.of(lease.row)

    def on_progress(fraction: float) -> None:
        keeper.check()
        progress[0] = fraction

    with (
        workplace() as directory,
        workshop.media.videos.open(job.video) as video,
        pipeline.taking(
            video, directory, job.options, lambda part: on_progress(part * pipeline.READING), workshop.ffmpeg
        ) as track,
    ):
        plan = pieces_of(track, job.options, workshop.fanout, workshop.most)
        if plan is not None:
            track = probe.whole(track, lambda part: on_progress(part * pipeline.READING))
            return share_out(lease, track, plan, keeper, workshop)
        outcome = _make_mp3(job, track, on_progress, workshop)
    event = workshop.jobs.finish(lease, outcome)
    if event is None:
        workshop.blobs.discard(workshop.media, "mp3s", outcome.mp3)
    return [] if event is None else [event]


def _make_mp3(job: Job, track: Track, on_progress: pipeline.OnProgress, workshop: Workshop) -> Outcome:
    about = Description(job.owner, job.id, mp3_name(job.filename), "audio/mpeg")
    with workshop.blobs.writing(workshop.media, "mp3s", about) as mp3:
        result = pipeline.make(
            track,
            mp3,
            job.options,
            filename=job.filename,
            encoders=workshop.encoders_for(track.duration),
            on_progress=on_progress,
            ffmpeg=workshop.ffmpeg,
        )
    log.info("job %s: %.1f s of audio are %d bytes of MP3", job.id, result.duration, mp3.size)
    return Outcome(mp3.blob, result.duration, result.warning, mp3.size)


def _failed(lease: Lease, error: str, workshop: Workshop) -> list[Event]:
    event = workshop.jobs.fail(lease, error)
    return [] if event is None else [event]


@functools.cache
def _workshop() -> Workshop:
    database = Database(url(os.environ))
    return Workshop(
        media=connect(os.environ),
        blobs=Blobs(database),
        jobs=Jobs(database),
        joins=Jobs(database, stage="joining"),
        pieces=Pieces(database),
        outbox=Outbox(database, publisher(os.environ, f"/mp3burst/{os.environ.get('FUNCTION_TARGET', 'convert')}")),
        encoders=int(number(os.environ, "ENCODERS", min(available_cores(), MOST_ENCODERS), 1, MOST_ENCODERS)),
        fanout=number(os.environ, "FANOUT_SECONDS", FANOUT_SECONDS),
        most=int(number(os.environ, "FANOUT_PIECES", MOST_PIECES, 2, MOST_LEAPS)),
        ffmpeg=ffmpeg_of(os.environ),
    )
