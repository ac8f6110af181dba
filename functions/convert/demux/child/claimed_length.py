"""What a file claims about its length, against what of it was read.

Headers, tables and tags say how long a file should be. Where it is shorter, the user is told how much is missing.
"""

import math
import re
from typing import TYPE_CHECKING

from functions.convert.demux.child.declared import Declared
from functions.convert.demux.child.demuxer import BROADCASTS, Demuxer
from functions.convert.demux.child.libav import AV_TIME_BASE
from functions.convert.demux.child.pictures import is_picture

if TYPE_CHECKING:
    import av.audio.stream
    import av.container

#: Seconds that no file lasts, three years: a claim of more is damaged.
_MAX_CLAIM = 1e8
#: Demuxers that read a file's length from its header. The others estimate it from the data.
DECLARING = (
    *("mov,", "matroska,", "avi", "flv", "asf", "mxf", "gxf", "rm"),
    *("wav", "w64", "aiff", "caf", "au", "flac", "tta", "wv"),
    *("apm", "argo_asf", "ast", "kvag", "smjpeg"),
)
#: The tag DURATION of a track of Matroska, as mkvmerge and ffmpeg write it.
_TAGGED_LENGTH = re.compile(r"(\d{2,4}):(\d\d):(\d\d(?:\.\d{1,9})?)")
#: Demuxers that read the length of a file from what is at its end.
MEASURING = ("ogg", "nut")
#: Seconds by which pictures may be before the sound of the same time in a broadcast: a second by the standard (ISO/IEC
#: 13818-1, 2.4.2.6), more in some files. If the file is cut off, that is no silence at its end.
_MAX_AHEAD = 2.0
#: Demuxers of containers whose length may count from 0 on a clock that starts later.
COUNTING_FROM_ZERO = ("mov,", "matroska,", "asf", "avi")


def missing_seconds(container: "av.container.InputContainer", demuxer: Demuxer, declared: Declared, size: int) -> float:
    """Seconds between where the file ends and where it claims to end; 0 if it claims nothing itself.

    Args:
        container: the file.
        demuxer: its track, read to the end.
        declared: what the file's header says.
        size: bytes of the file.
    """
    if declared.streamed:
        return 0.0
    if declared.size > size or declared.end:
        return _undelivered(container, demuxer, declared, size)
    if declared.size:
        return 0.0
    stream = demuxer.stream
    # The length of an MP3 is an estimate from its size, or from its tag; if a frame is truncated, the tag is right.
    if not container.format.name.startswith(DECLARING) and not demuxer.truncated:
        return 0.0
    if stream.duration and stream.time_base:
        length = float(stream.duration * stream.time_base)
        # For FLAC in WAV, libav may estimate it from a bit rate in the header that is not the audio's.
        estimated = 8 * container.size / (stream.codec_context.bit_rate or math.inf)
        if container.format.name == "wav" and math.isclose(length, estimated, rel_tol=0.001):
            return 0.0
        start = float((stream.start_time or 0) * stream.time_base)
        return max(min(_claimed_end(container, start, length) - demuxer.end, length - demuxer.duration), 0.0)
    length = (container.duration or 0) / AV_TIME_BASE or _tagged_length(stream)
    if not length:
        return 0.0
    start = (container.start_time or 0) / AV_TIME_BASE
    return max(_claimed_end(container, start, length) - demuxer.reach, 0.0)


def _undelivered(container: "av.container.InputContainer", demuxer: Demuxer, declared: Declared, size: int) -> float:
    """Seconds that are missing from a file of whose size or end its header says more; 0 if that cannot be estimated."""
    stream = demuxer.stream
    name = container.format.name
    if name == "ogg":
        return 0.0  # only the size of its last page is known
    if declared.end:
        return max(declared.end - demuxer.reach, 0.0)
    if name == "avi" and stream.frames and stream.time_base:  # dwLength of the stream's header, in its time base
        return max(float(stream.frames * stream.time_base) - demuxer.end, 0.0)
    return demuxer.duration * (declared.size / size - 1)


def _claimed_end(container: "av.container.InputContainer", start: float, length: float) -> float:
    """Returns the seconds on the file's clock at which it claims to end."""
    counts_from_zero = container.format.name.startswith(COUNTING_FROM_ZERO)
    return _least_end(start, length) if counts_from_zero else start + length


def _least_end(start: float, length: float) -> float:
    # Programs disagree on whether a length counts from the start or from 0: only what neither accounts for is missing.
    return length if 0 <= start < length else start + length


def _tagged_length(stream: "av.audio.stream.AudioStream") -> float:
    """Returns the seconds of a track of Matroska by the tag that muxers write, if the file's own length is damaged."""
    found = _TAGGED_LENGTH.fullmatch(stream.metadata.get("DURATION", ""))
    if found is None:
        return 0.0
    hours, minutes, seconds = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def credible(seconds: float) -> float:
    """Returns what a file claims about its length; 0 if that is damaged."""
    return seconds if seconds < _MAX_CLAIM else 0.0


def unread_seconds(container: "av.container.InputContainer", demuxer: Demuxer, size: int, tail: float) -> float:
    """Estimates the seconds of sound that are in the file and were not read; 0 if that is less than half.

    Most demuxers take damage for the end of the file, or pass over it, and report neither.
    """
    name = container.format.name
    stream = demuxer.stream
    if tail <= demuxer.duration < demuxer.pauses + tail:
        return demuxer.pauses + tail
    rest = size - demuxer.read_to - demuxer.cover_bytes
    if name == "avi":
        length = float(stream.frames * (stream.time_base or 0))
        # Both have to say so: empty chunks delay sound, and libav passes over them.
        return length - demuxer.end if demuxer.end < length / 2 and rest > size / 4 else 0.0
    if name in MEASURING:
        length = float((stream.duration or 0) * (stream.time_base or 0)) or (container.duration or 0) / AV_TIME_BASE
        length -= max(demuxer.start, 0.0)  # a recording of a stream goes on with the clock of that (RFC 7845, 4.3)
        found = demuxer.end - demuxer.start - demuxer.pauses
        if demuxer.clock_holds and found < length / 2:
            return length - found
    others = [other for other in container.streams if other.index != stream.index and not is_picture(other)]
    # In mov and mp4 tables say where the sound is. DV has pictures and sound of a frame in one place.
    if name.startswith("mov,") or (others and name != "dv") or rest <= size / 2:
        return 0.0
    return demuxer.duration * rest / max(demuxer.read_to, 1)


def surroundings(container: "av.container.InputContainer", demuxer: Demuxer) -> tuple[float, float]:
    """Returns the seconds of other tracks with sound or pictures before and after the track's sound."""
    others = [
        stream
        for stream in (*container.streams.audio, *container.streams.video)
        if stream.index != demuxer.stream.index and not is_picture(stream)
    ]
    if not others or not demuxer.clock_holds:
        return 0.0, 0.0
    end = demuxer.pictures_reach
    for stream in others:
        if stream.duration and stream.time_base:
            start = float((stream.start_time or 0) * stream.time_base)
            length = float(stream.duration * stream.time_base)
            end = max(end, _least_end(start, length))
    own = demuxer.stream
    # AVI delays sound by empty chunks, which libav passes over; its header counts them.
    own_end = max(demuxer.end, float(own.frames * (own.time_base or 0)) if container.format.name == "avi" else 0.0)
    lead = demuxer.start - (container.start_time or 0) / AV_TIME_BASE
    tail = max(end - own_end, 0.0)
    return max(lead, 0.0), 0.0 if container.format.name in BROADCASTS and tail < _MAX_AHEAD else tail
