"""Measures a track by decoding it: a fade-out needs to know exactly where the sound ends."""

import os
import select
import subprocess
from collections.abc import Callable
from pathlib import Path

from functions.convert.demux.track import TrackInfo
from functions.convert.ffmpeg import args, encoder
from functions.convert.progress import HEARTBEAT
from functions.convert.sandbox import priority, spawn
from functions.convert.sandbox.watchdog import Watchdog

#: CPU seconds allowed per second of sound; decoding takes a hundredth of that.
_CPU_PER_SECOND = 0.2


def measure(ffmpeg: str, track: TrackInfo, rate: int, limit: float, on_progress: Callable[[], None]) -> float | None:
    """Returns the length of a track in seconds, exact to the sample; None if it cannot be decoded to the end.

    If the track is longer than ``limit``, measuring stops there, and the result is only known to be longer.

    Args:
        ffmpeg: path of the program.
        track: a complete track.
        rate: sample rate of the MP3, Hz.
        limit: seconds after which the exact length does not matter.
        on_progress: called several times a second. An exception that it raises stops the work.

    Raises:
        EncoderKilled: ffmpeg hangs.
    """
    limits = {"AS": encoder.ADDRESS_SPACE, "CPU": int(60 + min(track.duration, limit) * _CPU_PER_SECOND), "NOFILE": 64}
    # One byte per sample of one channel: the number of bytes is the number of samples. The bytes are discarded.
    with track.path.open("rb") as source, Path("/dev/null").open("wb") as null:
        process = spawn.spawn(
            [
                *args.decode(ffmpeg, track.container, source.fileno(), track.number),
                *("-af", f"aformat=sample_rates={rate}:channel_layouts=mono", "-c:a", "pcm_u8"),
                *("-f", "u8", "-fd", str(null.fileno()), "fd:"),
            ],
            limits,
            pass_fds=(source.fileno(), null.fileno()),
            stdout=subprocess.PIPE,
        )
    try:
        samples = _last_total_size(process, limit * rate, on_progress)
        is_longer = samples > limit * rate
        return samples / rate if is_longer or process.wait() == 0 else None
    finally:
        spawn.stop([process])


def _last_total_size(process: subprocess.Popen[bytes], limit: float, on_progress: Callable[[], None]) -> int:
    # The bytes written, from ffmpeg's progress reports on its standard output, until they exceed the limit.
    if process.stdout is None:
        raise ValueError("the standard output of ffmpeg is not a pipe")
    out = process.stdout.fileno()
    watch = Watchdog(process.pid)
    poll = select.poll()
    poll.register(out, select.POLLIN)
    size = 0
    rest = b""
    while True:
        on_progress()
        watch.check(size)
        priority.lower_if_long(process.pid)
        if not poll.poll(HEARTBEAT * 1000):
            continue
        data = os.read(out, 1 << 16)
        if not data:
            return size
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            key, _, value = line.partition(b"=")
            if key == b"total_size" and value.strip().isdigit():
                size = int(value)
        if size > limit:
            return size
