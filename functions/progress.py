"""What the progress of a conversion means, for the converter that reports it and for those who show it."""

from typing import Final

#: The share of reading the video in the progress of a conversion by one process.
READ_SHARE: Final = 0.05


def seconds_left(elapsed: float, done: float) -> float | None:
    """Estimates how long the rest takes, given the share (0 to 1) that took ``elapsed`` seconds; None if nothing is."""
    return elapsed * (1 - done) / done if done > 0 else None
