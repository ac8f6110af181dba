"""path: from the answer to the upload until the MP3 is ready, on the real broker and stores, against plain ffmpeg."""

import contextlib
import time
from collections.abc import Iterator, Mapping

from functions.media import connect
from functions.state.database import Database
from functions.state.jobs import Jobs
from scripts.benchmarks import clock
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.clock import CannotMeasure, Took
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.serving import USER, Cpu, keys, serving, token, upload
from scripts.benchmarks.stored import store
from scripts.benchmarks.tool import plain


def path(bench: Bench) -> Iterator[Row]:
    """Functions by infra.serve, the bridge, RabbitMQ, GridFS and SQL; every process is up, as in the midst of a day."""
    if not bench.rabbitmq():
        raise CannotMeasure("RabbitMQ is not installed.")
    video, mp3 = bench.video(), bench.work / "plain.mp3"
    database = Database(bench.database())
    with _running(bench) as (environ, port, cpu):

        def through() -> Took:
            accepted = upload(port, token(environ), video)
            begin, before = time.perf_counter(), cpu()
            _await(Jobs(database), accepted["job"])
            took = Took(time.perf_counter() - begin, cpu() - before)
            Jobs(database).delete(accepted["job"], USER)
            connect(bench.media()).videos.delete(accepted["fid"])
            return took

        clock.in_turn({"ours": through}, 1)
        takes = {"ours": through, "ffmpeg": lambda: plain(video, mp3)}
        # In a database of its own: mongo-java-server looks through all chunks of one, where mongod has an index.
        tutorials = bench.media("tutorials")
        if uri := tutorials.get("MONGO_URI"):
            blob = store(bench, video, where=tutorials)
            takes["moviepy"] = lambda: Took(**clock.inner("bare", "moviepy", uri, blob))
        took = clock.in_turn(takes, bench.rounds)
    database.close()
    value, theirs = clock.ratio(took["ours"], took["ffmpeg"]), clock.median(took["ffmpeg"])
    yield Row(
        "path",
        f"{video.stat().st_size / 1e6:.0f} MB, upload answered to MP3 ready",
        value,
        "x",
        f"ffmpeg, {theirs.seconds:.2f} s",
        **at_most(value, 0.75),
        details={
            "servers": bench.servers(),
            "seconds": {name: clock.median(one).seconds for name, one in took.items()},
            "CPU seconds": {name: clock.median(one).cpu for name, one in took.items()},
            "against the tutorials' converter": clock.ratio(took["ours"], took["moviepy"]) if uri else "no MongoDB",
            "of the fastest rounds": clock.fastest(took["ours"], took["ffmpeg"]),
            "rounds": [one.seconds / other.seconds for one, other in zip(took["ours"], took["ffmpeg"], strict=True)],
        },
    )


@contextlib.contextmanager
def _running(bench: Bench) -> Iterator[tuple[Mapping[str, str], int, "Cpu"]]:
    """Upload and convert with the bridge between; the variables, upload's port, and convert's CPU seconds."""
    from tests.support.servers.bridge import Bridge
    from tests.support.servers.function import Function

    amqp = bench.rabbitmq() or ""
    common = {**keys(), **bench.media(), "DATABASE_URL": bench.database()}
    with contextlib.ExitStack() as stack:
        nobody = stack.enter_context(Function())
        # The bridge's routes want convert's URL, and convert the names of the bridge's queues.
        waiting = Bridge(amqp, {})
        environ = {**common, **waiting.environ}
        convert = stack.enter_context(serving("convert", environ, bench.work))
        waiting._routes = [
            f"{waiting.queue('video')}={convert.url};concurrency=1",
            f"{waiting.queue('mp3')}={nobody.url}",
        ]
        stack.enter_context(waiting)
        port = stack.enter_context(serving("upload", environ, bench.work)).port
        yield environ, port, Cpu(convert.worker())


def _await(jobs: Jobs, job: str) -> None:
    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        state = jobs.get(job, USER)
        if state.state == "done":
            return
        if state.state == "failed":
            raise CannotMeasure(f"The job failed: {state.error}")
        time.sleep(0.01)
    raise CannotMeasure("The job was not done in half an hour.")
