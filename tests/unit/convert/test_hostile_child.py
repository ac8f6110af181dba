"""A compromised demux child can neither crash nor block its parent; the user gets an error message."""

import contextlib
import io
import json
import socket
import struct
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from functions.convert import pipeline
from functions.convert.demux import client, spawner
from functions.convert.demux.track import Indexing, TrackStream, extract_track, open_track
from functions.convert.distribution import with_excerpts
from functions.convert.errors import DemuxerFailed, UnusableMedia
from functions.convert.plan import FrameRange, Plan
from functions.convert.seek.errors import TrackChanged
from functions.convert.seek.recipe import Recipe, Spans, copy_spans
from functions.options import Options
from tests.support.paths import ROOT

pytestmark = pytest.mark.timeout(60)

PRELUDE = f"""
import socket, sys
sys.path.insert(0, {str(ROOT)!r})
from functions.convert.demux import protocol
link = socket.socket(fileno=int(sys.argv[1]))
protocol.receive_order(link)
def send(kind, first, second=0, data=b""):
    link.sendall(protocol.REQUEST.pack(kind, first, second) + data)
def report(data, kind=protocol.REPORT):
    send(kind, len(data), 0, data)
"""
VALID: dict[str, Any] = {
    "codec": "aac",
    "rate": 44100,
    "channels": 2,
    "errors": 0,
    "skipped": 0,
    "discarded": 0,
    "tags": {},
    "chapters": [],
    "container": "mov",
    "duration": 1.0,
    "packets": 43,
    "missing": 0.0,
}


class HostileSpawner:
    """Supplies one child that runs the given code instead of ours."""

    def __init__(self, code: str) -> None:
        link, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-c", PRELUDE + code, str(number)]
            self.child = spawner.DemuxProcess(subprocess.Popen(command, pass_fds=(number,)), link)

    def take(self) -> spawner.DemuxProcess:
        return self.child


def convert(monkeypatch: pytest.MonkeyPatch, directory: Path, code: str) -> None:
    monkeypatch.setattr(spawner, "spawner", HostileSpawner(code))
    pipeline.to_mp3(
        io.BytesIO(bytes(1000)),
        io.BytesIO(),
        pipeline.Settings(options=Options(), filename="a.mp4", encoders=1),
        directory=directory,
        on_progress=lambda _: None,
    )


def report(kind: str = "REPORT", **values: object) -> str:
    """Returns code that sends a report with some other values."""
    return f"report({json.dumps({**VALID, **values}).encode()!r}, protocol.{kind})"


def opened(directory: Path, indexing: Indexing | None = None) -> AbstractContextManager[TrackStream | None]:
    """Returns the track of a child that extracts it, or indexes it."""
    return open_track(
        io.BytesIO(b"x"),
        directory / "track",
        number=0,
        copy=False,
        filename="a.mp4",
        indexing=indexing,
        on_progress=lambda _: None,
    )


MESSAGES = [
    "send(protocol.COVER, -5)",
    "send(protocol.COVER, 1 << 60)",
    "send(protocol.REPORT, -1)",
    "send(protocol.READ, 5, -1)",
    "send(protocol.GATHER, 33)",
    "send(protocol.GATHER, 1, 0, protocol.SPAN.pack(0, 1 << 62))",
    "send(protocol.GATHER, 2, 0, protocol.SPAN.pack(0, 9) + protocol.SPAN.pack(0, -5))",
    "report(b'{nonsense')",
    "report(bytes([255, 254]))",
    "report(b'[' * 1_000_000)",
    "report(b'[]')",
    "report(b'{}')",
    "report(b'{\"fault\": []}')",
    report(duration=float("nan")),
    report(duration=float("inf")),
    report(duration=-5.0),
    report(packets=int("9" * 400)),
    report(rate="x"),
    report(tags={"title": [1]}),
    report(chapters=[[0, "x", 5]]),
    report(moment={}),
    report(path="/somewhere"),
    report(container=None),
    report(container=["mov"]),
    report(container="mov,amovie=/etc/passwd"),
    report(container="concat"),
    report(dropped="many"),
    report("BEGUN", container="matroska"),
    report("INDEXED"),
    report(indexed=True),
    report(tracks=[["aac", 2, "eng", "", True, "more"]]),
    report(tracks=[["aac", 2, "<b>", "", True]]),
    report(tracks=[["aac", 2, "eng", "x" * 65, True]]),
    report(tracks=[["aac", -2, "eng", "", True]]),
    report(tracks=[["aac", 2, "eng", "", True]] * 101),
    f"report({json.dumps({'fault': 'track', 'tracks': 2}).encode()!r})",
]


@pytest.mark.parametrize("code", MESSAGES)
def test_invalid_messages_are_the_files_fault(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UnusableMedia, match="damaged"):
        convert(monkeypatch, tmp_path, code)


SPANS = [[(-1, 5)], [(0, -5)], [(5, 5), (900, 200)], [(1 << 62, 1)], [((1 << 63) - 1, (1 << 63) - 1)]]


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"RIFF",
        struct.pack("<qqqqqq", 0, 0, 0, 1, 0, 0),
        struct.pack("<qqqqqq", 0, 0, 0, 1 << 60, 0, 0),
        struct.pack("<qqqqqq", 0, 0, 0, -9, 0, 0),
        struct.pack("<qqqqqq", 0, -1, 0, 0, 0, 0),
        Recipe(0, b"", Spans.of([])).to_bytes() * 4,
        Recipe(0, b"", Spans.of([]), b"x", 1 << 40).to_bytes() * 2,
        *(Recipe(0, b"", Spans.of(spans)).to_bytes() * 2 for spans in SPANS),
        Recipe(0, b"", Spans.of([(0, 1000)] * 17_000)).to_bytes() * 2,
    ],
)
def test_invalid_index_is_the_files_fault(index: bytes, tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(index)
    ranges = (FrameRange(0, 490), FrameRange(490, None))
    plan = Plan("mov", 44100, 2, ("-b:a", "192k"), ("anull",), 1_000_000, ranges)
    with pytest.raises(UnusableMedia, match="damaged"):
        with_excerpts(plan, path, 1000)


@pytest.mark.parametrize("spans", SPANS)
def test_invalid_spans_are_not_copied(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(TrackChanged):
        copy_spans(io.BytesIO(bytes(1000)), spans, lambda: None, io.BytesIO())


@pytest.mark.parametrize(
    ("rate", "wanted", "valid"),
    [(44100, [(0, None)], True), (48000, [(0, None)], False), (44100, [], False)],
    ids=["same", "another", "not wanted"],
)
def test_index_is_of_the_track_that_was_offered(
    rate: int, wanted: list[tuple[int, int | None]], valid: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = f"{report('INDEXED')}; link.recv(99); {report(indexed=True, rate=rate)}"
    monkeypatch.setattr(spawner, "spawner", HostileSpawner(code))
    indexing = Indexing(0.0, lambda _: wanted)
    expected = contextlib.nullcontext() if valid else pytest.raises(UnusableMedia, match="damaged")
    with expected, opened(tmp_path, indexing) as stream:
        assert stream is not None
        assert stream.indexed


def test_child_cannot_refuse_to_copy_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = f"report({json.dumps({'fault': 'not copyable'}).encode()!r})"
    monkeypatch.setattr(spawner, "spawner", HostileSpawner(code))
    with pytest.raises(UnusableMedia, match="damaged"), opened(tmp_path):
        pytest.fail("there is no track")


@pytest.mark.parametrize("code", ["sys.exit(1)", f"report({json.dumps({'fault': 'not started'}).encode()!r})"])
def test_child_that_does_not_start_is_not_the_files_fault(
    code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(DemuxerFailed, match="could not start; the conversion will be retried"):
        convert(monkeypatch, tmp_path, code)


@pytest.mark.parametrize("code", ["", report()], ids=["before its report", "after its report"])
def test_child_that_never_ends_times_out(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client, "TIMEOUT_FACTOR", 0.001)
    hostile = HostileSpawner(f"{code}\nlink.recv(1)")
    monkeypatch.setattr(spawner, "spawner", hostile)
    with pytest.raises(UnusableMedia, match="far too long"):
        extract_track(io.BytesIO(b"x"), tmp_path / "track", number=0, copy=False, on_progress=lambda _: None)
    assert hostile.child.process.returncode is not None


def test_child_is_stopped_if_its_thread_cannot_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    hostile = HostileSpawner("link.recv(1)")
    monkeypatch.setattr(spawner, "spawner", hostile)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        extract_track(io.BytesIO(b"x"), tmp_path / "track", number=0, copy=False, on_progress=lambda _: None)
    assert hostile.child.process.returncode is not None
    assert hostile.child.link.fileno() == -1
