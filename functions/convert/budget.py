"""Limits what a conversion may produce, whatever a file claims: its seconds, and the bytes of its MP3.

A few bytes can stand for hours of sound: a constant FLAC frame of 13 bytes has 8 s at 8 kHz. So the length of the MP3
is limited, and its bytes are reserved in the owner's quota before it is encoded. Sound that turns out to be longer than
announced is stopped at the same limits.
"""

import math
from dataclasses import dataclass, field
from typing import Final, Protocol

from functions.convert.errors import TooLong, UnusableMedia

#: Seconds of sound, unless the setting says otherwise: 24 hours.
MAX_SECONDS: Final = 86_400.0
#: Hz. Below are no recordings: telephony has 8 kHz, and a few ADPCM and AMR variants less. Above is no converter:
#: PCM and DSD that was converted to it end at 768 kHz.
MIN_RATE: Final = 4_000
MAX_RATE: Final = 768_000
#: The channels of a MADI stream. Surround sound has up to 24 (22.2), ambisonics of the seventh order 64.
MAX_CHANNELS: Final = 64
#: Bytes of temporary frames of variable bit rate that certainly remain when they are re-packed: three of four.
REPACKED: Final = 0.75


class Reserving(Protocol):
    """Bytes that are reserved for an MP3 (``functions.state.quota.Reservation``)."""

    def require(self, size: int) -> None:
        """Makes sure that at least ``size`` bytes are reserved; QuotaFull if too few are left."""

    def extend(self, size: int) -> None:
        """As ``require``, and prepares for more."""


class Unlimited:
    """Reserves nothing: there is no quota."""

    def require(self, size: int) -> None:
        """Always succeeds."""

    def extend(self, size: int) -> None:
        """Always succeeds."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one conversion may produce.

    Attributes:
        max_seconds: the latest position in the track that is converted, in seconds.
        reservation: the bytes that are reserved for the MP3, or for one piece of it.
    """

    max_seconds: float = math.inf
    reservation: Reserving = field(default_factory=Unlimited)

    def check_seconds(self, seconds: float) -> None:
        """Raises TooLong if this position in the track is past the limit."""
        if seconds > self.max_seconds:
            raise TooLong(self.max_seconds)

    def check_encoded(self, size: int, *, variable: bool) -> None:
        """Makes sure that encoded frames are reserved; raises QuotaFull if they do not fit into the owner's quota.

        Args:
            size: bytes of temporary frames so far.
            variable: whether their bit rate is variable.
        """
        self.reservation.extend(int(size * REPACKED) if variable else size)


def check_plausible(rate: int, channels: int) -> None:
    """Refuses sound that no real codec has; 0 stands for unknown.

    Raises:
        UnusableMedia: the rate or the number of channels is implausible.
    """
    if rate and not MIN_RATE <= rate <= MAX_RATE:
        raise UnusableMedia(
            f"The sound of this file has a sample rate of {rate} Hz, and only {MIN_RATE} to {MAX_RATE} Hz can be "
            "converted: the file may be damaged."
        )
    if channels > MAX_CHANNELS:
        raise UnusableMedia(
            f"The sound of this file has {channels} channels, and at most {MAX_CHANNELS} can be converted: "
            "the file may be damaged."
        )
