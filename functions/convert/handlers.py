"""A long track shared out: cut into pieces by convert, encoded by many workers, joined by one."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from events.errors import with_cause
from events.schema import Event
from functions.convert import cover, pipeline
from functions.convert.demux.track import TrackInfo, TrackStream
from functions.convert.dependencies import Dependencies, mp3_name
from functions.convert.distribution import EncodedPiece, JobPlan, encode_piece, pieces_fit, plan_pieces
from functions.convert.errors import UnusableMedia
from functions.convert.ffmpeg.binary import default_ffmpeg
from functions.convert.mp3 import assemble, id3, reservoir
from functions.convert.mp3.assemble import SupportsWrite
from functions.convert.plan import FrameRange, Plan
from functions.convert.seek import excerpt
from functions.convert.workspace import workspace
from functions.media import BlobCorrupt, BlobNotFound, Description
from functions.state.jobs import ATTEMPTS_EXHAUSTED, Job, Outcome
from functions.state.leases import Lease, LeaseRenewer
from functions.state.pieces import SplitRecord

_CHUNK = 1 << 20
#: Opens what is then read from its start and closed: a blob or a file.
_Opens = Callable[[], Any]
_LOST = "The audio track of this job is lost or damaged: upload the video again."
log = logging.getLogger(__name__)


def convert(job: str, deps: Dependencies) -> None:
    """Make the job's MP3, or share the work out, or record why there can be none; emit the events that say so.

    Raises:
        TryAgain: something was away, and the job has been given back.
    """
    lease = deps.jobs.claim(job)
    if lease is None:
        log.info("job %s: nothing to convert, or another does", job)
        return
    events = _failed(lease, ATTEMPTS_EXHAUSTED, deps) if lease.exhausted else _attempt(lease, deps)
    deps.outbox.emit_all(events)


def _attempt(lease: Lease, deps: Dependencies) -> list[Event]:
    """One try; the events to emit, none where the job went to another or is gone."""
    job, progress = lease.row.id, [0.0]
    try:
        with deps.jobs.renewing(lease, lambda: progress[0]) as keeper:
            return _convert(lease, keeper, progress, deps)
    except UnusableMedia as error:
        log.info("job %s: %s", job, with_cause(error))
        return _failed(lease, str(error), deps)
    except (BlobNotFound, BlobCorrupt):
        log.exception("job %s: its video cannot be read", job)
        return _failed(lease, "The stored video is lost or damaged: upload it again.", deps)
    except Exception as error:
        deps.jobs.release(lease, error)
        raise


def _convert(lease: Lease, keeper: LeaseRenewer, progress: list[float], deps: Dependencies) -> list[Event]:
    job = Job.of(lease.row)

    def on_progress(fraction: float) -> None:
        keeper.check()
        progress[0] = fraction

    with (
        workspace() as directory,
        deps.media.videos.open(job.video) as video,
        pipeline.prepared_track(
            video, directory, job.options, lambda part: on_progress(part * pipeline.READING), deps.ffmpeg
        ) as stream,
    ):
        plan = plan_pieces(stream.info, job.options, deps.fanout, deps.most)
        if plan is not None:
            track = stream.complete(lambda part: on_progress(part * pipeline.READING))
            return share_out(lease, track, plan, keeper, deps)
        outcome = _make_mp3(job, stream, on_progress, deps)
    event = deps.jobs.finish(lease, outcome)
    if event is None:
        deps.blobs.discard(deps.media, "mp3s", outcome.mp3)
    return [] if event is None else [event]


def _make_mp3(job: Job, stream: TrackStream, on_progress: pipeline.OnProgress, deps: Dependencies) -> Outcome:
    about = Description(job.owner, job.id, mp3_name(job.filename), "audio/mpeg")
    with deps.blobs.writing(deps.media, "mp3s", about) as mp3:
        result = pipeline.convert_track(
            stream,
            mp3,
            job.options,
            filename=job.filename,
            encoders=deps.encoders_for(stream.info.duration),
            on_progress=on_progress,
            ffmpeg=deps.ffmpeg,
        )
    log.info("job %s: %.1f s of audio are %d bytes of MP3", job.id, result.duration, mp3.size)
    return Outcome(mp3.blob, result.duration, result.warning, mp3.size)


def _failed(lease: Lease, error: str, deps: Dependencies) -> list[Event]:
    event = deps.jobs.fail(lease, error)
    return [] if event is None else [event]


def share_out(lease: Lease, track: TrackInfo, plan: Plan, keeper: LeaseRenewer, deps: Dependencies) -> list[Event]:
    """Store the track and put its pieces on record; the events to emit, none where the job is another's."""
    job = Job.of(lease.row)
    about = Description(job.owner, job.id, "audio", "application/octet-stream")
    with cover.rendering(track, deps.ffmpeg or default_ffmpeg()) as picture:
        with track.path.open("rb") as file, deps.blobs.writing(deps.media, "pieces", about) as audio:
            _copy(file, audio, keeper)
        image, word = picture(keeper.check)
    with deps.blobs.writing(deps.media, "pieces", about) as head:
        head.write(id3.build_tag(track.tags, job.filename, image, plan.within(track.chapters)))
    whole = JobPlan(plan, head.blob, track.missing, track.errors, word)
    record = SplitRecord(audio.blob, head.blob, whole.to_json(), tuple("{}" for _ in plan.ranges))
    events = deps.pieces.split(lease, record)
    if not events:
        for blob in (audio.blob, head.blob):
            deps.blobs.discard(deps.media, "pieces", blob)
    log.info("job %s: %.0f s of audio are cut into %d pieces", job.id, track.duration, len(events))
    return events


def encode(job: str, n: int, deps: Dependencies) -> None:
    """Encode one piece of a job, in any order, any number of times; the last one has the set joined.

    Raises:
        TryAgain: something was away, and the piece has been given back.
    """
    lease = deps.pieces.claim(job, n)
    row = deps.pieces.job(lease) if lease is not None else None
    if lease is None or row is None:
        log.info("job %s: nothing to encode of piece %d, or another does", job, n)
        return
    try:
        if lease.exhausted:
            raise UnusableMedia(ATTEMPTS_EXHAUSTED)
        events = _encode(lease, row, deps)
    except UnusableMedia as error:
        log.info("job %s: piece %d: %s", job, n, with_cause(error))
        events = _only(deps.pieces.fail(lease, str(error)))
    except (BlobNotFound, BlobCorrupt, excerpt.TrackChanged):
        log.exception("job %s: its audio track cannot be read", job)
        events = _only(deps.pieces.fail(lease, _LOST))
    except Exception as error:
        deps.pieces.release(lease, error)
        raise
    deps.outbox.emit_all(events)


def _encode(lease: Lease, row: Any, deps: Dependencies) -> list[Event]:
    whole, n = JobPlan.from_json(row.plan), lease.row.n
    about = Description(row.owner, row.id, f"piece {n}", "audio/mpeg")
    with workspace() as directory, deps.pieces.renewing(lease) as keeper:
        piece = whole.plan.ranges[n]
        track = _fetch(row.audio, piece, directory, keeper, deps)
        with deps.blobs.writing(deps.media, "pieces", about) as frames:
            part = _encode_piece(whole.plan, piece, track, frames, keeper, deps)
        events = deps.pieces.encoded(lease, frames.blob, part.to_json())
    if events is None:
        deps.blobs.discard(deps.media, "pieces", frames.blob)
    return events or []


def _encode_piece(
    plan: Plan, piece: FrameRange, track: Path, out: SupportsWrite, keeper: LeaseRenewer, deps: Dependencies
) -> EncodedPiece:
    return encode_piece(deps.ffmpeg or default_ffmpeg(), plan, piece, track, out, lambda _: keeper.check())


def join(job: str, deps: Dependencies) -> None:
    """Lay the pieces of a job end to end: its MP3.

    Raises:
        TryAgain: something was away, and the job has been given back.
    """
    joins = deps.joins
    lease = joins.claim(job)
    if lease is None:
        log.info("job %s: nothing to join, or another does", job)
        return
    outcome: Outcome | None = None
    try:
        if lease.exhausted:
            raise UnusableMedia(ATTEMPTS_EXHAUSTED)
        with joins.renewing(lease) as keeper:
            outcome = _join(lease, keeper, deps)
            event = joins.finish(lease, outcome)
    except UnusableMedia as error:
        log.info("job %s: %s", job, with_cause(error))
        event = joins.fail(lease, str(error))
    except (BlobNotFound, BlobCorrupt):
        log.exception("job %s: its pieces cannot be read", job)
        event = joins.fail(lease, _LOST)
    except Exception as error:
        joins.release(lease, error)
        raise
    if event is not None:
        deps.outbox.emit(event)
    elif outcome is not None:
        deps.blobs.discard(deps.media, "mp3s", outcome.mp3)


def _join(lease: Lease, keeper: LeaseRenewer, deps: Dependencies) -> Outcome:
    row, whole = lease.row, JobPlan.from_json(lease.row.plan)
    outputs = deps.pieces.outputs(row.id)
    parts = [EncodedPiece.from_json(plan) for _, plan in outputs]
    about = Description(row.owner, row.id, mp3_name(row.filename), "audio/mpeg")
    with workspace() as directory:
        sound: list[_Opens] = [functools.partial(deps.media.pieces.open, blob) for blob, _ in outputs]
        if not pieces_fit(whole.plan, parts):
            parts, sound = _in_one(whole, row, directory, keeper, deps)
        sums = [part.sum for part in parts]
        if whole.plan.variable:
            sums, sound = _repacked(sums, sound, directory / "repacked", keeper)
        first = pipeline.tag_of(sums, whole.plan.start_sample)
        with deps.blobs.writing(deps.media, "mp3s", about) as mp3:
            _copy_blob(whole.head, mp3, keeper, deps)
            mp3.write(first)
            _copy_all(sound, mp3, keeper)
    duration = pipeline.duration_of(first, sum(one.frames for one in sums))
    log.info("job %s: %d pieces of %.1f s are %d bytes of MP3", row.id, len(outputs), duration, mp3.size)
    lost = pipeline.damage_warning(whole.missing, whole.errors + max(part.errors for part in parts))
    return Outcome(mp3.blob, duration, pipeline.join_warnings(lost, whole.warning), mp3.size)


def _in_one(
    whole: JobPlan, row: Any, directory: Path, keeper: LeaseRenewer, deps: Dependencies
) -> tuple[list[EncodedPiece], list[_Opens]]:
    # The sound changes its rate or channels on the way: ffmpeg counts samples anew from there, and ranges are lost.
    # Or less was decoded than an encoder that leaped had to go by.
    log.warning("job %s: its pieces do not fit together: encoded in one", row.id)
    everything = FrameRange(0, None)
    track, frames = _fetch(row.audio, everything, directory, keeper, deps), directory / "frames"
    with frames.open("wb") as out:
        part = _encode_piece(whole.plan.for_changing_format(), everything, track, out, keeper, deps)
    return [part], [functools.partial(frames.open, "rb")]


def _repacked(
    sums: list[assemble.PieceSummary], sound: list[_Opens], path: Path, keeper: LeaseRenewer
) -> tuple[list[assemble.PieceSummary], list[_Opens]]:
    with reservoir.repacking(path) as out:
        _copy_all(sound, out, keeper)
    return [reservoir.repacked_summary(path, sums)], [functools.partial(path.open, "rb")]


def _fetch(blob: str, piece: FrameRange, directory: Path, keeper: LeaseRenewer, deps: Dependencies) -> Path:
    """A file with the audio track, or with what of it the piece's encoder reads."""
    path = directory / "track"
    with path.open("wb") as file:
        if piece.seek is None:
            _copy_blob(blob, file, keeper, deps)
        else:
            with deps.media.pieces.open(blob) as source:
                excerpt.write_excerpt(source, piece.seek, file)
    return path


def _copy_blob(blob: str, out: SupportsWrite, keeper: LeaseRenewer, deps: Dependencies) -> None:
    with deps.media.pieces.open(blob) as source:
        _copy(source, out, keeper)


def _copy_all(sources: list[_Opens], out: SupportsWrite, keeper: LeaseRenewer) -> None:
    for opens in sources:
        with opens() as source:
            _copy(source, out, keeper)


def _copy(source: Any, out: SupportsWrite, keeper: LeaseRenewer) -> None:
    while chunk := source.read(_CHUNK):
        keeper.check()
        out.write(chunk)


def _only(event: Event | None) -> list[Event]:
    return [] if event is None else [event]
