"""Makes one stereo track of two mono tracks, the option ``track=0,1``.

Cameras and recorders write each microphone to a mono track of its own. Both tracks are extracted as any other, then one
ffmpeg decodes them, puts them on the same clock and writes a stereo track with 24 bits of precision. From there on it
is a track like any other: it can be edited, split and sought in, and the MP3 does not depend on how.
"""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from functions.convert import silence
from functions.convert.demux.track import TrackInfo
from functions.convert.errors import TemporaryStorageFull, UnusableMedia
from functions.convert.ffmpeg import args, encoder
from functions.convert.ffmpeg.encoder import EncoderRun
from functions.convert.ffmpeg.single import run_to_end
from functions.convert.gaps import MIN_GAP, Gap, total
from functions.convert.plan import FrameRange
from functions.convert.sandbox.limits import Limits

#: Codecs that decode to 16 bits or fewer, and to 24, by libavcodec's names: FLAC stores these without loss.
_SIXTEEN_BITS: Final = re.compile(r"pcm_([su](8|16)|alaw|mulaw).*")
_INTEGERS: Final = re.compile(r"pcm_([su](8|16|24)|alaw|mulaw).*|flac|alac")
#: Seconds that every silence in a channel exceeds; less than a sample.
_SHORTEST: Final = 1e-6
#: Seconds of silence in one channel that need no warning.
_TOLERANCE: Final = 1.0
#: Bytes of two samples at most.
_SAMPLE_BYTES: Final = 8
#: Bytes of a sample in float, which cannot be compressed.
_FLOAT_BYTES: Final = 4
#: Seconds that tracks may have beyond what they claim.
_SLACK_SECONDS: Final = 60.0


class _Span(NamedTuple):
    """A time without sound, in seconds on the source's clock."""

    start: float
    end: float


class _Channel(NamedTuple):
    """What a mono track becomes.

    Attributes:
        name: ``left`` or ``right``.
        number: of the track in the source.
        track: the track.
        silent: when it has no sound, while the stereo track lasts.
    """

    name: str
    number: int
    track: TrackInfo
    silent: Sequence[_Span]


def check_mono(track: TrackInfo, number: int) -> None:
    """Raises UnusableMedia, which says what the track is, unless it is mono."""
    if track.channels == 1:
        return
    kind = "is stereo" if track.channels == 2 else f"has {track.channels} channels"
    error = UnusableMedia(
        f"Audio track {number} of this file {kind}: for left and right choose two mono tracks, or convert one track."
    )
    error.tracks = track.tracks
    raise error


def combine(
    ffmpeg: str,
    pair: Mapping[int, TrackInfo],
    path: Path,
    *,
    max_seconds: float,
    on_progress: Callable[[], None],
) -> TrackInfo:
    """Writes a stereo track of two mono tracks.

    Where one of the two has no sound its channel is silent. Where both have none, the stereo track has a gap.

    Args:
        ffmpeg: path of the program.
        pair: the tracks, complete, by their number in the source: the left channel's first.
        path: the new file.
        max_seconds: the latest position in a track that is converted.
        on_progress: called at least twice a second. An exception that it raises stops the work.

    Raises:
        UnusableMedia: a track cannot be decoded, or changes its sample rate; or no disk of this size has space for it.
        EncoderKilled: ffmpeg hangs or was killed.
        TemporaryStorageFull: there is no space for the file.
    """
    tracks = list(pair.values())
    begin = min(track.start for track in tracks)
    end = max(_end(track) for track in tracks)
    channels = [
        _Channel(name, number, track, list(_silent(track, begin, end)))
        for name, (number, track) in zip(("left", "right"), pair.items(), strict=True)
    ]
    gaps = [span for span in _overlaps(*(channel.silent for channel in channels)) if _length(span) > MIN_GAP]
    stereo = _described(channels, path, begin, end, gaps)
    _check_space(stereo, max_seconds)
    run = EncoderRun(FrameRange(0, None), path, staged=True)
    with ExitStack() as stack:
        files = [stack.enter_context(track.path.open("rb")).fileno() for track in tracks]
        out = stack.enter_context(path.open("wb")).fileno()
        run_to_end(
            run,
            args.combine(
                ffmpeg,
                [(track.container, file) for track, file in zip(tracks, files, strict=True)],
                _graph(channels, gaps, stereo),
                stereo.codec,
                out,
            ),
            _limits(stereo, max_seconds),
            pass_fds=(*files, out),
            on_progress=on_progress,
        )
    run.check_status()
    if run.reconfigured:
        raise UnusableMedia("One of the two tracks changes its sample rate or its channels midway: convert one track.")
    return replace(stereo, errors=stereo.errors + run.errors)


def _described(channels: Sequence[_Channel], path: Path, begin: float, end: float, gaps: Sequence[_Span]) -> TrackInfo:
    """Returns the stereo track; its tags and cover are those of the left one."""
    tracks = [channel.track for channel in channels]
    earlier = min(tracks, key=lambda track: track.start)
    found: list[Gap] = []
    for span in gaps:
        found.append(Gap(span.start - begin - total(found), _length(span)))
    return replace(
        tracks[0],
        path=path,
        container="matroska",
        codec=_codec(tracks),
        rate=max(track.rate for track in tracks),
        channels=2,
        duration=end - begin - total(found),
        missing=max(track.missing for track in tracks),
        packets=sum(track.packets for track in tracks),
        errors=sum(track.errors for track in tracks),
        skipped=0,
        discarded=0,
        chapters=earlier.chapters,
        truncated=any(track.truncated for track in tracks),
        gaps=found,
        lead=earlier.lead,
        tail=min(track.tail for track in tracks),
        start=begin,
        unread=max(track.unread for track in tracks),
        number=0,
        warning=" ".join(filter(None, (_warning(channel, gaps, end - begin) for channel in channels))) or None,
    )


def _check_space(stereo: TrackInfo, max_seconds: float) -> None:
    """Raises an error before much is written if there is no space for the file; for FLAC its size is unknown."""
    if stereo.codec == "flac":
        return
    size = int(min(stereo.duration, max_seconds) * stereo.rate * stereo.channels * _FLOAT_BYTES)
    disk = shutil.disk_usage(stereo.path.parent)
    if size > disk.total:
        raise UnusableMedia(
            f"Stereo of these two tracks takes {size / 1e9:.1f} GB of temporary storage, and this server has "
            f"{disk.total / 1e9:.1f} GB: convert one track."
        )
    if size > disk.free:
        raise TemporaryStorageFull("Temporary storage is full; the conversion will be retried.")


def _codec(tracks: Sequence[TrackInfo]) -> str:
    """Returns a codec that stores the tracks without loss up to 24 bits; those of more bits are rounded."""
    integers = all(_INTEGERS.fullmatch(track.codec) for track in tracks)
    return "flac" if integers and len({track.rate for track in tracks}) == 1 else "pcm_f32le"


def _graph(channels: Sequence[_Channel], gaps: Sequence[_Span], stereo: TrackInfo) -> str:
    """Returns the filters that make the stereo track, in exactly the samples of the two."""
    chains = [
        ",".join(
            [
                f"[{number}:a:{channel.track.number}]aformat=channel_layouts=mono,asettb=1/sr",
                *silence.silence_filters(_filled(channel, gaps), _SHORTEST),
                f"aformat=sample_rates={stereo.rate}",
                f"pan=stereo|c{number}=c0[{channel.name}]",
            ]
        )
        for number, channel in enumerate(channels)
    ]
    sixteen = all(_SIXTEEN_BITS.fullmatch(channel.track.codec) for channel in channels)
    samples = "flt" if stereo.codec != "flac" else "s16" if sixteen else "s32"
    # Each channel is silent in the other's input, so that the sum is a copy; it lasts as long as the longer one.
    chains.append(f"[left][right]amix=duration=longest:normalize=0,aformat=sample_fmts={samples}[out]")
    return ";".join(chains)


def _limits(stereo: TrackInfo, max_seconds: float) -> Limits:
    seconds = min(max(stereo.duration, float(stereo.packets)), max_seconds) + _SLACK_SECONDS
    return {
        "AS": encoder.ADDRESS_SPACE,
        "CPU": int(60 + seconds * encoder.CPU_PER_SECOND),
        "FSIZE": int(seconds * stereo.rate * _SAMPLE_BYTES),
        "NOFILE": 64,
    }


def _length(span: _Span) -> float:
    return span.end - span.start


def _end(track: TrackInfo) -> float:
    return track.start + track.duration + total(track.gaps)


def _silent(track: TrackInfo, begin: float, end: float) -> Iterator[_Span]:
    """Yields when a track has no sound between two times: before it starts, in its gaps, and after its end."""
    yield _Span(begin, track.start)
    before = 0.0
    for gap in track.gaps:
        start = track.start + gap.start + before
        yield _Span(start, start + gap.length)
        before += gap.length
    yield _Span(_end(track), end)


def _overlaps(some: Iterable[_Span], others: Sequence[_Span]) -> Iterator[_Span]:
    for span in some:
        for other in others:
            start = max(span.start, other.start)
            end = min(span.end, other.end)
            if start < end:
                yield _Span(start, end)


def _filled(channel: _Channel, gaps: Sequence[_Span]) -> list[Gap]:
    """Returns the silence that is inserted into a channel, on the clock of its sound."""
    filled = []
    before = 0.0
    for span in channel.silent[:-1]:
        length = _length(span) - sum(map(_length, _overlaps([span], gaps)))
        if length > _SHORTEST:
            filled.append(Gap(span.start - before, length))
        before += _length(span)
    return [Gap(gap.start - channel.silent[0].start, gap.length) for gap in filled]


def _warning(channel: _Channel, gaps: Sequence[_Span], whole: float) -> str | None:
    """Returns the warning about a channel that is silent where the other is not; None if that is short."""
    seconds = sum(map(_length, channel.silent)) - sum(map(_length, gaps))
    if seconds <= _TOLERANCE:
        return None
    return (
        f"Audio track {channel.number} has no sound for about {seconds:.0f} of {whole:.0f} seconds: "
        f"the {channel.name} channel is silent there."
    )
