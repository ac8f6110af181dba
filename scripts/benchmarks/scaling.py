"""encode: the speed-up of two encoders on two cores, the costs of every stage, and a model of many pods."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from events.schema import JobId, PieceCut
from functions.convert.demux.track import TrackInfo, extract_track
from functions.convert.ffmpeg import encoder
from functions.convert.ffmpeg.encoder import EncoderInput
from functions.convert.mp3.frame import samples_per_frame
from functions.convert.mp3.summary import PieceSummary, build_tag, read_frames
from functions.convert.plan import RANGE_STEP, FrameRange, Plan, plan_for
from functions.convert.seek import excerpt
from functions.media import connect
from functions.options import Options
from functions.state.database import Database
from functions.state.jobs import Jobs, NewJob, new_job_id
from scripts.benchmarks import clock
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.chart import draw
from scripts.benchmarks.clock import Took
from scripts.benchmarks.inputs import ffmpeg
from scripts.benchmarks.model import LENGTHS, PODS, Costs, bounds, enough, seconds
from scripts.benchmarks.report import Row, at_least
from scripts.benchmarks.serving import USER
from scripts.benchmarks.stored import store

_OPTIONS = Options(bitrate=192)


def encode(bench: Bench) -> Iterator[Row]:
    """The encode stage alone, from the track to the frames; then the model, which is labelled as one."""
    video, work = bench.video(), bench.folder()
    track, reading = _taken(bench, video, work / "track")
    cores = clock.cores()
    one, many = plan_for(track, _OPTIONS, 1), plan_for(track, _OPTIONS, cores)
    takes = {
        "one": lambda: _encoded(one, one.ranges, track, work, 1, {0}),
        "one, free": lambda: _encoded(one, one.ranges, track, work, 1, None),
        "many": lambda: _encoded(many, many.ranges, track, work, cores, None),
    }
    took = clock.in_turn(takes, bench.rounds)
    gain = 1 / clock.ratio(took["many"], took["one"])
    single = clock.median(took["one"])
    yield Row(
        "encode",
        f"speed-up of {cores} encoders on {cores} cores",
        gain,
        "x",
        f"one encoder on one core, {single.seconds:.2f} s",
        **at_least(gain, 0.9 * cores),
        details={
            "against one encoder that may use all cores": 1 / clock.ratio(took["many"], took["one, free"]),
            "of the fastest rounds": 1 / clock.fastest(took["many"], took["one"]),
            "seconds": {name: clock.median(some).seconds for name, some in took.items()},
            "CPU seconds": {name: clock.median(some).cpu for name, some in took.items()},
        },
    )
    costs = _costs(bench, track, video, one, single, reading, work)
    yield from _modelled(costs, bench)


def _taken(bench: Bench, video: Path, path: Path) -> tuple[TrackInfo, Took]:
    """The track, and what taking it out of the video in the store took."""
    tracks: list[TrackInfo | None] = []
    videos, blob = connect(bench.media()).videos, store(bench, video)

    def take() -> Took:
        with videos.open(blob) as source:
            return _timed(
                lambda: tracks.append(extract_track(source, path, number=0, copy=False, on_progress=lambda _: None))
            )

    took = clock.median([take() for _ in range(bench.rounds)])
    videos.delete(blob)
    track = tracks[-1]
    if track is None:
        raise clock.CannotMeasure("The track could not be taken out.")
    return track, took


def _encoded(
    plan: Plan, pieces: tuple[FrameRange, ...], track: TrackInfo, work: Path, at_once: int, cores: set[int] | None
) -> Took:
    """The engine's encoders on some pieces, on these cores alone where some are named."""
    mine = os.sched_getaffinity(0)
    if cores is not None:
        os.sched_setaffinity(0, {sorted(mine)[0]})
    try:
        source = EncoderInput(ffmpeg(), plan, track.path, work)
        return _timed(lambda: encoder.encode(source, pieces, at_once, lambda _: None))
    finally:
        os.sched_setaffinity(0, mine)


def _timed(work: Callable[[], object]) -> Took:
    before, begin = os.times(), time.perf_counter()
    work()
    taken, after = time.perf_counter() - begin, os.times()
    return Took(taken, sum(after[:4]) - sum(before[:4]))


def _costs(bench: Bench, track: TrackInfo, video: Path, plan: Plan, single: Took, reading: Took, work: Path) -> Costs:
    """What the model is made of; every encoder on one core, as a pod has it."""
    frame = samples_per_frame(plan.rate) / plan.rate
    frames = int(track.duration / frame)
    head = FrameRange(0, RANGE_STEP)
    far = FrameRange((frames - RANGE_STEP) // RANGE_STEP * RANGE_STEP, None)

    def median(work_: Callable[[], Took]) -> float:
        return clock.median([work_() for _ in range(bench.rounds)]).seconds

    start = median(lambda: _encoded(plan, (head,), track, work, 1, {0}))
    decode = max(median(lambda: _encoded(plan, (far,), track, work, 1, {0})) - start, 0) / track.duration
    run = encoder.encode(EncoderInput(ffmpeg(), plan, track.path, work), plan.ranges, 1, lambda _: None)[0]
    summing = median(lambda: _timed(run.summarize))
    piece = run.summarize()
    joining = median(lambda: _timed(lambda: _join(run.path, piece, work / "joined")))
    tagging = median(lambda: _timed(lambda: build_tag([piece] * 64, bytes.fromhex(piece.tag))))
    megabyte = 1e6
    return Costs(
        read=reading.seconds / (video.stat().st_size / megabyte),
        video=video.stat().st_size / megabyte / track.duration,
        track=track.path.stat().st_size / megabyte / track.duration,
        mp3=piece.size / megabyte / track.duration,
        count=_count_seconds(bench, work),
        start=start,
        decode=decode,
        encode=max(single.seconds - start, 0) / track.duration - decode,
        sum=summing / track.duration,
        join=joining / (piece.size / megabyte),
        tag=tagging,
        row=_row_seconds(bench),
        event=_event_seconds(bench),
        **_store_seconds(bench, track.path),
    )


def _count_seconds(bench: Bench, work: Path) -> float:
    """For a second of Vorbis, which has the most packets beside MP3."""
    with bench.inputs.sound(bench.seconds, "vorbis").open("rb") as source:
        track = extract_track(source, work / "counted", number=0, copy=False, on_progress=lambda _: None)
    if track is None or excerpt.index_clusters(track) is None:
        raise clock.CannotMeasure("The packets could not be counted.")
    took = clock.median([_timed(lambda: excerpt.index_clusters(track)) for _ in range(bench.rounds)])
    return took.seconds / track.duration


def _join(path: Path, piece: PieceSummary, target: Path) -> None:
    with target.open("wb") as out:
        out.writelines(read_frames(path, piece))


def _row_seconds(bench: Bench) -> float:
    """One claim, as a worker makes it."""
    tiny = bench.work / "tiny"
    tiny.write_bytes(b"1")
    database = Database(bench.database())
    record, took = Jobs(database), []
    for _ in range(10):
        job = record.add(NewJob(new_job_id(), USER, store(bench, tiny), "video.mp4", Options())).id
        took.append(_timed(lambda job=job: record.claim(job)))  # type: ignore[misc]  # mypy takes no default in a lambda
    database.close()
    return clock.median(took).seconds


def _event_seconds(bench: Bench) -> float:
    """One event from publish to a function that does nothing; 0.02 where there is no RabbitMQ to ask."""
    from tests.support.servers.bridge import Bridge
    from tests.support.servers.function import Function

    url = bench.rabbitmq()
    if url is None:
        return 0.02
    took = []
    with Function() as function, Bridge(url, {"piece": function.url}) as bridge:
        for number in range(50):
            begin = time.perf_counter()
            bridge.publish(PieceCut(JobId("0" * 32), number), 30)
            function.wait(lambda count=number: len(function.requests) > count)  # type: ignore[misc]  # as above
            took.append(time.perf_counter() - begin)
    return clock.quantile(took, 0.5)


def _store_seconds(bench: Bench, track: Path) -> dict[str, float]:
    """Seconds for a megabyte into and out of the media store, and for a blob however small."""
    from functions.media import Description, new_blob_id

    pieces = connect(bench.media()).pieces
    data = track.read_bytes()
    about = Description(USER, new_job_id(), "track", "audio/mp4")

    def put(blob: str, some: bytes) -> None:
        with pieces.create(blob, about) as target:
            target.write(some)

    def get(blob: str) -> None:
        with pieces.open(blob) as source:
            while source.read(1 << 20):
                pass

    def both(blob: str) -> None:
        put(blob, b"1")
        get(blob)

    took: dict[str, list[Took]] = {"put": [], "get": [], "blob": []}
    for _ in range(max(bench.rounds, 2)):
        blob, small = new_blob_id(), new_blob_id()
        took["put"].append(_timed(lambda blob=blob: put(blob, data)))  # type: ignore[misc]  # as above
        took["get"].append(_timed(lambda blob=blob: get(blob)))  # type: ignore[misc]  # as above
        took["blob"].append(_timed(lambda blob=small: both(blob)))  # type: ignore[misc]  # as above
        pieces.delete(blob)
        pieces.delete(small)
    blob_cost = clock.median(took["blob"]).seconds
    megabytes = len(data) / 1e6
    costs = {name: max(clock.median(took[name]).seconds - blob_cost / 2, 0) / megabytes for name in ("put", "get")}
    return {**costs, "blob": blob_cost}


def _modelled(costs: Costs, bench: Bench) -> Iterator[Row]:
    plain = costs.start + (costs.encode + costs.decode) * 3600
    kinds = [(name, length, False) for name, length in LENGTHS.items()]
    kinds += [
        (f"{name}, leaping", length, True) for name, length in LENGTHS.items() if length >= excerpt.MIN_SEEK_SECONDS
    ]
    table = {name: {str(n): seconds(costs, length, n, leaps) for n in PODS} for name, length, leaps in kinds}
    if bench.chart:
        bench.chart.write_text(
            draw(table, "MODEL of measured stage costs: seconds to the stored MP3, by pods of one core")
        )
    for name, length, leaps in kinds:
        best = min(PODS, key=lambda n: table[name][str(n)])
        yield Row(
            "encode",
            f"MODEL, not measured: {name} on {best} pods",
            table[name][str(best)],
            "s",
            f"one encoder on one core alone {plain * length / 3600:.0f} s",
            details={
                "seconds by pods": table[name],
                "speed-up by pods": {str(n): table[name]["1"] / table[name][str(n)] for n in PODS},
                "stops scaling at": (stop := enough(costs, length, leaps)),
                "what the time goes into there": bounds(costs, length, stop, leaps),
                **({"costs": costs.to_json()} if name == "10 h" else {}),
            },
        )
