"""Counts the samples of a track by decoding it: a fade at the end has to know where that is."""

import os
import select
import subprocess
from collections.abc import Callable
from pathlib import Path

from functions.convert.demux.client import HEARTBEAT
from functions.convert.demux.track import TrackInfo
from functions.convert.ffmpeg import args, encoder
from functions.convert.sandbox import spawn
from functions.convert.sandbox.watchdog import Watchdog

#: Seconds of CPU for a second of sound; to decode it takes a hundredth of that.
_CPU_PER_SECOND = 0.2


def measure(ffmpeg: str, track: TrackInfo, rate: int, on_progress: Callable[[], None]) -> float | None:
    """The length of a track in seconds, exact to the sample.

    Args:
        ffmpeg: the program's path.
        track: taken out of its video.
        rate: samples a second of the MP3.
        on_progress: called several times a second; what it raises stops the work.

    Returns:
        None where the track cannot be decoded to its end.

    Raises:
        EncoderKilled: ffmpeg does nothing.
    """
    limits = {"AS": encoder.ADDRESS_SPACE, "CPU": int(60 + track.duration * _CPU_PER_SECOND), "NOFILE": 64}
    size = 0
    # One byte of one channel for a sample: what is written is the count, and nobody reads it.
    with track.path.open("rb") as source, Path("/dev/null").open("wb") as nowhere:
        process = spawn.spawn(
            [
                *args.reading(ffmpeg, track.container, source.fileno()),
                *("-map", "0:a:0", "-af", f"aformat=sample_rates={rate}:channel_layouts=mono", "-c:a", "pcm_u8"),
                *("-f", "u8", "-fd", str(nowhere.fileno()), "fd:"),
            ],
            limits,
            pass_fds=(source.fileno(), nowhere.fileno()),
            stdout=subprocess.PIPE,
        )
    watch, poll, out, rest = Watchdog(process.pid), select.poll(), process.stdout, b""
    if out is not None:
        poll.register(out, select.POLLIN)
    try:
        while out is not None:
            on_progress()
            watch.check(size)
            if not poll.poll(HEARTBEAT * 1000):
                continue
            if not (data := os.read(out.fileno(), 1 << 16)):
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                key, _, value = line.partition(b"=")
                if key == b"total_size" and value.strip().isdigit():
                    size = int(value)
        return size / rate if process.wait() == 0 else None
    finally:
        spawn.stop([process])
