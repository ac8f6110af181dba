"""Video in, MP3 out: the audio track taken out once, encoded in ranges by several encoders, laid end to end."""

import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from functions.convert import cover
from functions.convert.chapters import within
from functions.convert.demux.client import SupportsReadSeek
from functions.convert.demux.track import TrackInfo, TrackStream, open_track
from functions.convert.errors import EncoderKilled, UnusableMedia
from functions.convert.ffmpeg import duration, encoder, filters
from functions.convert.ffmpeg.binary import default_ffmpeg
from functions.convert.ffmpeg.encoder import EncoderRun
from functions.convert.mp3 import assemble, id3, info_tag, reservoir
from functions.convert.mp3.assemble import SupportsWrite
from functions.convert.mp3.frame import DECODER_DELAY, HEADER_SIZE, parse_header
from functions.convert.plan import FrameRange, Plan, decode_cost, nearest_rate, plan_for, preroll_of
from functions.options import Options

__all__ = ["EncoderKilled", "Result", "UnusableMedia", "to_mp3"]

#: Hears which part is done, 0 to 1; what it raises stops the work.
OnProgress = Callable[[float], None]
#: Parts of the whole that reading and encoding are, for the progress shown.
READING, _ENCODING = 0.05, 0.93
#: Seconds that a track may be shorter than it claims without a word about it.
_TOLERANCE = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a video.

    Attributes:
        duration: seconds of audio.
        title: as in the tags.
        warning: one sentence where something was lost, else None.
        copied: whether the source's own MP3 packets were taken over.
        size: bytes of the MP3.
    """

    duration: float
    title: str
    warning: str | None
    copied: bool
    size: int


def to_mp3(
    source: SupportsReadSeek,
    out: SupportsWrite,
    options: Options,
    *,
    filename: str,
    directory: Path,
    encoders: int,
    on_progress: OnProgress,
    ffmpeg: str | None = None,
) -> Result:
    """Make an MP3 of a video's audio track.

    Args:
        source: the video, a binary file object; it is read in this process only.
        out: takes the MP3's bytes from the first to the last.
        options: what the user asked for.
        filename: the video's name; the title where the video has none of its own.
        directory: for temporary files, all gone when this returns or raises.
        encoders: how many run at once.
        on_progress: called at least once a second with the part that is done, 0 to 1, by the calling thread; what it
            raises stops everything and is passed on.
        ffmpeg: the program's path; by default the one that imageio-ffmpeg brings.

    Raises:
        UnusableMedia: the file's own fault.
        EncoderKilled: a child process was killed; it may work later.
    """
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix="convert-") as name,
        prepared_track(source, Path(name), options, lambda part: on_progress(part * READING), ffmpeg) as stream,
    ):
        return convert_track(
            stream, out, options, filename=filename, encoders=encoders, on_progress=on_progress, ffmpeg=ffmpeg
        )


def convert_track(
    stream: TrackStream,
    out: SupportsWrite,
    options: Options,
    *,
    filename: str,
    encoders: int,
    on_progress: OnProgress,
    ffmpeg: str | None = None,
) -> Result:
    """Make an MP3 of a track that is taken out; all else as ``to_mp3``. Works in the directory of the track."""
    ffmpeg = ffmpeg or default_ffmpeg()
    track = stream.info
    with cover.rendering(track, ffmpeg) as picture:
        if track.container == "mp3":
            warning = damage_warning(track.missing, track.errors)
            made = [(track.path, assemble.summarize(track.path, 0, 0, None))]
            first = _copied_tag(track, made[0][1])
            chapters = within(track.chapters, 0.0, duration_of(first, made[0][1].frames))
        else:
            plan = plan_for(track, options, encoders, decode_cost(stream))
            on_part = functools.partial(_on_part, on_progress)
            done = _encode(ffmpeg, plan, stream, track.path.parent, encoders, on_part)
            made = [(one.path, measured) for one, measured in done]
            if plan.variable:
                made = [reservoir.repack(made, track.path.parent / "repacked", lambda _: on_part(1.0))]
            warning = damage_warning(track.missing, track.errors + max(one.errors for one, _ in done))
            first = tag_of([one for _, one in made], plan.start_sample)
            chapters = plan.within(track.chapters)
        image, word = picture(lambda: on_progress(READING + _ENCODING))
    track, warning = replace(track, cover=image, chapters=chapters), join_warnings(warning, word)
    return _write(out, track, filename, made, first, warning, on_progress)


def _on_part(on_progress: OnProgress, part: float) -> None:
    on_progress(READING + part * _ENCODING)


def summarize_run(done: EncoderRun) -> assemble.PieceSummary:
    """The sum of one encoder's output."""
    piece = done.piece
    count = None if piece.end is None else piece.end - piece.start
    return assemble.summarize(done.path, piece.start, preroll_of(piece), count)


@contextmanager
def prepared_track(
    source: SupportsReadSeek, work: Path, options: Options, on_progress: OnProgress, ffmpeg: str | None = None
) -> Iterator[TrackStream]:
    """Take the audio track that is asked for into a file in ``work``; arguments and errors as ``to_mp3``.

    It may still grow (``TrackStream.complete``) while the block works with it.
    """
    copy = options.bitrate is None and options.vbr is None and not filters.wanted(options)
    read = functools.partial(open_track, source, work / "track", number=options.track, on_progress=on_progress)
    with ExitStack() as stack:
        stream = stack.enter_context(read(copy=copy))
        if stream is None:  # MP3 packets that do not make a file when concatenated
            stack.close()
            stream = stack.enter_context(read(copy=False))
        if stream is None:
            raise AssertionError("the demuxer copies only when it is asked to")
        if options.cover is not None or filters.needs_length(options, stream.info.duration):
            stream.complete(on_progress)
        track = cover.prepare(source, stream.info, options.cover, lambda _: on_progress(1.0))
        if filters.needs_length(options, track.duration):
            seconds = duration.measure(
                ffmpeg or default_ffmpeg(), track, nearest_rate(track.rate), lambda: on_progress(1.0)
            )
            track = track if seconds is None else replace(track, duration=seconds)
        stream.info = track
        yield stream


def _encode(
    ffmpeg: str, plan: Plan, stream: TrackStream, work: Path, encoders: int, on_progress: OnProgress
) -> list[tuple[EncoderRun, assemble.PieceSummary]]:
    sums: dict[FrameRange, assemble.PieceSummary] = {}
    run = functools.partial(encoder.encode, ffmpeg, on_end=lambda one: sums.update({one.piece: summarize_run(one)}))
    done = run(plan, plan.ranges, stream.info.path, work, encoders, on_progress, stream)
    if (len(done) > 1 or len(plan.filters) > 1) and any(one.reconfigured for one in done):
        # A change on the way restarts ffmpeg's filters, and with them the count of samples that ranges stand on.
        done = run(plan.for_changing_format(), (FrameRange(0, None),), stream.info.path, work, 1, on_progress)
    return [(one, sums[one.piece]) for one in done]


def tag_of(sums: list[assemble.PieceSummary], before: int = 0) -> bytes:
    """The tag frame before the frames of all pieces; ``before`` as in the plan.

    Raises:
        UnusableMedia: there are none.
    """
    end = assemble.last_nonempty(sums)
    if end is None and before:
        raise UnusableMedia("The sound ends before start: choose an earlier one.")
    if end is None:
        raise UnusableMedia("Nothing in this file's audio track can be decoded.")
    return assemble.build_tag(sums, bytes.fromhex(end.tag))


def _copied_tag(track: TrackInfo, copied: assemble.PieceSummary) -> bytes:
    if not copied.frames:
        raise UnusableMedia("The audio track of this file is empty.")
    with track.path.open("rb") as file:
        header = file.read(HEADER_SIZE)
    delay = track.skipped - DECODER_DELAY
    padding = track.discarded + DECODER_DELAY if track.discarded else 0
    # Decoders believe delay and padding of encoders that they know; ffmpeg, too, signs a copy with this name.
    bitrate = copied.bitrates[0] if len(copied.bitrates) == 1 else None
    return assemble.build_tag([copied], info_tag.blank(header, bitrate, b"Lavf", delay, padding))


def damage_warning(missing: float, errors: int) -> str | None:
    """The sentence about what is not in the MP3.

    Args:
        missing: seconds that the track claims to have and has not.
        errors: complaints of the reader and the decoder.
    """
    if missing > _TOLERANCE:
        return f"The file is cut off: about {missing:.0f} seconds at its end are missing."
    return "Parts of the sound are damaged or missing and were left out." if errors else None


def join_warnings(first: str | None, second: str | None) -> str | None:
    """Two warnings as one."""
    return " ".join(filter(None, (first, second))) or None


def _write(
    out: SupportsWrite,
    track: TrackInfo,
    filename: str,
    made: list[tuple[Path, assemble.PieceSummary]],
    first: bytes,
    warning: str | None,
    on_progress: OnProgress,
) -> Result:
    header = id3.build_tag(track.tags, filename, track.cover, track.chapters)
    sound = sum(one.size for _, one in made)
    written = 0

    def on_bytes(count: int) -> None:
        nonlocal written
        written += count
        on_progress(READING + _ENCODING + (1 - READING - _ENCODING) * written / sound)

    out.write(header)
    out.write(first)
    assemble.copy_frames(made, out, on_bytes)
    return Result(
        duration=duration_of(first, sum(one.frames for _, one in made)),
        title=id3.title(track.tags, filename),
        warning=warning,
        copied=track.container == "mp3",
        size=len(header) + len(first) + sound,
    )


def duration_of(tag: bytes, frames: int) -> float:
    """Seconds of sound, by the tag frame and the number of frames behind it."""
    frame = parse_header(tag)
    if frame is None:
        raise ValueError("the tag is no frame")
    delay, padding = info_tag.delays(tag) or (0, 0)
    silent = (delay + padding) if delay or padding else 0
    return max(frames * frame.samples - silent, 0) / frame.rate
