"""edits, line: what is done with MP3s that are there, and the client on a slow line."""

import contextlib
import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from events.schema import JobId
from functions.mp3 import cut, id3, info_tag, tags
from functions.mp3.frame import HEADER_SIZE, parse_header
from scripts.benchmarks import timing
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.inputs import ffmpeg
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.serving import Served, add_done_job, ask, keys, serving, store, token
from scripts.benchmarks.timing import CannotMeasure

_HOUR = 3600.0
_TEN_HOURS = 36_000.0
_PARTS = 100
_ZIPPED = 200
#: Bits a second of the slow line, and bytes that it takes at once.
_LINE = 20_000_000
_CHUNK = 64 << 10


def edits(bench: Bench) -> Iterator[Row]:
    """Tags of an hour, ten hours split into 100 parts, and the first byte of a zip file with 200 of these."""
    sound = bench.inputs.sound(bench.seconds, "mp3")
    lengths = (60.0, 120.0) if bench.quick else (_HOUR, _TEN_HOURS)
    environ = {**keys(), **bench.media(), "DATABASE_URL": bench.database()}
    headers = {"Authorization": f"Bearer {token(environ)}", "Content-Type": "application/json"}
    hour, ten = (_add(bench, sound, length) for length in lengths)
    parts: list[str] = []
    changes: list[float] = []
    splits: list[float] = []
    with serving("edit", environ, bench.work) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=600)
        for number in range(10 * bench.rounds + 1):
            begin = time.perf_counter()
            ask(connection, "PATCH", f"/jobs/{hour}/tags", headers, json.dumps({"title": f"Take {number}"}).encode())
            changes += [1000 * (time.perf_counter() - begin)] if number else []  # the first is a warm-up
        for number in range(max(bench.rounds, 2)):
            at = [lengths[1] * n / _PARTS + number / 10 for n in range(1, _PARTS)]
            begin = time.perf_counter()
            found = ask(connection, "POST", f"/jobs/{ten}/split", headers, json.dumps({"at": at}).encode())["parts"]
            splits.append(time.perf_counter() - begin)
            parts += [part["job"] for part in found]
        connection.close()
    encode: list[str | Path] = [
        ffmpeg(),
        "-nostdin",
        "-v",
        "error",
        "-i",
        sound,
        "-b:a",
        "160k",
        "-f",
        "mp3",
        os.devnull,
        "-y",
    ]
    encoding = timing.process(encode).seconds * lengths[1] / bench.seconds
    change = timing.quantile(changes, 0.5)
    split = timing.quantile(splits, 0.5)
    details = {"p99": timing.quantile(changes, 0.99), "servers": bench.servers()}
    yield Row(
        "edits",
        f"new tags on {lengths[0] / 60:g} minutes, p50",
        change,
        "ms",
        "none",
        **at_most(change, 150),
        details=details,
    )
    against = f"ffmpeg, computed from {bench.seconds} s, {encoding:.0f} s"
    what = f"{lengths[1] / 60:g} minutes split into {_PARTS} parts"
    yield Row(
        "edits", what, split / encoding, "x", against, **at_most(split / encoding, 0.05), details={"seconds": splits}
    )
    environ |= {"REQUESTS_PER_USER": "20", "REQUESTS_PER_ADDRESS": "20"}  # of one who closes each after a byte
    with serving("download", environ, bench.work) as served:
        first = [1000 * _first_byte(served, f"/jobs.zip?ids={','.join(parts[:_ZIPPED])}", headers) for _ in range(10)]
    p50 = timing.quantile(first[1:], 0.5)
    yield Row("edits", f"first byte of a zip file with {_ZIPPED} MP3s, p50", p50, "ms", "none", **at_most(p50, 200))


def _add(bench: Bench, sound: Path, seconds: float) -> JobId:
    """Adds a job with an MP3 of this length: the frames of another one, again and again."""
    data = sound.read_bytes()
    timeline = cut.read_timeline(BytesIO(data), tags.size_of(data))
    frames = data[timeline.offset :]
    header = parse_header(frames)
    if header is None:
        raise CannotMeasure(f"{sound} is not the MP3 that was made.")
    times = max(round(seconds / timeline.length * timeline.rate), 1)
    blank = info_tag.blank_tag(frames[:HEADER_SIZE], header.bitrate, b"Lavf", timeline.skipped, 0)
    size = times * len(frames)
    first = info_tag.fill_tag(blank, frames=times * timeline.frames, size=size, crc=0, marks=[], variable=False)
    path = bench.work / f"{seconds:g}.mp3"
    with path.open("wb") as file:
        file.write(id3.build_tag({"title": "Take"}, "a.mp4", b"") + first)
        for _ in range(times):
            file.write(frames)
    job = add_done_job(bench, store(bench, path, as_mp3=True))
    path.unlink()
    return job


def _first_byte(served: Served, path: str, headers: dict[str, str]) -> float:
    """Returns the seconds until the first byte of a file arrives."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    with contextlib.closing(connection):
        begin = time.perf_counter()
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        if answer.status != 200 or not answer.read(1):
            raise CannotMeasure(f"The zip file was answered {answer.status}.")
        return time.perf_counter() - begin


def line(bench: Bench) -> Iterator[Row]:
    """The client uploads a video over a line of 20 Mbit/s, against the time that the line takes for all of it."""
    video = bench.video()
    environ = {**keys(), **bench.media(), "DATABASE_URL": bench.database(), "K_SINK": "http://127.0.0.1:9/"}
    bearer = token(environ)
    took = []
    with serving("upload", environ, bench.work) as served, _Line(served.port) as slow:
        for _ in range(bench.rounds):
            client = {
                "HOME": str(bench.folder()),
                "MP3BURST_URL": f"http://127.0.0.1:{slow.port}",
                "MP3BURST_KEY": bearer,
                "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            }
            took.append(timing.process([sys.executable, "-m", "client", "convert", "--no-wait", video], client).seconds)
    whole = video.stat().st_size * 8 / _LINE
    value = timing.quantile(took, 0.5) / whole
    what = f"{video.stat().st_size / 1e6:.0f} MB of video by the client at 20 Mbit/s"
    details = {"seconds": took, "servers": bench.servers()}
    yield Row(
        "line", what, value, "x", f"all of it on this line, {whole:.0f} s", **at_most(value, 0.1), details=details
    )


class _Line:
    """Forwards connections to a port of this machine, with _LINE bits a second from the client; a context manager."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> "_Line":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, is_slow: bool) -> None:
        with contextlib.suppress(OSError):  # one side has closed
            while data := source.recv(_CHUNK):
                if is_slow:
                    self._pass(len(data))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _pass(self, size: int) -> None:
        """Waits as long as the line takes for these bytes; all connections share it."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size * 8 / _LINE
            wait = self._free_at - time.monotonic()
        time.sleep(max(wait, 0.0))
