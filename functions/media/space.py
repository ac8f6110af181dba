"""Keeps a floor of free space in the media store, so that a disk that uploads fill up still takes deletions and logins.

Uploads end at the floor. MP3s and pieces, which finish what was accepted, may use half of it. The rest is left to the
database, the broker and temporary files.
"""

import time
from collections.abc import Callable
from typing import Final

from functions.media.interface import DiskFull, MediaUnavailable, Space

#: Seconds for which a measurement is used.
_MEASURE_SECONDS: Final = 1.0


class FreeSpace:
    """Refuses uploads that would leave less than the floor."""

    def __init__(
        self,
        measure: Callable[[], Space | None],
        configured: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is measured yet.

        Args:
            measure: returns the store's space, None if it cannot tell.
            configured: as for ``Space.floor``.
            clock: returns seconds.
        """
        self._measure = measure
        self._configured = configured
        self._clock = clock
        self._measured_at = -_MEASURE_SECONDS
        self._left: int | None = None

    def require(self, size: int = 0) -> None:
        """Raises DiskFull if ``size`` more bytes do not fit above the floor; cheap enough to call for every chunk."""
        now = self._clock()
        if now - self._measured_at >= _MEASURE_SECONDS:
            self._measured_at = now
            self._left = self._above_floor()
        if self._left is not None and self._left < max(size, 1):
            raise DiskFull

    def _above_floor(self) -> int | None:
        try:
            space = self._measure()
        except MediaUnavailable:  # writing will raise it, too
            return None
        return None if space is None else space.free - space.floor(self._configured)
