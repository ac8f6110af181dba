"""upload, download: through the function over HTTP against bare pymongo, on the same server in the same run."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from functions.media import connect
from scripts.benchmarks import clock
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.clock import Took
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.serving import download as fetch
from scripts.benchmarks.serving import keys, serving, token
from scripts.benchmarks.serving import upload as send
from scripts.benchmarks.stored import finished, store


def upload(bench: Bench) -> Iterator[Row]:
    """A form with the file, as a browser sends it; the bare bytes and the store alone beside it."""
    video, uri = bench.video(), bench.media().get("MONGO_URI")
    environ = {**keys(), **bench.media(), "DATABASE_URL": bench.database(), "K_SINK": "http://127.0.0.1:9/"}
    bearer, media = token(environ), connect(bench.media())

    def through(port: int, form: bool) -> Took:
        begin = time.perf_counter()
        accepted = send(port, bearer, video, form)
        took = Took(time.perf_counter() - begin)
        media.videos.delete(accepted["fid"])
        return took

    with serving("upload", environ, bench.work) as served:
        takes: dict[str, Callable[[], Took]] = {
            "function": lambda: through(served.port, True),
            "function, raw body": lambda: through(served.port, False),
        }
        if uri:
            takes |= {
                "store alone": lambda: _inner("store-put", uri, video),
                "reference": lambda: _inner("put", uri, video),
            }
        clock.in_turn(takes, 1)  # the server's own warming up
        yield _row("upload", "GridFS put by pymongo", bench, video, clock.in_turn(takes, bench.rounds))


def download(bench: Bench) -> Iterator[Row]:
    """The bytes of a 300 MB file, which passes for an MP3 here."""
    video, mp3s = bench.video(), bench.media().get("MONGO_MP3_URI")
    environ = {**keys(), **bench.media(), "DATABASE_URL": bench.database()}
    bearer, blob = token(environ), store(bench, video, as_mp3=True)
    finished(bench, blob)

    def through(port: int) -> Took:
        begin = time.perf_counter()
        if fetch(port, bearer, blob) != video.stat().st_size:
            raise clock.CannotMeasure("The download was cut short.")
        return Took(time.perf_counter() - begin)

    with serving("download", environ, bench.work) as served:
        takes: dict[str, Callable[[], Took]] = {"function": lambda: through(served.port)}
        if mp3s:
            takes |= {
                "store alone": lambda: _inner("store-read", mp3s, blob),
                "reference": lambda: _inner("read", mp3s, blob),
            }
        clock.in_turn(takes, 1)
        row = _row("download", "chunks by pymongo, batch_size(16)", bench, video, clock.in_turn(takes, bench.rounds))
    connect(bench.media()).mp3s.delete(blob)
    yield row


def _inner(name: str, uri: str, what: str | Path) -> Took:
    return Took(**clock.inner("bare", name, uri, what))


def _row(name: str, program: str, bench: Bench, video: Path, took: dict[str, list[Took]]) -> Row:
    what = f"{video.stat().st_size / 1e6:.0f} MB through the function"
    if "reference" not in took:  # a directory: nothing that pymongo could be asked to do
        return Row(name, what, clock.median(took["function"]).seconds, "s", "none: no MongoDB, a directory")
    reference = took.pop("reference")
    seconds = {name: clock.median(one).seconds for name, one in took.items()}
    value, theirs = clock.ratio(took["function"], reference), clock.median(reference)
    return Row(
        name,
        what,
        value,
        "x",
        f"{program}, {theirs.seconds:.2f} s",
        **at_most(value, 1.05),
        details={
            "servers": bench.servers(),
            "seconds": seconds,
            "ratios": {name: clock.ratio(one, reference) for name, one in took.items()},
            "of the fastest rounds": {name: clock.fastest(one, reference) for name, one in took.items()},
            "rounds": [one.seconds / other.seconds for one, other in zip(took["function"], reference, strict=True)],
        },
    )
