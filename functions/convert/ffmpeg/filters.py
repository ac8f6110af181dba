"""Translates the user's edits of the sound into ffmpeg filters, which run before an encoder's range is selected.

Every encoder of a track runs the same chain from the beginning of the track, so that all of them see the same samples;
or from the beginning of its excerpt, with a clock that counts the samples of the track.
"""

import math

from functions.convert.errors import UnusableMedia
from functions.options import Options

#: EBU R 128 specifies -23 LUFS for broadcasts; -16 is common for phones and browsers.
LOUDNESS = -16.0  # LUFS, integrated
TRUE_PEAK = -1.5  # dBTP
LOUDNESS_RANGE = 11.0  # LU

#: Counts time stamps in samples from 0, since fades go by time stamps and a track may have gaps.
#: Rounded, because the plain quotient is sometimes slightly less than the whole number that it should be.
_COUNTED = "asetpts=round(N/SR/TB)"


def any_edits(options: Options) -> bool:
    """Returns whether the options change the sound."""
    trimmed = bool(options.start) or options.end is not None
    combined = isinstance(options.track, tuple)
    return (
        trimmed
        or combined
        or bool(options.fade_in or options.fade_out or options.volume or options.normalize or options.mono)
    )


def needs_exact_length(options: Options, seconds: float) -> bool:
    """Returns whether the exact length of a track of about this many seconds must be known."""
    return bool(options.fade_out) and (options.end is None or options.end > seconds - 1.0)


def ambisonic_filter(components: int) -> str:
    """Returns the filter that makes stereo of a sound field: two cardioid microphones, to the left and to the right.

    Args:
        components: number of channels of the track. The first two are the omnidirectional component and the one from
            right to left (AmbiX: ACN order, SN3D normalization; RFC 8486, 3.1), and the last two are stereo that does
            not move with the listener's head, unless the number is a square.
    """
    rest = components - math.isqrt(components) ** 2
    stereo = (f"+c{components - 2}", f"+c{components - 1}") if rest else ("", "")
    side = "0.5*c1" if components > 1 else "0*c0"
    return f"pan=stereo|c0=0.5*c0+{side}{stereo[0]}|c1=0.5*c0-{side}{stereo[1]}"


def format_filter(options: Options, rate: int, channels: int) -> str:
    """Returns the filter that converts the sound to the MP3's rate and channels."""
    layout = "mono" if channels == 1 else "stereo"
    convert = f"aformat=sample_rates={rate}:channel_layouts={layout}"
    if not options.mono:
        return convert
    # Without rematrix_maxval the sum of two equal channels would be 3 dB louder than each of them.
    return f"aresample={rate}:ochl=mono:rematrix_maxval=1,{convert}"


def bounds(options: Options, rate: int, samples: int) -> tuple[int, int]:
    """Returns the first sample that is kept and the one after the last.

    Args:
        options: what the user asked for.
        rate: samples a second.
        samples: number of samples, 0 if unknown.

    Raises:
        UnusableMedia: no sample is kept.
    """
    start = round((options.start or 0.0) * rate)
    end = samples
    if options.end is not None:
        end = min(round(options.end * rate), samples or round(options.end * rate))
    if samples and start >= samples:
        raise UnusableMedia(
            f"The sound ends at {samples / rate:.1f} seconds: choose a start before that, not {options.start:g}."
        )
    if options.end is not None and start >= end:
        raise UnusableMedia("There is no sound between start and end: choose a later end.")
    return start, end


def edit_filters(options: Options, rate: int, channels: int, samples: int, *, clocked: bool = False) -> tuple[str, ...]:
    """Returns the filters that follow ``format_filter``; none if nothing is edited.

    Args:
        options: what the user asked for.
        rate: samples a second.
        channels: 1 or 2.
        samples: number of samples of the input; exact if ``needs_exact_length``.
        clocked: whether the clock of the input counts its samples; it may begin with any of them.
    """
    start, end = bounds(options, rate, samples)
    length = end - start
    filters = []
    unit = "pts" if clocked else "sample"
    limits = [f"start_{unit}={start}"] if start else []
    if options.end is not None or options.fade_out:
        limits.append(f"end_{unit}={end if options.fade_out else round((options.end or 0.0) * rate)}")
    if limits:
        filters.append(f"atrim={':'.join(limits)}")
    if options.normalize:
        dual = ":dual_mono=true" if channels == 1 else ""
        filters.append(f"loudnorm=I={LOUDNESS}:TP={TRUE_PEAK}:LRA={LOUDNESS_RANGE}{dual}")
        filters.append(f"aformat=sample_rates={rate}")  # loudnorm outputs 192 kHz
    if options.volume:
        filters.append(f"volume={options.volume}dB")
    filters.append(f"asetpts=PTS-{start}" if clocked else _COUNTED)
    if options.fade_in:
        filters.append(f"afade=type=in:start_sample=0:nb_samples={max(round(options.fade_in * rate), 1)}")
    if options.fade_out and length > 0:
        fade = min(max(round(options.fade_out * rate), 1), length)
        filters.append(f"afade=type=out:start_sample={length - fade}:nb_samples={fade}")
    return tuple(filters) if len(filters) > 1 else ()
