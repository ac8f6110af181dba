"""MP3's bit reservoir: frames in front may hold a part of a frame's main data, and which bit rates that allows.

ISO/IEC 11172-3, 2.4.1.7 and 2.4.3.4; ISO/IEC 13818-3 for the rates below 32 kHz.
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from functions.convert.errors import TemporaryStorageFull, UnusableMedia
from functions.convert.mp3 import assemble
from functions.convert.mp3.assemble import PieceSummary, SupportsWrite
from functions.convert.mp3.frame import HEADER_SIZE, parse_header

#: Bytes that a decoder has for a frame and what it needs from before it: the longest frame, as LAME counts it.
BUFFER = 1440
#: What ``main_data_begin`` can say: 9 bits in MPEG-1, 8 bits below 32 kHz.
_FARTHEST = {1152: 511, 576: 255}
#: Bits of the side information before the ``part2_3_length`` of each granule and channel, by its size in bytes.
#: ISO/IEC 11172-3, 2.4.1.7; below 32 kHz ISO/IEC 13818-3, 2.4.1.7.
_LENGTHS = {17: (18, 77), 32: (20, 79, 138, 197)}
_LENGTHS_LOW = {9: (9,), 17: (10, 73)}
_LENGTH = 12


@dataclass(frozen=True, slots=True)
class FrameSizes:
    """The frames that there are at one sample rate and number of channels, without their padding byte.

    Attributes:
        head: bytes of header and side information.
        sizes: bytes of a frame by its bitrate_index, 0 for the index 0, which is not used.
        farthest: the greatest ``main_data_begin``.
    """

    head: int
    sizes: tuple[int, ...]
    farthest: int

    @classmethod
    def of(cls, header: bytes) -> Self | None:
        """The frames that can stand in a file beside one with this header; None where it is none, or has a CRC."""
        frame = parse_header(header)
        if frame is None or frame.protected:
            return None
        sizes = [0]
        for index in range(1, 15):
            other = parse_header(bytes((header[0], header[1], index << 4 | header[2] & 0x0C, header[3])))
            sizes.append(other.size if other else 0)
        return cls(HEADER_SIZE + frame.side_info, tuple(sizes), _FARTHEST[frame.samples])


def choose(needs: Sequence[int], rates: FrameSizes, ahead: int) -> tuple[list[int], list[int], int]:
    """Choose each frame's bit rate and where its main data begin.

    Args:
        needs: bytes of main data of each frame, less its padding byte; each fits into the longest frame.
        rates: the frames to choose from.
        ahead: bytes before the first frame that no main data fill yet.

    Returns:
        The bitrate_index of each frame, its main_data_begin, and the bytes that are unfilled after the last one.
    """
    rooms = [size - rates.head for size in rates.sizes]
    least, index = [], 1
    for need in range(max(rooms) + 1):
        while rooms[index] < need:
            index += 1
        least.append(index)
    within = [BUFFER - size for size in rates.sizes]
    farthest = rates.farthest
    indices, begins = [], []
    for need in needs:
        begin = ahead if ahead < farthest else farthest
        index = least[need - begin] if need > begin else 1
        if begin > within[index]:  # a frame still holds its data then: none needs more than the longest has room for
            begin = within[index]
        indices.append(index)
        begins.append(begin)
        ahead = begin + rooms[index] - need
    return indices, begins, ahead


class Repacker:
    """Takes frames of sound, encoded without reservoir, in chunks of any size; writes them re-packed.

    It holds a chunk and a few frames. What it writes does not depend on how the frames are cut into chunks.
    """

    def __init__(self, out: SupportsWrite) -> None:
        self._out = out
        self._rates: FrameSizes | None = None
        self._like = b""  # the first header
        self._rest = b""  # of a frame that is not whole yet
        self._ahead = 0
        # Frames that wait for main data: their heads, the room in each, and what is there for them.
        self._heads, self._main = b"", b""
        self._rooms: list[int] = []

    def write(self, data: bytes) -> None:
        """Append frames.

        Raises:
            UnusableMedia: something else stands where a frame should, or it has a CRC or uses a reservoir.
        """
        data = self._rest + data
        if self._rates is None:
            if len(data) < HEADER_SIZE:
                self._rest = data
                return
            self._like, self._rates = data[:HEADER_SIZE], FrameSizes.of(data)
            if self._rates is None:
                raise _broken(f"the first frame begins with {self._like.hex()}")
        starts, end = _starts(data, self._rates)
        self._rest = data[end:]
        if starts:
            self._take(data, starts, self._rates)

    def close(self) -> None:
        """Write what is left; the last frame's main data end within it.

        Raises:
            UnusableMedia: the last frame is not whole.
        """
        if self._rest:
            raise _broken(f"{len(self._rest)} bytes are left")
        if self._rates is not None:
            self._main += bytes(sum(self._rooms) - len(self._main))
            self._give(self._rates)

    def _take(self, data: bytes, starts: list[int], rates: FrameSizes) -> None:
        import numpy as np

        at = np.array(starts)
        heads = np.frombuffer(data, np.uint8)[at[:, None] + np.arange(rates.head)]
        mono = self._like[3] >> 6 == 3
        like = (heads[:, 0] == 0xFF) & (heads[:, 1] == self._like[1]) & ((heads[:, 3] >> 6 == 3) == mono)
        like &= (heads[:, 2] & 0x0C) == (self._like[2] & 0x0C)
        if not like.all():
            raise _broken(f"a frame's header is not like {self._like.hex()}")
        side = heads[:, HEADER_SIZE:]
        if _begins(side, rates).any():
            raise _broken("a frame uses a bit reservoir")
        padding = heads[:, 2] >> 1 & 1
        sizes = np.array(rates.sizes)[heads[:, 2] >> 4] + padding
        needs = (_bits(side, rates) + 7) // 8
        if (needs > sizes - rates.head).any():
            raise _broken("a frame's main data are longer than the frame")
        ahead = self._ahead
        chosen = choose((needs - padding).tolist(), rates, ahead)
        indices, begins, self._ahead = np.array(chosen[0]), np.array(chosen[1]), chosen[2]
        heads[:, 2] = heads[:, 2] & 0x0F | indices << 4
        if rates.farthest == 511:
            side[:, 0] = begins >> 1
            side[:, 1] = side[:, 1] & 0x7F | (begins & 1) << 7
        else:
            side[:, 0] = begins
        rooms = np.array(rates.sizes)[indices] - rates.head + padding
        # Bytes too far back for the frame to begin with: stuffing.
        unused = np.concatenate(([ahead], (begins + rooms - needs)[:-1])) - begins
        firsts = at + rates.head
        main = [data[first:last] for first, last in zip(firsts.tolist(), (firsts + needs).tolist(), strict=True)]
        for frame in unused.nonzero()[0].tolist():
            main[frame] = bytes(int(unused[frame])) + main[frame]
        self._heads += heads.tobytes()
        self._rooms += rooms.tolist()
        self._main += b"".join(main)
        self._give(rates)

    def _give(self, rates: FrameSizes) -> None:
        # Frames whose room is filled.
        import numpy as np

        ends = np.cumsum(self._rooms, dtype=int)
        count = int(np.searchsorted(ends, len(self._main), "right"))
        parts: list[bytes] = []
        head, at = rates.head, 0
        for frame, end in enumerate(ends[:count].tolist()):
            parts += self._heads[frame * head : (frame + 1) * head], self._main[at:end]
            at = end
        self._out.write(b"".join(parts))
        self._heads, self._rooms, self._main = self._heads[count * head :], self._rooms[count:], self._main[at:]


@contextmanager
def repacking(path: Path) -> Iterator[Repacker]:
    """What takes all frames of an MP3 and has them re-packed in a new file at the end of the block.

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
        raise TemporaryStorageFull(
            "There is no room for temporary files just now; the conversion is tried again."
        ) from error


def repack(
    made: Sequence[tuple[Path, PieceSummary]], path: Path, on_bytes: Callable[[int], None]
) -> tuple[Path, PieceSummary]:
    """Re-pack the frames of all pieces into a new file, which then is the only piece.

    Args:
        made: the pieces, in order; each file is deleted when it has been read, so that the disk holds little twice.
        path: where the new file goes.
        on_bytes: hears how many bytes were read each time.
    """
    with repacking(path) as repacker:
        for source, one in made:
            assemble.copy_frames([(source, one)], repacker, on_bytes)
            source.unlink()
    return path, repacked_summary(path, [one for _, one in made])


def repacked_summary(path: Path, sums: Sequence[PieceSummary]) -> PieceSummary:
    """The sum of a file with the re-packed frames of all pieces, from the pieces' own."""
    end = assemble.last_nonempty(sums)
    return replace(assemble.summarize(path, 0, 0, None), tag=end.tag if end else "")


def _starts(data: bytes, rates: FrameSizes) -> tuple[list[int], int]:
    # Where the whole frames begin, and where the last one ends.
    sizes = [rates.sizes[third >> 4] + (third >> 1 & 1) if third >> 4 not in (0, 15) else 0 for third in range(256)]
    starts, at, last = [], 0, len(data) - 3
    while at < last:
        size = sizes[data[at + 2]]
        if not size:
            raise _broken(f"a frame begins with {data[at : at + 4].hex()}")
        starts.append(at)
        at += size
    if starts and at > len(data):
        at = starts.pop()
    return starts, at


def _begins(side: Any, rates: FrameSizes) -> Any:
    if rates.farthest == 511:
        return side[:, 0] | side[:, 1] & 0x80
    return side[:, 0]


def _bits(side: Any, rates: FrameSizes) -> Any:
    # Bits of main data of each frame.
    offsets = (_LENGTHS if rates.farthest == 511 else _LENGTHS_LOW)[side.shape[1]]
    bits = 0
    for offset in offsets:
        at = offset // 8
        three = side[:, at : at + 3].astype(int) @ (1 << 16, 1 << 8, 1)
        bits += three >> (24 - _LENGTH - offset % 8) & (1 << _LENGTH) - 1
    return bits


def _broken(why: str) -> UnusableMedia:
    error = UnusableMedia("The sound of this file could not be made into an MP3.")
    error.__cause__ = RuntimeError(why)
    return error
