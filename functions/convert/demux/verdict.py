"""Whose fault it is that nothing came of a reading, and what the user is told."""

import signal
from collections.abc import Mapping
from typing import Any

from events.errors import Mp3burstError
from functions.convert.errors import EncoderKilled, TemporaryStorageFull, UnusableMedia

#: Of a file that is the reader's end, or makes it say what none of ours would.
DAMAGED = "This file is damaged: it cannot be read as a video."


def death(status: int, gone: BaseException) -> Mp3burstError:
    """Whose fault it is that the reader ended without a report: a signal that it raised itself is the file's."""
    if status >= 0 or status == -signal.SIGKILL:
        error: Mp3burstError = EncoderKilled("The reader was stopped from outside; the conversion is tried again.")
    else:
        error = UnusableMedia(DAMAGED)
    error.__cause__ = RuntimeError(f"the reader ended with {status}: {gone.__cause__!r}")
    return error


def fault_of(report: Mapping[str, Any], number: int) -> Mp3burstError:
    """The error for a report with a fault; ``number`` is the track that was asked for."""
    if report["fault"] == "room":
        return TemporaryStorageFull("There is no room for temporary files just now; the conversion is tried again.")
    error = UnusableMedia(_sentence(report, number))
    error.__cause__ = RuntimeError(report.get("detail", report["fault"]))
    return error


def _sentence(report: Mapping[str, Any], number: int) -> str:
    tracks = report.get("tracks", 0)
    match report["fault"]:
        case "format":
            return "This is not a video or audio file, or it is damaged at its beginning."
        case "silent":
            return "This file has no audio track."
        case "track":
            have = "only one audio track" if tracks == 1 else f"{tracks} audio tracks"
            return f"This file has {have}, counted from 0: there is no track {number}."
        case "codec":
            return "The sound of this file is in a format that cannot be decoded."
        case "memory":
            return "This file needs more memory to read than a video should."
        case _:
            return "This file is damaged: its audio track cannot be read."
