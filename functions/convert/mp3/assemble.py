"""Lays the frames of many encoders end to end, and knows of the whole what its tag must say without reading it again.

A piece is measured once, by whoever has its bytes (``measure``); the sums of all pieces give the tag (``tag``).
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, Self

from functions.convert.errors import UnusableMedia
from functions.convert.mp3 import info_tag
from functions.convert.mp3.frame import HEADER_SIZE, FrameHeader, is_tag, parse_header

CHUNK = 1 << 20
#: Frames before a cut that both encoders beside it have made, and that have to be the same.
SEAM = 16


class SupportsWrite(Protocol):
    """What takes the MP3's bytes."""

    def write(self, data: bytes, /) -> object:
        """Append bytes."""
        ...


@dataclass(frozen=True, slots=True)
class PieceSummary:
    """What the whole must know of one piece; plain data.

    Attributes:
        start: the number of its first frame in the whole.
        frames: how many it has.
        offset: where its first frame begins in the encoder's output.
        size: bytes of its frames.
        crc: CRC-16 (ARC) of them.
        every: a mark stands after every so many frames of the whole.
        marks: bytes of the piece before each mark.
        bitrates: the bit rates that occur, kbit/s.
        tag: the encoder's tag frame, in hexadecimal; the padding in it is right for the piece where the sound ends.
        before: CRC-32 of the ``SEAM`` frames that the encoder has made before the piece; None where it has none.
        last: the same of the piece's last frames.
    """

    start: int
    frames: int
    offset: int
    size: int
    crc: int
    every: int
    marks: tuple[int, ...]
    bitrates: tuple[int, ...]
    tag: str
    before: int | None = None
    last: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The sum in JSON's own types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The sum from ``to_json``."""
        return cls(**{**data, "marks": tuple(data["marks"]), "bitrates": tuple(data["bitrates"])})


def iter_frames(path: Path) -> Iterator[tuple[bytes, int, FrameHeader]]:
    """Each frame of a file: a chunk of the file, where in it the frame begins, and its header; frames lie end to end.

    Raises:
        UnusableMedia: something else stands where a frame should.
    """
    with path.open("rb", buffering=0) as file:
        rest = b""
        while data := file.read(CHUNK):
            chunk, at = rest + data, 0
            length = len(chunk)
            while at + HEADER_SIZE <= length:
                frame = parse_header(chunk[at : at + HEADER_SIZE])
                if frame is None:
                    raise UnusableMedia("The sound of this file could not be made into an MP3.")
                if at + frame.size > length:
                    break
                yield chunk, at, frame
                at += frame.size
            rest = chunk[at:]


def summarize(path: Path, start: int, skip: int, count: int | None) -> PieceSummary:
    """Summarize one piece.

    Args:
        path: an encoder's output: a tag frame, if any, then frames of sound.
        start: the number of the piece's first frame in the whole.
        skip: frames of sound before the piece.
        count: frames of the piece at most, None for all that follow.
    """
    from fastcrc import crc16

    tag, offset, size, frames, crc, every = b"", 0, 0, 0, 0, 1
    marks: list[int] = []
    bitrates: set[int] = set()
    first = True
    pending: tuple[bytes, int, int] | None = None  # chunk, from, to: sound that the CRC has not seen
    seam: deque[tuple[bytes, int, int]] = deque(maxlen=SEAM)
    before = None
    for chunk, at, frame in iter_frames(path):
        if first:
            first = False
            if is_tag(chunk[at : at + frame.size]):
                tag = chunk[at : at + frame.size]
                offset = frame.size
                continue
        if frames == count and not skip:
            break
        seam.append((chunk, at, at + frame.size))
        if skip:
            skip -= 1
            offset += frame.size
            before = None if skip else _seam(seam)
            continue
        if pending and pending[0] is chunk:
            pending = chunk, pending[1], at + frame.size
        else:
            crc = crc16.arc(pending[0][pending[1] : pending[2]], crc) if pending else crc
            pending = chunk, at, at + frame.size
        frames += 1
        size += frame.size
        bitrates.add(frame.bitrate)
        if not (start + frames) % every:
            marks.append(size)
            if len(marks) == info_tag.MARKS:
                marks = _thin(marks, start, every)
                every *= 2
    crc = crc16.arc(pending[0][pending[1] : pending[2]], crc) if pending else crc
    rates, last = tuple(sorted(bitrates)), _seam(seam)
    return PieceSummary(start, frames, offset, size, crc, every, tuple(marks), rates, tag.hex(), before, last)


def _seam(frames: Iterable[tuple[bytes, int, int]]) -> int:
    crc = 0
    for chunk, at, end in frames:
        crc = zlib.crc32(chunk[at:end], crc)
    return crc


def seams_match(sums: Iterable[PieceSummary]) -> bool:
    """Whether at each cut both encoders have made the same frames: then both have heard the same sound there."""
    return all(two.before in (None, one.last) for one, two in pairwise(sums) if two.frames)


def _thin(marks: Sequence[int], start: int, every: int) -> list[int]:
    # Marks stand at multiples of every; those at multiples of 2 * every stay.
    first = start // every + 1
    return [mark for number, mark in enumerate(marks, first) if not number % 2]


def build_tag(sums: Sequence[PieceSummary], template: bytes) -> bytes:
    """The whole's tag frame.

    Args:
        sums: every piece, in order.
        template: a tag frame with the right header, encoder, delay and padding.
    """
    frames = sum(one.frames for one in sums)
    every = 1
    while frames // every >= info_tag.MARKS:
        every *= 2
    marks, before, crc = [], 0, 0
    bitrates: set[int] = set()
    for one in sums:
        first = one.start // one.every + 1
        marks += [before + mark for number, mark in enumerate(one.marks, first) if not number * one.every % every]
        before += one.size
        crc = _append_zeros(crc, one.size) ^ one.crc
        bitrates.update(one.bitrates)
    return info_tag.fill(template, frames=frames, size=before, crc=crc, marks=marks, variable=len(bitrates) > 1)


def _append_zeros(crc: int, count: int) -> int:
    """The CRC-16 (ARC) of a message with so many zero bytes behind it, from the CRC of the message.

    A zero byte is a linear map of the 16 bits over GF(2), so many of them are its power.
    """
    power = [_zero_byte(1 << bit) for bit in range(16)]
    while count:
        if count & 1:
            crc = _apply(power, crc)
        power = [_apply(power, column) for column in power]
        count >>= 1
    return crc


def _zero_byte(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)  # CRC-16/ARC, polynomial 0x8005 reflected
    return crc


def _apply(columns: Sequence[int], vector: int) -> int:
    result = 0
    for column in columns:
        if vector & 1:
            result ^= column
        vector >>= 1
    return result


def last_nonempty(sums: Sequence[PieceSummary]) -> PieceSummary | None:
    """The piece in which the sound ends: the last that has a frame."""
    return next((one for one in reversed(sums) if one.frames), None)


def copy_frames(
    pieces: Iterable[tuple[Path, PieceSummary]], out: SupportsWrite, on_bytes: Callable[[int], None]
) -> None:
    """Write the frames of all pieces to ``out``; ``on_bytes`` hears how many each time."""
    for path, one in pieces:
        left = one.size
        with path.open("rb", buffering=0) as file:
            file.seek(one.offset)
            while left:
                data = file.read(min(CHUNK, left))
                if not data:
                    raise EOFError(path)
                out.write(data)
                on_bytes(len(data))
                left -= len(data)
