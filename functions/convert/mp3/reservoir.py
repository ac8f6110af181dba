"""Restores the bit reservoir of variable bit rate MP3 that was encoded without one; the sound stays the same.

Encoders that start in the middle of a track must run without the reservoir: each frame contains its own main data, and
the rest of the frame is stuffing. Re-packing drops the stuffing and stores the main data end to end, so that a frame's
main data may begin in earlier frames and smaller frames are enough. In a frame's header and side information, only the
bit rate and ``main_data_begin`` change. ISO/IEC 11172-3, 2.4.1.7 and 2.4.3.4; ISO/IEC 13818-3 for rates below 32 kHz.
"""

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from functions.convert.errors import TemporaryStorageFull, UnusableMedia
from functions.convert.mp3.summary import PieceSummary, last_with_sound, summarize
from functions.convert.streams import SupportsWrite
from functions.mp3.frame import HEADER_SIZE, parse_header

#: Bytes that a decoder buffers for a frame and the main data before it: the longest frame, as LAME counts it.
DECODER_BUFFER = 1440
#: The largest ``main_data_begin`` by samples per frame: 9 bits in MPEG-1, 8 bits below 32 kHz.
_MAX_BEGIN = {1152: 511, 576: 255}
#: Bits of the side information before the ``part2_3_length`` of each granule and channel, by its size in bytes.
#: ISO/IEC 11172-3, 2.4.1.7; below 32 kHz ISO/IEC 13818-3, 2.4.1.7.
_LENGTH_OFFSETS = {17: (18, 77), 32: (20, 79, 138, 197)}
_LENGTH_OFFSETS_LOW = {9: (9,), 17: (10, 73)}
#: Bits of a ``part2_3_length``.
_LENGTH_BITS = 12


@dataclass(frozen=True, slots=True)
class FrameSizes:
    """The possible frame sizes at one sample rate and number of channels, without the padding byte.

    Attributes:
        head: bytes of header and side information.
        sizes: bytes of a frame by its bitrate_index; 0 for index 0, which is not used.
        max_begin: the largest ``main_data_begin``.
    """

    head: int
    sizes: tuple[int, ...]
    max_begin: int

    @classmethod
    def of(cls, header: bytes) -> Self | None:
        """Returns the sizes for the file of a frame with this header; None if it is not a header or announces a CRC."""
        frame = parse_header(header)
        if frame is None or frame.protected:
            return None
        sizes = [0]
        for index in range(1, 15):
            other = parse_header(bytes((header[0], header[1], index << 4 | header[2] & 0x0C, header[3])))
            sizes.append(other.size if other else 0)
        return cls(HEADER_SIZE + frame.side_info, tuple(sizes), _MAX_BEGIN[frame.samples])


def choose_bitrates(needs: Sequence[int], sizes: FrameSizes, free: int) -> tuple[list[int], list[int], int]:
    """Chooses each frame's bit rate and where its main data begins.

    Args:
        needs: bytes of main data of each frame, less its padding byte; each fits into the longest frame.
        sizes: the frame sizes to choose from.
        free: unused bytes at the end of the frames before the first one.

    Returns:
        The bitrate_index of each frame, its main_data_begin, and the unused bytes after the last frame.
    """
    capacities = [size - sizes.head for size in sizes.sizes]
    smallest = []  # bitrate_index by bytes of main data
    index = 1
    for need in range(max(capacities) + 1):
        while capacities[index] < need:
            index += 1
        smallest.append(index)
    buffered = [DECODER_BUFFER - size for size in sizes.sizes]
    max_begin = sizes.max_begin
    indices = []
    begins = []
    for need in needs:
        begin = free if free < max_begin else max_begin
        index = smallest[need - begin] if need > begin else 1
        if begin > buffered[index]:  # the frame still fits: no frame needs more than the capacity of the longest
            begin = buffered[index]
        indices.append(index)
        begins.append(begin)
        free = begin + capacities[index] - need
    return indices, begins, free


class Repacker:
    """Re-packs frames that were encoded without a reservoir.

    Takes chunks of any size; the output does not depend on where the input is split. Buffers a chunk and a few frames.
    """

    def __init__(self, out: SupportsWrite) -> None:
        self._out = out
        self._sizes: FrameSizes | None = None
        self._first_header = b""
        self._rest = b""  # the beginning of an incomplete frame
        self._free = 0
        # Frames that are not full yet: their headers with side information, their capacities, and their main data.
        self._heads = b""
        self._capacities: list[int] = []
        self._main = b""

    def write(self, data: bytes) -> None:
        """Appends frames.

        Raises:
            UnusableMedia: the frames differ in kind, have other data between them, have a CRC or use a reservoir.
        """
        data = self._rest + data
        if self._sizes is None:
            if len(data) < HEADER_SIZE:
                self._rest = data
                return
            self._first_header = data[:HEADER_SIZE]
            self._sizes = FrameSizes.of(data)
            if self._sizes is None:
                raise _unusable(f"the first frame begins with {self._first_header.hex()}")
        starts, end = _frame_starts(data, self._sizes)
        self._rest = data[end:]
        if starts:
            self._repack(data, starts, self._sizes)

    def close(self) -> None:
        """Writes the remaining frames; the last one is filled up with stuffing.

        Raises:
            UnusableMedia: the last frame is incomplete.
        """
        if self._rest:
            raise _unusable(f"{len(self._rest)} bytes are left")
        if self._sizes is not None:
            self._main += bytes(sum(self._capacities) - len(self._main))
            self._write_full_frames(self._sizes)

    def _repack(self, data: bytes, starts: list[int], sizes: FrameSizes) -> None:
        import numpy as np

        at = np.array(starts)
        heads = np.frombuffer(data, np.uint8)[at[:, None] + np.arange(sizes.head)]
        self._check_kind(heads)
        side = heads[:, HEADER_SIZE:]
        if _main_data_begin(side, sizes).any():
            raise _unusable("a frame uses a bit reservoir")
        padding = heads[:, 2] >> 1 & 1
        before = np.array(sizes.sizes)[heads[:, 2] >> 4] + padding
        needs = (_main_data_bits(side, sizes) + 7) // 8
        if (needs > before - sizes.head).any():
            raise _unusable("a frame's main data is longer than the frame")
        free = self._free
        chosen_indices, chosen_begins, self._free = choose_bitrates((needs - padding).tolist(), sizes, free)
        indices = np.array(chosen_indices)
        begins = np.array(chosen_begins)
        heads[:, 2] = heads[:, 2] & 0x0F | indices << 4
        if sizes.max_begin == 511:
            side[:, 0] = begins >> 1
            side[:, 1] = side[:, 1] & 0x7F | (begins & 1) << 7
        else:
            side[:, 0] = begins
        capacities = np.array(sizes.sizes)[indices] - sizes.head + padding
        # Free bytes too far back for main_data_begin to reach become stuffing.
        stuffing = np.concatenate(([free], (begins + capacities - needs)[:-1])) - begins
        firsts = at + sizes.head
        main = [data[first:last] for first, last in zip(firsts.tolist(), (firsts + needs).tolist(), strict=True)]
        for frame in stuffing.nonzero()[0].tolist():
            main[frame] = bytes(int(stuffing[frame])) + main[frame]
        self._heads += heads.tobytes()
        self._capacities += capacities.tolist()
        self._main += b"".join(main)
        self._write_full_frames(sizes)

    def _check_kind(self, heads: Any) -> None:
        # All frames have the version, rate, protection and mono or stereo of the first one.
        first = self._first_header
        mono = first[3] >> 6 == 3
        alike = (heads[:, 0] == 0xFF) & (heads[:, 1] == first[1]) & ((heads[:, 3] >> 6 == 3) == mono)
        alike &= (heads[:, 2] & 0x0C) == (first[2] & 0x0C)
        if not alike.all():
            raise _unusable(f"a frame's header is not like {first.hex()}")

    def _write_full_frames(self, sizes: FrameSizes) -> None:
        import numpy as np

        ends = np.cumsum(self._capacities, dtype=int)
        count = int(np.searchsorted(ends, len(self._main), "right"))
        output: list[bytes] = []
        head = sizes.head
        at = 0
        for frame, end in enumerate(ends[:count].tolist()):
            output += self._heads[frame * head : (frame + 1) * head], self._main[at:end]
            at = end
        self._out.write(b"".join(output))
        self._heads = self._heads[count * head :]
        self._capacities = self._capacities[count:]
        self._main = self._main[at:]


@contextmanager
def repacking(path: Path) -> Iterator[Repacker]:
    """Yields a ``Repacker`` that writes to a new file, complete at the end of the block.

    Raises:
        TemporaryStorageFull: the file's disk is full.
    """
    try:
        with path.open("wb") as file:
            repacker = Repacker(file)
            yield repacker
            repacker.close()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise TemporaryStorageFull("Temporary storage is full; the conversion will be retried.") from error


def repack(frames: Iterable[bytes], summaries: Sequence[PieceSummary], path: Path) -> PieceSummary:
    """Re-packs the frames of all pieces into one file; returns its summary.

    Args:
        frames: chunks of the frames of all pieces, in order.
        summaries: of all pieces, in order.
        path: a new file for the re-packed frames.

    Raises:
        UnusableMedia: the frames cannot be re-packed.
        TemporaryStorageFull: the file's disk is full.
    """
    with repacking(path) as repacker:
        for chunk in frames:
            repacker.write(chunk)
    last = last_with_sound(summaries)
    return replace(summarize(path, 0, 0, None), tag=last.tag if last else "")


def _frame_starts(data: bytes, sizes: FrameSizes) -> tuple[list[int], int]:
    # Where the complete frames start, and where the last of them ends.
    by_third_byte = [
        sizes.sizes[third >> 4] + (third >> 1 & 1) if third >> 4 not in (0, 15) else 0 for third in range(256)
    ]
    starts = []
    at = 0
    last = len(data) - 3
    while at < last:
        size = by_third_byte[data[at + 2]]
        if not size:
            raise _unusable(f"a frame begins with {data[at : at + 4].hex()}")
        starts.append(at)
        at += size
    if starts and at > len(data):
        at = starts.pop()
    return starts, at


def _main_data_begin(side: Any, sizes: FrameSizes) -> Any:
    # Zero where main_data_begin is zero.
    if sizes.max_begin == 511:
        return side[:, 0] | side[:, 1] & 0x80
    return side[:, 0]


def _main_data_bits(side: Any, sizes: FrameSizes) -> Any:
    offsets = (_LENGTH_OFFSETS if sizes.max_begin == 511 else _LENGTH_OFFSETS_LOW)[side.shape[1]]
    bits = 0
    for offset in offsets:
        at = offset // 8
        three_bytes = side[:, at : at + 3].astype(int) @ (1 << 16, 1 << 8, 1)
        bits += three_bytes >> (24 - _LENGTH_BITS - offset % 8) & (1 << _LENGTH_BITS) - 1
    return bits


def _unusable(cause: str) -> UnusableMedia:
    error = UnusableMedia("The sound of this file could not be converted to MP3: try a constant bit rate.")
    error.__cause__ = RuntimeError(cause)
    return error
