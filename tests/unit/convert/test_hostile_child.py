"""A reader that its file has got hold of: the user is told in a sentence, and nobody waits for it for ever."""

import io
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from functions.convert import pipeline
from functions.convert.demux import client, spawner
from functions.convert.demux.track import extract_track
from functions.convert.errors import UnusableMedia
from functions.options import Options
from tests.support.paths import ROOT

pytestmark = pytest.mark.timeout(60)

BEGINNING = f"""
import socket, sys
sys.path.insert(0, {str(ROOT)!r})
from functions.convert.demux import protocol
link = socket.socket(fileno=int(sys.argv[1]))
protocol.receive_order(link)
def say(what, first, second=0, data=b""):
    link.sendall(protocol.REQUEST.pack(what, first, second) + data)
def tell(data):
    say(protocol.REPORT, len(data), 0, data)
"""
GOOD: dict[str, Any] = {
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


class Hostile:
    """Gives out one reader that runs some code, in place of ours."""

    def __init__(self, code: str) -> None:
        link, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-c", BEGINNING + code, str(number)]
            self.reader = spawner.DemuxProcess(subprocess.Popen(command, pass_fds=(number,)), link)

    def take(self) -> spawner.DemuxProcess:
        return self.reader


def convert(monkeypatch: pytest.MonkeyPatch, directory: Path, code: str) -> None:
    monkeypatch.setattr(spawner, "spawner", Hostile(code))
    pipeline.to_mp3(
        io.BytesIO(bytes(1000)),
        io.BytesIO(),
        Options(),
        filename="a.mp4",
        directory=directory,
        encoders=1,
        on_progress=lambda _: None,
    )


def other(**values: object) -> str:
    return f"tell({json.dumps({**GOOD, **values}).encode()!r})"


SAYINGS = [
    "say(protocol.COVER, -5)",
    "say(protocol.COVER, 1 << 60)",
    "say(protocol.REPORT, -1)",
    "say(protocol.READ, 5, -1)",
    "say(protocol.GATHER, 33)",
    "say(protocol.GATHER, 1, 0, protocol.SPAN.pack(0, 1 << 62))",
    "say(protocol.GATHER, 2, 0, protocol.SPAN.pack(0, 9) + protocol.SPAN.pack(0, -5))",
    "tell(b'{nonsense')",
    "tell(bytes([255, 254]))",
    "tell(b'[' * 1_000_000)",
    "tell(b'[]')",
    "tell(b'{}')",
    "tell(b'{\"fault\": []}')",
    other(duration=float("nan")),
    other(duration=float("inf")),
    other(duration=-5.0),
    other(packets=int("9" * 400)),
    other(rate="x"),
    other(tags={"title": [1]}),
    other(chapters=[[0, "x", 5]]),
    other(moment={}),
    other(path="/somewhere"),
    other(container=None),
    other(container=["mov"]),
    other(container="mov,amovie=/etc/passwd"),
    other(container="concat"),
    other(dropped="many"),
]


@pytest.mark.parametrize("saying", SAYINGS)
def test_what_no_reader_of_ours_would_say_is_the_files_fault(
    saying: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UnusableMedia, match="damaged"):
        convert(monkeypatch, tmp_path, saying)


@pytest.mark.parametrize("saying", ["", other()], ids=["without a word", "after its report"])
def test_a_reader_that_never_ends_is_not_waited_for(
    saying: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(client, "TIMEOUT_FACTOR", 0.001)
    hostile = Hostile(f"{saying}\nlink.recv(1)")
    monkeypatch.setattr(spawner, "spawner", hostile)
    with pytest.raises(UnusableMedia, match="far too long"):
        extract_track(io.BytesIO(b"x"), tmp_path / "track", number=0, copy=False, on_progress=lambda _: None)
    assert hostile.reader.process.returncode is not None


def test_a_reader_for_which_there_is_no_thread_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    hostile = Hostile("link.recv(1)")
    monkeypatch.setattr(spawner, "spawner", hostile)
    monkeypatch.setattr(threading.Thread, "start", none)
    with pytest.raises(RuntimeError):
        extract_track(io.BytesIO(b"x"), tmp_path / "track", number=0, copy=False, on_progress=lambda _: None)
    assert hostile.reader.process.returncode is not None
    assert hostile.reader.link.fileno() == -1
