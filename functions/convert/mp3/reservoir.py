"""MP3's bit reservoir: frames in front may hold a part of a frame's main data, and which bit rates that allows.

ISO/IEC 11172-3, 2.4.1.7 and 2.4.3.4; ISO/IEC 13818-3 for the rates below 32 kHz.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from functions.convert.mp3 import frame as mpeg

#: Bytes that a decoder has for a frame and what it needs from before it: the longest frame, as LAME counts it.
BUFFER = 1440
#: What ``main_data_begin`` can say: 9 bits in MPEG-1, 8 bits below 32 kHz.
_FARTHEST = {1152: 511, 576: 255}


@dataclass(frozen=True, slots=True)
class Rates:
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
        frame = mpeg.parse(header)
        if frame is None or frame.protected:
            return None
        sizes = [0]
        for index in range(1, 15):
            other = mpeg.parse(bytes((header[0], header[1], index << 4 | header[2] & 0x0C, header[3])))
            sizes.append(other.size if other else 0)
        return cls(mpeg.HEADER + frame.side_info, tuple(sizes), _FARTHEST[frame.samples])


def choose(needs: Sequence[int], rates: Rates, ahead: int) -> tuple[list[int], list[int], int]:
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
