"""Runs ffmpeg over ranges of a track, several at once; each leaves a file of MP3 frames."""

import contextlib
import functools
import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from functions.convert.cpus import cpus_for
from functions.convert.demux.client import HEARTBEAT
from functions.convert.demux.track import TrackStream
from functions.convert.errors import EncoderKilled, TemporaryStorageFull, UnusableMedia
from functions.convert.ffmpeg import args
from functions.convert.ffmpeg.binary import supports_bundled
from functions.convert.plan import FrameRange, Plan
from functions.convert.sandbox import spawn
from functions.convert.sandbox.limits import Limits
from functions.convert.sandbox.watchdog import Watchdog

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
_ONLY_TIMES = b"non monotonically increasing dts to muxer"  # libavformat/mux.c; MP3 has no times, nothing is lost
#: Deaths at a limit, after which the long way is no better.
_LIMITED: Final = (-signal.SIGXCPU, -signal.SIGXFSZ)


@dataclass(slots=True)
class EncoderRun:
    """One ffmpeg at work on one piece.

    Attributes:
        piece: the range.
        path: the file of frames it writes, a tag frame first.
        seconds: how far it has come, on the track's clock.
        errors: the decoder's complaints.
        first_error: the first of them.
        full: one was about room for the frames.
        reconfigured: the sound changed its rate or channels on the way, which moves the range.
        core: the number of the one that it keeps to, if any.
        staged: whether ffmpeg works by stages (``arguments.py``).
        watch: who notices that it does nothing, once it is started.
    """

    piece: FrameRange
    path: Path
    process: subprocess.Popen[bytes] | None = None
    seconds: float = 0.0
    errors: int = 0
    first_error: str = ""
    full: bool = False
    reconfigured: bool = False
    core: int | None = None
    staged: bool = False
    watch: Watchdog = field(init=False, repr=False, compare=False)
    buffers: dict[str, bytes] = field(default_factory=dict)

    def hear(self, name: str, data: bytes) -> None:
        """Take in what came from ``stdout``, its progress, or from ``stderr``, its log."""
        *lines, rest = (self.buffers.get(name, b"") + data).split(b"\n")
        self.buffers[name] = rest[-4096:]
        for line in lines:
            if name == "stdout":
                self._hear_progress(line)
            else:
                self._hear_log(line)

    def _hear_progress(self, line: bytes) -> None:
        key, _, value = line.partition(b"=")
        if key == b"out_time_us" and value.strip().isdigit():
            self.seconds = int(value) / 1e6

    def _hear_log(self, line: bytes) -> None:
        if b"Reconfiguring filter graph" in line:
            self.reconfigured = True
        if (b"[error]" in line or b"[fatal]" in line) and not (self.staged and _ONLY_TIMES in line):
            self.errors += 1
            self.full = self.full or b"No space left on device" in line
            self.first_error = self.first_error or line.decode(errors="replace")

    @property
    def status(self) -> int:
        """How it ended, as ``subprocess.Popen.returncode`` says it; 0 before."""
        return (self.process and self.process.returncode) or 0

    @property
    def in_vain(self) -> bool:
        """Whether it will have to be done again by stages, whatever comes."""
        return not self.staged and not self.full and self.errors > 0

    @property
    def unfinished(self) -> bool:
        """Whether what ffmpeg could not do at one go, or died of, is to be tried by stages."""
        if self.staged or self.full or self.status in _LIMITED:
            return False
        return self.errors > 0 or self.status not in (0, -signal.SIGKILL)

    def judge(self) -> None:
        """Raise what its end means, if it is no good one.

        Raises:
            EncoderKilled: it died by SIGKILL.
            TemporaryStorageFull: there was no room for the frames.
            UnusableMedia: it failed otherwise.
        """
        status = self.status
        if status == -signal.SIGKILL:
            raise EncoderKilled("The encoder was stopped from outside; the conversion is tried again.")
        if status and self.full:
            raise TemporaryStorageFull("There is no room for temporary files just now; the conversion is tried again.")
        if status in _LIMITED:
            raise UnusableMedia(
                "The sound of this file takes far more time or room than its length accounts for: it may be damaged."
            ) from RuntimeError(f"ffmpeg ended with {status}")
        if status:
            raise UnusableMedia("The sound of this file cannot be decoded.") from RuntimeError(
                f"ffmpeg ended with {status}: {self.first_error}"
            )


def encode(
    ffmpeg: str,
    plan: Plan,
    pieces: Iterable[FrameRange],
    track: Path,
    directory: Path,
    at_once: int,
    on_progress: Callable[[float], None],
    stream: TrackStream | None = None,
    on_end: Callable[[EncoderRun], object] = lambda _: None,
) -> list[EncoderRun]:
    """Encode pieces of a track, so many at once; in the order given, finished.

    Args:
        ffmpeg: the program's path.
        plan: how to encode.
        pieces: which ranges of the plan.
        track: the file with the audio track.
        directory: where the frames go.
        at_once: how many encoders run at the same time.
        on_progress: called twice a second with the part that is done, 0 to 1; what it raises stops all encoders.
        stream: the track if its file may still grow; an error of its extraction is raised here.
        on_end: called with each piece that is there, while others are still encoded.

    Raises:
        EncoderKilled: an encoder died by SIGKILL, or does nothing.
        UnusableMedia: an encoder failed otherwise.
    """
    staged = not (plan.bundled and supports_bundled(ffmpeg))
    encodings = {one: EncoderRun(one, directory / f"piece-{one.start}", staged=staged) for one in pieces}
    waiting = list(reversed(encodings.values()))
    running: list[EncoderRun] = []
    part, cores = 0.0, cpus_for(min(at_once, len(encodings)))
    source = functools.partial(source_of, track, stream)
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
                        encodings[encoding.piece] = again = EncoderRun(encoding.piece, encoding.path, staged=True)
                        waiting.append(again)
                        continue
                    encoding.judge()
                    on_end(encoding)
                for encoding in running:
                    if encoding.in_vain and encoding.process is not None:
                        encoding.process.kill()
                    encoding.watch.check(encoding.seconds, waiting=stream is not None and stream.growing)
                if stream is not None:
                    stream.check()
                part = max(part, _part(encodings.values(), plan))
                on_progress(part)
            if stream is not None:
                stream.complete(lambda _: on_progress(1.0))
        except BaseException:
            spawn.stop(one.process for one in running if one.process)
            raise
    return list(encodings.values())


def _limits(plan: Plan) -> Limits:
    # What a track claims may be much too little, as where all its packets have one time; its packets are there.
    claimed, possible = (plan.start_sample + plan.samples) / plan.rate, plan.packets * _PACKET_SECONDS
    return {
        "AS": ADDRESS_SPACE,
        "CPU": int(60 + max(claimed * CPU_PER_SECOND, possible * _CPU_PER_POSSIBLE_SECOND)),
        "FSIZE": int(60 + max(claimed, possible)) * _BYTES_PER_SECOND,
        "NOFILE": 64,
    }


def _start(
    ffmpeg: str,
    plan: Plan,
    encoding: EncoderRun,
    source: Callable[[], IO[bytes]],
    selector: selectors.BaseSelector,
    core: int | None,
) -> EncoderRun:
    with source() as track, encoding.path.open("w+b") as frames:
        encoding.process = spawn.spawn(
            args.encoding(ffmpeg, plan, encoding.piece, track.fileno(), frames.fileno(), encoding.staged),
            _limits(plan),
            pass_fds=(track.fileno(), frames.fileno()),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cpu=core,
        )
    encoding.core, encoding.watch = core, Watchdog(encoding.process.pid)
    for name in ("stdout", "stderr"):
        pipe = getattr(encoding.process, name)
        os.set_blocking(pipe.fileno(), False)
        selector.register(pipe, selectors.EVENT_READ, (encoding, name))
    return encoding


def _hear(encoding: EncoderRun, name: str, selector: selectors.BaseSelector) -> None:
    pipe: Any = getattr(encoding.process, name)
    data = pipe.read(1 << 16)
    if data is None:
        return
    if not data:
        selector.unregister(pipe)
        return
    encoding.hear(name, data)


def _ended(encoding: EncoderRun, selector: selectors.BaseSelector) -> bool:
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


def _part(encodings: Iterable[EncoderRun], plan: Plan) -> float:
    size, whole, done = plan.samples / plan.rate, 0.0, 0.0
    frame = (1152 if plan.rate >= 32000 else 576) / plan.rate
    for one in encodings:
        start = one.piece.start * frame
        length = max((size if one.piece.end is None else one.piece.end * frame) - start, frame)
        over = one.process is not None and one.process.returncode is not None
        whole += length
        done += length if over else min(max(one.seconds - start, 0.0), length)
    return done / whole


def source_of(track: Path, stream: TrackStream | None) -> IO[bytes]:
    """The bytes of a track for one encoder; ``stream`` is the track if its file may still grow."""
    if stream is None or not stream.growing:
        return track.open("rb")
    out, into = os.pipe()
    threading.Thread(target=_feed, args=(stream, into), name="feed", daemon=True).start()
    return open(out, "rb")  # noqa: PTH123 - a number


def _feed(stream: TrackStream, pipe: int) -> None:
    with contextlib.suppress(BrokenPipeError), open(pipe, "wb") as encoder:
        for data in stream.chunks():
            encoder.write(data)
