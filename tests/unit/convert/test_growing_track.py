"""Encoders begin while an mp4 is still read: the same bytes, and whatever goes wrong on the way is told."""

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from functions.convert import pipeline
from functions.convert.demux import client
from functions.convert.demux.client import DemuxClient
from functions.convert.demux.protocol import TrackOrder
from functions.convert.errors import UnusableMedia
from functions.convert.plan import decode_cost, plan_for
from functions.options import Options
from tests.support import clips
from tests.support.processes import children, wait_for

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound between pictures from the file's beginning to its tables, which are at its end."""
    path = tmp_path_factory.mktemp("clip") / "video.mp4"
    pictures = ("-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=30,noise=alls=60:allf=t")
    music = clips.MUSIC.format(seconds=30, rate=44100)
    clips.run("-f", "lavfi", "-i", music, *pictures, "-c:v", "mjpeg", "-c:a", "aac", path)
    return path


class Slow(io.FileIO):
    """A source that calls ``late`` once, when its second half is read for sound."""

    def __init__(self, path: Path, late: Callable[[], None]) -> None:
        super().__init__(path)
        self._size = path.stat().st_size
        self._late: Callable[[], None] | None = late

    def read(self, size: int | None = -1, /) -> bytes:
        if self._late is not None and self._size * 5 // 10 < self.tell() < self._size * 9 // 10:
            late, self._late = self._late, None
            late()
        return super().read(-1 if size is None else size) or b""


def encoders() -> int:
    """How many this process has."""
    found = 0
    for pid in children(os.getpid()):
        try:
            found += Path(f"/proc/{pid}/exe").readlink().name.startswith("ffmpeg")
        except OSError:  # it has ended meanwhile
            continue
    return found


def await_encoders() -> None:
    wait_for(lambda: encoders() >= 2, "encoders that start while the source is read")


def convert(source: io.FileIO, directory: Path, bitrate: int | None = 160) -> tuple[pipeline.Result, bytes]:
    out = io.BytesIO()
    with source:
        result = pipeline.to_mp3(
            source,
            out,
            Options(bitrate=bitrate),
            filename="video.mp4",
            directory=directory,
            encoders=2,
            on_progress=lambda _: None,
        )
    return result, out.getvalue()


def test_encoders_work_on_what_is_there_while_the_rest_is_read(video: Path, tmp_path: Path) -> None:
    met = []

    def late() -> None:
        await_encoders()
        met.append(encoders())

    result, mp3 = convert(Slow(video, late), tmp_path)
    assert met == [2]
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "160k")
    assert result.warning is None


class Away(Exception):
    """As a store's error."""


def test_a_source_that_fails_while_encoders_work_is_no_shorter_mp3(video: Path, tmp_path: Path) -> None:
    def late() -> None:
        await_encoders()
        raise Away

    with pytest.raises(Away):
        convert(Slow(video, late), tmp_path)
    assert encoders() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_ends_early_while_encoders_work_is_no_shorter_mp3(video: Path, tmp_path: Path) -> None:
    class Ending(Slow):
        ended = False

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            return b"" if self.ended else data

    def late() -> None:
        await_encoders()
        source.ended = True

    source = Ending(video, late)
    with pytest.raises(UnusableMedia, match="damaged"):
        convert(source, tmp_path)
    assert encoders() == 0


class Overtaken(io.BytesIO):
    """A track's file that is empty when it is looked at, and whole as soon as that was seen."""

    def __init__(self, client: DemuxClient) -> None:
        super().__init__()
        self._client = client

    def open(self, *_: object, **__: object) -> "Overtaken":
        return self

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not self.getvalue():
            self.write(b"all of it")
            self.seek(0)
            self._client._end(None)
        return data


def test_who_looks_just_before_the_end_comes_hears_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client, "HEARTBEAT", 3600.0)  # nobody looks again unless told
    one = DemuxClient(io.BytesIO(b"video"), tmp_path / "track", TrackOrder(0, copy=False))
    monkeypatch.setattr(one, "_path", Overtaken(one))
    assert b"".join(one.chunks()) == b"all of it"


class Piecemeal(io.FileIO):
    """A source that never gives all that it is asked for at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(777 if size is None or size < 0 else min(size, 777)) or b""


def test_a_source_that_gives_less_than_it_is_asked_for_is_read_whole(video: Path, tmp_path: Path) -> None:
    _, mp3 = convert(Piecemeal(video), tmp_path)
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "160k")


class Far(io.FileIO):
    """A source that takes a millisecond a read, as a store elsewhere."""

    def read(self, size: int | None = -1, /) -> bytes:
        time.sleep(0.001)
        return super().read(-1 if size is None else size) or b""


def test_who_waits_for_a_slow_source_gets_less_to_encode(video: Path, tmp_path: Path) -> None:
    cuts = {}
    for name, source in ("near", io.FileIO(video)), ("far", Far(video)):
        with source, pipeline.prepared_track(source, tmp_path, Options(), lambda _: None) as stream:
            cuts[name] = plan_for(stream.info, Options(), 2, decode_cost(stream)).ranges[1].start
    assert cuts["far"] > cuts["near"]
    _, mp3 = convert(Far(video), tmp_path)
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "160k")
