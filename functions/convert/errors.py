"""What can go wrong with a conversion."""

from events.errors import PermanentFailure, TryAgain


class UnusableMedia(PermanentFailure):
    """The file's own fault: it would fail again however often it is tried."""

    status = 422


class OutOfResources(TryAgain):
    """There is no room for temporary files or for another process."""


class TemporaryStorageFull(OutOfResources):
    """The temporary directory is full."""


class EncoderKilled(TryAgain):
    """The reader or an encoder was killed from outside (out of memory, a shutdown): the same file may work later."""


class UnsupportedLayout(Exception):
    """The file is laid out in a way that our own parsers do not support: fall back to libav or to decoding it all.

    Internal: callers handle it, no user sees it.
    """
