"""Fetches an excerpt of a video, and proves that what it decodes to does not depend on what comes before it.

The decoder of AAC-LC draws random numbers for bands that are noise, from a state that no seek resets. So an excerpt is
decoded twice, once behind packets that are known to draw: in the two decoders that state is different throughout. If
the samples are equal, no random number has reached them, and a decoder that comes from the start of the track makes
the same.
"""

import contextlib
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from functions.convert.errors import EncoderKilled
from functions.convert.ffmpeg import args, encoder
from functions.convert.progress import HEARTBEAT
from functions.convert.sandbox import priority, spawn
from functions.convert.sandbox.watchdog import Watchdog
from functions.convert.seek.recipe import Recipe, copy_spans
from functions.convert.streams import SupportsReadSeek

#: CPU seconds to decode an excerpt twice, and those for each of its megabytes: a minute of AAC has one.
_CPU_SECONDS: Final = 60
_CPU_PER_MEGABYTE: Final = 60


def fetch_excerpt(
    recipe: Recipe, video: SupportsReadSeek, excerpt: Path, container: str, ffmpeg: str, on_progress: Callable[[], None]
) -> bool:
    """Writes an excerpt to a file; returns whether it decodes to the same samples wherever the decoder comes from.

    Args:
        recipe: of the excerpt.
        video: the video.
        excerpt: the new file.
        container: of the excerpt.
        ffmpeg: path of the program.
        on_progress: called several times a second. An exception that it raises stops the work.

    Raises:
        TrackChanged: the video is shorter than it was.
        EncoderKilled, OutOfResources: as ``_have_equal_samples``.
    """
    with excerpt.open("wb") as out:
        out.write(recipe.prefix)
        if not recipe.drawing:
            copy_spans(video, recipe.spans, on_progress, out)
            return True
        drawing = excerpt.with_name("drawing")
        with drawing.open("wb") as other:
            other.write(recipe.drawing)
            copy_spans(video, recipe.spans, on_progress, out, other)
    skipped = (recipe.warmup, recipe.drawn + recipe.warmup)
    is_independent = _have_equal_samples(ffmpeg, container, (excerpt, drawing), skipped, on_progress)
    drawing.unlink()
    return is_independent


def _have_equal_samples(
    ffmpeg: str,
    container: str,
    paths: tuple[Path, Path],
    skipped: tuple[int, int],
    on_progress: Callable[[], None],
) -> bool:
    """Returns whether two tracks decode to equal samples, apart from the first ones of each.

    Raises:
        EncoderKilled: ffmpeg died by SIGKILL, or hangs.
        OutOfResources: as ``spawn.spawn``.
    """
    megabytes = paths[0].stat().st_size >> 20
    limits = {"AS": encoder.ADDRESS_SPACE, "CPU": _CPU_SECONDS + _CPU_PER_MEGABYTE * megabytes, "NOFILE": 64}
    with paths[0].open("rb") as one, paths[1].open("rb") as two:
        inputs = (one.fileno(), two.fileno())
        process = spawn.spawn(
            args.hash_samples(ffmpeg, container, inputs, skipped),
            limits,
            pass_fds=inputs,
            stdout=subprocess.PIPE,
        )
    try:
        _wait(process, on_progress)
        output = process.stdout.read() if process.stdout is not None else b""
    finally:
        spawn.stop([process])
    if process.returncode == -signal.SIGKILL:
        raise EncoderKilled("The decoder was killed; the conversion will be retried.")
    # One line for each input: its number, the kind of stream, and the hash.
    hashes = [line.rpartition(b",")[2] for line in output.splitlines()]
    return process.returncode == 0 and len(hashes) == len(inputs) and len(set(hashes)) == 1


def _wait(process: subprocess.Popen[bytes], on_progress: Callable[[], None]) -> None:
    """Waits until the process ends; its output fits into the pipe."""
    watch = Watchdog(process.pid)
    while process.poll() is None:
        on_progress()
        watch.check(0)
        priority.lower_if_long(process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(HEARTBEAT)
