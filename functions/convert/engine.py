"""Video in, MP3 out: the audio track taken out once, encoded in ranges by several encoders, laid end to end."""

import importlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functions.convert import cut, encode, mpeg, probe, splice, tags, xing
from functions.convert.cut import Plan
from functions.convert.faults import EncoderKilled, UnusableMedia
from functions.convert.probe import SupportsReadSeek, Track
from functions.convert.splice import SupportsWrite
from functions.options import Options

__all__ = ["EncoderKilled", "Result", "UnusableMedia", "to_mp3"]

DEFAULT_BITRATE = 192
#: Parts of the whole that reading and encoding are, for the progress shown.
_READING, _ENCODING = 0.05, 0.93
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
    on_progress: Callable[[float], None],
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
    ffmpeg = ffmpeg or _own_ffmpeg()
    with tempfile.TemporaryDirectory(dir=directory, prefix="convert-") as name:
        work = Path(name)
        track = _take(source, work, options, lambda part: on_progress(part * _READING))
        if track.container == "mp3":
            warning = _lost(track, None)
            made = [(track.path, splice.measure(track.path, 0, 0, None))]
            first = _copied_tag(track, made[0][1])
        else:
            plan = plan_for(track, options, encoders)
            done = _encode(ffmpeg, plan, track, work, encoders, lambda part: on_progress(_READING + part * _ENCODING))
            made = [(one.path, summed(one)) for one in done]
            warning = _lost(track, max(one.errors for one in done))
            first = _encoded_tag([one for _, one in made])
        return _write(out, track, filename, made, first, warning, on_progress)


def plan_for(track: Track, options: Options, pieces: int) -> Plan:
    """How to encode a track with so many encoders."""
    rate = cut.nearest_rate(track.rate)
    channels = 1 if track.channels == 1 else 2
    quality = (
        ("-q:a", str(options.vbr)) if options.vbr is not None else ("-b:a", f"{options.bitrate or DEFAULT_BITRATE}k")
    )
    layout = "mono" if channels == 1 else "stereo"
    samples = int(track.duration * rate)
    frames = samples // mpeg.samples_per_frame(rate)
    return Plan(
        container=track.container,
        rate=rate,
        channels=channels,
        quality=quality,
        filters=(f"aformat=sample_rates={rate}:channel_layouts={layout}",),
        samples=samples,
        pieces=cut.cut(frames, pieces),
    )


def summed(done: encode.Encoding) -> splice.Sum:
    """The sum of one encoder's output."""
    piece = done.piece
    count = None if piece.end is None else piece.end - piece.start
    return splice.measure(done.path, piece.start, cut.skipped(piece), count)


def _own_ffmpeg() -> str:
    imageio_ffmpeg: Any = importlib.import_module("imageio_ffmpeg")  # it has no types
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _take(source: SupportsReadSeek, work: Path, options: Options, on_progress: Callable[[float], None]) -> Track:
    copy = options.bitrate is None and options.vbr is None
    track = probe.take(source, work / "track", number=options.track, copy=copy, on_progress=on_progress)
    if track is None:  # MP3 packets that make no file when laid end to end
        track = probe.take(source, work / "track", number=options.track, copy=False, on_progress=on_progress)
    if track is None:
        raise AssertionError("the reader copies only where it is asked to")
    return track


def _encode(
    ffmpeg: str, plan: Plan, track: Track, work: Path, encoders: int, on_progress: Callable[[float], None]
) -> list[encode.Encoding]:
    done = encode.encode(ffmpeg, plan, plan.pieces, track.path, work, encoders, on_progress)
    if len(done) > 1 and any(one.reconfigured for one in done):
        # A change on the way restarts ffmpeg's filters, and with them the count of samples that ranges stand on.
        done = encode.encode(ffmpeg, plan, (cut.Piece(0, None),), track.path, work, 1, on_progress)
    return done


def _encoded_tag(sums: list[splice.Sum]) -> bytes:
    end = splice.ending(sums)
    if end is None:
        raise UnusableMedia("Nothing in this file's audio track can be decoded.")
    return splice.tag(sums, bytes.fromhex(end.tag))


def _copied_tag(track: Track, copied: splice.Sum) -> bytes:
    with track.path.open("rb") as file:
        header = file.read(mpeg.HEADER)
    delay = track.skipped - mpeg.DECODER_DELAY
    padding = track.discarded + mpeg.DECODER_DELAY if track.discarded else 0
    # Decoders believe delay and padding of encoders that they know; ffmpeg, too, signs a copy with this name.
    bitrate = copied.bitrates[0] if len(copied.bitrates) == 1 else None
    return splice.tag([copied], xing.blank(header, bitrate, b"Lavf", delay, padding))


def _lost(track: Track, errors: int | None) -> str | None:
    """The sentence about what of the track is missing from the MP3."""
    if track.missing > _TOLERANCE:
        return f"The file is cut off: about {track.missing:.0f} seconds at its end are missing."
    if track.errors or errors:
        return "Parts of the sound are damaged or missing and were left out."
    return None


def _write(
    out: SupportsWrite,
    track: Track,
    filename: str,
    made: list[tuple[Path, splice.Sum]],
    first: bytes,
    warning: str | None,
    on_progress: Callable[[float], None],
) -> Result:
    id3 = tags.id3(track.tags, filename, track.cover)
    sound = sum(one.size for _, one in made)
    written = 0

    def on_bytes(count: int) -> None:
        nonlocal written
        written += count
        on_progress(_READING + _ENCODING + (1 - _READING - _ENCODING) * written / sound)

    out.write(id3)
    out.write(first)
    splice.lay(made, out, on_bytes)
    return Result(
        duration=_duration(first, sum(one.frames for _, one in made)),
        title=tags.title(track.tags, filename),
        warning=warning,
        copied=track.container == "mp3",
        size=len(id3) + len(first) + sound,
    )


def _duration(tag: bytes, frames: int) -> float:
    frame = mpeg.parse(tag)
    if frame is None:
        raise ValueError("the tag is no frame")
    delay, padding = xing.delays(tag) or (0, 0)
    silent = (delay + padding) if delay or padding else 0
    return max(frames * frame.samples - silent, 0) / frame.rate
