"""tool, copy, encode: the command-line converter and its encoders, against ffmpeg and the tutorials' converter."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from functions.convert.demux.track import TrackInfo, extract_track
from functions.convert.ffmpeg import encoder
from functions.convert.ffmpeg.encoder import EncoderInput
from functions.convert.plan import Plan, plan_for
from functions.media import connect
from functions.options import Options
from scripts.benchmarks import pods, timing
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.inputs import ffmpeg
from scripts.benchmarks.report import Row, at_least, at_most
from scripts.benchmarks.serving import store
from scripts.benchmarks.timing import CannotMeasure, Took

_OPTIONS = Options(bitrate=192)


def tool(bench: Bench) -> Iterator[Row]:
    """The goal is 0.65. The CPU time sets a lower bound of about 0.55 on two CPUs."""
    video = bench.video()
    folder = bench.folder()
    cpus = timing.cpus()
    measurements = {
        "ffmpeg": lambda: plain_ffmpeg(video, folder / "plain.mp3"),
        "ours": lambda: _tool(video, folder / "ours.mp3", "192", cpus),
    }
    took = timing.alternate(measurements, bench.rounds)
    yield _row("tool", f"{_describe(video, bench)}, {cpus} encoders", took["ours"], took["ffmpeg"], 0.65)
    yield from _against_moviepy(bench, video)


def copy(bench: Bench) -> Iterator[Row]:
    """The audio is MP3 already and no other bit rate is requested."""
    video = bench.video("mp3")
    folder = bench.folder()
    measurements = {
        "ffmpeg": lambda: plain_ffmpeg(video, folder / "plain.mp3"),
        "ours": lambda: _tool(video, folder / "ours.mp3", None, 1),
        "start": lambda: timing.process([sys.executable, "-m", "functions.convert", "--help"]),
    }
    took = timing.alternate(measurements, bench.rounds)
    row = _row("copy", f"{_describe(video, bench)}, MP3 copied", took["ours"], took["ffmpeg"], 0.1)
    row.details["the tool's start alone, seconds"] = timing.median(took["start"]).seconds
    yield row


def plain_ffmpeg(video: Path, mp3: Path) -> Took:
    """Runs the ffmpeg command that anybody would type."""
    command = [ffmpeg(), "-nostdin", "-v", "error", "-y", "-i", str(video), "-vn", "-b:a", "192k", str(mp3)]
    return timing.process(command)


def _tool(video: Path, mp3: Path, bitrate: str | None, encoders: int) -> Took:
    """Runs the command-line converter, its start included."""
    options = ["--bitrate", bitrate] if bitrate else []
    command = [sys.executable, "-m", "functions.convert", str(video), "-o", str(mp3), "--encoders", str(encoders)]
    return timing.process([*command, *options])


def _against_moviepy(bench: Bench, video: Path) -> Iterator[Row]:
    if not bench.mongodb():
        return
    uri = bench.media()["MONGO_URI"]
    blob = store(bench, video)
    measurements = {
        "moviepy": lambda: timing.reference("moviepy", uri, blob),
        "ours": lambda: timing.reference("pipeline", uri, blob),
    }
    took = timing.alternate(measurements, max(bench.rounds // 2, 1))
    yield _row("tool", "the same, GridFS to GridFS, by the pipeline", took["ours"], took["moviepy"], None)


def _row(name: str, what: str, took: list[Took], reference: list[Took], goal: float | None) -> Row:
    value = timing.ratio(took, reference)
    ours = timing.median(took)
    theirs = timing.median(reference)
    program = "ffmpeg" if goal is not None else "MoviePy's write_audiofile as the tutorials use it"
    return Row(
        name,
        what,
        value,
        "x",
        f"{program}, {theirs.seconds:.2f} s",
        **(at_most(value, goal) if goal is not None else {}),
        details={
            "seconds": {"ours": ours.seconds, "theirs": theirs.seconds},
            "CPU seconds": {"ours": ours.cpu, "theirs": theirs.cpu, "ratio": ours.cpu / theirs.cpu},
            "lower bound by CPU": theirs.cpu / timing.cpus() / theirs.seconds,
            "of the fastest rounds": timing.fastest(took, reference),
            "rounds": timing.ratios(took, reference),
        },
    )


def _describe(video: Path, bench: Bench) -> str:
    return f"{bench.seconds} s in {video.stat().st_size / 1e6:.0f} MB"


def encode(bench: Bench) -> Iterator[Row]:
    """The encoders alone, all CPUs against one; and a model of many pods, from the costs of one."""
    work = bench.folder()
    track = _extracted(bench, work / "track")
    cpus = timing.cpus()
    one = plan_for(track, _OPTIONS, 1)
    many = plan_for(track, _OPTIONS, cpus)
    measurements = {
        "one": lambda: _encoded(one, track, work, 1, on_one_cpu=True),
        "one, free": lambda: _encoded(one, track, work, 1, on_one_cpu=False),
        "many": lambda: _encoded(many, track, work, cpus, on_one_cpu=False),
    }
    took = timing.alternate(measurements, bench.rounds)
    gain = 1 / timing.ratio(took["many"], took["one"])
    yield Row(
        "encode",
        f"speedup of {cpus} encoders on {cpus} CPUs",
        gain,
        "x",
        f"one encoder on one CPU, {timing.median(took['one']).seconds:.2f} s",
        **at_least(gain, 0.9 * cpus),
        details={
            "against one encoder that may use all CPUs": 1 / timing.ratio(took["many"], took["one, free"]),
            "of the fastest rounds": 1 / timing.fastest(took["many"], took["one"]),
            "seconds": {name: timing.median(some).seconds for name, some in took.items()},
            "CPU seconds": {name: timing.median(some).cpu for name, some in took.items()},
        },
    )
    yield from pods.modeled(bench)


def _extracted(bench: Bench, path: Path) -> TrackInfo:
    """Extracts the audio track of the video from the media store."""
    videos = connect(bench.media()).videos
    blob = store(bench, bench.video())
    with videos.open(blob) as source:
        track = extract_track(source, path, number=0, copy=False, on_progress=lambda _: None)
    videos.delete(blob)
    if track is None:
        raise CannotMeasure("The track could not be extracted.")
    return track


def _encoded(plan: Plan, track: TrackInfo, work: Path, at_once: int, *, on_one_cpu: bool) -> Took:
    """Encodes every range of the plan."""
    allowed = os.sched_getaffinity(0)
    if on_one_cpu:
        os.sched_setaffinity(0, {min(allowed)})
    try:
        source = EncoderInput(ffmpeg(), plan, track.path, work)
        return timing.work(lambda: encoder.encode(source, plan.ranges, at_once, lambda _: None))
    finally:
        os.sched_setaffinity(0, allowed)
