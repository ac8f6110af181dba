"""Keeps a floor of free space in the media store, so that a disk that uploads fill up still takes deletions and logins.

Uploads end at the floor, and at that of the MP3s' disk if it is another: their MP3s could not be stored. MP3s and
pieces, which finish what was accepted, may use half of it. The rest is left to the database, the broker and temporary
files.
"""

import time
from collections.abc import Callable
from typing import Final

from functions.media.interface import DiskFull, MediaUnavailable, Space

#: Seconds for which a measurement is used.
_MEASURE_SECONDS: Final = 1.0
#: Seconds until a server of MP3s that did not answer is asked again: each time the upload waits 5 s for it. That of the
#: videos need not be spared: writing to it fails, too.
_SILENT_SECONDS: Final = 30.0


class FreeSpace:
    """Refuses uploads that would leave less than the floor."""

    def __init__(
        self,
        measure: Callable[[], Space | None],
        configured: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        mp3s: Callable[[], Space | None] = lambda: None,
    ) -> None:
        """Nothing is measured yet.

        Args:
            measure: returns the space of the videos' disk, None if the store cannot tell.
            configured: as for ``Space.floor``.
            clock: returns seconds.
            mp3s: as ``measure``, of the MP3s' disk if it is another.
        """
        self._videos = _Measured(measure, configured, clock, _MEASURE_SECONDS)
        self._mp3s = _Measured(mp3s, configured, clock, _SILENT_SECONDS)

    def require(self, size: int = 0) -> None:
        """Raises DiskFull if ``size`` more bytes do not fit above the floor; cheap enough to call for every chunk."""
        videos = self._videos.above_floor()
        mp3s = self._mp3s.above_floor()
        if (videos is not None and videos < max(size, 1)) or (mp3s is not None and mp3s < 1):
            raise DiskFull


class _Measured:
    """The free space of one disk, as it was measured last."""

    def __init__(
        self,
        measure: Callable[[], Space | None],
        configured: int | None,
        clock: Callable[[], float],
        silent_seconds: float,
    ) -> None:
        self._measure = measure
        self._configured = configured
        self._clock = clock
        self._silent_seconds = silent_seconds
        self._due_at = clock()
        self._left: int | None = None

    def above_floor(self) -> int | None:
        """Returns the bytes that are free above the floor; None if the store cannot tell."""
        if self._clock() >= self._due_at:
            self._due_at = self._clock() + _MEASURE_SECONDS
            try:
                space = self._measure()
            except MediaUnavailable:
                self._due_at = self._clock() + self._silent_seconds
                space = None
            self._left = None if space is None else space.free - space.floor(self._configured)
        return self._left
