"""Runs ffmpeg on ranges of a track, several at once; each run leaves a file of MP3 frames."""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

from functions.convert.budget import Budget
from functions.convert.cpus import cpus_for
from functions.convert.demux.protocol import ORIGINAL
from functions.convert.demux.track import TrackStream
from functions.convert.errors import EncoderKilled, TemporaryStorageFull, UnusableMedia
from functions.convert.ffmpeg import args
from functions.convert.ffmpeg.binary import has_levels, supports_bundled
from functions.convert.mp3.summary import PieceSummary, summarize
from functions.convert.plan import LOOKAHEAD_FRAMES, FrameRange, Plan
from functions.convert.points import PointReader, Points
from functions.convert.progress import HEARTBEAT, OnProgress
from functions.convert.sandbox import priority, spawn
from functions.convert.sandbox.limits import Limits
from functions.convert.sandbox.watchdog import Watchdog
from functions.mp3.frame import samples_per_frame

#: CPU seconds per second of sound; an encoder that needs more is stuck.
CPU_PER_SECOND = 1.0
#: The same for each second that a track may have by its number of packets but does not claim.
_CPU_PER_POSSIBLE_SECOND = 0.1
#: Maximum seconds of sound in a packet, apart from odd files.
_PACKET_SECONDS = 1.0
#: Bytes of address space for one ffmpeg.
ADDRESS_SPACE = 4 << 30
#: A packet has less sound than this: Monkey's Audio has 27 s at 44.1 kHz, the longest FLAC 16 s at 4 kHz.
_MAX_PACKET_SECONDS = 30.0
#: Seconds of sound that every encoder may make beyond its limit, since a track may decode to more than it claims.
_SLACK_SECONDS = 60.0
#: By how much a file of frames may exceed what its plan accounts for, for the same reason.
_SIZE_FACTOR = 2.0
#: libavformat/mux.c; harmless, since MP3 has no time stamps.
_ONLY_TIME_STAMPS = b"non monotonically increasing dts to muxer"
#: What ffmpeg prints if it cannot read its input, or at the end of some formats.
_UNREADABLE: Final = b"Error during demuxing"
#: Frames of an encoder that are not its sound: the tag, and its delay and padding, 5 at 8 kHz (measured).
_EXTRA_FRAMES: Final = 8
#: What ffmpeg and LAME print if LAME cannot encode samples: infinite ones, no numbers, or ones far beyond full scale.
_UNENCODABLE: Final = (b"Error encoding a frame", b"Internal buffer inconsistency")
#: Exit statuses at a resource limit; a staged run would hit the limit too.
_LIMIT_REACHED: Final = (-signal.SIGXCPU, -signal.SIGXFSZ)
#: Maximum bytes kept of an incomplete line of ffmpeg's output.
_MAX_LINE = 4096


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """What all encoders of a track have in common.

    Attributes:
        ffmpeg: path of the program.
        plan: how to encode.
        track: the file with the audio track.
        directory: for the files of frames.
        stream: the track if its file may still grow; None if it is complete.
        budget: what the encoders may make.
        is_measured: whether the waveform is measured. Not if the sound changes its format: then ffmpeg restarts its
            filters, and what those that measure have gathered would be lost.
    """

    ffmpeg: str
    plan: Plan
    track: Path
    directory: Path
    stream: TrackStream | None = None
    budget: Budget = field(default_factory=Budget)
    is_measured: bool = True

    def open(self) -> IO[bytes]:
        """Opens the track for one encoder: its file, or a pipe that follows the file while it grows."""
        stream = self.stream
        if stream is None or not stream.growing:
            return self.track.open("rb")
        read_end, write_end = os.pipe()
        threading.Thread(target=_feed, args=(stream, write_end), name="feed", daemon=True).start()
        return open(read_end, "rb")  # noqa: PTH123 - a file descriptor, not a path


def _feed(stream: TrackStream, pipe: int) -> None:
    with contextlib.suppress(BrokenPipeError), open(pipe, "wb") as encoder:
        for data in stream.chunks():
            encoder.write(data)


@dataclass(slots=True)
class EncoderRun:
    """One run of ffmpeg on one range.

    Attributes:
        range: the frames to encode.
        path: the file of frames that it writes, beginning with a tag frame.
        process: the running ffmpeg; None before the start.
        seconds: its position on the track's clock.
        errors: number of errors that it logged.
        first_error: the first of them.
        full: whether an error was about storage space.
        reconfigured: whether the sound changed its rate or channels on the way, which shifts the range.
        cpu: number of the CPU that it is pinned to, if any.
        staged: whether ffmpeg runs in stages (``args``).
        cleaned: whether samples that are no sound are silenced before they reach LAME (``args.encode``).
        unencodable: whether LAME received such samples.
        counted: whether the demux child has counted the places of the file that cannot be read.
        is_measured: whether its part of the waveform is measured.
        is_final: whether its frames count also if the sound changes its format: those of ranges do not.
        measured: reads the points of that; set at the start.
        watchdog: detects that it hangs; set at the start.
        pipes: what it prints to, by name: ``stdout``, ``stderr`` and, if its waveform is measured, ``levels``.
        buffers: the incomplete last lines of its output, by pipe.
    """

    range: FrameRange
    path: Path
    process: subprocess.Popen[bytes] | None = None
    seconds: float = 0.0
    errors: int = 0
    first_error: str = ""
    full: bool = False
    reconfigured: bool = False
    cpu: int | None = None
    staged: bool = False
    cleaned: bool = False
    unencodable: bool = False
    counted: bool = False
    is_measured: bool = False
    is_final: bool = False
    measured: PointReader | None = None
    watchdog: Watchdog = field(init=False, repr=False, compare=False)
    pipes: dict[str, IO[Any]] = field(default_factory=dict)
    buffers: dict[str, bytes] = field(default_factory=dict)

    def receive(self, pipe: str, data: bytes) -> None:
        """Processes output from ``stdout`` (the progress), ``stderr`` (the log) or ``levels``."""
        *lines, rest = (self.buffers.get(pipe, b"") + data).split(b"\n")
        self.buffers[pipe] = rest[-_MAX_LINE:]
        for line in lines:
            if pipe == "stdout":
                self._receive_progress(line)
            elif pipe == "levels":
                if self.measured is not None:
                    self.measured.receive(line)
            else:
                self._receive_log(line)

    def _receive_progress(self, line: bytes) -> None:
        key, _, value = line.partition(b"=")
        if key == b"out_time_us" and value.strip().isdigit():
            self.seconds = int(value) / 1e6

    def _receive_log(self, line: bytes) -> None:
        if b"Reconfiguring filter graph" in line:
            self.reconfigured = True
        self.unencodable = self.unencodable or any(text in line for text in _UNENCODABLE)
        ignored = (self.staged and _ONLY_TIME_STAMPS in line) or (self.counted and _UNREADABLE in line)
        if (b"[error]" in line or b"[fatal]" in line) and not ignored:
            self.errors += 1
            self.full = self.full or b"No space left on device" in line
            self.first_error = self.first_error or line.decode(errors="replace")

    @property
    def status(self) -> int:
        """The exit status like ``subprocess.Popen.returncode``; 0 until it ends."""
        return (self.process and self.process.returncode) or 0

    @property
    def hopeless(self) -> bool:
        """Whether the run failed in a way that another one may not, even before it ends."""
        if self.full:
            return False
        if self.is_measured and self.reconfigured and self.is_final:
            return True  # the filter that measures loses the samples that it has collected
        return (self.unencodable and not self.cleaned) or (not self.staged and self.errors > 0)

    @property
    def needs_another(self) -> bool:
        """Whether the run ended in a way that another one, in stages, cleaned or not measured, may not."""
        if self.full or self.status in _LIMIT_REACHED:
            return False
        return self.hopeless or (not self.staged and self.status not in (0, -signal.SIGKILL))

    def another(self) -> Self:
        """Returns the run that takes this one's place, in stages.

        Cleaned if LAME could not encode the samples, and not measured if they have changed their format.
        """
        return type(self)(
            self.range,
            self.path,
            staged=True,
            cleaned=self.unencodable or self.cleaned,
            counted=self.counted,
            is_measured=self.is_measured and not self.reconfigured,
            is_final=self.is_final,
        )

    @property
    def points(self) -> Points | None:
        """The points of its part of the waveform; None if they were not measured."""
        return None if self.measured is None or self.reconfigured else self.measured.points

    def close(self) -> None:
        """Closes its pipes."""
        for pipe in self.pipes.values():
            pipe.close()

    def check_status(self) -> None:
        """Raises an error if the run failed.

        Raises:
            EncoderKilled: it died by SIGKILL.
            TemporaryStorageFull: there was no space for the frames.
            UnusableMedia: it failed otherwise.
        """
        status = self.status
        if status == -signal.SIGKILL:
            raise EncoderKilled("The encoder was killed; the conversion will be retried.")
        if status and self.full:
            raise TemporaryStorageFull("Temporary storage is full; the conversion will be retried.")
        if status in _LIMIT_REACHED:
            raise UnusableMedia(
                "The sound of this file takes far more time or space than its length accounts for. It may be damaged: "
                "check that it plays on your computer."
            ) from RuntimeError(f"ffmpeg ended with {status}")
        if status:
            raise UnusableMedia(
                "The sound of this file cannot be decoded: check that it plays on your computer."
            ) from RuntimeError(f"ffmpeg ended with {status}: {self.first_error}")

    def sound_size(self, plan: Plan) -> int:
        """Bytes of frames in its file so far, without those outside its range."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:  # not started, or already joined
            return 0
        extra = _EXTRA_FRAMES + self.range.preroll + (0 if self.range.end is None else LOOKAHEAD_FRAMES)
        return max(int(size - extra * plan.frame_seconds * plan.max_bytes_per_second), 0)

    def summarize(self) -> PieceSummary:
        """Summarizes the frames of the range."""
        count = None if self.range.end is None else self.range.end - self.range.start
        return summarize(self.path, self.range.start, self.range.preroll, count)


def encode(
    source: EncoderInput,
    ranges: Iterable[FrameRange],
    encoders: int,
    on_progress: OnProgress,
    on_end: Callable[[EncoderRun], object] = lambda _: None,
) -> list[EncoderRun]:
    """Encodes ranges of a track; returns the finished runs in the order of the ranges.

    Args:
        source: the track and how to encode it.
        ranges: ranges of the plan.
        encoders: number of encoders that run at once.
        on_progress: called twice a second with the fraction that is done, 0 to 1. An exception that it raises stops
            all encoders.
        on_end: called with each finished run while others still encode.

    Raises:
        EncoderKilled: an encoder died by SIGKILL, or hangs.
        TemporaryStorageFull: there was no space for the frames.
        TooLong: the sound is longer than the budget allows. QuotaFull: so is the MP3.
        UnusableMedia: an encoder failed otherwise.
        Mp3burstError: reading the rest of the source failed while the track's file was still growing.
    """
    stream = source.stream
    done = 0.0
    with _Pool(source, ranges, encoders, on_end) as pool:
        while pool.waiting or pool.running:
            pool.start_waiting()
            pool.receive_output()
            pool.collect_ended()
            pool.check_running()
            pool.check_budget()
            if stream is not None:
                stream.check()
            done = max(done, pool.progress())
            on_progress(done)
        if stream is not None:
            stream.complete(lambda _: on_progress(1.0))
    return list(pool.runs.values())


class _Pool:
    """The encoders of one call of ``encode``; whatever still runs at the end of the block is stopped."""

    def __init__(
        self,
        source: EncoderInput,
        ranges: Iterable[FrameRange],
        encoders: int,
        on_end: Callable[[EncoderRun], object],
    ) -> None:
        staged = not (source.plan.bundled and supports_bundled(source.ffmpeg))
        counted = source.plan.container == ORIGINAL and source.plan.packets > 0
        is_measured = source.is_measured and has_levels(source.ffmpeg)
        ranges = list(ranges)
        is_final = ranges == [FrameRange(0, None)] and len(source.plan.filters) == 1
        self.runs = {
            frame_range: EncoderRun(
                frame_range,
                source.directory / f"piece-{frame_range.start}",
                staged=staged,
                counted=counted,
                is_measured=is_measured,
                is_final=is_final,
            )
            for frame_range in ranges
        }
        self.waiting = list(reversed(self.runs.values()))
        self.running: list[EncoderRun] = []
        self._source = source
        self._encoders = encoders
        self._cpus = cpus_for(min(encoders, len(self.runs)))
        self._on_end = on_end
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        spawn.stop(run.process for run in self.running if run.process)
        for run in self.running:
            run.close()
        self._selector.close()

    def start_waiting(self) -> None:
        """Starts waiting runs as long as encoders are free."""
        while self.waiting and len(self.running) < self._encoders:
            in_use = [run.cpu for run in self.running]
            free = next((cpu for cpu in self._cpus if cpu not in in_use), None)
            run = self.waiting.pop()
            self.running.append(run)
            self._start(run, free)

    def _start(self, run: EncoderRun, cpu: int | None) -> None:
        source = self._source
        with source.open() as track, run.path.open("w+b") as out, _levels_pipe(run, source.plan) as levels:
            arguments = args.encode(
                source.ffmpeg,
                source.plan.cleaning() if run.cleaned else source.plan,
                run.range,
                track=track.fileno(),
                out=out.fileno(),
                staged=run.staged,
                levels=levels,
            )
            run.process = spawn.spawn(
                arguments,
                encoder_limits(source.plan, run.range, source.budget.max_seconds),
                pass_fds=(track.fileno(), out.fileno(), *(() if levels is None else (levels,))),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cpu=cpu,
            )
        run.cpu = cpu
        run.watchdog = Watchdog(run.process.pid)
        if run.process.stdout is not None and run.process.stderr is not None:
            run.pipes |= {"stdout": run.process.stdout, "stderr": run.process.stderr}
        for name, pipe in run.pipes.items():
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ, (run, name))

    def receive_output(self) -> None:
        """Processes what the encoders print; waits up to a heartbeat for it."""
        for key, _ in self._selector.select(HEARTBEAT):
            run, name = key.data
            self._receive(run, name)

    def _receive(self, run: EncoderRun, name: str) -> None:
        pipe = run.pipes[name]
        data = pipe.read(1 << 16)
        if data is None:
            return
        if data:
            run.receive(name, data)
        else:
            self._selector.unregister(pipe)

    def collect_ended(self) -> None:
        """Takes in the runs that have ended; those that need another one wait for it."""
        for run in [run for run in self.running if self._ended(run)]:
            self.running.remove(run)
            if run.needs_another:
                again = run.another()
                self.runs[run.range] = again
                self.waiting.append(again)
                continue
            run.check_status()
            self._on_end(run)

    def _ended(self, run: EncoderRun) -> bool:
        process = run.process
        if process is None:
            return False
        if process.poll() is None:
            if any(pipe in self._selector.get_map() for pipe in run.pipes.values()):
                return False
            # The pipes close a moment before the process ends, and nothing announces that end.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(HEARTBEAT)
            if process.returncode is None:
                return False
        for name, pipe in run.pipes.items():
            while pipe in self._selector.get_map():
                self._receive(run, name)
        run.close()
        return True

    def check_running(self) -> None:
        """Kills hopeless runs and lowers the priority of long ones; raises EncoderKilled for one that hangs."""
        stream = self._source.stream
        for run in self.running:
            if run.process is None:
                continue
            if run.hopeless:
                run.process.kill()
            priority.lower_if_long(run.process.pid)
            run.watchdog.check(run.seconds, waiting=stream is not None and stream.growing)

    def check_budget(self) -> None:
        """Raises TooLong or QuotaFull if the encoders have made more than the budget allows."""
        plan = self._source.plan
        budget = self._source.budget
        total = 0
        for run in self.runs.values():
            size = run.sound_size(plan)
            total += size
            if run.range.end is None:  # the others end where their range does
                seconds = size / plan.min_bytes_per_second
                if plan.variable:
                    seconds = min(seconds, run.seconds)
                before = run.range.start * plan.frame_seconds + plan.start_sample / plan.rate
                budget.check_seconds(before + seconds)
        budget.check_encoded(total, variable=plan.variable)

    def progress(self) -> float:
        """Returns the fraction of all ranges that is encoded, 0 to 1."""
        plan = self._source.plan
        seconds_per_frame = samples_per_frame(plan.rate) / plan.rate
        total = 0.0
        done = 0.0
        for run in self.runs.values():
            start = run.range.start * seconds_per_frame
            end = plan.seconds if run.range.end is None else run.range.end * seconds_per_frame
            length = max(end - start, seconds_per_frame)
            ended = run.process is not None and run.process.returncode is not None
            total += length
            done += length if ended else min(max(run.seconds - start, 0.0), length)
        return done / total


@contextlib.contextmanager
def _levels_pipe(run: EncoderRun, plan: Plan) -> Iterator[int | None]:
    """Opens the pipe for the levels of a run that is measured; yields the descriptor to write to, or None."""
    if not run.is_measured:
        yield None
        return
    read_end, write_end = os.pipe()
    run.pipes["levels"] = os.fdopen(read_end, "rb")
    run.measured = PointReader(plan, run.range)
    try:
        yield write_end
    finally:
        os.close(write_end)


def encoder_limits(plan: Plan, frame_range: FrameRange, max_seconds: float) -> Limits:
    """Returns the resource limits of an encoder, which depend on the track's packets more than on what it claims.

    Args:
        plan: of the track.
        frame_range: what the encoder makes.
        max_seconds: the latest position in the track that is converted.
    """
    # A track may claim far too little, for example if all its packets have the same time; the packets are real. Or it
    # may claim far more than its packets have.
    claimed = plan.end_seconds
    if plan.packets:
        claimed = min(claimed, plan.packets * _MAX_PACKET_SECONDS + plan.silence)
    claimed = min(claimed, max_seconds)
    possible = min(plan.packets * _PACKET_SECONDS + plan.silence, max_seconds)
    seconds = max(claimed, possible)
    if frame_range.end is not None:
        length = frame_range.end - frame_range.start + frame_range.preroll + LOOKAHEAD_FRAMES
        seconds = min(seconds, length * plan.frame_seconds)
    return {
        "AS": ADDRESS_SPACE,
        "CPU": int(60 + max(claimed * CPU_PER_SECOND, possible * _CPU_PER_POSSIBLE_SECOND)),
        "FSIZE": int((_SLACK_SECONDS + seconds) * plan.max_bytes_per_second * _SIZE_FACTOR),
        "NOFILE": 64,
    }
