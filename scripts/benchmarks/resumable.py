"""tus: a file in parts against the same file in one request, and how long the offset takes to be told."""

import base64
import http.client
import time
from collections.abc import Iterator
from pathlib import Path

from functions.media import connect
from scripts.benchmarks import clock
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.clock import CannotMeasure, Took
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.serving import USER, keys, serving, token, upload

#: Bytes of a part.
_PART = 16 << 20
_SIZE = 1 << 30
_HEADS = 300


def tus(bench: Bench) -> Iterator[Row]:
    """1 GB in parts of 16 MB by tus against one POST /upload; then HEAD of an upload that is under way."""
    video = bench.video()
    if not bench.quick:
        video = bench.inputs.repeated(video, max(_SIZE // video.stat().st_size, 1))
    environ = {**keys(), **bench.media(), "DATABASE_URL": bench.database(), "K_SINK": "http://127.0.0.1:9/"}
    bearer, media = token(environ), connect(bench.media())

    def whole(port: int) -> Took:
        begin = time.perf_counter()
        accepted = upload(port, bearer, video)
        took = Took(time.perf_counter() - begin)
        media.videos.delete(accepted["fid"])
        return took

    def in_parts(port: int) -> Took:
        begin = time.perf_counter()
        with Line(port, bearer) as line:
            job = line.send(video)
        took = Took(time.perf_counter() - begin)
        media.videos.delete(_video(bench, job))
        return took

    with serving("upload", environ, bench.work) as served:
        takes = {"reference": lambda: whole(served.port), "parts": lambda: in_parts(served.port)}
        clock.in_turn(takes, 1)  # the servers' own warming up
        took = clock.in_turn(takes, bench.rounds)
        with Line(served.port, bearer) as line:
            path, heads = line.create(video), list[float]()
            for _ in range(_HEADS):
                begin = time.perf_counter()
                line.call("HEAD", path)
                heads.append((time.perf_counter() - begin) * 1000)
    value, reference = clock.ratio(took["parts"], took["reference"]), clock.median(took["reference"]).seconds
    size = f"{video.stat().st_size / 1e6:.0f} MB in parts of {_PART >> 20} MB"
    ratios = [one.seconds / other.seconds for one, other in zip(took["parts"], took["reference"], strict=True)]
    details = {"servers": bench.servers(), "store": next(iter(bench.media())), "rounds": ratios}
    details["of the fastest rounds"] = [clock.fastest(took["parts"], took["reference"])]
    yield Row("tus", size, value, "x", f"one POST /upload, {reference:.2f} s", **at_most(value, 1.15), details=details)
    half = clock.quantile(heads, 0.5)
    slowest = {"p99": clock.quantile(heads, 0.99), "servers": bench.servers()}
    yield Row("tus", "HEAD, the offset, p50", half, "ms", "none", **at_most(half, 10), details=slowest)


def _video(bench: Bench, job: str) -> str:
    from functions.state.database import Database
    from functions.state.jobs import Jobs

    database = Database(bench.database())
    try:
        return Jobs(database).get(job, USER).video
    finally:
        database.close()


class Line:
    """One connection that uploads by tus; a context manager."""

    def __init__(self, port: int, bearer: str) -> None:
        self._line = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self._headers = {"Authorization": f"Bearer {bearer}", "Tus-Resumable": "1.0.0"}

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def call(self, method: str, path: str, **headers: str) -> http.client.HTTPMessage:
        """The headers of an answer; ``_`` for ``-`` in those of the call."""
        self._line.request(method, path, b"" if method == "POST" else None, self._headers | _dashed(headers))
        return self._answer()

    def create(self, file: Path) -> str:
        """A new upload's path."""
        name = base64.b64encode(file.name.encode()).decode()
        length = str(file.stat().st_size)
        return str(self.call("POST", "/files", Upload_Length=length, Upload_Metadata=f"filename {name}")["Location"])

    def send(self, file: Path) -> str:
        """Upload a file, the bytes moved by the kernel; the job."""
        path, offset, size = self.create(file), 0, file.stat().st_size
        answer = http.client.HTTPMessage()
        with file.open("rb") as source:
            while offset < size:
                count = min(_PART, size - offset)
                self._line.putrequest("PATCH", path)
                part = {"Upload_Offset": str(offset), "Content_Length": str(count)}
                part["Content_Type"] = "application/offset+octet-stream"
                for name, value in (self._headers | _dashed(part)).items():
                    self._line.putheader(name, value)
                self._line.endheaders()
                self._line.sock.sendfile(source, offset, count)
                answer = self._answer()
                offset = int(answer["Upload-Offset"])
        return str(answer["Mp3burst-Job"])

    def _answer(self) -> http.client.HTTPMessage:
        with self._line.getresponse() as answer:
            content = answer.read()
            if answer.status >= 300:
                raise CannotMeasure(f"An upload by tus was answered {answer.status}: {content[:500]!r}")
            return answer.headers


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
