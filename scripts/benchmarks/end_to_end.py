"""path, fanout: whole conversions, against plain ffmpeg, the tutorials' converter and a single container."""

import contextlib
import functools
import http.client
import json
import time
from collections.abc import Iterator, Mapping

from events.schema import JobId
from functions.media import BlobId, connect
from functions.state.database import Database
from functions.state.jobs import Jobs
from scripts.benchmarks import timing
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.convert import plain_ffmpeg
from scripts.benchmarks.login import basic
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.serving import USER, Cpu, ask, keys, serving, store, token, upload
from scripts.benchmarks.timing import CannotMeasure, Took
from tests.support.platform import start

_PASSWORD = "correct horse battery"  # noqa: S105 - of an account that lives for a minute


def path(bench: Bench) -> Iterator[Row]:
    """From the upload's answer to the MP3 with the bridge, RabbitMQ, GridFS and SQL, every process running already."""
    if not bench.rabbitmq():
        raise CannotMeasure("RabbitMQ is not installed.")
    video = bench.video()
    database = Database(bench.database())
    jobs = Jobs(database)
    with _running(bench) as (environ, port, cpu):

        def through() -> Took:
            accepted = upload(port, token(environ), video)
            job = JobId(accepted["job"])
            begin = time.perf_counter()
            before = cpu()
            _await_job(jobs, job)
            took = Took(time.perf_counter() - begin, cpu() - before)
            jobs.delete(job, USER)
            connect(bench.media()).videos.delete(BlobId(accepted["fid"]))
            return took

        timing.alternate({"ours": through}, 1)  # warm-up
        measurements = {"ours": through, "ffmpeg": lambda: plain_ffmpeg(video, bench.work / "plain.mp3")}
        # In a database of its own: mongo-java-server reads all chunks of one, where mongod has an index.
        tutorials = bench.media("tutorials")
        if uri := tutorials.get("MONGO_URI"):
            blob = store(bench, video, media=tutorials)
            measurements["moviepy"] = lambda: timing.reference("moviepy", uri, blob)
        took = timing.alternate(measurements, bench.rounds)
    database.close()
    value = timing.ratio(took["ours"], took["ffmpeg"])
    yield Row(
        "path",
        f"{video.stat().st_size / 1e6:.0f} MB, upload answered to MP3 ready",
        value,
        "x",
        f"ffmpeg, {timing.median(took['ffmpeg']).seconds:.2f} s",
        **at_most(value, 0.75),
        details={
            "servers": bench.servers(),
            "seconds": {name: timing.median(one).seconds for name, one in took.items()},
            "CPU seconds": {name: timing.median(one).cpu for name, one in took.items()},
            "against the tutorials' converter": timing.ratio(took["ours"], took["moviepy"]) if uri else "no MongoDB",
            "of the fastest rounds": timing.fastest(took["ours"], took["ffmpeg"]),
            "rounds": timing.ratios(took["ours"], took["ffmpeg"]),
        },
    )


@contextlib.contextmanager
def _running(bench: Bench) -> Iterator[tuple[Mapping[str, str], int, Cpu]]:
    """Runs upload, convert and the bridge between them; yields variables, upload's port and convert's CPU counter."""
    from tests.support.servers.bridge import Bridge
    from tests.support.servers.function import Function

    amqp = bench.rabbitmq() or ""
    common = {**keys(), **bench.media(), "DATABASE_URL": bench.database()}
    with contextlib.ExitStack() as stack:
        notify = stack.enter_context(Function())
        # The bridge's routes need convert's URL, and convert needs the names of the bridge's queues.
        bridge = Bridge(amqp, {})
        environ = {**common, **bridge.environ}
        convert = stack.enter_context(serving("convert", environ, bench.work))
        bridge._routes = [
            f"{bridge.queue('video')}={convert.url};concurrency=1",
            f"{bridge.queue('mp3')}={notify.url}",
        ]
        stack.enter_context(bridge)
        port = stack.enter_context(serving("upload", environ, bench.work)).port
        yield environ, port, Cpu(convert.worker())


def _await_job(jobs: Jobs, id_: JobId) -> None:
    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        job = jobs.get(id_, USER)
        if job.state == "done":
            return
        if job.state == "failed":
            raise CannotMeasure(f"The job failed: {job.error}")
        time.sleep(0.01)
    raise CannotMeasure("The job was not done after half an hour.")


def fanout(bench: Bench) -> Iterator[Row]:
    """An hour of audio split among workers of the embedded platform, against one container that does all of it."""
    sound = bench.inputs.repeated(bench.inputs.sound(60 if bench.quick else 600), 1 if bench.quick else 6)
    length = "1 min" if bench.quick else "1 h"
    folder = bench.folder()
    fanout_seconds = {"shared": "30" if bench.quick else "900", "alone": "1000000"}
    with contextlib.ExitStack() as stack:
        platforms = {
            name: stack.enter_context(start(folder / name, env={"FANOUT_SECONDS": seconds}))
            for name, seconds in fanout_seconds.items()
        }
        users = {name: _sign_up(platform.port) for name, platform in platforms.items()}
        uploaded = dict.fromkeys(platforms, 0)

        def convert(name: str) -> Took:
            begin = time.perf_counter()
            upload(platforms[name].port, users[name], sound)
            uploaded[name] += 1
            _await_jobs(platforms[name].port, users[name], uploaded[name])
            return Took(time.perf_counter() - begin)

        measurements = {name: functools.partial(convert, name) for name in platforms}
        took = timing.alternate(measurements, max(bench.rounds // 2, 1))
    value = timing.ratio(took["shared"], took["alone"])
    yield Row(
        "fanout",
        f"{length} of AAC, split among workers",
        value,
        "x",
        f"one container, {timing.cpus()} encoders, {timing.median(took['alone']).seconds:.1f} s",
        **at_most(value, 1.15),
        details={
            "seconds": {name: timing.median(some).seconds for name, some in took.items()},
            "rounds": timing.ratios(took["shared"], took["alone"]),
        },
    )


def _sign_up(port: int) -> str:
    """Registers and logs in; returns the token."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    form = {"name": "Bench", "username": "bench@example.org", "password": _PASSWORD}
    ask(connection, "POST", "/register", {}, json.dumps(form).encode())
    bearer: str = ask(connection, "POST", "/login", basic())["token"]
    connection.close()
    return bearer


def _await_jobs(port: int, bearer: str, count: int) -> None:
    """Waits until a user has so many jobs that are done."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        page = ask(connection, "GET", "/jobs?limit=500", {"Authorization": f"Bearer {bearer}"})
        states = [job["status"] for job in page["jobs"]]
        if "failed" in states:
            raise CannotMeasure("A job failed.")
        if states.count("done") >= count:
            connection.close()
            return
        time.sleep(0.1)
    raise CannotMeasure("A job was not done after a quarter of an hour.")
