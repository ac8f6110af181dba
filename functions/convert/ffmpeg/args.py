"""Builds ffmpeg's command lines for a track or a range of it.

ffmpeg normally runs in stages (demuxer, decoder, filters, encoder, muxer): threads that pass on one packet or frame at
a time, which costs a twentieth of the work here. The bundled way avoids most of that cost: libavfilter's amovie
demuxes, decodes and filters in one thread and passes on 40 frames at once, as exactly the PCM that the encoder would
have received. But amovie stops with an error where the stages continue, at damage or a change of format; then the range
has to be encoded again in stages.
"""

from collections.abc import Sequence
from typing import Final

from functions.convert import points
from functions.convert.demux.protocol import ORIGINAL
from functions.convert.plan import FrameRange, Plan

#: ffmpeg's demuxers whose names differ from those of the muxers.
_DEMUXERS: Final = {"adts": "aac", "vob": "mpeg"}
#: The sample formats that LAME accepts (libavcodec/libmp3lame.c), so that both ways choose the same.
_LAME: Final = "aformat=sample_fmts=s32p|fltp|s16p"
#: Samples that are passed on at once: 40 frames of 1152.
_BATCH: Final = 40 * 1152
#: Options of an input.
_INPUT: Final = ("-protocol_whitelist", "fd", "-threads", "1")


def decode(ffmpeg: str, container: str, track: int, number: int = 0) -> list[str]:
    """Returns ffmpeg's arguments up to the choice of its input.

    Args:
        ffmpeg: path of the program.
        container: as in ``Plan``.
        track: descriptor of the open file with the track.
        number: which audio track of that file, from 0.
    """
    return [*_common(ffmpeg), *_input(container, track), "-map", f"0:a:{number}"]


def hash_samples(
    ffmpeg: str, container: str, tracks: Sequence[int], parts: Sequence[tuple[int, int, int | None]]
) -> list[str]:
    """Returns ffmpeg's arguments to print a hash of the samples of each of several parts of tracks.

    Args:
        ffmpeg: path of the program.
        container: as in ``Plan``.
        tracks: descriptors of the open files, each with one track.
        parts: the number of the track; its first sample, and the one after the last, None for the end.
    """
    arguments = [ffmpeg, "-hide_banner", "-nostdin", "-nostats", "-loglevel", "error"]
    arguments += ["-protocol_whitelist", "fd,pipe", "-threads", "1"]
    for track in tracks:
        arguments += ["-f", _demuxer(container), "-fd", str(track), "-i", "fd:"]
    for number, (track, start, end) in enumerate(parts):
        trim = f"atrim=start_sample={start}" + ("" if end is None else f":end_sample={end}")
        arguments += ["-map", f"{track}:a", f"-filter:a:{number}", trim]
    return [*arguments, "-c:a", "pcm_f32le", "-f", "streamhash", "-hash", "md5", "pipe:1"]


def encode(
    ffmpeg: str, plan: Plan, frame_range: FrameRange, *, track: int, out: int, staged: bool, levels: int | None
) -> list[str]:
    """Returns ffmpeg's arguments to encode a range.

    Args:
        ffmpeg: path of the program.
        plan: how to encode.
        frame_range: the frames to encode.
        track: descriptor of the open file with the track.
        out: descriptor of the open file for the frames.
        staged: whether to run in stages, which is required unless the plan is ``bundled``.
        levels: descriptor of the pipe for ``points.PointReader``; None without a waveform.
    """
    measure = [] if levels is None else [_LAME, *points.filters(plan, levels)]
    if staged:
        source = [*decode(ffmpeg, plan.container, track, plan.track), *_staged(plan, frame_range, measure)]
    else:
        # Probing the stream would shift the clock's zero, and would swallow the decoder's first errors.
        source = [*_common(ffmpeg), "-f", "lavfi", "-nofind_stream_info"]
        source += ["-i", _bundled(plan, frame_range, track, measure), "-map", "0:a:0"]
    return [
        *source,
        *("-map_metadata", "-1", "-c:a", "libmp3lame", *plan.quality, "-reservoir", "0"),
        *("-id3v2_version", "0", "-f", "mp3", "-fd", str(out), "fd:"),
    ]


def combine(ffmpeg: str, tracks: Sequence[tuple[str, int]], graph: str, codec: str, out: int) -> list[str]:
    """Returns ffmpeg's arguments to make one track of several, in Matroska.

    Args:
        ffmpeg: path of the program.
        tracks: container and descriptor of each open file with a track.
        graph: filters from the inputs, ``[0:a:0]`` and so on, to ``[out]``.
        codec: of the new track, by the name of ffmpeg's encoder.
        out: descriptor of the open new file.
    """
    inputs = [word for container, track in tracks for word in (*_INPUT, *_input(container, track))]
    return [
        *(*_global(ffmpeg), *inputs, "-filter_complex", graph, "-map", "[out]"),
        *("-map_metadata", "-1", "-c:a", codec, "-f", "matroska", "-fd", str(out), "fd:"),
    ]


def _common(ffmpeg: str) -> list[str]:
    return [*_global(ffmpeg), *_INPUT]


def _global(ffmpeg: str) -> list[str]:
    return [
        *(ffmpeg, "-hide_banner", "-nostdin", "-nostats", "-loglevel", "repeat+level+info"),
        *("-progress", "pipe:1", "-stats_period", "0.25", "-max_error_rate", "1"),
    ]


def _input(container: str, track: int) -> list[str]:
    known = [] if container == ORIGINAL else ["-f", _demuxer(container)]
    return [*known, "-fd", str(track), "-i", "fd:"]


def _demuxer(container: str) -> str:
    return _DEMUXERS.get(container, container)


def _bundled(plan: Plan, frame_range: FrameRange, track: int, measure: Sequence[str]) -> str:
    movie = (
        rf"amovie=filename=fd\\::format_name={_demuxer(plan.container)}:dec_threads=1"
        rf":format_opts=fd={track}\\:protocol_whitelist=fd"
    )
    # Filters count time in samples of the source, as in stages. Unlike a file's clock, this count never goes back.
    clock = ("asettb=1/sr", "asetpts=N")
    is_batched = bool(measure) and points.chunk_samples(plan) >= _BATCH
    batch = [] if is_batched else [f"asetnsamples=n={_BATCH}:p=0"]
    return ",".join([movie, *clock, *plan.filters_of(frame_range), *(measure or [_LAME]), *batch])


def _staged(plan: Plan, frame_range: FrameRange, measure: Sequence[str]) -> list[str]:
    first, *more = [*plan.filters_of(frame_range), *measure]
    if not plan.loopback:
        return ["-af", ",".join([first, *more])]
    # The output of the first filter is encoded as PCM, which is discarded except for the loopback decoder that feeds
    # the other filters.
    filters = ["-af", first, "-c:a", "pcm_f32le", "-f", "null", "-", "-dec", "0:0"]
    return [*filters, "-filter_complex", f"[dec:0]{','.join(more)}[edited]", "-map", "[edited]"]
