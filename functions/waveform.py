"""Waveforms of MP3s: the lowest and the highest sample of each of up to 4,096 parts of equal length.

Stored as the bytes of BBC audiowaveform's data files, version 2 with 8 bits
(https://github.com/bbc/audiowaveform/blob/master/doc/DataFormat.md), and a number behind them.
"""

import struct
from dataclasses import dataclass
from typing import Final, Self

#: Points of a waveform, at most; a longer MP3 has longer points. Of two bytes each.
MAX_POINTS: Final = 4096
_VERSION: Final = 2
_EIGHT_BITS: Final = 1
_CHANNELS: Final = 1
#: Version, flags, samples a second, samples of a point, number of points, channels.
_HEADER: Final = struct.Struct("<iIiiIi")
#: Behind the points: samples of the first one that are not of the MP3.
_FOOTER: Final = struct.Struct("<i")


@dataclass(frozen=True, slots=True)
class Waveform:
    """A waveform.

    Attributes:
        rate: samples a second of the MP3.
        point_samples: samples of a point; the last one may have fewer.
        data: the lowest and the highest sample of each point in turn, of all channels, as signed bytes.
        before: samples of the first point that are before the MP3, if that is part of another.
    """

    rate: int
    point_samples: int
    data: bytes
    before: int = 0

    @property
    def points(self) -> int:
        """Number of points."""
        return len(self.data) // 2

    def part(self, first: int, last: int) -> Self | None:
        """Returns the waveform of the samples from ``first`` to before ``last``; None if it has none of them.

        It begins with the point that ``first`` is in, which is up to one point too early.
        """
        number, before = divmod(self.before + first, self.point_samples)
        data = self.data[2 * number : 2 * -(-(self.before + last) // self.point_samples)]
        return type(self)(self.rate, self.point_samples, data, before) if data else None

    def to_bytes(self) -> bytes:
        """Returns the waveform as it is stored."""
        header = _HEADER.pack(_VERSION, _EIGHT_BITS, self.rate, self.point_samples, self.points, _CHANNELS)
        return header + self.data + _FOOTER.pack(self.before)

    @classmethod
    def from_bytes(cls, stored: bytes) -> Self:
        """Parses the output of ``to_bytes``."""
        _, _, rate, point_samples, points, _ = _HEADER.unpack_from(stored)
        end = _HEADER.size + 2 * points
        before = _FOOTER.unpack_from(stored, end)[0] if len(stored) > end else 0
        return cls(rate, point_samples, stored[_HEADER.size : end], before)
