"""The picture of the MP3: the one that the source brings along, a frame of its video, or none."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from functions.convert.demux.child import video_excerpt
from functions.convert.demux.child.video_excerpt import Moment
from functions.convert.demux.client import HEARTBEAT, Reading, SupportsReadSeek
from functions.convert.demux.protocol import MAX_COVER
from functions.convert.demux.track import Track
from functions.convert.errors import UnusableMedia
from functions.convert.ffmpeg.encoder import ADDRESS_SPACE
from functions.convert.sandbox import spawn

#: Seconds that a picture may take; MP3s are more than their covers.
PATIENCE = 60.0
_FRAMES = 5
_MOST_BYTES = 8 << 20
_ROOT = Path(__file__).resolve().parents[2]
_START = (
    f"import sys; sys.path.insert(0, {str(_ROOT)!r}); "
    "from functions.convert.demux.child.cover_frame import main; main()"
)
_FAULTS = {
    "no picture": "This file has no video to take a cover from.",
    "beyond": "The video is shorter than that: it has no picture for the cover there.",
}
_TOO_LARGE = f"The picture that the file brings along is larger than {MAX_COVER >> 20} MB and was left out."
_UNREADABLE = "The video cannot be decoded where the cover was to be taken from."


def prepare(
    source: SupportsReadSeek, track: Track, wanted: str | float | None, on_progress: Callable[[float], None]
) -> Track:
    """Take out of the source what the cover is made of; arguments as ``probe.taking``, ``wanted`` as in the options.

    Raises:
        EncoderKilled: the reader died by SIGKILL.
    """
    if wanted is None:
        return replace(track, moment=Moment(track.path, (), 1.0, _TOO_LARGE)) if track.dropped else track
    if wanted == "none":
        return replace(track, cover=b"")
    second = None if isinstance(wanted, str) else wanted
    path = track.path.with_name("moment")
    try:
        with Reading(source, path, {"second": second}) as reading:
            report, _ = reading.report(on_progress)
    except UnusableMedia:
        return replace(track, moment=Moment(path, (), 1.0, _UNREADABLE))
    if "fault" in report:
        return replace(track, moment=Moment(path, (), 1.0, _FAULTS.get(report["fault"], _UNREADABLE)))
    at, reach = report["offset"], report["reach"]
    step = min(reach - at, video_excerpt.WINDOW) / _FRAMES if second is None else 0.0
    times = tuple(at + step * number for number in range(_FRAMES)) if step > 0 else (at,)
    return replace(track, moment=Moment(path, times, report["pixel"], None))


def _start(wanted: Moment, out: int, ffmpeg: str) -> subprocess.Popen[bytes]:
    limits = {"AS": ADDRESS_SPACE, "CPU": int(PATIENCE), "FSIZE": _MOST_BYTES, "NOFILE": 256}
    arguments = {
        "parent": os.getpid(),
        "limits": limits,
        "ffmpeg": ffmpeg,
        "path": str(wanted.path.resolve()),  # it stands elsewhere
        "times": wanted.times,
        "pixel": wanted.pixel,
        "out": out,
    }
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _START, json.dumps(arguments)],
        env={},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(out,),
    )


@contextlib.contextmanager
def drawing(track: Track, ffmpeg: str) -> Iterator[Callable[[Callable[[], None]], tuple[bytes, str | None]]]:
    """Have the cover made while the block does something else.

    Yields:
        A function that waits for the cover, and calls its argument twice a second meanwhile; what that raises is passed
        on. It returns the cover, and a sentence where it is not the one that was asked for.
    """
    wanted = track.moment
    if wanted is None or wanted.fault:
        yield lambda _: (track.cover, wanted.fault if wanted else None)
        return
    path = wanted.path.with_name("cover")
    deadline = time.monotonic() + PATIENCE
    with path.open("wb") as out:
        process = _start(wanted, out.fileno(), ffmpeg)

    def finish(on_progress: Callable[[], None]) -> tuple[bytes, str | None]:
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(HEARTBEAT, left))
                break
            on_progress()
        if process.poll() == 0 and 0 < path.stat().st_size < _MOST_BYTES:
            return path.read_bytes(), None
        return track.cover, _UNREADABLE

    try:
        yield finish
    finally:
        spawn.stop([process])
