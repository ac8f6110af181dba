"""A long track shared out: cut into pieces by convert, encoded by many workers, joined by one."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from events.errors import with_cause
from events.schema import Event
from functions.convert import cover, pipeline
from functions.convert.demux.track import Track
from functions.convert.dependencies import Workshop, mp3_name
from functions.convert.distribution import Part, Whole, encode_piece, joinable
from functions.convert.errors import UnusableMedia
from functions.convert.ffmpeg.binary import own_ffmpeg
from functions.convert.mp3 import assemble, id3, repack
from functions.convert.mp3.assemble import SupportsWrite
from functions.convert.plan import Piece, Plan
from functions.convert.seek import leap
from functions.convert.workspace import workplace
from functions.media import BlobCorrupt, BlobNotFound, Description
from functions.state.jobs import GIVEN_UP, Job, Outcome
from functions.state.leases import Keeper, Lease
from functions.state.pieces import Cut

_CHUNK = 1 << 20
#: Opens what is then read from its start and closed: a blob or a file.
_Opens = Callable[[], Any]
_LOST = "The audio track of this job is lost or damaged: upload the video again."
log = logging.getLogger(__name__)


def share_out(lease: Lease, track: Track, plan: Plan, keeper: Keeper, workshop: Workshop) -> list[Event]:
    """Store the track and put its pieces on record; the events to emit, none where the job is another's."""
    job = Job.of(lease.row)
    about = Description(job.owner, job.id, "audio", "application/octet-stream")
    with cover.drawing(track, workshop.ffmpeg or own_ffmpeg()) as picture:
        with track.path.open("rb") as file, workshop.blobs.writing(workshop.media, "pieces", about) as audio:
            _copy(file, audio, keeper)
        image, word = picture(keeper.check)
    with workshop.blobs.writing(workshop.media, "pieces", about) as head:
        head.write(id3.id3(track.tags, job.filename, image, plan.within(track.chapters)))
    whole = Whole(plan, head.blob, track.missing, track.errors, word)
    cut = Cut(audio.blob, head.blob, whole.to_json(), tuple("{}" for _ in plan.pieces))
    events = workshop.pieces.cut(lease, cut)
    if not events:
        for blob in (audio.blob, head.blob):
            workshop.blobs.discard(workshop.media, "pieces", blob)
    log.info("job %s: %.0f s of audio are cut into %d pieces", job.id, track.duration, len(events))
    return events


def encode_one(job: str, n: int, workshop: Workshop) -> None:
    """Encode one piece of a job, in any order, any number of times; the last one has the set joined.

    Raises:
        TryAgain: something was away, and the piece has been given back.
    """
    lease = workshop.pieces.claim(job, n)
    row = workshop.pieces.job(lease) if lease is not None else None
    if lease is None or row is None:
        log.info("job %s: nothing to encode of piece %d, or another does", job, n)
        return
    try:
        if lease.spent:
            raise UnusableMedia(GIVEN_UP)
        events = _encode(lease, row, workshop)
    except UnusableMedia as error:
        log.info("job %s: piece %d: %s", job, n, with_cause(error))
        events = _only(workshop.pieces.fail(lease, str(error)))
    except (BlobNotFound, BlobCorrupt, leap.Damaged):
        log.exception("job %s: its audio track cannot be read", job)
        events = _only(workshop.pieces.fail(lease, _LOST))
    except Exception as error:
        workshop.pieces.release(lease, error)
        raise
    workshop.outbox.emit_all(events)


def _encode(lease: Lease, row: Any, workshop: Workshop) -> list[Event]:
    whole, n = Whole.from_json(row.plan), lease.row.n
    about = Description(row.owner, row.id, f"piece {n}", "audio/mpeg")
    with workplace() as directory, workshop.pieces.keep(lease) as keeper:
        piece = whole.plan.pieces[n]
        track = _fetch(row.audio, piece, directory, keeper, workshop)
        with workshop.blobs.writing(workshop.media, "pieces", about) as frames:
            part = _encode_piece(whole.plan, piece, track, frames, keeper, workshop)
        events = workshop.pieces.encoded(lease, frames.blob, part.to_json())
    if events is None:
        workshop.blobs.discard(workshop.media, "pieces", frames.blob)
    return events or []


def _encode_piece(
    plan: Plan, piece: Piece, track: Path, out: SupportsWrite, keeper: Keeper, workshop: Workshop
) -> Part:
    return encode_piece(workshop.ffmpeg or own_ffmpeg(), plan, piece, track, out, lambda _: keeper.check())


def join_pieces(job: str, workshop: Workshop) -> None:
    """Lay the pieces of a job end to end: its MP3.

    Raises:
        TryAgain: something was away, and the job has been given back.
    """
    joins = workshop.joins
    lease = joins.claim(job)
    if lease is None:
        log.info("job %s: nothing to join, or another does", job)
        return
    outcome: Outcome | None = None
    try:
        if lease.spent:
            raise UnusableMedia(GIVEN_UP)
        with joins.keep(lease) as keeper:
            outcome = _join(lease, keeper, workshop)
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
        workshop.outbox.emit(event)
    elif outcome is not None:
        workshop.blobs.discard(workshop.media, "mp3s", outcome.mp3)


def _join(lease: Lease, keeper: Keeper, workshop: Workshop) -> Outcome:
    row, whole = lease.row, Whole.from_json(lease.row.plan)
    outputs = workshop.pieces.outputs(row.id)
    parts = [Part.from_json(plan) for _, plan in outputs]
    about = Description(row.owner, row.id, mp3_name(row.filename), "audio/mpeg")
    with workplace() as directory:
        sound: list[_Opens] = [functools.partial(workshop.media.pieces.open, blob) for blob, _ in outputs]
        if not joinable(whole.plan, parts):
            parts, sound = _in_one(whole, row, directory, keeper, workshop)
        sums = [part.sum for part in parts]
        if whole.plan.variable:
            sums, sound = _repacked(sums, sound, directory / "repacked", keeper)
        first = pipeline.tag_of(sums, whole.plan.before)
        with workshop.blobs.writing(workshop.media, "mp3s", about) as mp3:
            _copy_blob(whole.head, mp3, keeper, workshop)
            mp3.write(first)
            _copy_all(sound, mp3, keeper)
    duration = pipeline.duration_of(first, sum(one.frames for one in sums))
    log.info("job %s: %d pieces of %.1f s are %d bytes of MP3", row.id, len(outputs), duration, mp3.size)
    lost = pipeline.lost(whole.missing, whole.errors + max(part.errors for part in parts))
    return Outcome(mp3.blob, duration, pipeline.both(lost, whole.warning), mp3.size)


def _in_one(
    whole: Whole, row: Any, directory: Path, keeper: Keeper, workshop: Workshop
) -> tuple[list[Part], list[_Opens]]:
    # The sound changes its rate or channels on the way: ffmpeg counts samples anew from there, and ranges are lost.
    # Or less was decoded than an encoder that leaped had to go by.
    log.warning("job %s: its pieces do not fit together: encoded in one", row.id)
    everything = Piece(0, None)
    track, frames = _fetch(row.audio, everything, directory, keeper, workshop), directory / "frames"
    with frames.open("wb") as out:
        part = _encode_piece(whole.plan.steadied(), everything, track, out, keeper, workshop)
    return [part], [functools.partial(frames.open, "rb")]


def _repacked(
    sums: list[assemble.Sum], sound: list[_Opens], path: Path, keeper: Keeper
) -> tuple[list[assemble.Sum], list[_Opens]]:
    with repack.into(path) as out:
        _copy_all(sound, out, keeper)
    return [repack.measured(path, sums)], [functools.partial(path.open, "rb")]


def _fetch(blob: str, piece: Piece, directory: Path, keeper: Keeper, workshop: Workshop) -> Path:
    """A file with the audio track, or with what of it the piece's encoder reads."""
    path = directory / "track"
    with path.open("wb") as file:
        if piece.leap is None:
            _copy_blob(blob, file, keeper, workshop)
        else:
            with workshop.media.pieces.open(blob) as source:
                leap.excerpt(source, piece.leap, file)
    return path


def _copy_blob(blob: str, out: SupportsWrite, keeper: Keeper, workshop: Workshop) -> None:
    with workshop.media.pieces.open(blob) as source:
        _copy(source, out, keeper)


def _copy_all(sources: list[_Opens], out: SupportsWrite, keeper: Keeper) -> None:
    for opens in sources:
        with opens() as source:
            _copy(source, out, keeper)


def _copy(source: Any, out: SupportsWrite, keeper: Keeper) -> None:
    while chunk := source.read(_CHUNK):
        keeper.check()
        out.write(chunk)


def _only(event: Event | None) -> list[Event]:
    return [] if event is None else [event]
