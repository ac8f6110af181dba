"""The work of convert, encode and join, each one attempt as ``functions.state.leases.attempt`` defines it.

Convert makes the MP3 of a short video by itself. It splits a long one into pieces, which any number of workers encode
at once; the last of them has the pieces joined.

Each of the three defers a row while enough of its owner's rows are being worked on (``functions.state.fairness``), and
admits deferred rows of the owner when it has claimed one, when its attempt ends, and when it finds nothing to do,
because whoever did it may have been killed before it could.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from events.schema import JobId
from functions.convert import cover, pipeline, silence, track_list
from functions.convert.budget import REPACKED, Budget
from functions.convert.demux.track import Indexing, SampleRange, TrackInfo, TrackStream
from functions.convert.dependencies import Dependencies
from functions.convert.distribution import (
    EncodedPiece,
    JobPlan,
    encode_piece,
    pieces_fit,
    plan_pieces,
    plan_ranges,
    with_excerpts,
)
from functions.convert.errors import UnusableMedia
from functions.convert.ffmpeg.binary import default_ffmpeg
from functions.convert.ffmpeg.encoder import EncoderInput
from functions.convert.meter import Meter
from functions.convert.mp3 import assemble
from functions.convert.plan import LOOKAHEAD_FRAMES, FrameRange, Plan
from functions.convert.points import join_points
from functions.convert.seek import excerpt
from functions.convert.seek.errors import TrackChanged
from functions.convert.seek.extraction import Fetched
from functions.convert.seek.independence import fetch_excerpt, mark_seams
from functions.convert.seek.numbering import Mark
from functions.convert.seek.recipe import Recipe, read_recipe
from functions.convert.streams import SupportsReadSeek, SupportsWrite
from functions.convert.track_list import ListedTrack
from functions.convert.workspace import workspace
from functions.media import BlobCorrupt, BlobId, BlobNotFound, Description
from functions.media.read_ahead import read_blobs
from functions.mp3 import id3
from functions.mp3.names import mp3_name
from functions.progress import READ_SHARE
from functions.state.admission import admit, admitting
from functions.state.blobs import RenewingWriter
from functions.state.jobs import FELL_BACK, Job, Jobs, Outcome
from functions.state.leases import Lease, LeaseLost, LeaseRenewer, Output, attempt
from functions.state.pieces import PieceOutput, PieceRow, SplitRecord
from functions.state.quota import MP3_STEP, Reservation, ReservedWriter, ShareReservation

#: Bytes that are copied at a time.
_CHUNK: Final = 1 << 20
_EVERYTHING: Final = FrameRange(0, None)
#: Seconds of a cluster before the pre-roll, about: what decoders need, and what ranges are moved by.
_BEFORE_PREROLL: Final = 1.5
_VIDEO_LOST: Final = "The stored video is lost or damaged: upload it again."
_TRACK_LOST: Final = "The audio track of this job is lost or damaged: upload the video again."
log = logging.getLogger(__name__)


def convert(job: JobId, deps: Dependencies) -> None:
    """Converts the job's video to an MP3, or splits a long one into pieces, and emits the events that follow.

    Raises:
        TryAgain: the failure is temporary, and the job has been released.
        LeaseLost: another worker has the job.
    """
    lease = deps.jobs.claim(job)
    if lease is None:
        log.info("job %s: nothing to convert now, or another worker is converting it", job)
        admit(deps.jobs, deps.jobs.owner(job), deps.outbox)
        return

    def work(renewer: LeaseRenewer) -> Output:
        with _failing_on_lost_blobs(job, _VIDEO_LOST), _recording_tracks_on_failure(lease, deps):
            return _convert(lease, renewer, deps)

    with admitting(deps.jobs, lease.row.owner, deps.outbox):
        deps.outbox.emit_all(attempt(deps.jobs, lease, work, f"job {job}"))


def encode(job: JobId, n: int, deps: Dependencies) -> None:
    """Encodes piece ``n`` of a job; the last of its pieces emits the event that has them joined.

    Pieces are encoded in any order. Encoding one again changes nothing.

    Raises:
        TryAgain: the failure is temporary, and the piece has been released.
        LeaseLost: another worker has the piece.
    """
    lease = deps.pieces.claim(job, n)
    split_job = deps.pieces.job(lease) if lease is not None else None
    if lease is None or split_job is None:
        log.info("job %s: piece %d: nothing to encode now, or another worker is encoding it", job, n)
        admit(deps.pieces, deps.jobs.owner(job), deps.outbox)
        return

    def work(renewer: LeaseRenewer) -> Output:
        with _failing_on_lost_blobs(job, _TRACK_LOST):
            return _encode(lease, split_job, renewer, deps)

    with admitting(deps.pieces, lease.row.owner, deps.outbox):
        deps.outbox.emit_all(attempt(deps.pieces, lease, work, f"job {job}: piece {n}"))


def join(job: JobId, deps: Dependencies) -> None:
    """Concatenates the encoded pieces of a job into its MP3, and emits the event that announces it.

    Raises:
        TryAgain: the failure is temporary, and the job has been released.
        LeaseLost: another worker has the job.
    """
    lease = deps.joins.claim(job)
    if lease is None:
        log.info("job %s: nothing to join now, or another worker is joining it", job)
        admit(deps.joins, deps.joins.owner(job), deps.outbox)
        return

    def work(renewer: LeaseRenewer) -> Output:
        with _failing_on_lost_blobs(job, _TRACK_LOST):
            return _join(lease, renewer, deps)

    with admitting(deps.joins, lease.row.owner, deps.outbox):
        deps.outbox.emit_all(attempt(deps.joins, lease, work, f"job {job}"))


@contextmanager
def _failing_on_lost_blobs(job: JobId, message: str) -> Iterator[None]:
    """Fails the job if a stored blob is lost or damaged, which no retry can repair."""
    try:
        yield
    except (BlobNotFound, BlobCorrupt, TrackChanged) as error:
        log.exception("job %s: a stored file cannot be read", job)
        raise UnusableMedia(message) from error


@contextmanager
def _recording_tracks_on_failure(lease: Lease[Job], deps: Dependencies) -> Iterator[None]:
    """Records the tracks of a file whose track cannot be converted, so that its user can choose another."""
    try:
        yield
    except UnusableMedia as error:
        _record_tracks(lease, error.tracks, deps)
        raise


def _record_tracks(lease: Lease[Job], tracks: Sequence[ListedTrack], deps: Dependencies) -> None:
    if tracks and not deps.jobs.record_tracks(lease, track_list.to_json(tracks)):
        raise LeaseLost("Another worker has taken over this work.")


def _mp3_output(jobs: Jobs, lease: Lease[Job], outcome: Outcome, deps: Dependencies) -> Output:
    return Output(
        lambda: jobs.finish(lease, outcome), discard=lambda: deps.blobs.discard(deps.media, "mp3s", outcome.mp3)
    )


def _convert(lease: Lease[Job], renewer: LeaseRenewer, deps: Dependencies) -> Output:
    meter = Meter(alone=True)
    if lease.row.plan != FELL_BACK:
        indexing = Indexing(deps.fanout_seconds, _ranges_of(lease.row, deps))
        output = _convert_track(lease, renewer, deps, meter, indexing)
        if output is not None:
            return output
    output = _convert_track(lease, renewer, deps, meter)
    if output is None:
        raise AssertionError("a track that was extracted can be converted")
    return output


def _ranges_of(job: Job, deps: Dependencies) -> Callable[[TrackInfo], list[SampleRange]]:
    """Returns a function that returns the ranges of a track that are to be encoded; none if its file is needed."""

    def ranges(track: TrackInfo) -> list[SampleRange]:
        plan = plan_ranges(track, job.options, deps.fanout_seconds, deps.max_pieces)
        return [] if plan is None else plan.sample_ranges(ends_early=job.options.end is not None)

    return ranges


def _convert_track(
    lease: Lease[Job], renewer: LeaseRenewer, deps: Dependencies, meter: Meter, indexing: Indexing | None = None
) -> Output | None:
    """Converts the job's track, or splits the job; None if the track was indexed and has to be extracted instead."""
    job = lease.row

    def on_read(fraction: float) -> None:
        renewer.report(fraction * READ_SHARE)
        meter.reading()

    preparation = pipeline.Preparation(
        ffmpeg=deps.ffmpeg, max_seconds=deps.max_seconds, filename=job.filename, indexing=indexing
    )
    with (
        workspace() as directory,
        deps.media.videos.open(job.video) as video,
        pipeline.prepared_track(video, directory, job.options, on_read, preparation) as stream,
    ):
        _record_tracks(lease, stream.info.tracks, deps)
        if stream.indexed:
            plan = _plan_excerpts(job, stream.complete(on_read), video, renewer, deps)
            if plan is None:
                return None
        else:
            plan = plan_pieces(stream.info, job.options, deps.fanout_seconds, deps.max_pieces)
        if plan is not None:
            Budget(deps.max_seconds).check_seconds(plan.end_seconds)
            stream.complete(on_read)
            return _split(lease, stream, plan, renewer, deps, meter)
        outcome = _make_mp3(job, stream, renewer, deps, meter)
    return _mp3_output(deps.jobs, lease, outcome, deps)


def _plan_excerpts(
    job: Job, track: TrackInfo, video: SupportsReadSeek, renewer: LeaseRenewer, deps: Dependencies
) -> Plan | None:
    """Plans the encoding of an indexed track; returns None if its decoder draws random numbers."""
    plan = plan_ranges(track, job.options, deps.fanout_seconds, deps.max_pieces)
    if plan is None:
        raise AssertionError("a track is indexed only if there is a plan for it")
    plan, sample = with_excerpts(plan, track.path, video.seek(0, os.SEEK_END))
    path = track.path.with_name("sample")
    ffmpeg = deps.ffmpeg or default_ffmpeg()
    if sample is None or fetch_excerpt(sample, video, path, plan.container, ffmpeg, renewer.check):
        log.info("job %s: %d pieces are encoded without extracting the track", job.id, len(plan.ranges))
        return plan
    log.info("job %s: its decoder draws random numbers: extracting the track", job.id)
    return None


def _make_mp3(job: Job, stream: TrackStream, renewer: LeaseRenewer, deps: Dependencies, meter: Meter) -> Outcome:
    description = Description(job.owner, job.id, mp3_name(job.filename), "audio/mpeg")
    with deps.blobs.writing(deps.media, "mp3s", description) as mp3:
        reservation = _mp3_reservation(job, mp3, deps)
        settings = pipeline.Settings(
            options=job.options,
            filename=job.filename,
            encoders=deps.encoders_for(stream.info.duration),
            ffmpeg=deps.ffmpeg,
            budget=Budget(deps.max_seconds, reservation),
        )

        def on_progress(fraction: float) -> None:
            renewer.report(fraction)
            mp3.renew()
            if stream.growing:
                meter.reading()

        out = ReservedWriter(mp3, reservation)
        result = pipeline.convert_track(stream, out, settings, on_progress)
    log.info("job %s: %.1f s of audio became %d bytes of MP3", job.id, result.duration, mp3.size)
    return Outcome(mp3.blob, result.duration, result.warning, mp3.size, meter.usage(), out.crc32, result.waveform)


def _mp3_reservation(job: Job, mp3: RenewingWriter, deps: Dependencies) -> Reservation:
    """The bytes that are reserved for the job's MP3, in place of what its pieces have reserved."""
    grant = functools.partial(deps.quota.convert, job.owner, replaces=job.id)
    return Reservation(deps.blobs, mp3.blob, mp3.granted, grant, MP3_STEP)


def _split(
    lease: Lease[Job], stream: TrackStream, plan: Plan, renewer: LeaseRenewer, deps: Dependencies, meter: Meter
) -> Output:
    """Stores the audio track, or its index, and the head of the MP3; recording them creates the pieces."""
    job = lease.row
    track = stream.info
    description = Description(job.owner, job.id, "audio", "application/octet-stream")
    size = plan.expected_size()
    grant = deps.quota.convert(job.owner, size, size, replaces=job.id)
    with deps.blobs.writing(deps.media, "pieces", description, grant) as head:
        with cover.rendering(track, deps.ffmpeg or default_ffmpeg()) as picture:
            with deps.blobs.writing(deps.media, "pieces", description) as audio:
                for chunk in _file_chunks(track.path, renewer):
                    audio.write(chunk)
                    head.renew()
            image, warning = picture(renewer.check)
        head.write(id3.build_tag(track.tags, job.filename, image, plan.within(silence.chapters_of(track, job.options))))
    job_plan = JobPlan(
        plan,
        head.blob,
        track.missing,
        track.errors + silence.unmentioned(track, job.options),
        assemble.sentences(track.warning, warning),
        truncated=track.truncated,
        silent=silence.warning_for(track, job.options),
        unread=track.unread if job.options.end is None else 0.0,
        index=audio.blob if stream.indexed else None,
    )
    record = SplitRecord(
        audio.blob,
        head.blob,
        job_plan.to_json(),
        tuple("{}" for _ in plan.ranges),
        size,
        meter.usage(),
        is_track=not stream.indexed,
    )
    log.info("job %s: %.0f s of audio are split into %d pieces", job.id, track.duration, len(plan.ranges))

    def discard() -> None:
        for blob in (audio.blob, head.blob):
            deps.blobs.discard(deps.media, "pieces", blob)

    return Output(lambda: deps.pieces.split(lease, record), discard)


def _encode(lease: Lease[PieceRow], job: Job, renewer: LeaseRenewer, deps: Dependencies) -> Output:
    meter = Meter(alone=True)
    job_plan = _plan_of(job)
    plan = job_plan.plan
    frame_range = plan.ranges[lease.row.n]
    marks: tuple[Mark | None, ...] = ()
    description = Description(job.owner, job.id, f"piece {lease.row.n}", "audio/mpeg")
    with workspace() as directory:
        if job_plan.index is None:
            track = _fetch_track(job, frame_range, directory, renewer, deps)
        else:
            track = directory / "track"
            fetched = _fetch_excerpt(job, job_plan, frame_range, track, renewer, deps)
            if fetched is None:
                return _fall_back(lease, "it cannot be decoded from its part of the video alone", deps)
            frame_range = frame_range.from_sample(fetched.sample)
            ffmpeg = deps.ffmpeg or default_ffmpeg()
            marks = mark_seams(fetched, track, plan, frame_range, ffmpeg, renewer.check)
        with deps.blobs.writing(deps.media, "pieces", description) as out:
            grant = functools.partial(deps.quota.convert, job.owner)
            excess = Reservation(deps.blobs, out.blob, out.granted, grant, MP3_STEP)
            reservation = ShareReservation(excess, plan.expected_size(frame_range))
            source = EncoderInput(
                deps.ffmpeg or default_ffmpeg(),
                plan,
                track,
                directory,
                budget=Budget(deps.max_seconds, reservation),
            )

            def on_progress(_: float) -> None:
                renewer.check()
                out.renew()

            piece = encode_piece(source, frame_range, ReservedWriter(out, reservation), on_progress)
            piece = replace(piece, marks=marks)
    output = PieceOutput(out.blob, piece.to_json(), max(out.size - reservation.share, 0), meter.usage())

    def discard() -> None:
        deps.blobs.discard(deps.media, "pieces", output.blob)

    if job_plan.index is not None and not piece.fits(frame_range):
        discard()
        return _fall_back(lease, "its sound is damaged or changes its format", deps)
    return Output(record=lambda: deps.pieces.encoded(lease, output), discard=discard)


def _fall_back(lease: Lease[PieceRow], reason: str, deps: Dependencies) -> Output:
    """Has the job converted again, with a track."""
    log.warning("job %s: piece %d: %s: the job falls back to a track", lease.row.job, lease.row.n, reason)
    return Output(record=lambda: deps.pieces.fall_back(lease), discard=lambda: None)


def _join(lease: Lease[Job], renewer: LeaseRenewer, deps: Dependencies) -> Output:
    job_plan = _plan_of(lease.row)
    outputs = deps.pieces.outputs(lease.row.id)
    pieces = [EncodedPiece.from_json(output.plan) for output in outputs]
    if job_plan.index is not None and not pieces_fit(job_plan.plan, pieces):
        log.warning("job %s: its pieces do not fit together: the job falls back to a track", lease.row.id)
        return Output(record=lambda: deps.joins.fall_back(lease), discard=lambda: None)
    outcome = _join_pieces(lease.row, job_plan, outputs, renewer, deps)
    return _mp3_output(deps.joins, lease, outcome, deps)


def _join_pieces(
    job: Job, job_plan: JobPlan, outputs: Sequence[PieceOutput], renewer: LeaseRenewer, deps: Dependencies
) -> Outcome:
    meter = Meter(alone=False)
    pieces = [EncodedPiece.from_json(output.plan) for output in outputs]
    description = Description(job.owner, job.id, mp3_name(job.filename), "audio/mpeg")
    with workspace() as directory, deps.blobs.writing(deps.media, "mp3s", description) as mp3:
        reservation = _mp3_reservation(job, mp3, deps)
        size = sum(piece.summary.size for piece in pieces)
        reservation.require(int(size * REPACKED) if job_plan.plan.variable else size)
        frames = _blob_chunks([output.blob for output in outputs], renewer, deps)
        if not pieces_fit(job_plan.plan, pieces):
            track = _fetch_track(job, _EVERYTHING, directory, renewer, deps)
            source = EncoderInput(
                deps.ffmpeg or default_ffmpeg(),
                job_plan.plan.for_changing_format(),
                track,
                directory,
                budget=Budget(deps.max_seconds, reservation),
                is_measured=not any(piece.reconfigured for piece in pieces),
            )
            piece, path = _encode_whole(job, source, renewer, mp3)
            pieces = [piece]
            frames = _file_chunks(path, renewer)
        sound = assemble.join_pieces(job_plan.plan, [piece.summary for piece in pieces], frames, directory)
        errors = job_plan.errors + max(piece.errors for piece in pieces)
        seconds = job_plan.plan.seconds
        share = assemble.share_warning(sound.duration, seconds, job_plan.missing, errors, job_plan.unread)
        out = ReservedWriter(mp3, reservation)
        assemble.write_mp3(out, _blob_chunks([job_plan.head], renewer, deps), sound)
    log.info("job %s: %d pieces of %.1f s became %d bytes of MP3", job.id, len(outputs), sound.duration, mp3.size)
    warning = assemble.warning_for(
        job_plan.missing, job_plan.truncated, errors, job_plan.silent, job_plan.warning, share
    )
    waveform = join_points(job_plan.plan.rate, [piece.points for piece in pieces])
    return Outcome(mp3.blob, sound.duration, warning, mp3.size, meter.usage(), out.crc32, waveform)


def _encode_whole(
    job: Job, source: EncoderInput, renewer: LeaseRenewer, mp3: RenewingWriter
) -> tuple[EncodedPiece, Path]:
    # The sound changes its sample rate or channels on the way: ffmpeg restarts its count of samples there, which makes
    # ranges meaningless. Or an encoder that seeks decoded fewer samples than were counted.
    log.warning("job %s: its pieces do not fit together: encoding the track as a whole", job.id)
    path = source.directory / "frames"

    def on_progress(_: float) -> None:
        renewer.check()
        mp3.renew()

    with path.open("wb") as out:
        piece = encode_piece(source, _EVERYTHING, out, on_progress)
    return piece, path


def _plan_of(job: Job) -> JobPlan:
    if job.plan is None:
        raise AssertionError("a job that was split has a plan")
    return JobPlan.from_json(job.plan)


def _fetch_track(job: Job, frame_range: FrameRange, directory: Path, renewer: LeaseRenewer, deps: Dependencies) -> Path:
    """Fetches the job's audio track, or only the part that the encoder of this range reads, to a file."""
    if job.audio is None:
        raise AssertionError("a job that was split has an audio track")
    path = directory / "track"
    with path.open("wb") as file:
        if frame_range.seek is None:
            _copy_blob(job.audio, file, renewer, deps)
        else:
            with deps.media.pieces.open(job.audio) as source:
                excerpt.write_excerpt(source, frame_range.seek, file)
    return path


def _fetch_excerpt(
    job: Job, job_plan: JobPlan, frame_range: FrameRange, path: Path, renewer: LeaseRenewer, deps: Dependencies
) -> Fetched | None:
    """Fetches the part of the video that the encoder of a range reads, to a file; None if that is not enough."""
    if job_plan.index is None or frame_range.excerpt is None:
        raise AssertionError("every range of an indexed track has an excerpt")
    with deps.media.pieces.open(job_plan.index) as index:
        recipe = read_recipe(index, frame_range.excerpt)
    ffmpeg = deps.ffmpeg or default_ffmpeg()
    with deps.media.videos.open(job.video) as video:
        video.fetch_until(read_until(recipe, frame_range, job_plan.plan, video.stat.size))
        fetched = fetch_excerpt(recipe, video, path, job_plan.plan.container, ffmpeg, renewer.check)
    # The sound may be stored far from the pictures of the same time, so that an excerpt begins too late.
    first, _ = frame_range.samples(job_plan.plan.rate)
    return fetched if fetched and fetched.exact <= job_plan.plan.start_sample + first else None


def read_until(recipe: Recipe, frame_range: FrameRange, plan: Plan, size: int) -> int:
    """Returns up to where the video is about to be read for an excerpt: there may be seconds more in the last cluster.

    Args:
        recipe: of the excerpt.
        frame_range: its range.
        plan: of the track.
        size: bytes of the video.
    """
    if recipe.track < 0 or frame_range.end is None:
        return recipe.spans.end
    frames = frame_range.end - frame_range.start + frame_range.preroll + LOOKAHEAD_FRAMES
    seconds = frames * plan.frame_seconds + _BEFORE_PREROLL
    if not frame_range.start:
        seconds += plan.start_sample / plan.rate
    return min(recipe.spans.end, recipe.spans.offsets[0] + int(size * seconds / plan.end_seconds))


def _copy_blob(blob: BlobId, out: SupportsWrite, renewer: LeaseRenewer, deps: Dependencies) -> None:
    for chunk in _blob_chunks([blob], renewer, deps):
        out.write(chunk)


def _blob_chunks(blobs: Iterable[BlobId], renewer: LeaseRenewer, deps: Dependencies) -> Iterator[bytes]:
    for chunk in read_blobs(deps.media.pieces, blobs):
        renewer.check()
        yield chunk


def _file_chunks(path: Path, renewer: LeaseRenewer) -> Iterator[bytes]:
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            renewer.check()
            yield chunk
