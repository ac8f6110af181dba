"""Cuts the sound of an MP3 into parts, exactly at a sample, from the frames that are there.

A part is a range of the MP3's frames, unchanged, behind a head of a few hundred bytes. What a decoder makes of a frame
also depends on the frames just before it: these are part of the range, and the Info tag in the head says how many
samples players are to skip at both ends. Main data that the first frame has in frames before the range (the bit
reservoir: ISO/IEC 11172-3, 2.4.3.4) is copied into a silent frame in the head.
"""

import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple, Protocol, Self

from events.errors import Mp3burstError
from functions.mp3 import info_tag
from functions.mp3.crc import CRC16, append_zeros
from functions.mp3.frame import DECODER_DELAY, HEADER_SIZE, FrameHeader, parse_header, tag_offset

_CHUNK: Final = 1 << 20  # bytes
#: Frames before a sample's frame that change its sound, by samples per frame: each granule of 576 samples overlaps with
#: the one before it, and the synthesis filter reaches 480 samples back (ISO/IEC 11172-3, 2.4.3.4 and 2.4.3.2).
_TWO_GRANULES: Final = 1152
_PRE_ROLL: Final = {_TWO_GRANULES: 1, 576: 2}
#: Maximum bytes of header, checksum and side information of a frame.
_MAX_HEAD: Final = HEADER_SIZE + 2 + 32
#: Frames that are searched for the main data that a frame has before its own, 511 bytes at most.
_MAX_BACK: Final = 200
#: The encoders whose delay and padding decoders trust (libavformat/mp3dec.c).
_TRUSTED: Final = (b"LAME", b"Lavf", b"Lavc")
#: ffmpeg's name; it signs its copies with it.
_SIGNATURE: Final = b"Lavf"


class UnknownSound(Mp3burstError):
    """The sound is not in the frames that mp3burst writes."""

    status = 422


class Source(Protocol):
    """What an MP3 is read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Returns up to ``size`` bytes, fewer only at the end."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves to a byte offset."""


class Range(NamedTuple):
    """Played samples, from the first one to before the last one."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """What the Info tag of an MP3 says about its samples.

    Attributes:
        rate: samples a second.
        per_frame: samples in a frame.
        frames: frames of sound.
        skipped: decoded samples at the start that are not played.
        length: samples that are played.
        offset: byte offset of the first frame of sound in the MP3.
    """

    rate: int
    per_frame: int
    frames: int
    skipped: int
    length: int
    offset: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an MP3's sound: the bytes of ``head``, then those of the MP3 from ``start`` to before ``stop``.

    Attributes:
        range: the samples that it plays.
        head: its Info tag, and the frames that are not copied from ``start`` on.
        start: byte offset in the MP3.
        stop: byte offset in the MP3.
        crc32: CRC-32 of the bytes from ``start`` to ``stop``.
    """

    range: Range
    head: bytes
    start: int
    stop: int
    crc32: int


def read_timeline(source: Source, offset: int) -> Timeline:
    """Reads the Info tag of an MP3.

    Args:
        source: the MP3.
        offset: bytes of its ID3 tag.

    Raises:
        UnknownSound: there is none, or it is incomplete.
    """
    source.seek(offset)
    data = source.read(2 * _MAX_HEAD + 2000)
    frame = parse_header(data)
    at = tag_offset(data)
    if frame is None or at is None:
        raise _unknown()
    frames = info_tag.frame_count(data)
    delay, padding = info_tag.delay_and_padding(data[: frame.size]) or (0, 0)
    is_trusted = info_tag.encoder(data).startswith(_TRUSTED)
    skipped = delay + DECODER_DELAY if is_trusted else 0
    discarded = max(padding - DECODER_DELAY, 0) if is_trusted else 0
    length = frames * frame.samples - skipped - discarded
    if length <= 0:
        raise _unknown()
    return Timeline(frame.rate, frame.samples, frames, skipped, length, offset + frame.size)


def cut(source: Source, timeline: Timeline, ranges: Sequence[Range], movable: int = 0) -> list[Part]:
    """Cuts parts out of an MP3; reads all of its sound once.

    Args:
        source: the MP3.
        timeline: as ``read_timeline`` returned it.
        ranges: the samples of each part, in order; each has at least one.
        movable: byte offset from which on parts may refer to the MP3's bytes; earlier frames are copied into heads.

    Raises:
        UnknownSound: the frames are not those that the Info tag announces.
    """
    spans = [_Span.of(wanted, timeline) for wanted in ranges]
    index = _index(source, timeline, spans, movable)
    return [_part(source, timeline, span, index, movable) for span in spans]


@dataclass(slots=True)
class _Span:
    """The frames of a part, and the checksums of their bytes.

    Attributes:
        range: the samples that it plays.
        first: its first frame.
        last: the frame after its last one.
        before: samples from the start of its first frame to the first that is played.
        crc16: of all frames.
        crc32: of the frames that are not copied into its head.
    """

    range: Range
    first: int
    last: int
    before: int
    crc16: int = 0
    crc32: int = 0

    @classmethod
    def of(cls, wanted: Range, timeline: Timeline) -> Self:
        """Returns the frames that decoders need for these samples."""
        if not 0 <= wanted.first < wanted.last <= timeline.length:
            raise ValueError(f"there is nothing in {wanted}")
        begin = wanted.first + timeline.skipped
        end = wanted.last + timeline.skipped
        first = max(begin // timeline.per_frame - _PRE_ROLL[timeline.per_frame], 0)
        return cls(wanted, first, -(-end // timeline.per_frame), begin - first * timeline.per_frame)


@dataclass(frozen=True, slots=True)
class _Index:
    """Where the frames of an MP3 are.

    Attributes:
        offsets: the byte offset of each frame, and that of the end.
        bitrates: kbit/s of each frame.
    """

    offsets: "array[int]"
    bitrates: "array[int]"


def _index(source: Source, timeline: Timeline, spans: Sequence[_Span], movable: int) -> _Index:
    """Returns where the frames are, and adds up the checksums of the spans."""
    from fastcrc import crc16

    source.seek(timeline.offset)
    index = _Index(array("Q", [timeline.offset]), array("H"))
    rest = b""
    while data := source.read(_CHUNK):
        chunk = rest + data
        base = index.offsets[-1]
        begin = len(index.bitrates)
        rest = chunk[_walk(chunk, index) - base :]
        end = len(index.bitrates)
        for span in spans:
            if span.first < end and begin < span.last:
                start = index.offsets[max(span.first, begin)]
                stop = index.offsets[min(span.last, end)]
                span.crc16 = crc16.arc(chunk[start - base : stop - base], span.crc16)
                span.crc32 = zlib.crc32(chunk[max(start, movable) - base : stop - base], span.crc32)
    if rest or len(index.bitrates) != timeline.frames:
        raise _unknown()
    return index


def _walk(chunk: bytes, index: _Index) -> int:
    """Adds the complete frames of a chunk to the index; returns the byte offset of their end."""
    base = index.offsets[-1]
    at = 0
    last = len(chunk) - HEADER_SIZE
    while at <= last:
        frame = parse_header(chunk[at : at + HEADER_SIZE])
        if frame is None:
            raise _unknown()
        if at + frame.size > len(chunk):
            break
        at += frame.size
        index.offsets.append(base + at)
        index.bitrates.append(frame.bitrate)
    return base + at


def _part(source: Source, timeline: Timeline, span: _Span, index: _Index, movable: int) -> Part:
    start = index.offsets[span.first]
    stop = index.offsets[span.last]
    source.seek(start)
    first = source.read(_MAX_HEAD)
    bitrates = {*index.bitrates[span.first : span.last]}
    reservoir = _reservoir(source, span.first, _main_data_begin(first), index)
    is_mono = first[3] >> 6 == 3
    carriers = [b""] * _carriers(timeline.per_frame, span, bool(reservoir), is_mono)
    if carriers:
        bitrate = min(bitrates) if len(bitrates) == 1 else 0
        carriers = [_carrier(first, main, bitrate) for main in (*carriers[1:], reservoir)]
        bitrates.update(_parsed(carrier).bitrate for carrier in carriers)
    skipped = span.before + len(carriers) * timeline.per_frame
    added = b"".join(carriers)
    frames = len(carriers) + span.last - span.first
    size = len(added) + stop - start
    discarded = frames * timeline.per_frame - skipped - (span.range.last - span.range.first)
    constant = min(bitrates) if len(bitrates) == 1 else None
    blank = info_tag.blank_tag(first, constant, _SIGNATURE, skipped - DECODER_DELAY, discarded + DECODER_DELAY)
    tag = info_tag.fill_tag(
        blank,
        frames=frames,
        size=size,
        crc=append_zeros(_crc16(added), stop - start, CRC16) ^ span.crc16,
        marks=_marks(carriers, span, index),
        variable=len(bitrates) > 1,
    )
    copied = min(max(movable, start), stop)
    source.seek(start)
    return Part(span.range, tag + added + source.read(copied - start), copied, stop, span.crc32)


def _carriers(per_frame: int, span: _Span, has_reservoir: bool, is_mono: bool) -> int:
    """Returns how many silent frames a part begins with.

    One carries main data, or makes the samples that players skip as many as they skip at least. Another one makes
    mpg123 round as it does in the complete MP3: it adds up the products of its synthesis filter in an order that recurs
    after two granules of stereo and four of mono. In mono with frames of one granule that would be more frames than it
    decodes before the first that is played, so there the last bit of some samples differs.
    """
    count = int(has_reservoir or span.before < DECODER_DELAY)
    if is_mono == (per_frame == _TWO_GRANULES) and (span.first - count) % 2:
        count += 1
    return count


def _crc16(data: bytes) -> int:
    from fastcrc import crc16

    return crc16.arc(data)


def _marks(carriers: Sequence[bytes], span: _Span, index: _Index) -> list[int]:
    """Returns the bytes before evenly spaced frames, as many as a table of contents is made from."""
    ends = [*accumulate(map(len, carriers))]
    frames = len(ends) + span.last - span.first
    interval = 1
    while frames // interval >= info_tag.MAX_MARKS:
        interval *= 2
    # Offsets in the MP3 begin here for the part. A list of the ends of all frames would take 100 MB for a day of sound.
    origin = index.offsets[span.first] - sum(map(len, carriers))
    return [
        ends[number] if number < len(ends) else index.offsets[span.first + 1 + number - len(ends)] - origin
        for number in range(interval - 1, frames, interval)
    ]


def _parsed(data: bytes) -> FrameHeader:
    frame = parse_header(data)
    if frame is None:
        raise _unknown()
    return frame


def _main_data_begin(data: bytes) -> int:
    """Returns how many bytes before its own a frame's main data begins."""
    frame = _parsed(data)
    at = HEADER_SIZE + 2 * frame.protected
    if frame.samples == _TWO_GRANULES:
        return data[at] << 1 | data[at + 1] >> 7
    return data[at]


def _reservoir(source: Source, frame: int, size: int, index: _Index) -> bytes:
    """Returns the last ``size`` bytes of main data before a frame; none if there are fewer."""
    if not size:
        return b""
    first = frame
    found = 0
    while first > max(frame - _MAX_BACK, 0) and found < size:
        first -= 1
        found += max(index.offsets[first + 1] - index.offsets[first] - _MAX_HEAD, 0)
    source.seek(index.offsets[first])
    data = source.read(index.offsets[frame] - index.offsets[first])
    main = b""
    at = 0
    while at < len(data):
        header = _parsed(data[at:])
        main += data[at + HEADER_SIZE + 2 * header.protected + header.side_info : at + header.size]
        at += header.size
    return main[-size:] if len(main) >= size else b""


def _carrier(like: bytes, main: bytes, bitrate: int) -> bytes:
    """Returns a silent frame that ends with main data of a later one.

    Args:
        like: the first bytes of the frame that follows.
        main: the main data.
        bitrate: kbit/s that the frame should have if they suffice; 0 for as few as suffice.
    """
    for number in range(1, 15):
        header = bytes((0xFF, like[1] | 1, number << 4 | like[2] & 0x0C, like[3] & 0xCF))
        frame = _parsed(header)
        if frame.bitrate >= bitrate and frame.size >= HEADER_SIZE + frame.side_info + len(main):
            return header + bytes(frame.size - HEADER_SIZE - len(main)) + main
    raise ValueError(f"{len(main)} bytes do not fit into frames like {like[:HEADER_SIZE].hex()}")


def _unknown() -> UnknownSound:
    return UnknownSound("The sound of this MP3 cannot be cut: convert its video again.")
