"""Fetches an excerpt of a video, and proves that what it decodes to does not depend on what comes before it.

The decoder of AAC-LC draws random numbers for bands that are noise, from a state that no seek resets. So an excerpt is
decoded twice, once behind packets that are known to draw: in the two decoders that state is different throughout. If
the samples are equal, no random number has reached them, and a decoder that comes from the start of the track makes
the same.
"""

import contextlib
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from functions.convert.errors import EncoderKilled
from functions.convert.ffmpeg import args, encoder
from functions.convert.plan import PREROLL_FRAMES, FrameRange, Plan
from functions.convert.progress import HEARTBEAT
from functions.convert.sandbox import priority, spawn
from functions.convert.sandbox.watchdog import Watchdog
from functions.convert.seek.extraction import Fetched, extract_excerpt
from functions.convert.seek.numbering import Mark
from functions.convert.seek.recipe import Recipe, copy_spans
from functions.convert.streams import SupportsReadSeek
from functions.mp3.frame import samples_per_frame

#: CPU seconds to decode an excerpt twice, and those for each of its megabytes: a minute of AAC has one.
_CPU_SECONDS: Final = 60
_CPU_PER_MEGABYTE: Final = 60


def fetch_excerpt(
    recipe: Recipe, video: SupportsReadSeek, excerpt: Path, container: str, ffmpeg: str, on_progress: Callable[[], None]
) -> Fetched | None:
    """Writes an excerpt to a file; returns None if what it decodes to depends on what comes before, or is uncertain.

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
    drawing = excerpt.with_name("drawing")
    fetch = extract_excerpt if recipe.track >= 0 else _copy_excerpt
    fetched = fetch(recipe, video, (excerpt, drawing), on_progress)
    if fetched is None or not recipe.drawing:
        return fetched
    skipped = (recipe.warmup, recipe.drawn + recipe.warmup)
    is_independent = _have_equal_samples(ffmpeg, container, (excerpt, drawing), skipped, on_progress)
    drawing.unlink()
    return fetched if is_independent else None


def _copy_excerpt(
    recipe: Recipe, video: SupportsReadSeek, paths: tuple[Path, Path], on_progress: Callable[[], None]
) -> Fetched:
    """Copies the packets of an excerpt, and those of one whose decoder draws random numbers if the recipe has it."""
    excerpt, drawing = paths
    with excerpt.open("wb") as out:
        out.write(recipe.prefix)
        if recipe.drawing:
            with drawing.open("wb") as other:
                other.write(recipe.drawing)
                copy_spans(video, recipe.spans, on_progress, out, other)
        else:
            copy_spans(video, recipe.spans, on_progress, out)
    return Fetched(recipe.sample, recipe.sample + recipe.warmup)


def mark_seams(
    fetched: Fetched,
    excerpt: Path,
    plan: Plan,
    frame_range: FrameRange,
    ffmpeg: str,
    on_progress: Callable[[], None],
) -> tuple[Mark | None, ...]:
    """Returns how the seams of a range are marked: at its start, and at its end.

    Args:
        fetched: the excerpt.
        excerpt: its file.
        plan: of the track.
        frame_range: the range of the excerpt.
        ffmpeg: path of the program.
        on_progress: as for ``fetch_excerpt``.

    Raises:
        EncoderKilled, OutOfResources: as ``_hashes``.
    """
    seams = plan.seams(frame_range)
    marks = fetched.marks(seams)
    if not fetched.common:
        return marks
    # The encoder of the range after a seam needs exact samples from its pre-roll on: there the two must have agreed.
    preroll = PREROLL_FRAMES * samples_per_frame(plan.rate)
    ends = {
        number: seam - preroll - fetched.sample
        for number, seam in enumerate(seams)
        if seam is not None and marks[number] is not None
    }
    parts = [(0, end - fetched.common, end) for end in ends.values()]
    hashes = _hashes(ffmpeg, plan.container, [excerpt], parts, on_progress)
    if not hashes:
        return (None, None)
    samples = dict(zip(ends, hashes, strict=True))
    return tuple(mark and mark._replace(samples=samples.get(number, "")) for number, mark in enumerate(marks))


def _have_equal_samples(
    ffmpeg: str,
    container: str,
    paths: tuple[Path, Path],
    skipped: tuple[int, int],
    on_progress: Callable[[], None],
) -> bool:
    """Returns whether two tracks decode to equal samples, apart from the first ones of each; errors as ``_hashes``."""
    parts = [(number, count, None) for number, count in enumerate(skipped)]
    hashes = _hashes(ffmpeg, container, paths, parts, on_progress)
    return len(hashes) == len(paths) and len(set(hashes)) == 1


def _hashes(
    ffmpeg: str,
    container: str,
    paths: Sequence[Path],
    parts: Sequence[tuple[int, int, int | None]],
    on_progress: Callable[[], None],
) -> list[str]:
    """Returns the hash of the decoded samples of each of several parts of tracks, as ``args.hash_samples``.

    It returns none if a track cannot be decoded.

    Raises:
        EncoderKilled: ffmpeg died by SIGKILL, or hangs.
        OutOfResources: as ``spawn.spawn``.
    """
    megabytes = paths[0].stat().st_size >> 20
    limits = {"AS": encoder.ADDRESS_SPACE, "CPU": _CPU_SECONDS + _CPU_PER_MEGABYTE * megabytes, "NOFILE": 64}
    with ExitStack() as stack:
        inputs = [stack.enter_context(path.open("rb")).fileno() for path in paths]
        process = spawn.spawn(
            args.hash_samples(ffmpeg, container, inputs, parts),
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
    # One line for each part: its number, the kind of stream, and the hash.
    hashes = [line.rpartition(b",")[2].decode() for line in output.splitlines()]
    return hashes if process.returncode == 0 and len(hashes) == len(parts) else []


def _wait(process: subprocess.Popen[bytes], on_progress: Callable[[], None]) -> None:
    """Waits until the process ends; its output fits into the pipe."""
    watch = Watchdog(process.pid)
    while process.poll() is None:
        on_progress()
        watch.check(0)
        priority.lower_if_long(process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(HEARTBEAT)
