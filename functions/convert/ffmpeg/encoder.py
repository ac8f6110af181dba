"""Runs ffmpeg over ranges of a track, several at once; each leaves a file of MP3 frames."""

import contextlib
import functools
import os
import selectors
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from functions.convert.cpus import cores_for
from functions.convert.demux.client import HEARTBEAT, Reading
from functions.convert.ffmpeg import args
from functions.convert.ffmpeg.binary import bundles
from functions.convert.ffmpeg.encoding import Encoding
from functions.convert.ffmpeg.feed import source_of
from functions.convert.plan import Piece, Plan
from functions.convert.sandbox import spawn
from functions.convert.sandbox.limits import Limits
from functions.convert.sandbox.watchdog import Watch

#: An encoder that needs more CPU than that for a second of sound is stuck.
CPU_PER_SECOND = 1.0
#: The same of a second that a track may have by the number of its packets and does not claim.
_CPU_PER_POSSIBLE_SECOND = 0.1
#: Seconds of sound in a packet at most, but for oddities.
_PACKET_SECONDS = 1.0
#: Bytes that an ffmpeg may map.
ADDRESS_SPACE = 4 << 30
#: Bytes of MP3 for a second of sound, 320 kbit/s, twice over: a track may decode to more than it says.
_BYTES_PER_SECOND = 80_000


def encode(
    ffmpeg: str,
    plan: Plan,
    pieces: Iterable[Piece],
    track: Path,
    directory: Path,
    at_once: int,
    on_progress: Callable[[float], None],
    reading: Reading | None = None,
    on_end: Callable[[Encoding], object] = lambda _: None,
) -> list[Encoding]:
    """Encode pieces of a track, so many at once; in the order given, finished.

    Args:
        ffmpeg: the program's path.
        plan: how to encode.
        pieces: which ranges of the plan.
        track: the file with the audio track.
        directory: where the frames go.
        at_once: how many encoders run at the same time.
        on_progress: called twice a second with the part that is done, 0 to 1; what it raises stops all encoders.
        reading: who still writes the file, if anybody; what goes wrong there is raised here.
        on_end: called with each piece that is there, while others are still encoded.

    Raises:
        EncoderKilled: an encoder died by SIGKILL, or does nothing.
        UnusableMedia: an encoder failed otherwise.
    """
    staged = not (plan.bundled and bundles(ffmpeg))
    encodings = {one: Encoding(one, directory / f"piece-{one.start}", staged=staged) for one in pieces}
    waiting = list(reversed(encodings.values()))
    running: list[Encoding] = []
    part, cores = 0.0, cores_for(min(at_once, len(encodings)))
    source = functools.partial(source_of, track, reading)
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    free = next((core for core in cores if core not in [one.core for one in running]), None)
                    running.append(_start(ffmpeg, plan, waiting.pop(), source, selector, free))
                for key, _ in selector.select(HEARTBEAT):
                    encoding, name = key.data
                    _hear(encoding, name, selector)
                for encoding in [one for one in running if _ended(one, selector)]:
                    running.remove(encoding)
                    if encoding.unfinished:
                        encodings[encoding.piece] = again = Encoding(encoding.piece, encoding.path, staged=True)
                        waiting.append(again)
                        continue
                    encoding.judge()
                    on_end(encoding)
                for encoding in running:
                    if encoding.in_vain and encoding.process is not None:
                        encoding.process.kill()
                    encoding.watch.check(encoding.seconds, waiting=reading is not None and not reading.over)
                if reading is not None:
                    reading.check()
                part = max(part, _part(encodings.values(), plan))
                on_progress(part)
            if reading is not None:
                reading.finish(lambda _: on_progress(1.0))
        except BaseException:
            spawn.stop(one.process for one in running if one.process)
            raise
    return list(encodings.values())


def _limits(plan: Plan) -> Limits:
    # What a track claims may be much too little, as where all its packets have one time; its packets are there.
    claimed, possible = (plan.before + plan.samples) / plan.rate, plan.packets * _PACKET_SECONDS
    return {
        "AS": ADDRESS_SPACE,
        "CPU": int(60 + max(claimed * CPU_PER_SECOND, possible * _CPU_PER_POSSIBLE_SECOND)),
        "FSIZE": int(60 + max(claimed, possible)) * _BYTES_PER_SECOND,
        "NOFILE": 64,
    }


def _start(
    ffmpeg: str,
    plan: Plan,
    encoding: Encoding,
    source: Callable[[], IO[bytes]],
    selector: selectors.BaseSelector,
    core: int | None,
) -> Encoding:
    with source() as track, encoding.path.open("w+b") as frames:
        encoding.process = spawn.spawn(
            args.encoding(ffmpeg, plan, encoding.piece, track.fileno(), frames.fileno(), encoding.staged),
            _limits(plan),
            pass_fds=(track.fileno(), frames.fileno()),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            core=core,
        )
    encoding.core, encoding.watch = core, Watch(encoding.process.pid)
    for name in ("stdout", "stderr"):
        pipe = getattr(encoding.process, name)
        os.set_blocking(pipe.fileno(), False)
        selector.register(pipe, selectors.EVENT_READ, (encoding, name))
    return encoding


def _hear(encoding: Encoding, name: str, selector: selectors.BaseSelector) -> None:
    pipe: Any = getattr(encoding.process, name)
    data = pipe.read(1 << 16)
    if data is None:
        return
    if not data:
        selector.unregister(pipe)
        return
    encoding.hear(name, data)


def _ended(encoding: Encoding, selector: selectors.BaseSelector) -> bool:
    process = encoding.process
    if process is None:
        return False
    pipes = [getattr(process, name) for name in ("stdout", "stderr")]
    if process.poll() is None:
        if any(pipe in selector.get_map() for pipe in pipes):
            return False
        # Its pipes close a moment before it is gone, and of that nothing is heard.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(HEARTBEAT)
        if process.returncode is None:
            return False
    for name, pipe in zip(("stdout", "stderr"), pipes, strict=True):
        while pipe in selector.get_map():
            _hear(encoding, name, selector)
        pipe.close()
    return True


def _part(encodings: Iterable[Encoding], plan: Plan) -> float:
    size, whole, done = plan.samples / plan.rate, 0.0, 0.0
    frame = (1152 if plan.rate >= 32000 else 576) / plan.rate
    for one in encodings:
        start = one.piece.start * frame
        length = max((size if one.piece.end is None else one.piece.end * frame) - start, frame)
        over = one.process is not None and one.process.returncode is not None
        whole += length
        done += length if over else min(max(one.seconds - start, 0.0), length)
    return done / whole
