"""Models how long a job takes on many pods, from costs that were measured on few."""

import math
from dataclasses import dataclass
from typing import Final

#: Seconds from an event's publication to the call of its function, on warm pods; row ``events`` measures less.
_HOP: Final = 0.01


@dataclass(frozen=True, slots=True)
class Costs:
    """What the parts of one job cost on one pod, in seconds.

    Attributes:
        split: from the call of convert to the record of the pieces.
        admission: what the first call of encode takes to start all the others.
        piece: one call of encode.
        join: the call of join.
    """

    split: float
    admission: float
    piece: float
    join: float

    def seconds(self, pods: int, pieces: int) -> float:
        """Returns the seconds of the job: pods take pieces of equal length, in as many rounds as are needed.

        Four events follow each other: of the video, of the first piece, of the other pieces, of the join.
        """
        rounds = math.ceil(pieces / pods)
        return self.split + self.admission + rounds * (self.piece + _HOP) + self.join + 3 * _HOP

    def speedup(self, pods: int, pieces: int) -> float:
        """Returns how many times faster the job is than on one pod."""
        return self.seconds(1, pieces) / self.seconds(pods, pieces)
