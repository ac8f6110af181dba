"""scale: a long video on 1, 2, 4, 8 and 16 encode pods that have a tenth of a CPU each."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from events.bridge.consumer import Bridge, RetryPolicy, Route
from events.publish import publisher
from events.rabbitmq.topology import Topology
from events.schema import JobId, VideoUploaded
from functions.media import BlobId
from functions.options import Options
from functions.state.database import Database
from functions.state.jobs import Jobs, NewJob, new_job_id
from scripts.benchmarks import chart
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.model import Costs
from scripts.benchmarks.quota import CpuGroup
from scripts.benchmarks.report import Row, at_least
from scripts.benchmarks.serving import USER, Served, await_port, keys, serving, start, stop, store
from scripts.benchmarks.timing import CannotMeasure
from tests.support.processes import children
from tests.support.servers.function import Function

#: CPUs of an encode pod: 16 of them leave some of two CPUs to everything else.
_POD_CPUS: Final = 0.1
#: Encode pods, and the speedup over one that is the goal.
_GOALS: Final = {1: None, 2: None, 4: None, 8: 6.5, 16: 11.0}
_TIMEOUT: Final = 1800.0  # seconds
_QUEUES: Final = {name: f"scale-{name}" for name in ("VIDEO_QUEUE", "PIECE_QUEUE", "PIECES_QUEUE", "MP3_QUEUE")}


@dataclass(frozen=True, slots=True)
class Phases:
    """The seconds of one job: until its pieces are on record, until all are encoded, and until its MP3 is."""

    split: float
    encode: float
    join: float

    @property
    def seconds(self) -> float:
        """The seconds of the job."""
        return self.split + self.encode + self.join


def scale(bench: Bench) -> Iterator[Row]:
    """A long video on 1 to 16 encode pods, each held to a tenth of a CPU; everything else runs freely."""
    if not bench.rabbitmq():
        raise CannotMeasure("RabbitMQ is not installed.")
    seconds = 60 if bench.quick else 600
    video = bench.inputs.repeated(bench.inputs.video(seconds, "aac-plain"), 2)
    pods = list(_GOALS)
    # A directory: mongo-java-server searches all chunks of all files for each range, where mongod has an index.
    media = {"MEDIA_DIR": str(bench.folder())}
    blob = store(bench, video, media=media)
    with _running(bench, media, max(pods)) as cluster:
        cluster.convert(blob, max(pods))  # every pod imports what it needs
        cluster.hold(_POD_CPUS)
        took = {count: cluster.convert(blob, count) for count in reversed(pods)}
    one = took[1]
    costs = Costs(split=one.split, admission=0.0, piece=one.encode / cluster.pieces, join=one.join)
    for count, goal in _GOALS.items():
        if goal is None:
            continue
        speedup = one.seconds / took[count].seconds
        yield Row(
            "scale",
            f"{2 * seconds} s in {video.stat().st_size / 1e6:.0f} MB: speedup of {count} encode pods",
            speedup,
            "x",
            f"one pod of {_POD_CPUS} CPU, {one.seconds:.1f} s",
            **at_least(speedup, goal),
            details={
                "seconds by pods": {str(n): took[n].seconds for n in pods},
                "of them until the split": {str(n): took[n].split for n in pods},
                "of them the join": {str(n): took[n].join for n in pods},
                chart.MEASURED: {str(n): one.seconds / took[n].seconds for n in pods},
                chart.MODELED: {str(n): costs.speedup(n, cluster.pieces) for n in pods},
                "pieces": cluster.pieces,
                "servers": bench.servers(),
            },
        )


@dataclass
class _Cluster:
    """Functions, and what delivers events to them.

    Attributes:
        environ: the variables of all functions.
        routes: of all events but those of pieces.
        pods: the encode pods.
        groups: the control group of each.
        jobs: the jobs.
        pieces: of the last job.
    """

    environ: Mapping[str, str]
    routes: Sequence[Route]
    pods: Sequence[Served]
    groups: Sequence[CpuGroup]
    jobs: Jobs
    pieces: int = field(default=0, init=False)

    def hold(self, cpus: float) -> None:
        """Limits every encode pod to so many CPUs."""
        for pod, group in zip(self.pods, self.groups, strict=True):
            for pid in (pod.process.pid, *children(pod.process.pid)):
                group.add(pid)
            group.limit(cpus)

    def convert(self, video: BlobId, pods: int) -> Phases:
        """Converts a stored video with the first ``pods`` encode pods, and returns how long it took."""
        topology = Topology.from_environ(self.environ)
        encode = [Route(_QUEUES["PIECE_QUEUE"], pod.url, concurrency=1) for pod in self.pods[:pods]]
        bridge = Bridge(self.environ["AMQP_URL"], [*self.routes, *encode], topology, RetryPolicy())
        bridge.start()
        try:
            job = self.jobs.add(NewJob(new_job_id(), USER, video, "video.mp4", Options(bitrate=192))).id
            begin = time.perf_counter()
            publisher(self.environ, "/mp3burst/bench")(VideoUploaded(job), 30.0)
            split = self._await_state(job, ("encoding", "joining", "done")) - begin
            encoded = self._await_state(job, ("joining", "done")) - begin
            done = self._await_state(job, ("done",)) - begin
        finally:
            bridge.stop(grace=5.0)
        self.pieces = self.jobs.get(job, USER).total or 0
        if not self.pieces:
            raise CannotMeasure("The job was not split.")
        return Phases(split, encoded - split, done - encoded)

    def _await_state(self, job: JobId, states: Sequence[str]) -> float:
        """Waits until the job has one of these states, and returns the time."""
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            row = self.jobs.get(job, USER)
            if row.state in states:
                return time.perf_counter()
            if row.state == "failed":
                raise CannotMeasure(f"The job failed: {row.error}")
            time.sleep(0.01)
        raise CannotMeasure("A job was not done after half an hour.")


@contextlib.contextmanager
def _running(bench: Bench, media: Mapping[str, str], pods: int) -> Iterator[_Cluster]:
    """Runs convert, join and so many encode pods."""
    amqp = bench.rabbitmq() or ""
    database = Database(bench.database())
    with ExitStack() as stack:
        stack.callback(database.close)
        environ = {
            **keys(),
            **media,
            **_QUEUES,
            "AMQP_URL": amqp,
            "DATABASE_URL": bench.database(),
            "FANOUT_SECONDS": "30",
            "FANOUT_PIECES": str(pods),
        }
        source = "functions/convert/main.py"
        convert = stack.enter_context(serving("convert", environ, bench.work, source))
        join = stack.enter_context(serving("join", environ, bench.work, source))
        notify = stack.enter_context(Function())
        encoders: list[Served] = []
        groups: list[CpuGroup] = []
        for number in range(pods):
            groups.append(stack.enter_context(CpuGroup(f"mp3burst-{number}")))
            encoders.append(start(source, "encode", {**environ, "THREADS": "4"}, bench.work / f"encode-{number}.log"))
            stack.callback(stop, encoders[-1])
        for pod in encoders:
            await_port(pod)
        routes = [
            Route(_QUEUES["VIDEO_QUEUE"], convert.url, concurrency=1),
            Route(_QUEUES["PIECES_QUEUE"], join.url, concurrency=1),
            Route(_QUEUES["MP3_QUEUE"], notify.url, concurrency=1),
        ]
        yield _Cluster(environ, routes, encoders, groups, Jobs(database))
