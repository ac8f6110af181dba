"""Costs of a job that is split among encode pods, measured on one CPU, and what the model makes of them."""

import contextlib
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from events.schema import JobId
from functions.convert import handlers
from functions.convert.dependencies import Dependencies
from functions.media import connect
from functions.options import Options
from functions.state.blobs import Blobs
from functions.state.database import Database
from functions.state.jobs import Jobs, NewJob, new_job_id
from functions.state.outbox import Outbox
from functions.state.pieces import Pieces
from scripts.benchmarks import chart, timing
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.model import Costs
from scripts.benchmarks.report import Row, at_least, at_most
from scripts.benchmarks.serving import USER, store
from scripts.benchmarks.timing import CannotMeasure

#: Pods, and seconds that are the goal, for an hour and for ten.
_HOUR_PODS: Final = 64
_TEN_HOURS_PODS: Final = 128
_PODS: Final = tuple(2**power for power in range(8))
#: The goal of the speedup, by the number of pods, as a share of that number.
_SHARES: Final = {16: 0.8, 64: 0.5}
#: Pieces of ten hours that are encoded; the others take as long.
_SAMPLES: Final = 3


def modeled(bench: Bench) -> Iterator[Row]:
    """An hour and ten hours of AAC on many pods, by the costs of one."""
    minutes = 1 if bench.quick else 10
    sound = bench.inputs.sound(60 * minutes, "aac-plain")
    hour = bench.inputs.repeated(bench.inputs.video(60 * minutes, "aac-plain"), 6)
    # A directory: mongo-java-server searches all chunks of all files for each range, where mongod has an index.
    media = {"MEDIA_DIR": str(bench.folder())}
    with _dependencies(bench, media) as deps:
        _measure(bench, media, bench.inputs.repeated(sound, 6), deps, _SAMPLES)  # imports, and starts children
        costs, pieces = _measure(bench, media, hour, replace(deps, max_pieces=_HOUR_PODS))
        long, long_pieces = _measure(
            bench, media, bench.inputs.repeated(sound, 60), replace(deps, max_pieces=_TEN_HOURS_PODS), _SAMPLES
        )
    long = replace(long, join=10 * costs.join)
    yield _row("1 h of AAC", costs, _HOUR_PODS, pieces, 5.0)
    yield _row("10 h of AAC", long, _TEN_HOURS_PODS, long_pieces, 20.0)
    for pods, share in _SHARES.items():
        speedup = costs.speedup(pods, pieces)
        yield Row(
            "encode",
            f"1 h of AAC: model of the speedup of {pods} pods",
            speedup,
            "x",
            f"one pod, {costs.seconds(1, pieces):.1f} s by the same model",
            **at_least(speedup, share * pods),
        )


def _row(what: str, costs: Costs, pods: int, pieces: int, goal: float) -> Row:
    seconds = costs.seconds(pods, pieces)
    return Row(
        "encode",
        f"{what}: model of {pods} pods",
        seconds,
        "s",
        f"one pod, {costs.seconds(1, pieces):.1f} s by the same model",
        **at_most(seconds, goal),
        details={
            "pieces": pieces,
            "seconds of convert": costs.split,
            "of starting all pieces": costs.admission,
            "of a piece": costs.piece,
            "of the join": costs.join,
            chart.MODELED: {str(n): costs.speedup(n, pieces) for n in _PODS if n <= pods},
        },
    )


def _measure(
    bench: Bench, media: dict[str, str], video: Path, deps: Dependencies, samples: int | None = None
) -> tuple[Costs, int]:
    """Converts a video piece by piece on one CPU, or only so many pieces of it without the join.

    Returns:
        The costs, and the number of pieces.
    """
    blob = store(bench, video, media=media)
    job = deps.jobs.add(NewJob(new_job_id(), USER, blob, "video.mp4", Options(bitrate=192))).id
    split = _seconds(lambda: handlers.convert(job, deps))
    total = deps.jobs.get(job, USER).total
    if not total:
        raise CannotMeasure("The job was not split.")
    numbers = range(total) if samples is None else range(0, total, max(total // samples, 1))
    pieces = [_seconds(lambda n=n: handlers.encode(job, n, deps)) for n in numbers]  # type: ignore[misc]  # n is bound
    join = _seconds(lambda: handlers.join(job, deps)) if samples is None else 0.0
    _check(job, deps, "done" if samples is None else "encoding")
    deps.jobs.delete(job, USER)
    deps.media.videos.delete(blob)
    usual = statistics.mean(pieces[1:])
    return Costs(split, max(pieces[0] - usual, 0.0), usual, join), total


def _check(job: JobId, deps: Dependencies, state: str) -> None:
    found = deps.jobs.get(job, USER)
    if found.state != state:
        raise CannotMeasure(f"The job is {found.state}: {found.error}")


def _seconds(function: Callable[[], object]) -> float:
    """Calls a function on one CPU, as a pod has, and returns its seconds."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        return timing.work(function).seconds
    finally:
        os.sched_setaffinity(0, allowed)


@contextlib.contextmanager
def _dependencies(bench: Bench, media: dict[str, str]) -> Iterator[Dependencies]:
    """Yields what the functions need; their events go nowhere."""
    database = Database(bench.database())
    yield Dependencies(
        media=connect(media),
        blobs=Blobs(database),
        jobs=Jobs(database),
        joins=Jobs(database, stage="joining"),
        pieces=Pieces(database),
        outbox=Outbox(database, lambda _, __: None),
        encoders=1,
        fanout_seconds=30.0,
    )
    database.close()
