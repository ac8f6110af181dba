"""Errors of a conversion."""

from collections.abc import Sequence
from typing import Final

from events.errors import PermanentFailure, TryAgain
from functions.convert.track_list import ListedTrack

#: The message about a file that has crashed or compromised a demux child.
DAMAGED: Final = "This file is damaged and cannot be read as a video: export or download it again."


class UnusableMedia(PermanentFailure):
    """The file itself is the cause: retrying would fail every time.

    Attributes:
        tracks: the file's audio tracks, if the error is about one of them and the user may choose another.
    """

    status = 422
    tracks: Sequence[ListedTrack] = ()


class UnknownMedia(UnusableMedia):
    """libav has no demuxer or decoder for the file: ffmpeg may have one."""


class TooLong(UnusableMedia):
    """The sound is longer than MAX_SECONDS."""

    def __init__(self, limit: float) -> None:
        """Names the limit, in seconds, in the message."""
        hours = f"{limit / 3600:g} hours" if limit >= 7200 else f"{limit:g} seconds"
        super().__init__(f"The sound of this file is longer than the limit of {hours}: set end to {limit:.0f} or less.")


class OutOfResources(TryAgain):
    """There is no space for temporary files, or no process can be started."""


class TemporaryStorageFull(OutOfResources):
    """The temporary directory is full."""


class EncoderKilled(TryAgain):
    """The demuxer or an encoder was killed from outside (out of memory, shutdown): retrying may succeed."""


class DemuxerFailed(TryAgain):
    """A demux child could not start, or ended without a report, but not by a crash: the installation is at fault."""

    def __init__(self) -> None:
        """Uses the one message there is for it; the reason belongs in ``__cause__``."""
        super().__init__("The demuxer could not start; the conversion will be retried.")


class UnsupportedLayout(Exception):
    """The file is laid out in a way that our own parsers do not support: fall back to libav or to decoding it all.

    Internal: callers handle it, no user sees it.
    """
