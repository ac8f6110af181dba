"""What ffmpeg is told to do with a track or a range of it.

ffmpeg's stages (demuxer, decoder, filters, encoder, muxer) are threads that hand each other a packet or a frame at a
time, at a price: a twentieth of the work here. What can go into one source, libavfilter's amovie, does not pay it:
that demuxes, decodes and filters in one thread, and hands on 40 frames at once, as PCM that is just what the encoder
would have been given. But it has no patience: where ffmpeg's own stages go on, at damage or a change of the sound's
kind, it says an error and ends, and the range has to be encoded again by stages.
"""

from typing import Final

from functions.convert.plan import FrameRange, Plan, trim_filter

#: Where ffmpeg's demuxer has another name than its muxer.
_DEMUXERS: Final = {"adts": "aac", "vob": "mpeg"}
#: What LAME takes (libavcodec/libmp3lame.c), so that filters choose among the same.
_LAME: Final = "aformat=sample_fmts=s32p|fltp|s16p"
#: Samples that are handed on at once: 40 frames of 1152.
_AT_ONCE: Final = 40 * 1152


def reading(ffmpeg: str, container: str, track: int) -> list[str]:
    """The arguments of ffmpeg up to its input, the open file ``track``."""
    return [*_start(ffmpeg), "-f", _demuxer(container), "-fd", str(track), "-i", "fd:"]


def encoding(ffmpeg: str, plan: Plan, piece: FrameRange, track: int, frames: int, staged: bool) -> list[str]:
    """The arguments of ffmpeg that encode a piece.

    Args:
        ffmpeg: the program's path.
        plan: how to encode.
        piece: which range of the plan.
        track: the open file that is read.
        frames: the open file that is written.
        staged: whether to work by stages, as a plan that is not ``bundled`` must.
    """
    if staged:
        source = [*reading(ffmpeg, plan.container, track), *_staged(plan, piece)]
    else:
        # A look at what comes first would make that the clock's zero, and keep to itself what a decoder could not do.
        source = [*_start(ffmpeg), "-f", "lavfi", "-nofind_stream_info"]
        source += ["-i", _source(plan, piece, track), "-map", "0:a:0"]
    return [
        *source,
        *("-map_metadata", "-1", "-c:a", "libmp3lame", *plan.quality, "-reservoir", "0"),
        *("-id3v2_version", "0", "-f", "mp3", "-fd", str(frames), "fd:"),
    ]


def _start(ffmpeg: str) -> list[str]:
    return [
        *(ffmpeg, "-hide_banner", "-nostdin", "-nostats", "-loglevel", "repeat+level+info"),
        *("-progress", "pipe:1", "-stats_period", "0.25"),
        *("-protocol_whitelist", "fd", "-max_error_rate", "1", "-threads", "1"),
    ]


def _demuxer(container: str) -> str:
    return _DEMUXERS.get(container, container)


def _filters(plan: Plan, piece: FrameRange) -> list[str]:
    trim = trim_filter(piece, plan.rate)
    return [*plan.filters, trim] if trim else [*plan.filters]


def _source(plan: Plan, piece: FrameRange, track: int) -> str:
    movie = (
        rf"amovie=filename=fd\\::format_name={_demuxer(plan.container)}:dec_threads=1"
        rf":format_opts=fd={track}\\:protocol_whitelist=fd"
    )
    # Filters count time in samples of the source, as they do by stages; and it never goes back, as a file's may.
    clock, handed = ("asettb=1/sr", "asetpts=N"), f"asetnsamples=n={_AT_ONCE}:p=0"
    return ",".join([movie, *clock, *_filters(plan, piece), _LAME, handed])


def _staged(plan: Plan, piece: FrameRange) -> list[str]:
    first, *more = _filters(plan, piece)
    if not plan.loopback:
        return ["-map", "0:a:0", "-af", ",".join([first, *more])]
    # What the first filter makes is encoded as PCM, which goes nowhere but back into the filters behind it.
    filters = ["-map", "0:a:0", "-af", first, "-c:a", "pcm_f32le", "-f", "null", "-", "-dec", "0:0"]
    return [*filters, "-filter_complex", f"[dec:0]{','.join(more)}[edited]", "-map", "[edited]"]
