"""Errors of a conversion."""

from events.errors import PermanentFailure, TryAgain


class UnusableMedia(PermanentFailure):
    """The file itself is the cause: retrying would fail every time."""

    status = 422


class OutOfResources(TryAgain):
    """There is no space for temporary files, or no process can be started."""


class TemporaryStorageFull(OutOfResources):
    """The temporary directory is full."""


class EncoderKilled(TryAgain):
    """The demuxer or an encoder was killed from outside (out of memory, shutdown): retrying may succeed."""


class UnsupportedLayout(Exception):
    """The file is laid out in a way that our own parsers do not support: fall back to libav or to decoding it all.

    Internal: callers handle it, no user sees it.
    """
