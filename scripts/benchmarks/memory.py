"""memory: the peak resident memory of upload, download and convert for one large file and for long audio."""

import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from functions.media import BlobId, Media, connect
from functions.options import Options
from functions.state.database import Database
from functions.state.jobs import Jobs, NewJob, new_job_id
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.clock import CannotMeasure
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.serving import USER, Served, download, keys, serving, token, upload
from scripts.benchmarks.stored import finished, states, store

_GOAL = 120  # MB, for a large file
_LONG = 200  # MB, for long audio, the reader included
_PERIOD = 0.05  # seconds between two looks at the processes


def memory(bench: Bench) -> Iterator[Row]:
    """VmHWM of the process that handles requests; of convert with its reader, without its encoders."""
    video = bench.video()
    big = bench.inputs.repeated(video, max(bench.big // video.stat().st_size, 1))
    size = f"{big.stat().st_size / 1e9:.2f} GB"
    environ = {**keys(), **bench.media(), "DATABASE_URL": bench.database(), "K_SINK": "http://127.0.0.1:9/"}
    environ["FANOUT_SECONDS"] = "1000000"  # nobody is there to take a piece
    bearer, media = token(environ), connect(bench.media())
    place = {"store": next(iter(bench.media()))}
    with serving("upload", environ, bench.work) as served, Peak(served) as peak:
        small = _hwm(served.worker())
        upload(served.port, bearer, video)
        after = _hwm(served.worker())
        blob = upload(served.port, bearer, big)["fid"]
    yield _row("upload", size, peak, {"at rest": small, f"after {video.stat().st_size / 1e6:.0f} MB": after, **place})
    where = bench.roomy_media()
    if where == bench.media():  # else the server could not delete it either; it goes with the run
        media.videos.delete(blob)
    environ, media, place = {**environ, **where}, connect(where), {"store": next(iter(where))}
    if "MEDIA_DIR" in where:
        environ = {name: value for name, value in environ.items() if not name.startswith("MONGO_")}
    blob = store(bench, big, where=where)
    with serving("convert", environ, bench.work) as served:
        yield _converted(bench, served, blob, f"{size}, {_length(big)} of audio", media, place)
    media.videos.delete(blob)
    blob = store(bench, big, as_mp3=True, where=where)
    finished(bench, blob)
    with serving("download", environ, bench.work) as served, Peak(served) as peak:
        small = _hwm(served.worker())
        download(served.port, bearer, blob)
    yield _row("download", size, peak, {"at rest": small, **place})
    media.mp3s.delete(blob)
    for seconds in (600, 600 if bench.quick else 36000):
        sound = bench.inputs.silence(seconds)
        blob = store(bench, sound, where=where)
        with serving("convert", environ, bench.work) as served:
            yield _converted(bench, served, blob, f"{seconds // 60} min of audio alone", media, place, _LONG)
        media.videos.delete(blob)


def _converted(
    bench: Bench, served: Served, blob: BlobId, what: str, media: Media, place: dict[str, str], goal: float = _GOAL
) -> Row:
    database = Database(bench.database())
    done = states(database).get("done", 0)
    job = Jobs(database).add(NewJob(new_job_id(), USER, blob, "video.mp4", Options(bitrate=192)))
    with Peak(served) as peak:
        begin = time.perf_counter()
        try:
            deliver(served.url, "video.uploaded", job.id)
        except OSError as error:
            raise CannotMeasure(f"convert gave it back: {served.log.read_text()[-3000:]}") from error
        seconds = time.perf_counter() - begin
    state = Jobs(database).get(job.id, USER)
    if states(database).get("done", 0) != done + 1 or state.mp3 is None:
        raise CannotMeasure(f"The video was not converted: {state.error}")
    media.mp3s.delete(state.mp3)
    database.close()
    return _row("convert", what, peak, {"at rest": peak.first, "seconds": seconds, **place}, goal)


def deliver(url: str, type_: str, job: str) -> None:
    """POST an event as a broker does, and wait for as long as the function works."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": f"{job}:{type_}",
        "ce-type": f"dev.mp3burst.{type_}",
        "ce-source": "/mp3burst/bench",
        "ce-subject": job,
        "content-type": "application/json",
    }
    request = urllib.request.Request(url, f'{{"job": "{job}"}}'.encode(), headers)  # noqa: S310 - ours, on loopback
    with urllib.request.urlopen(request, timeout=3600) as answer:  # noqa: S310 - ours, on loopback
        answer.read()


def _row(name: str, what: str, peak: "Peak", details: dict[str, Any], goal: float = _GOAL) -> Row:
    value = sum(peak.highest.values())
    return Row(
        "memory",
        f"{name}, {what}",
        value,
        "MB",
        "its own at rest",
        **at_most(value, goal),
        details={"processes": peak.highest, **details},
    )


@dataclass
class Peak:
    """Watches a function's processes until the block ends: the worker, and the children that are no ffmpeg.

    Attributes:
        served: the function.
        highest: MB by kind of process.
        first: MB of the worker at the beginning.
    """

    served: Served
    highest: dict[str, float] = field(default_factory=dict)
    first: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self.first = _hwm(self.served.worker())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            last = self._ended.is_set()
            for worker in self.served.workers():
                self._see("worker", worker)
                for child in _children(worker):
                    self._see(_kind(child), child)
            if last:
                return
            self._ended.wait(_PERIOD)

    def _see(self, kind: str, pid: int) -> None:
        if kind:
            self.highest[kind] = max(self.highest.get(kind, 0.0), _hwm(pid))


def _kind(pid: int) -> str:
    # An encoder is Python for the moment before it becomes ffmpeg; the reader says in its command what it is.
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return "demux child" if b"convert.demux.child" in command else ""


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:
            continue
    return found


def _hwm(pid: int) -> float:
    """Peak resident megabytes of a process, 0 where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    values = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(values[0]) / 1024 if values else 0.0


def _length(file: Path) -> str:
    from scripts.benchmarks.inputs import ffmpeg

    done = subprocess.run([ffmpeg(), "-hide_banner", "-i", file], capture_output=True, text=True, check=False)
    _, _, rest = done.stderr.partition("Duration: ")
    return rest.partition(",")[0].partition(".")[0]
