"""Turns the video of a job into its MP3."""

import functools
import logging
import os
from dataclasses import dataclass

import functions_framework
from cloudevents.http import CloudEvent

from events.publish import publisher
from events.schema import Event
from functions.blobs import Blobs
from functions.convert.cores import available_cores
from functions.convert.faults import UnusableMedia
from functions.convert.workplace import workplace
from functions.database import Database, url
from functions.jobs import GIVEN_UP, Job, Jobs, Outcome
from functions.leases import Keeper, Lease
from functions.media import BlobCorrupt, BlobNotFound, Description, Media, connect
from functions.outbox import Outbox
from functions.reception import handling, received
from functions.settings import number

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a conversion takes."""

    media: Media
    blobs: Blobs
    jobs: Jobs
    outbox: Outbox
    encoders: int
    ffmpeg: str | None = None


@functions_framework.cloud_event
def convert(event: CloudEvent) -> None:
    """Eats dev.mp3burst.video.uploaded."""
    if (uploaded := received(event)) is not None:
        with handling(uploaded):
            convert_video(uploaded.job, _workshop())


def convert_video(job: str, workshop: Workshop) -> None:
    """Make the job's MP3, or record why there can be none, and emit the event that says so.

    Raises:
        TryAgain: something was away, and the job has been given back.
    """
    lease = workshop.jobs.claim(job)
    if lease is None:
        log.info("job %s: nothing to convert, or another does", job)
        return
    event = workshop.jobs.fail(lease, GIVEN_UP) if lease.spent else _attempt(lease, workshop)
    if event is not None:
        workshop.outbox.emit(event)


def _attempt(lease: Lease, workshop: Workshop) -> Event | None:
    """One try; the event to emit, or None where the job went to another or is gone."""
    jobs, job, progress = workshop.jobs, Job.of(lease.row), [0.0]
    try:
        with jobs.keep(lease, lambda: progress[0]) as keeper:
            outcome = _make_mp3(job, keeper, progress, workshop)
            event = jobs.finish(lease, outcome)
    except UnusableMedia as error:
        log.info("job %s: %s", job.id, error)
        return jobs.fail(lease, str(error))
    except (BlobNotFound, BlobCorrupt):
        log.exception("job %s: its video cannot be read", job.id)
        return jobs.fail(lease, "The stored video is lost or damaged: upload it again.")
    except Exception:
        jobs.release(lease)
        raise
    if event is None:
        workshop.blobs.discard(workshop.media, "mp3s", outcome.mp3)
    return event


def _make_mp3(job: Job, keeper: Keeper, progress: list[float], workshop: Workshop) -> Outcome:
    from functions.convert.engine import to_mp3

    def on_progress(fraction: float) -> None:
        keeper.check()
        progress[0] = fraction

    about = Description(job.owner, job.id, mp3_name(job.filename), "audio/mpeg")
    with (
        workplace() as directory,
        workshop.media.videos.open(job.video) as video,
        workshop.blobs.writing(workshop.media, "mp3s", about) as mp3,
    ):
        result = to_mp3(
            video,
            mp3,
            job.options,
            filename=job.filename,
            directory=directory,
            encoders=workshop.encoders,
            on_progress=on_progress,
            ffmpeg=workshop.ffmpeg,
        )
    log.info("job %s: %.1f s of audio are %d bytes of MP3", job.id, result.duration, mp3.size)
    return Outcome(mp3.blob, result.duration, result.warning)


def mp3_name(filename: str) -> str:
    """The file name of the MP3 that is made of this file."""
    stem = filename.rpartition(".")[0] or filename
    return f"{stem[:251]}.mp3"


@functools.cache
def _workshop() -> Workshop:
    database = Database(url(os.environ))
    outbox = Outbox(database, publisher(os.environ, "/mp3burst/convert"))
    encoders = int(number(os.environ, "ENCODERS", available_cores(), 1))
    ffmpeg = os.environ.get("FFMPEG") or None
    return Workshop(connect(os.environ), Blobs(database), Jobs(database), outbox, encoders, ffmpeg)
