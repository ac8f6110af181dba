"""What a user wants changed in the sound, as ffmpeg filters that stand before the encoders' ranges.

Every encoder of a track runs the same chain from the track's beginning, so that all of them see the same samples.
"""

from functions.convert.errors import UnusableMedia
from functions.options import Options

#: EBU R 128 asks for -23 LUFS in broadcasts; what is heard on phones and in browsers is commonly brought to -16.
LOUDNESS = -16.0  # LUFS, integrated
TRUE_PEAK = -1.5  # dBTP
LOUDNESS_RANGE = 11.0  # LU

#: Makes the time stamps those of samples counted from 0, since fades go by time stamps and a track may have gaps.
#: Rounded: as it stands, the quotient is now and then a little less than the whole number that it should be.
_COUNTED = "asetpts=round(N/SR/TB)"


def wanted(options: Options) -> bool:
    """Whether the sound is to be another than the source's."""
    cut = bool(options.start) or options.end is not None
    return cut or bool(options.fade_in or options.fade_out or options.volume or options.normalize or options.mono)


def needs_length(options: Options, seconds: float) -> bool:
    """Whether the exact length of a track of about so many seconds must be known."""
    return bool(options.fade_out) and (options.end is None or options.end > seconds - 1.0)


def base(options: Options, rate: int, channels: int) -> str:
    """The filter that gives the sound its rate and channels."""
    layout = "mono" if channels == 1 else "stereo"
    form = f"aformat=sample_rates={rate}:channel_layouts={layout}"
    if not options.mono:
        return form
    # Without a limit the sum of two equal channels would be 3 dB louder than each of them.
    return f"aresample={rate}:ochl=mono:rematrix_maxval=1,{form}"


def bounds(options: Options, rate: int, samples: int) -> tuple[int, int]:
    """The first sample that is kept, and the one after the last.

    Args:
        options: what the user asked for.
        rate: samples a second.
        samples: how many there are, 0 where nobody knows.

    Raises:
        UnusableMedia: none is kept.
    """
    start, end = round((options.start or 0.0) * rate), samples
    if options.end is not None:
        end = min(round(options.end * rate), samples or round(options.end * rate))
    if samples and start >= samples:
        raise UnusableMedia(
            f"The sound ends at {samples / rate:.1f} seconds: choose a start before that, not {options.start:g}."
        )
    if options.end is not None and start >= end:
        raise UnusableMedia("There is no sample between start and end: choose a later end.")
    return start, end


def chain(options: Options, rate: int, channels: int, samples: int) -> tuple[str, ...]:
    """The filters behind ``base``; none where nothing is to be changed.

    Args:
        options: what the user asked for.
        rate: samples a second.
        channels: 1 or 2.
        samples: of the sound as it comes in; exact where ``needs_length``.
    """
    start, end = bounds(options, rate, samples)
    length, filters = end - start, []
    limits = [f"start_sample={start}"] if start else []
    if options.end is not None or options.fade_out:
        limits.append(f"end_sample={end if options.fade_out else round((options.end or 0.0) * rate)}")
    if limits:
        filters.append(f"atrim={':'.join(limits)}")
    if options.normalize:
        dual = ":dual_mono=true" if channels == 1 else ""
        filters.append(f"loudnorm=I={LOUDNESS}:TP={TRUE_PEAK}:LRA={LOUDNESS_RANGE}{dual}")
        filters.append(f"aformat=sample_rates={rate}")  # it works at 192 kHz
    if options.volume:
        filters.append(f"volume={options.volume}dB")
    filters.append(_COUNTED)
    if options.fade_in:
        filters.append(f"afade=type=in:start_sample=0:nb_samples={max(round(options.fade_in * rate), 1)}")
    if options.fade_out and length > 0:
        fade = min(max(round(options.fade_out * rate), 1), length)
        filters.append(f"afade=type=out:start_sample={length - fade}:nb_samples={fade}")
    return tuple(filters) if len(filters) > 1 else ()
