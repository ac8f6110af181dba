"""upload, download, tus: transfers through the functions, against bare pymongo and against one request."""

import base64
import http.client
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from events.schema import JobId
from functions.media import connect
from functions.media.interface import BlobId
from functions.state.database import Database
from functions.state.jobs import Jobs
from scripts.benchmarks import timing
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.serving import USER, add_done_job, keys, serving, store, token
from scripts.benchmarks.serving import download as get
from scripts.benchmarks.serving import upload as post
from scripts.benchmarks.timing import CannotMeasure, Took

#: Bytes of a tus request.
_PART = 16 << 20
_TUS_SIZE = 1 << 30
_HEADS = 300
#: Nothing listens there: what upload publishes stays in the outbox.
_NO_BROKER = "http://127.0.0.1:9/"


def upload(bench: Bench) -> Iterator[Row]:
    """A form with the file, as a browser sends it, against GridFS.put of pymongo."""
    video = bench.video()
    uri = bench.media().get("MONGO_URI")
    environ = _environ(bench)
    bearer = token(environ)
    media = connect(bench.media())

    def through(port: int, form: bool) -> Took:
        begin = time.perf_counter()
        accepted = post(port, bearer, video, form)
        took = Took(time.perf_counter() - begin)
        media.videos.delete(BlobId(accepted["fid"]))
        return took

    with serving("upload", environ, bench.work) as served:
        measurements: dict[str, Callable[[], Took]] = {
            "function": lambda: through(served.port, True),
            "function, raw body": lambda: through(served.port, False),
        }
        if uri:
            measurements |= {
                "store alone": lambda: timing.reference("store-put", uri, video),
                "reference": lambda: timing.reference("put", uri, video),
            }
        timing.alternate(measurements, 1)  # warm-up
        took = timing.alternate(measurements, bench.rounds)
    yield _row("upload", "GridFS put by pymongo", bench, video, took)


def download(bench: Bench) -> Iterator[Row]:
    """A file of 300 MB, which stands in for an MP3, against its chunks read by pymongo."""
    file = bench.video()
    uri = bench.media().get("MONGO_MP3_URI")
    environ = {**keys(), **bench.media(), "DATABASE_URL": bench.database()}
    bearer = token(environ)
    blob = store(bench, file, as_mp3=True)
    add_done_job(bench, blob)

    def through(port: int) -> Took:
        begin = time.perf_counter()
        if get(port, bearer, blob) != file.stat().st_size:
            raise CannotMeasure("The download was incomplete.")
        return Took(time.perf_counter() - begin)

    with serving("download", environ, bench.work) as served:
        measurements: dict[str, Callable[[], Took]] = {"function": lambda: through(served.port)}
        if uri:
            measurements |= {
                "store alone": lambda: timing.reference("store-read", uri, blob),
                "reference": lambda: timing.reference("read", uri, blob),
            }
        timing.alternate(measurements, 1)  # warm-up
        took = timing.alternate(measurements, bench.rounds)
    connect(bench.media()).mp3s.delete(blob)
    yield _row("download", "chunks by pymongo, batch_size(16)", bench, file, took)


def _environ(bench: Bench) -> dict[str, str]:
    return {**keys(), **bench.media(), "DATABASE_URL": bench.database(), "K_SINK": _NO_BROKER}


def _row(name: str, program: str, bench: Bench, file: Path, took: dict[str, list[Took]]) -> Row:
    what = f"{file.stat().st_size / 1e6:.0f} MB through the function"
    if "reference" not in took:  # pymongo has nothing to do with a directory
        return Row(name, what, timing.median(took["function"]).seconds, "s", "none: a directory, no MongoDB")
    reference = took.pop("reference")
    value = timing.ratio(took["function"], reference)
    return Row(
        name,
        what,
        value,
        "x",
        f"{program}, {timing.median(reference).seconds:.2f} s",
        **at_most(value, 1.05),
        details={
            "servers": bench.servers(),
            "seconds": {name: timing.median(one).seconds for name, one in took.items()},
            "ratios": {name: timing.ratio(one, reference) for name, one in took.items()},
            "of the fastest rounds": {name: timing.fastest(one, reference) for name, one in took.items()},
            "rounds": timing.ratios(took["function"], reference),
        },
    )


def tus(bench: Bench) -> Iterator[Row]:
    """1 GB by tus in requests of 16 MB, against one POST /upload; and the time of HEAD during an upload."""
    video = bench.video()
    if not bench.quick:
        video = bench.inputs.repeated(video, max(_TUS_SIZE // video.stat().st_size, 1))
    environ = _environ(bench)
    bearer = token(environ)
    media = connect(bench.media())

    def in_one_request(port: int) -> Took:
        begin = time.perf_counter()
        accepted = post(port, bearer, video)
        took = Took(time.perf_counter() - begin)
        media.videos.delete(BlobId(accepted["fid"]))
        return took

    def by_tus(port: int) -> Took:
        begin = time.perf_counter()
        with _TusClient(port, bearer) as client:
            job = client.send(video)
        took = Took(time.perf_counter() - begin)
        media.videos.delete(_video_of(bench, job))
        return took

    with serving("upload", environ, bench.work) as served:
        measurements = {"reference": lambda: in_one_request(served.port), "tus": lambda: by_tus(served.port)}
        timing.alternate(measurements, 1)  # warm-up
        took = timing.alternate(measurements, bench.rounds)
        heads = _head_milliseconds(served.port, bearer, video)
    value = timing.ratio(took["tus"], took["reference"])
    details: dict[str, Any] = {
        "servers": bench.servers(),
        "store": next(iter(bench.media())),
        "rounds": timing.ratios(took["tus"], took["reference"]),
        "of the fastest rounds": timing.fastest(took["tus"], took["reference"]),
    }
    yield Row(
        "tus",
        f"{video.stat().st_size / 1e6:.0f} MB in requests of {_PART >> 20} MB",
        value,
        "x",
        f"one POST /upload, {timing.median(took['reference']).seconds:.2f} s",
        **at_most(value, 1.15),
        details=details,
    )
    half = timing.quantile(heads, 0.5)
    details = {"p99": timing.quantile(heads, 0.99), "servers": bench.servers()}
    yield Row("tus", "HEAD, the offset, p50", half, "ms", "none", **at_most(half, 10), details=details)


def _head_milliseconds(port: int, bearer: str, video: Path) -> list[float]:
    took: list[float] = []
    with _TusClient(port, bearer) as client:
        path = client.create(video)
        for _ in range(_HEADS):
            begin = time.perf_counter()
            client.call("HEAD", path)
            took.append((time.perf_counter() - begin) * 1000)
    return took


def _video_of(bench: Bench, job: JobId) -> BlobId:
    database = Database(bench.database())
    try:
        return Jobs(database).get(job, USER).video
    finally:
        database.close()


class _TusClient:
    """Uploads by tus over one connection; a context manager."""

    def __init__(self, port: int, bearer: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self._headers = {"Authorization": f"Bearer {bearer}", "Tus-Resumable": "1.0.0"}

    def __enter__(self) -> "_TusClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, method: str, path: str, headers: dict[str, str] | None = None) -> http.client.HTTPMessage:
        """Makes a call and returns the headers of its answer."""
        body = b"" if method == "POST" else None
        self._connection.request(method, path, body, self._headers | (headers or {}))
        return self._answer()

    def create(self, file: Path) -> str:
        """Creates an upload and returns its path."""
        name = base64.b64encode(file.name.encode()).decode()
        headers = {"Upload-Length": str(file.stat().st_size), "Upload-Metadata": f"filename {name}"}
        return str(self.call("POST", "/files", headers)["Location"])

    def send(self, file: Path) -> JobId:
        """Uploads a file, with the bytes moved by the kernel, and returns the job."""
        path = self.create(file)
        size = file.stat().st_size
        offset = 0
        answer = http.client.HTTPMessage()
        with file.open("rb") as source:
            while offset < size:
                count = min(_PART, size - offset)
                self._connection.putrequest("PATCH", path)
                headers = {
                    **self._headers,
                    "Upload-Offset": str(offset),
                    "Content-Length": str(count),
                    "Content-Type": "application/offset+octet-stream",
                }
                for name, value in headers.items():
                    self._connection.putheader(name, value)
                self._connection.endheaders()
                self._connection.sock.sendfile(source, offset, count)
                answer = self._answer()
                offset = int(answer["Upload-Offset"])
        return JobId(str(answer["Mp3burst-Job"]))

    def _answer(self) -> http.client.HTTPMessage:
        with self._connection.getresponse() as answer:
            content = answer.read()
            if answer.status >= 300:
                raise CannotMeasure(f"An upload by tus was answered {answer.status}: {content[:500]!r}")
            return answer.headers
