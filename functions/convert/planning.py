"""Decides how a track becomes MP3: rate, channels, quality, edits, and the ranges that encoders work on."""

from functions.convert import plan
from functions.convert.demux.track import Track
from functions.convert.ffmpeg import filters
from functions.convert.mp3 import frame
from functions.convert.plan import Plan
from functions.options import Options

#: Their packets may say how loud each channel is in a mix, which ffmpeg's filters hear of by stages alone; and so is
#: whatever has more channels than two mixed by stages.
_TELL_HOW_TO_MIX = frozenset({"ac3", "eac3", "dca", "mlp", "truehd"})
#: kbit/s where the user asks for nothing.
DEFAULT_BITRATE = 192


def plan_for(track: Track, options: Options, pieces: int, decoding: float = plan.DECODING) -> Plan:
    """How to encode a track with so many encoders; ``decoding`` as for ``cut``."""
    if track.reading is not None and track.reading.slow:
        decoding = max(decoding, plan.WAITING)
    rate = plan.nearest_rate(track.rate)
    channels = 1 if track.channels == 1 or options.mono else 2
    quality = (
        ("-q:a", str(options.vbr)) if options.vbr is not None else ("-b:a", f"{options.bitrate or DEFAULT_BITRATE}k")
    )
    whole = round(track.duration * rate)
    start, end = filters.bounds(options, rate, whole)
    frames = (end - start) // frame.samples_per_frame(rate)
    return Plan(
        container=track.container,
        rate=rate,
        channels=channels,
        quality=quality,
        filters=(filters.base(options, rate, channels), *filters.chain(options, rate, channels, whole)),
        samples=end - start,
        # To bring loudness to a level costs more than to encode, and every encoder would do all that is before it.
        pieces=plan.cut(frames, 1 if options.normalize else pieces, decoding),
        before=start,
        packets=track.packets,
        bundled=track.channels <= 2 and track.codec not in _TELL_HOW_TO_MIX,
    )
