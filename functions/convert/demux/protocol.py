"""The protocol between the demux child and its parent, over a socket.

The parent sends an order and the open output file. The child then requests bytes of the source, and sends the cover and
its reports. A hostile file may have compromised the child, so the parent validates whatever it receives.
"""

import errno
import io
import json
import math
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from functions.convert.gaps import MAX_GAPS, Gap
from functions.convert.track_list import CODEC, LANGUAGE, MAX_TITLE, MAX_TRACKS, ListedTrack
from functions.mp3.chapters import Chapter

#: A request of the child: its kind and two numbers. READ: size, offset. GATHER: count, 0, followed by that many SPANs.
#: COVER, BEGUN, INDEXED and REPORT: size, 0, followed by that many bytes.
REQUEST = struct.Struct("<cqq")
#: The answer to READ and GATHER: the number of bytes that follow. To INDEXED: the number of SPANs that follow, the
#: ranges of samples of which the child writes recipes (``seek.recipe``); none if it is to extract the track.
ANSWER = struct.Struct("<q")
#: Offset and size; or the first sample and the one after the last, ``TO_THE_END`` for the end of the track.
SPAN = struct.Struct("<qq")
TO_THE_END = -1
READ = b"r"
GATHER = b"g"
COVER = b"c"
#: The report of a track that is still being written: from here on its file only grows.
BEGUN = b"b"
#: The report of a track of which excerpts can be made without reading it: the child waits for the answer.
INDEXED = b"i"
REPORT = b"d"

#: Bytes that one READ returns, at most; also the size of libav's I/O buffers.
BUFFER = 256 << 10
#: Spans in one GATHER, at most.
MAX_SPANS = 32
#: Bytes that one GATHER returns, at most.
MAX_GATHERED = 1 << 20
#: Places where excerpts may begin: one for every second of 18 hours.
MAX_STARTS = 1 << 16
#: Bytes of a cover.
MAX_COVER = 16 << 20
#: Bytes of a report. A report of nothing but brackets takes its parent twenty times as much memory.
MAX_REPORT = 4 << 20
#: Seconds of video, from the requested position on, in which the most detailed frame is chosen as the cover.
EXCERPT_WINDOW = 4.0
#: Pixels of a frame that a cover is made from: 8K. A decoder may keep 16 frames, at 1.5 bytes a pixel, or 3 with ten
#: bits.
MAX_PIXELS = 8192 * 4320
#: In place of a container: the track's file is the complete source, because no container takes the codec, and ffmpeg
#: has to recognize it.
ORIGINAL: Final = "original"
#: Formats that libav recognizes by the extension of the file's name alone, since most have no header, and its names for
#: them.
RECOGNIZED_BY_NAME: Final = {
    "302": "daud",
    "722": "g722",
    "al": "alaw",
    "aptx": "aptx",
    "aptxhd": "aptx_hd",
    "daud": "daud",
    "dfpwm": "dfpwm",
    "g722": "g722",
    "g723_1": "g723_1",
    "g729": "g729",
    "gsm": "gsm",
    "msbc": "sbc",
    "rco": "g723_1",
    "rso": "rso",
    "sb": "s8",
    "sbc": "sbc",
    "sln": "sln",
    "sw": "s16le",
    "tco": "g723_1",
    "ub": "u8",
    "ul": "mulaw",
    "uw": "u16le",
}
#: Every container that a track is written to; ``mp3`` is bare frames. A track that no container takes stays in the
#: complete source: ``ORIGINAL``, or one that is recognized by its name. The name becomes part of ffmpeg's command line.
CONTAINERS: Final = frozenset(
    {ORIGINAL, *RECOGNIZED_BY_NAME.values()}
    | {"adts", "aiff", "asf", "au", "caf", "flv", "matroska", "mov", "mp3", "mp4", "mpegts", "nut", "tta", "vob"}
)
#: Reported numbers beyond this are no seconds, samples or packets of any audio.
_MAX_NUMBER: Final = 1e12


class PeerClosed(Exception):
    """The process at the other end of the socket has ended."""


class InvalidReport(Exception):
    """The child sent something that our code never sends: it is compromised."""


class Fault(StrEnum):
    """Why the child could not deliver what it was ordered to."""

    FORMAT = "format"  # libav does not recognize the file
    INDEX = "index"  # an mp4 or mov without the box that says where its packets are
    SILENT = "silent"  # video without an audio track
    TRACK = "track"  # no such track
    CODEC = "codec"  # libav has no decoder
    PROTECTED = "protected"  # the track is encrypted
    MEMORY = "memory"
    NOT_STARTED = "not started"  # a module cannot be imported, with a detail
    DISK_FULL = "disk full"
    BROKEN = "broken"  # anything else, with a detail
    NOT_COPYABLE = "not copyable"  # MP3 packets that do not make an MP3 file
    NO_PICTURE = "no picture"
    TOO_LARGE = "too large"  # a frame of more than MAX_PIXELS
    PAST_END = "past end"  # the video ends before the requested second


@dataclass(frozen=True, slots=True)
class TrackOrder:
    """Orders the extraction of an audio track.

    Attributes:
        track: its number in the file's order, from 0; None for the file's default, or else the first that is usable.
        copy: whether MP3 becomes bare frames.
        extension: of the source's name, if it is one of ``RECOGNIZED_BY_NAME``; otherwise empty.
        index_seconds: seconds of sound from which the child offers to index the track; None for never.
    """

    track: int | None
    copy: bool
    extension: str = ""
    index_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PartOrder:
    """Orders the extraction of an audio track from an excerpt of a file.

    Attributes:
        track: its number in the file's order, from 0.
        until: milliseconds on the file's clock after which no packet is needed; None for the end of the excerpt.
    """

    track: int
    until: int | None


@dataclass(frozen=True, slots=True)
class ExcerptOrder:
    """Orders an excerpt of the video, for the cover.

    Attributes:
        second: its position in seconds; None for some way into the video.
    """

    second: float | None


Wanted = TrackOrder | PartOrder | ExcerptOrder


@dataclass(frozen=True, slots=True)
class Order:
    """What a child does, once.

    Attributes:
        target: the descriptor of the open file that it writes.
        size: bytes of the source.
        limits: resource limits that depend on the source.
        wanted: what to extract.
    """

    target: int
    size: int
    limits: dict[str, int]
    wanted: Wanted


def send_order(link: socket.socket, order: Order) -> None:
    """Sends an order, and the open file with it.

    Raises:
        PeerClosed: the child has ended.
    """
    data = json.dumps({"limits": order.limits, "size": order.size, **asdict(order.wanted)}).encode()
    try:
        socket.send_fds(link, [ANSWER.pack(len(data))], [order.target])
        link.sendall(data)
    except OSError as error:
        raise PeerClosed from error


def receive_order(link: socket.socket) -> Order:
    """Waits for the order.

    Raises:
        PeerClosed: the parent has ended.
    """
    length, files, _, _ = socket.recv_fds(link, ANSWER.size, 1)
    if len(length) < ANSWER.size or not files:
        raise PeerClosed
    values: dict[str, Any] = json.loads(receive(link, *ANSWER.unpack(length)))
    wanted: Wanted
    size = values.pop("size")
    limits = values.pop("limits")
    if "second" in values:
        wanted = ExcerptOrder(**values)
    else:
        wanted = PartOrder(**values) if "until" in values else TrackOrder(**values)
    return Order(files[0], size, limits, wanted)


def receive(link: socket.socket, size: int) -> bytearray:
    """Receives exactly ``size`` bytes.

    Raises:
        PeerClosed: the other side has ended.
    """
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            count = link.recv_into(view)
        except OSError as error:
            raise PeerClosed from error
        if not count:
            raise PeerClosed
        view = view[count:]
    return data


class PositionedFile(io.RawIOBase):
    """The part of a seekable binary file that all sources have in common."""

    #: The byte offset of the next read.
    _position: int

    def tell(self) -> int:
        """Returns the byte offset of the next read."""
        return self._position

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True


class RemoteFile(PositionedFile):
    """The source, as the child sees it: every read is a request to the parent.

    Attributes:
        name: libav recognizes some formats by its extension.
    """

    name = "source"

    def __init__(self, link: socket.socket, size: int) -> None:
        self._link = link
        self._size = size
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        """Reads up to ``size`` bytes."""
        size = BUFFER if size < 0 else size
        self._link.sendall(REQUEST.pack(READ, size, self._position))
        data = self._answer()
        self._position += len(data)
        return data

    def gather(self, spans: Sequence[tuple[int, int]]) -> bytes:
        """Reads several (start, end) spans in one request, which saves the two processes from waking up for each."""
        packed = b"".join(SPAN.pack(start, end - start) for start, end in spans)
        self._link.sendall(REQUEST.pack(GATHER, len(spans), 0) + packed)
        return self._answer()

    def _answer(self) -> bytes:
        (length,) = ANSWER.unpack(receive(self._link, ANSWER.size))
        # Not in one call with MSG_WAITALL: a signal ends that early, and the rest would be taken for the next answer.
        return bytes(receive(self._link, length))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Sets the offset of the next request."""
        target = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if target < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = target
        return target


@dataclass(frozen=True, slots=True)
class TrackReport:
    """What the child found out about a track that it extracted.

    Attributes:
        codec: libavcodec's name for it.
        container: libav's name for the muxer of the track's file.
        rate: samples per second, as decoded.
        channels: number of channels, as decoded.
        packets: number of packets.
        errors: places in the source that could not be read.
        skipped: samples at the start that are not played.
        discarded: samples at the end that are not played.
        duration: seconds.
        missing: seconds that the source claims to have and does not.
        tags: names and values as in the source.
        chapters: the source's, on the track's clock.
        dropped: bytes of a cover that was too large to send, 0 if none was.
        truncated: whether the source ends within a packet or another part of it.
        ambisonic: whether the channels are components of a sound field instead of signals for loudspeakers.
        unicode: whether the source's container has texts in Unicode only.
        track: its number in the file's order, from 0.
        unusable: number of a track that would have been chosen instead of it, but is empty or cannot be decoded; -1 if
            there is none.
        protected: whether that track is encrypted.
        gaps: where the track has no sound.
        lead: seconds of the source before the track's sound.
        tail: seconds of the source after the track's sound.
        start: seconds on the source's clock at which the first sample is played.
        unread: estimated seconds of sound that are in the source and could not be read, if more than half are; else 0.
        tracks: all audio tracks of the source.
        starts: samples with which a range may begin without its encoder reading much more, if the track can be indexed;
            empty for any.
        indexed: whether the file is an index of recipes for excerpts in the container (``seek.recipe``).
    """

    codec: str
    container: str
    rate: int
    channels: int
    packets: int
    errors: int
    skipped: int
    discarded: int
    duration: float
    missing: float
    tags: Mapping[str, str]
    chapters: Sequence[Chapter]
    dropped: int = 0
    truncated: bool = False
    ambisonic: bool = False
    unicode: bool = False
    track: int = 0
    unusable: int = -1
    protected: bool = False
    gaps: Sequence[Gap] = ()
    lead: float = 0.0
    tail: float = 0.0
    start: float = 0.0
    unread: float = 0.0
    tracks: Sequence[ListedTrack] = ()
    starts: Sequence[int] = ()
    indexed: bool = False


@dataclass(frozen=True, slots=True)
class ExcerptReport:
    """What the child found out about a video excerpt.

    Attributes:
        offset: seconds from the start of the excerpt to the requested position.
        reach: seconds from the start of the excerpt to its end.
        pixel: width of a pixel divided by its height.
    """

    offset: float
    reach: float
    pixel: float


@dataclass(frozen=True, slots=True)
class FaultReport:
    """Why there is nothing to report.

    Attributes:
        fault: a ``Fault``; a compromised child may send any text.
        detail: for the log.
        tracks: all audio tracks of the source, if the requested one is missing or cannot be decoded.
    """

    fault: str
    detail: str = ""
    tracks: Sequence[ListedTrack] = ()


Report = TrackReport | ExcerptReport | FaultReport


def dump_report(report: Report) -> bytes:
    """Encodes a report."""
    return json.dumps(asdict(report)).encode()


def parse_report(data: bytes | bytearray, wanted: type[TrackReport] | type[ExcerptReport]) -> Report:
    """Decodes a report and checks the type and range of every value.

    Args:
        data: as received.
        wanted: the kind of report that was ordered.

    Returns:
        The report that was ordered, or a ``FaultReport``.

    Raises:
        InvalidReport: our code in the child does not send such data.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidReport(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InvalidReport("not an object")
    kind = FaultReport if "fault" in values else wanted
    checks = _CHECKS[kind]
    for name in {*(checks.keys() - _OPTIONAL), *values}:
        if name not in checks or name not in values or not checks[name](values[name]):
            raise InvalidReport(f"an invalid or missing value of {name[:100]!r}")
    report = kind(**values)
    if isinstance(report, ExcerptReport):
        return report
    tracks = [ListedTrack(*track) for track in report.tracks]
    if isinstance(report, FaultReport):
        return replace(report, tracks=tracks)
    return replace(
        report,
        chapters=[Chapter(*chapter) for chapter in report.chapters],
        gaps=[Gap(*gap) for gap in report.gaps],
        tracks=tracks,
    )


def _is_number(value: Any) -> bool:
    # Compared before it is converted to float, which overflows for a large JSON integer.
    return type(value) in (int, float) and -_MAX_NUMBER <= value <= _MAX_NUMBER and math.isfinite(value)


def _is_amount(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_NUMBER


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_container(value: Any) -> bool:
    return _is_text(value) and value in CONTAINERS


def _is_tags(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_chapters(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(chapter, list)
        and len(chapter) == 3
        and _is_number(chapter[0])
        and _is_number(chapter[1])
        and _is_text(chapter[2])
        for chapter in value
    )


def _is_gaps(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MAX_GAPS
        and all(isinstance(gap, list) and len(gap) == 2 and all(map(_is_amount, gap)) for gap in value)
    )


def _is_starts(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) <= MAX_STARTS and all(map(_is_count, value)) and sorted(value) == value
    )


def _is_tracks(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_TRACKS and all(map(_is_listed_track, value))


def _is_listed_track(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 5:
        return False
    codec, channels, language, title, default = value
    return (
        _is_text(codec)
        and CODEC.fullmatch(codec) is not None
        and _is_count(channels)
        and _is_text(language)
        and LANGUAGE.fullmatch(language) is not None
        and _is_text(title)
        and len(title) <= MAX_TITLE
        and _is_flag(default)
    )


_OPTIONAL: Final = frozenset(
    {
        "detail",
        "tracks",
        "dropped",
        "truncated",
        "gaps",
        "lead",
        "tail",
        "start",
        "unread",
        "ambisonic",
        "unicode",
        "track",
        "unusable",
        "protected",
        "starts",
        "indexed",
    }
)
_CHECKS: Final[dict[type[Report], dict[str, Callable[[Any], bool]]]] = {
    TrackReport: {
        "codec": _is_text,
        "container": _is_container,
        **dict.fromkeys(("rate", "channels", "packets", "errors", "dropped"), _is_count),
        **dict.fromkeys(("skipped", "discarded"), _is_number),
        **dict.fromkeys(("duration", "missing"), _is_amount),
        "truncated": _is_flag,
        "gaps": _is_gaps,
        **dict.fromkeys(("lead", "tail", "unread"), _is_amount),
        "start": _is_number,
        "tags": _is_tags,
        "chapters": _is_chapters,
        "ambisonic": _is_flag,
        "unicode": _is_flag,
        "track": _is_count,
        "protected": _is_flag,
        "unusable": lambda value: value == -1 or _is_count(value),
        "tracks": _is_tracks,
        "starts": _is_starts,
        "indexed": _is_flag,
    },
    ExcerptReport: dict.fromkeys(("offset", "reach", "pixel"), _is_number),
    FaultReport: {"fault": _is_text, "detail": _is_text, "tracks": _is_tracks},
}
