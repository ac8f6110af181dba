"""Summarizes encoded pieces, so that the Info tag of the joined MP3 can be built without rereading them.

The worker that has a piece's frames summarizes them once (``summarize``); the tag is built from the summaries of all
pieces (``build_tag``).
"""

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

from functions.convert.errors import UnusableMedia
from functions.mp3 import info_tag
from functions.mp3.crc import CRC16, append_zeros
from functions.mp3.frame import HEADER_SIZE, FrameHeader, is_tag, parse_header

#: Bytes read from a file at once.
CHUNK_SIZE = 1 << 20
#: Frames before a boundary that both neighboring encoders make, and that must be identical.
SEAM_FRAMES = 16
#: Attributes whose keys differ in the rows of pieces, so that jobs survive an update.
_JSON_KEYS: Final = {"mark_interval": "every", "seam_before": "before", "seam_end": "last"}


@dataclass(frozen=True, slots=True)
class PieceSummary:
    """What the Info tag needs to know about one piece; plain data.

    Attributes:
        start: number of the piece's first frame in the MP3.
        frames: number of frames.
        offset: byte offset of the first frame in the encoder's output.
        size: bytes of the frames.
        crc: CRC-16 (ARC) of the frames.
        mark_interval: frames of the MP3 between two marks.
        marks: bytes of the piece before each mark.
        bitrates: the bit rates that occur, kbit/s.
        tag: the encoder's tag frame, in hexadecimal; its padding is correct for the last piece with sound.
        seam_before: CRC-32 of the ``SEAM_FRAMES`` frames that the encoder made before the piece; None without any.
        seam_end: CRC-32 of the piece's own last ``SEAM_FRAMES`` frames.
    """

    start: int
    frames: int
    offset: int
    size: int
    crc: int
    mark_interval: int
    marks: tuple[int, ...]
    bitrates: tuple[int, ...]
    tag: str
    seam_before: int | None = None
    seam_end: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the summary as JSON types."""
        return {_JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Parses the output of ``to_json``."""
        values = {name: data[key] for name in cls.__slots__ if (key := _JSON_KEYS.get(name, name)) in data}
        return cls(**{**values, "marks": tuple(data["marks"]), "bitrates": tuple(data["bitrates"])})


def iter_frames(path: Path) -> Iterator[tuple[bytes, int, FrameHeader]]:
    """Iterates over the frames of a file, which follow each other without a gap.

    Yields:
        A chunk of the file, the offset of the frame in that chunk, and the frame's header.

    Raises:
        UnusableMedia: there are other bytes between two frames.
    """
    with path.open("rb", buffering=0) as file:
        rest = b""
        while data := file.read(CHUNK_SIZE):
            chunk = rest + data
            at = 0
            length = len(chunk)
            while at + HEADER_SIZE <= length:
                frame = parse_header(chunk[at : at + HEADER_SIZE])
                if frame is None:
                    raise UnusableMedia("The sound of this file could not be converted to MP3: try other options.")
                if at + frame.size > length:
                    break
                yield chunk, at, frame
                at += frame.size
            rest = chunk[at:]


def read_frames(path: Path, summary: PieceSummary) -> Iterator[bytes]:
    """Reads a piece's frames from the encoder's output, in chunks.

    Raises:
        EOFError: the file is shorter than the summary says.
    """
    left = summary.size
    with path.open("rb", buffering=0) as file:
        file.seek(summary.offset)
        while left:
            data = file.read(min(CHUNK_SIZE, left))
            if not data:
                raise EOFError(path)
            yield data
            left -= len(data)


def summarize(path: Path, start: int, skip: int, count: int | None) -> PieceSummary:
    """Summarizes one piece.

    Args:
        path: an encoder's output: optionally a tag frame, then frames of sound.
        start: number of the piece's first frame in the MP3.
        skip: frames of sound before the piece.
        count: maximum number of frames of the piece; None for all that follow.
    """
    from fastcrc import crc16

    tag = b""
    offset = 0
    size = 0
    frames = 0
    crc = 0
    mark_interval = 1
    marks: list[int] = []
    bitrates: set[int] = set()
    first = True
    pending: tuple[bytes, int, int] | None = None  # chunk, start, end: frames that are not in the CRC yet
    seam: deque[tuple[bytes, int, int]] = deque(maxlen=SEAM_FRAMES)
    seam_before = None
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
            seam_before = None if skip else _seam_crc(seam)
            continue
        if pending and pending[0] is chunk:
            pending = chunk, pending[1], at + frame.size
        else:
            crc = crc16.arc(pending[0][pending[1] : pending[2]], crc) if pending else crc
            pending = chunk, at, at + frame.size
        frames += 1
        size += frame.size
        bitrates.add(frame.bitrate)
        if not (start + frames) % mark_interval:
            marks.append(size)
            if len(marks) == info_tag.MAX_MARKS:
                marks = _every_other(marks, start, mark_interval)
                mark_interval *= 2
    crc = crc16.arc(pending[0][pending[1] : pending[2]], crc) if pending else crc
    return PieceSummary(
        start=start,
        frames=frames,
        offset=offset,
        size=size,
        crc=crc,
        mark_interval=mark_interval,
        marks=tuple(marks),
        bitrates=tuple(sorted(bitrates)),
        tag=tag.hex(),
        seam_before=seam_before,
        seam_end=_seam_crc(seam),
    )


def _seam_crc(frames: Iterable[tuple[bytes, int, int]]) -> int:
    crc = 0
    for chunk, at, end in frames:
        crc = zlib.crc32(chunk[at:end], crc)
    return crc


def seams_match(summaries: Iterable[PieceSummary]) -> bool:
    """Returns whether the encoders on both sides of each boundary made the same frames there, from the same sound."""
    return all(after.seam_before in (None, before.seam_end) for before, after in pairwise(summaries) if after.frames)


def _every_other(marks: Sequence[int], start: int, interval: int) -> list[int]:
    # Marks are at multiples of the interval; those at multiples of twice the interval stay.
    first = start // interval + 1
    return [mark for number, mark in enumerate(marks, first) if not number % 2]


def build_tag(summaries: Sequence[PieceSummary], template: bytes) -> bytes:
    """Builds the tag frame of the MP3 from the summaries of its pieces.

    Args:
        summaries: of every piece, in order.
        template: a tag frame with the right header, encoder, delay and padding.
    """
    frames = sum(summary.frames for summary in summaries)
    interval = 1
    while frames // interval >= info_tag.MAX_MARKS:
        interval *= 2
    marks: list[int] = []
    size = 0
    crc = 0
    bitrates: set[int] = set()
    for summary in summaries:
        first = summary.start // summary.mark_interval + 1
        marks += [
            size + mark
            for number, mark in enumerate(summary.marks, first)
            if not number * summary.mark_interval % interval
        ]
        size += summary.size
        crc = append_zeros(crc, summary.size, CRC16) ^ summary.crc
        bitrates.update(summary.bitrates)
    return info_tag.fill_tag(template, frames=frames, size=size, crc=crc, marks=marks, variable=len(bitrates) > 1)


def last_with_sound(summaries: Sequence[PieceSummary]) -> PieceSummary | None:
    """Returns the last piece that has frames; its tag has the padding at the end of the MP3."""
    return next((summary for summary in reversed(summaries) if summary.frames), None)
