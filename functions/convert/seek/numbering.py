"""Numbers the samples of a part of a track without reading what precedes it, by the times of its packets.

The times of Matroska are rounded to milliseconds, and those of some programs are a few milliseconds off. But packets
have whole numbers of samples, most of them a thousand, and every packet starts where the one before ends. So the median
of what all packets of the part say is right within a fraction of a millisecond, and the number is the nearest one that
a packet can start with.

That this is the true number is proven afterward: two parts that follow each other have packets in common, and must
have numbered these in the same way (``Mark``). The first part counts from the start of the track.
"""

import math
import statistics
from array import array
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from functions.convert.errors import UnsupportedLayout
from functions.convert.seek import matroska
from functions.convert.seek.packets import Count, packet_counter
from functions.convert.seek.recipe import Recipe

#: Packets at the start that do not count: programs give them times of their own.
_IGNORED: Final = 3
#: Packets without which there is no median worth the name.
_MIN_PACKETS: Final = 16
#: Milliseconds by which the time of a packet may be off. Those of Vorbis by mkvmerge are off by 5.
_JITTER: Final = 20.0
#: Milliseconds between the samples that packets can start with, at least: a median was never off by a tenth of that.
_MIN_GRID: Final = 1.0
#: The share of the grid by which the median may be off.
_MAX_DEVIATION: Final = 0.25


class Mark(NamedTuple):
    """How a part numbers a packet that the part beside it has too.

    Attributes:
        time: milliseconds of the packet's time.
        sample: number of the sample with which it starts.
        samples: hash of a second of decoded samples near it, for decoders of which nothing else shows when they have
            forgotten; otherwise empty.
    """

    time: int
    sample: int
    samples: str = ""


@dataclass(slots=True)
class PacketClock:
    """The packets of a part of a track: when each is played, and with which sample it starts.

    Attributes:
        codec: libavcodec's name for the track's codec.
        rate: samples per second.
        config: the decoder's configuration from the container.
        count: counts the samples of a packet.
        times: milliseconds.
        starts: samples from the first one that the part decodes to.
        end: the start of a packet after the last.
    """

    codec: str
    rate: int
    config: bytes
    count: Count
    times: "array[int]" = field(default_factory=lambda: array("q"))
    starts: "array[int]" = field(default_factory=lambda: array("q"))
    end: int = 0

    @classmethod
    def of(cls, codec: str, channels: int, rate: int, config: bytes) -> "PacketClock":
        """Describes a track that has no packets yet.

        Args:
            codec: libavcodec's name for it.
            channels: of the track.
            rate: samples per second, as decoded.
            config: the decoder's configuration from the container.

        Raises:
            UnsupportedLayout: its packets cannot be counted.
        """
        return cls(codec, rate, config, packet_counter(codec, channels, config))

    def add(self, time: int, data: bytes, start: int, end: int) -> None:
        """Adds the packet between two offsets.

        Raises:
            UnsupportedLayout: the samples of the packet cannot be counted.
        """
        samples = self.count(data, start, end)
        if self.codec == "vorbis" and not self.times:
            samples = 0  # the first packet of Vorbis only prepares the second
        self.times.append(time)
        self.starts.append(self.end)
        self.end += samples

    @property
    def grid(self) -> int:
        """Samples of which every packet has a multiple, as far as is known; the last one may be truncated."""
        return math.gcd(*(after - before for before, after in pairwise(self.starts[1:])))

    def at_zero(self) -> float:
        """Returns the number of the sample at time 0, by the median of all packets.

        Raises:
            UnsupportedLayout: there are too few packets, or their clock jumps.
        """
        if len(self.times) < _MIN_PACKETS:
            raise UnsupportedLayout
        per_millisecond = self.rate / 1000
        packets = zip(self.times[_IGNORED:], self.starts[_IGNORED:], strict=True)
        numbers = [start - time * per_millisecond for time, start in packets]
        median = statistics.median(numbers)
        if max(max(numbers) - median, median - min(numbers)) > _JITTER * per_millisecond:
            raise UnsupportedLayout
        return median

    def first_sample(self, recipe: Recipe) -> int:
        """Returns the number of the first sample that the part decodes to.

        Args:
            recipe: of the part.

        Raises:
            UnsupportedLayout: it is uncertain.
        """
        if not recipe.grid:
            return recipe.sample
        grid = math.gcd(recipe.grid, self.grid)
        steps = (recipe.zero - self.at_zero() - recipe.sample) / grid
        if grid < _MIN_GRID * self.rate / 1000 or abs(steps - round(steps)) > _MAX_DEVIATION:
            raise UnsupportedLayout
        return recipe.sample + round(steps) * grid

    def mark(self, first: int, time: float) -> Mark | None:
        """Returns the mark for the first packet that is not before a time; None if there is none.

        Args:
            first: number of the first sample that the part decodes to.
            time: milliseconds.
        """
        for number, (each, start) in enumerate(zip(self.times, self.starts, strict=True)):
            if each >= time and number:
                return Mark(each, first + start)
        return None


def read_packets(path: Path, codec: str, channels: int, rate: int) -> PacketClock:
    """Reads the packets of a part of a track that the demux child has extracted to a Matroska file.

    Raises:
        UnsupportedLayout: it is something else, or its samples cannot be counted.
    """
    dropped = False
    with path.open("rb") as file:
        head = matroska.head(file)
        clock = PacketClock.of(codec, channels, rate, matroska.private(head))
        for _, _, cluster in matroska.clusters(file):
            time = matroska.timestamp(cluster)
            for start, end, drops in matroska.packets(cluster):
                if dropped:
                    raise UnsupportedLayout  # only the last packet may have samples that are not played
                dropped = drops
                clock.add(time + matroska.block_time(cluster, start), cluster, start, end)
    return clock
