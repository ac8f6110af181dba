"""tool, copy: the command-line tool against plain ffmpeg, and the engine against the tutorial systems' converter."""

import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.benchmarks import clock
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.clock import Took
from scripts.benchmarks.inputs import ffmpeg
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.stored import store


def tool(bench: Bench) -> Iterator[Row]:
    """The goal is 0.65; the CPU needed sets the floor at about 0.55 on two cores."""
    video, folder, cores = bench.video(), bench.folder(), clock.cores()
    takes = {
        "ffmpeg": lambda: plain(video, folder / "plain.mp3"),
        "ours": lambda: ours(video, folder / "ours.mp3", "192", cores),
    }
    took = clock.in_turn(takes, bench.rounds)
    yield _row("tool", f"{_about(video, bench)}, {cores} encoders", took["ours"], took["ffmpeg"], 0.65)
    yield from _against_moviepy(bench, video)


def copy(bench: Bench) -> Iterator[Row]:
    """The source's audio is MP3 already and nobody asks for another bit rate."""
    video, folder = bench.video("mp3"), bench.folder()
    takes = {
        "ffmpeg": lambda: plain(video, folder / "plain.mp3"),
        "ours": lambda: ours(video, folder / "ours.mp3", None, 1),
        "start": lambda: clock.process([sys.executable, "-m", "functions.convert", "--help"]),
    }
    took = clock.in_turn(takes, bench.rounds)
    row = _row("copy", f"{_about(video, bench)}, MP3 copied", took["ours"], took["ffmpeg"], 0.1)
    row.details["of it the tool's start, seconds"] = clock.median(took["start"]).seconds
    yield row


def plain(video: Path, mp3: Path) -> Took:
    """What anybody would type."""
    command = [ffmpeg(), "-nostdin", "-v", "error", "-y", "-i", str(video), "-vn", "-b:a", "192k", str(mp3)]
    return clock.process(command)


def ours(video: Path, mp3: Path, bitrate: str | None, encoders: int) -> Took:
    """The command-line tool, its start included."""
    options = ["--bitrate", bitrate] if bitrate else []
    command = [sys.executable, "-m", "functions.convert", str(video), "-o", str(mp3), "--encoders", str(encoders)]
    return clock.process([*command, *options])


def _against_moviepy(bench: Bench, video: Path) -> Iterator[Row]:
    if not bench.mongodb():
        return
    uri = bench.media()["MONGO_URI"]
    blob = store(bench, video)
    takes = {
        "moviepy": lambda: Took(**clock.inner("bare", "moviepy", uri, blob)),
        "ours": lambda: Took(**clock.inner("bare", "engine", uri, blob)),
    }
    took = clock.in_turn(takes, max(bench.rounds // 2, 1))
    yield _row("tool", "the same, GridFS to GridFS, by the engine", took["ours"], took["moviepy"], None)


def _row(name: str, what: str, took: list[Took], reference: list[Took], goal: float | None) -> Row:
    value, mine, theirs = clock.ratio(took, reference), clock.median(took), clock.median(reference)
    program = "ffmpeg" if goal is not None else "MoviePy's write_audiofile as the tutorials use it"
    return Row(
        name,
        what,
        value,
        "x",
        f"{program}, {theirs.seconds:.2f} s",
        **(at_most(value, goal) if goal is not None else {}),
        details={
            "seconds": {"ours": mine.seconds, "theirs": theirs.seconds},
            "CPU seconds": {"ours": mine.cpu, "theirs": theirs.cpu, "ratio": mine.cpu / theirs.cpu},
            "floor by CPU": theirs.cpu / clock.cores() / theirs.seconds,
            "of the fastest rounds": clock.fastest(took, reference),
            "rounds": [one.seconds / other.seconds for one, other in zip(took, reference, strict=True)],
        },
    )


def _about(video: Path, bench: Bench) -> str:
    return f"{bench.seconds} s in {video.stat().st_size / 1e6:.0f} MB"
