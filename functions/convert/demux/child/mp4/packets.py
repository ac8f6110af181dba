"""Where the packets of a track are in an mp4 or mov, and how large they are."""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Self

from functions.convert.demux.child.mp4.boxes import Parts, wrap


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of packets that follow each other, in bytes.

    Attributes:
        count: number of packets.
        listed: the size of each; empty if all are equal.
        equal: the size of all; 0 if they are listed.
    """

    count: int
    listed: "array[int]"
    equal: int = 0

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Self:
        """Lists sizes."""
        listed = array("I", sizes)
        return cls(len(listed), listed)

    @classmethod
    def repeated(cls, size: int, count: int) -> Self:
        """Returns equal sizes."""
        return cls(count, array("I"), size)

    def part(self, first: int, last: int) -> "Sizes":
        """Returns the sizes from one packet up to another one."""
        if self.equal:
            return Sizes.repeated(self.equal, max(min(last, self.count) - first, 0))
        listed = self.listed[first:last]
        return Sizes(len(listed), listed)

    def total(self, first: int, last: int) -> int:
        """Returns the bytes from one packet up to another one."""
        part = self.part(first, last)
        return part.equal * part.count or sum(part.listed)

    def joined(self, runs: Iterable[tuple[int, int]]) -> "Sizes":
        """Returns the sizes of several runs of packets."""
        parts = [self.part(*run) for run in runs]
        listed = array("I")
        for part in parts:
            listed += part.listed
        return Sizes(sum(part.count for part in parts), listed, self.equal)

    def after(self, sizes: Iterable[int]) -> "Sizes":
        """Returns these sizes behind others; all must be listed."""
        return Sizes.of(chain(sizes, self.listed))

    def box(self) -> Parts:
        """Returns the ``stsz`` box."""
        listed = self.listed[:]
        listed.byteswap()
        return wrap(b"stsz", [struct.pack(">III", 0, self.equal, self.count), listed.tobytes()])


@dataclass(frozen=True, slots=True)
class Packets:
    """The packets of a track.

    Attributes:
        sizes: of the packets.
        offsets: of the chunks, in the file.
        firsts: number of the first packet of each chunk.
    """

    sizes: Sizes
    offsets: "array[int]"
    firsts: "array[int]"

    @property
    def count(self) -> int:
        """Number of packets."""
        return self.sizes.count

    @property
    def start(self) -> int:
        """The offset of the first packet."""
        return self.offsets[bisect_right(self.firsts, 0) - 1]

    @property
    def first_chunk(self) -> int:
        """Number of packets in the first chunk."""
        return self.firsts[1] if len(self.firsts) > 1 else self.count

    def spans(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yields offset and size of the parts of the file that contain the packets from ``first`` up to ``last``."""
        chunk = bisect_right(self.firsts, first) - 1
        at = self.firsts[chunk]
        while at < last:
            following = self.firsts[chunk + 1] if chunk + 1 < len(self.firsts) else self.count
            begin = max(at, first)
            if size := self.sizes.total(begin, min(following, last)):
                yield self.offsets[chunk] + self.sizes.total(at, begin), size
            at = following
            chunk += 1
