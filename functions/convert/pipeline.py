"""Converts a video to an MP3: extracts the audio track once, encodes ranges of it in parallel, joins them."""

import functools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from functions.convert import cover, pair, silence
from functions.convert.budget import Budget
from functions.convert.demux.protocol import ORIGINAL
from functions.convert.demux.track import Indexing, TrackInfo, TrackStream, open_track
from functions.convert.errors import UnknownMedia
from functions.convert.ffmpeg import duration, encoder, filters, probe
from functions.convert.ffmpeg.binary import default_ffmpeg
from functions.convert.ffmpeg.encoder import EncoderInput, EncoderRun
from functions.convert.mp3 import assemble
from functions.convert.mp3.assemble import EncodedSound
from functions.convert.mp3.summary import PieceSummary, read_frames
from functions.convert.plan import FrameRange, Plan, decode_cost, nearest_rate, plan_for
from functions.convert.points import join_points
from functions.convert.progress import OnProgress
from functions.convert.streams import SupportsReadSeek, SupportsWrite
from functions.mp3 import id3
from functions.mp3.chapters import within
from functions.options import Options
from functions.progress import READ_SHARE
from functions.waveform import Waveform

#: The share of encoding in the progress; reading has ``READ_SHARE``, writing the rest.
_ENCODE_SHARE = 0.93


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to convert.

    Attributes:
        options: what the user asked for.
        filename: the video's name; it becomes the title if the video has none.
        encoders: number of encoders that run at once.
        ffmpeg: path of the program; None for the one from imageio-ffmpeg.
        budget: what the conversion may produce.
    """

    options: Options
    filename: str
    encoders: int
    ffmpeg: str | None = None
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How to prepare a track.

    Attributes:
        ffmpeg: path of the program; None for the one from imageio-ffmpeg.
        max_seconds: the latest position in the track that is converted.
        filename: the video's name.
        indexing: when to index the track instead of extracting it; None for never.
    """

    ffmpeg: str | None = None
    max_seconds: float = math.inf
    filename: str = ""
    indexing: Indexing | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a conversion.

    Attributes:
        duration: seconds of sound.
        title: as in the ID3 tag.
        warning: what is missing from the MP3; None if nothing is.
        copied: whether the source's own MP3 frames were copied.
        size: bytes of the MP3.
        waveform: of the MP3; None if its frames were copied, or its levels could not be measured.
    """

    duration: float
    title: str
    warning: str | None
    copied: bool
    size: int
    waveform: Waveform | None


def to_mp3(
    source: SupportsReadSeek, out: SupportsWrite, settings: Settings, *, directory: Path, on_progress: OnProgress
) -> Result:
    """Converts a video's audio track to MP3.

    Args:
        source: the video, a binary file object; only this process reads it.
        out: takes the bytes of the MP3 from the first to the last.
        settings: how to convert.
        directory: for temporary files, all deleted when this returns or raises.
        on_progress: called at least once a second with the fraction that is done, 0 to 1, on the calling thread. An
            exception that it raises stops the conversion and propagates.

    Raises:
        UnusableMedia: the file cannot be converted; TooLong: it exceeds the budget. QuotaFull: so does its MP3.
        EncoderKilled: a child process was killed; retrying may succeed.
        OutOfResources: there is no space for temporary files, or no process for a child; retrying may succeed.
    """
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix="convert-") as name,
        prepared_track(
            source,
            Path(name),
            settings.options,
            lambda done: on_progress(done * READ_SHARE),
            Preparation(ffmpeg=settings.ffmpeg, max_seconds=settings.budget.max_seconds, filename=settings.filename),
        ) as stream,
    ):
        return convert_track(stream, out, settings, on_progress)


def convert_track(stream: TrackStream, out: SupportsWrite, settings: Settings, on_progress: OnProgress) -> Result:
    """Converts a prepared track to MP3, like ``to_mp3``. Temporary files go to the track's directory."""
    track = stream.info
    encoded = READ_SHARE + _ENCODE_SHARE
    waveform = None
    with cover.rendering(track, settings.ffmpeg or default_ffmpeg()) as picture:
        if track.container == "mp3":
            sound = assemble.copied_sound(track.path, track.skipped, track.discarded)
            settings.budget.check_seconds(sound.duration)
            settings.budget.reservation.require(sound.size)
            errors = track.errors + silence.unmentioned(track, settings.options)
            claimed = track.duration
            chapters = within(silence.chapters_of(track, settings.options), 0.0, sound.duration)
        else:
            plan = plan_for(track, settings.options, settings.encoders, decode_cost(stream))
            settings.budget.check_seconds(plan.end_seconds)
            settings.budget.reservation.require(plan.expected_size())
            sound, waveform, encoder_errors = _encode(
                stream, plan, settings, lambda done: on_progress(READ_SHARE + done * _ENCODE_SHARE)
            )
            errors = track.errors + silence.unmentioned(track, settings.options) + encoder_errors
            claimed = plan.seconds
            chapters = plan.within(silence.chapters_of(track, settings.options))
        # What is missing follows the last pictures, which may be later than the last sound.
        missing = track.missing + track.tail if track.missing else 0.0
        unread = track.unread if settings.options.end is None else 0.0
        share = assemble.share_warning(sound.duration, claimed, missing, errors, unread)
        image, cover_warning = picture(lambda: on_progress(encoded))
    tag = id3.build_tag(track.tags, settings.filename, image, chapters)
    written = 0

    def on_frames(count: int) -> None:
        nonlocal written
        written += count
        on_progress(encoded + (1 - encoded) * written / sound.size)

    size = assemble.write_mp3(out, [tag], sound, on_frames)
    return Result(
        duration=sound.duration,
        title=id3.title(track.tags, settings.filename),
        warning=assemble.warning_for(
            track.missing,
            track.truncated,
            errors,
            silence.warning_for(track, settings.options),
            assemble.sentences(track.warning, cover_warning),
            share,
        ),
        copied=track.container == "mp3",
        size=size,
        waveform=waveform,
    )


def _encode(
    stream: TrackStream, plan: Plan, settings: Settings, on_progress: OnProgress
) -> tuple[EncodedSound, Waveform | None, int]:
    """Encodes a track; returns the sound, its waveform, and the largest number of errors that one encoder logged."""
    track = stream.info.path
    directory = track.parent
    ffmpeg = settings.ffmpeg or default_ffmpeg()
    summaries: dict[FrameRange, PieceSummary] = {}

    def on_end(run: EncoderRun) -> None:
        summaries[run.range] = run.summarize()

    source = EncoderInput(ffmpeg, plan, track, directory, stream, settings.budget)
    runs = encoder.encode(source, plan.ranges, settings.encoders, on_progress, on_end)
    if (len(runs) > 1 or len(plan.filters) > 1) and any(run.reconfigured for run in runs):
        # A change of format restarts ffmpeg's filters and their count of samples, which ranges are based on.
        plan = plan.for_changing_format()
        source = EncoderInput(ffmpeg, plan, track, directory, budget=settings.budget, is_measured=False)
        runs = encoder.encode(source, [FrameRange(0, None)], 1, on_progress, on_end)
    pieces = [(run.path, summaries[run.range]) for run in runs]
    frames = _frames(pieces, (lambda: on_progress(1.0)) if plan.variable else None)
    sound = assemble.join_pieces(plan, [summary for _, summary in pieces], frames, directory)
    return sound, join_points(plan.rate, [run.points for run in runs]), max(run.errors for run in runs)


def _frames(pieces: Sequence[tuple[Path, PieceSummary]], on_copy: Callable[[], None] | None) -> Iterator[bytes]:
    # With ``on_copy`` the frames go to another file; each piece is deleted after that, to save temporary storage.
    for path, summary in pieces:
        for chunk in read_frames(path, summary):
            if on_copy is not None:
                on_copy()
            yield chunk
        if on_copy is not None:
            path.unlink()


@dataclass(frozen=True, slots=True)
class _Extraction:
    """Extracts or indexes tracks of one source; attributes as the arguments of ``prepared_track``."""

    source: SupportsReadSeek
    options: Options
    on_progress: OnProgress
    preparation: Preparation

    def open(self, stack: ExitStack, path: Path, number: int | None) -> TrackStream:
        """Opens a track in the stack: to copy its MP3 packets, or to encode it."""
        options = self.options
        read = functools.partial(
            open_track,
            self.source,
            path,
            number=number,
            filename=self.preparation.filename,
            indexing=None if isinstance(options.track, tuple) else self.preparation.indexing,
            on_progress=self.on_progress,
        )
        copy = options.bitrate is None and options.vbr is None and not filters.any_edits(options)
        try:
            stream = stack.enter_context(read(copy=copy))
            # MP3 packets may not form a valid file when joined, or there has to be silence between them.
            if stream is None or (stream.info.container == "mp3" and silence.filled(stream.info, options)):
                stack.close()
                stream = stack.enter_context(read(copy=False))
        except UnknownMedia as error:
            found = probe.identify(self._ffmpeg, path, number or 0, self._on_ffmpeg)
            if found is None:
                raise
            return TrackStream(replace(found, tracks=error.tracks))
        if stream is None:
            raise AssertionError("the demuxer copies only when it is asked to")
        return stream

    def combine(self, path: Path, numbers: tuple[int, int]) -> TrackInfo:
        """Extracts two mono tracks completely, and makes a stereo track of them at ``path``."""
        tracks: dict[int, TrackInfo] = {}

        def on_half(done: float) -> None:
            self.on_progress((len(tracks) + done) / 2)

        single = replace(self, on_progress=on_half)
        for number in numbers:
            with ExitStack() as stack:
                stream = single.open(stack, path.with_name(f"track-{number}"), number)
                pair.check_mono(stream.info, number)
                track = stream.complete(on_half)
            tracks[number] = self.measured(track) if track.container == ORIGINAL else track
        stereo = pair.combine(
            self._ffmpeg, tracks, path, max_seconds=self.preparation.max_seconds, on_progress=self._on_ffmpeg
        )
        for track in tracks.values():
            track.path.unlink()
        return stereo

    def measured(self, track: TrackInfo) -> TrackInfo:
        """Returns a complete track with its exact length, if it can be decoded to its end."""
        seconds = duration.measure(
            self._ffmpeg, track, nearest_rate(track.rate), self.preparation.max_seconds, self._on_ffmpeg
        )
        if seconds is None:
            return track
        # Some decoders stop in the middle of a damaged file without an error.
        unread = track.duration - seconds if seconds < track.duration / 2 else track.unread
        return replace(track, duration=seconds, errors=track.errors or int(unread > 0), unread=unread)

    @property
    def _ffmpeg(self) -> str:
        return self.preparation.ffmpeg or default_ffmpeg()

    def _on_ffmpeg(self) -> None:
        self.on_progress(1.0)


@contextmanager
def prepared_track(
    source: SupportsReadSeek,
    directory: Path,
    options: Options,
    on_progress: OnProgress,
    preparation: Preparation | None = None,
) -> Iterator[TrackStream]:
    """Extracts or indexes the audio track that the options name, with everything that the conversion needs.

    The file may still grow during the block, unless the exact length or a cover from the video is needed.

    Args:
        source: the video, as for ``to_mp3``.
        directory: for the track's file.
        options: what the user asked for.
        on_progress: called with the fraction of the source that has been read, 0 to 1.
        preparation: how to prepare the track.

    Raises:
        UnusableMedia: there is no such track, or it cannot be read.
        EncoderKilled: a child process was killed; retrying may succeed.
    """
    extraction = _Extraction(source, options, on_progress, preparation or Preparation())
    path = directory / "track"
    with ExitStack() as stack:
        if isinstance(options.track, tuple):
            stream = TrackStream(extraction.combine(path, options.track))
        else:
            stream = extraction.open(stack, path, options.track)
        measured = stream.info.container == ORIGINAL or filters.needs_exact_length(
            options, silence.length(stream.info, options)
        )
        if options.cover is not None or measured:
            stream.complete(on_progress)
        track = cover.prepare(source, stream.info, options.cover, lambda _: on_progress(1.0))
        if measured:
            track = extraction.measured(track)
        stream.info = replace(track, tags=id3.without_loudness(track.tags, options))
        yield stream
