"""Makes the cover of the MP3: the picture embedded in the source, a frame of its video, or none."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from functions.convert.demux.protocol import EXCERPT_WINDOW, MAX_COVER, ExcerptReport, Fault, FaultReport
from functions.convert.demux.track import TrackInfo, VideoExcerpt, extract_excerpt
from functions.convert.errors import TemporaryStorageFull, UnusableMedia
from functions.convert.progress import HEARTBEAT, OnProgress
from functions.convert.sandbox import setting, spawn
from functions.convert.streams import SupportsReadSeek
from functions.mp3.tags import PICTURES

#: Seconds that making a cover may take. The MP3 matters more than its cover.
TIMEOUT = 60.0
#: Frames that are compared where the user asked for a frame but not for a position.
_FRAMES = 5
_MAX_BYTES = 8 << 20
#: Bytes of address space: a frame of 8K with ten bits takes ffmpeg 970 MB of it (measured, H.265).
_ADDRESS_SPACE = 1 << 30
_ROOT = Path(__file__).resolve().parents[2]
_START = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from functions.convert.demux.child.{{}} import main; main()"
_MESSAGES: dict[str, str] = {
    Fault.NO_PICTURE: "This file has no video to take a cover from.",
    Fault.TOO_LARGE: "The frames of this video are too large for a cover: it takes frames of up to 35 megapixels (8K).",
    Fault.PAST_END: "The cover position is past the end of the video: choose an earlier one.",
}
_TOO_LARGE = f"The picture embedded in this file is larger than {MAX_COVER >> 20} MB and was left out."
_NOT_CONVERTED = "The picture embedded in this file cannot be decoded and was left out."
_UNREADABLE = "The video cannot be decoded at the cover position: choose another one."


def prepare(
    source: SupportsReadSeek, track: TrackInfo, wanted: str | float | None, on_progress: OnProgress
) -> TrackInfo:
    """Extracts from the source what the cover will be made from.

    Args:
        source: as for ``open_track``; its track must be complete unless ``wanted`` is None or "none".
        track: of the same source.
        wanted: the option ``cover``: "frame", "none", a position in seconds, or None for the embedded picture.
        on_progress: as for ``open_track``.

    Returns:
        The track with ``cover``, ``excerpt`` and ``cover_warning`` as ``rendering`` needs them.

    Raises:
        EncoderKilled: the demux child died by SIGKILL.
    """
    if wanted is None:
        return replace(track, cover_warning=_TOO_LARGE) if track.dropped else track
    if wanted == "none":
        return replace(track, cover=b"")
    second = None if isinstance(wanted, str) else wanted
    path = track.path.with_name("excerpt")
    try:
        report = extract_excerpt(source, path, second, on_progress)
    except UnusableMedia:
        return replace(track, cover_warning=_UNREADABLE)
    if isinstance(report, FaultReport):
        return replace(track, cover_warning=_MESSAGES.get(report.fault, _UNREADABLE))
    return replace(track, excerpt=VideoExcerpt(path, _times(report, second), report.pixel))


def _times(report: ExcerptReport, second: float | None) -> tuple[float, ...]:
    """Returns the positions of the frames to compare, in seconds from the start of the excerpt."""
    if second is not None:
        return (report.offset,)
    step = min(report.reach - report.offset, EXCERPT_WINDOW) / _FRAMES
    if step <= 0:
        return (report.offset,)
    return tuple(report.offset + step * number for number in range(_FRAMES))


def _start(module: str, source: Path, out: int, arguments: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Starts a child that draws the cover.

    Args:
        module: the child, in ``functions.convert.demux.child``.
        source: the file that it reads.
        out: the descriptor that it writes the JPEG to.
        arguments: what else the child is told.
    """
    limits = {"AS": _ADDRESS_SPACE, "CPU": int(TIMEOUT), "FSIZE": _MAX_BYTES, "NOFILE": 256}
    with source.open("rb") as file, spawn.starting():
        arguments |= {
            "parent": os.getpid(),
            "limits": limits,
            "source": file.fileno(),
            "out": out,
            "confined": setting.is_on(os.environ),
        }
        return subprocess.Popen(
            [sys.executable, "-I", "-c", _START.format(module), json.dumps(arguments)],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(out, file.fileno()),
        )


def _write(path: Path, picture: bytes) -> None:
    try:
        path.write_bytes(picture)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise TemporaryStorageFull("Temporary storage is full; the conversion will be retried.") from error


@contextlib.contextmanager
def rendering(track: TrackInfo, ffmpeg: str) -> Iterator[Callable[[Callable[[], None]], tuple[bytes, str | None]]]:
    """Makes the cover in another process while the block runs.

    Args:
        track: as returned by ``prepare``.
        ffmpeg: the program's path.

    Yields:
        A function that waits for the cover. It calls its argument twice a second while it waits; an exception raised
        there propagates. It returns the cover, a JPEG or PNG or empty, and a message for the user if it is not the one
        that was asked for.

    Raises:
        TemporaryStorageFull: there is no space for the embedded picture.
    """
    excerpt = track.excerpt
    is_kept = track.cover.startswith(PICTURES)
    if excerpt is None and (is_kept or not track.cover):
        yield lambda _: (track.cover, track.cover_warning)
        return
    path = track.path.with_name("cover")
    deadline = time.monotonic() + TIMEOUT
    with path.open("wb") as out:
        if excerpt is not None:
            arguments = {"ffmpeg": ffmpeg, "times": excerpt.times, "pixel": excerpt.pixel}
            process = _start("cover_frame", excerpt.path, out.fileno(), arguments)
        else:
            picture = track.path.with_name("picture")
            _write(picture, track.cover)
            process = _start("cover_picture", picture, out.fileno(), {})

    def finish(on_progress: Callable[[], None]) -> tuple[bytes, str | None]:
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(HEARTBEAT, left))
                break
            on_progress()
        if process.poll() == 0 and 0 < path.stat().st_size < _MAX_BYTES:
            return path.read_bytes(), track.cover_warning
        if excerpt is None:
            return b"", " ".join(filter(None, (track.cover_warning, _NOT_CONVERTED)))
        return track.cover if is_kept else b"", _UNREADABLE

    try:
        yield finish
    finally:
        spawn.stop([process])
