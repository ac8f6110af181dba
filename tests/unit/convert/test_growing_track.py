"""Encoders start while an mp4 is still being read: the result is the same, and no error is lost."""

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
    """A video with its audio spread over the whole file and its tables at the end."""
    path = tmp_path_factory.mktemp("clip") / "video.mp4"
    pictures = ("-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=30,noise=alls=60:allf=t")
    music = clips.MUSIC.format(seconds=30, rate=44100)
    clips.run("-f", "lavfi", "-i", music, *pictures, "-c:v", "mjpeg", "-c:a", "aac", path)
    return path


class HookedSource(io.FileIO):
    """A source that calls ``on_second_half`` once, when audio in its second half is read."""

    def __init__(self, path: Path, on_second_half: Callable[[], None]) -> None:
        super().__init__(path)
        self._size = path.stat().st_size
        self._hook: Callable[[], None] | None = on_second_half

    def read(self, size: int | None = -1, /) -> bytes:
        if self._hook is not None and self._size * 5 // 10 < self.tell() < self._size * 9 // 10:
            hook, self._hook = self._hook, None
            hook()
        return super().read(-1 if size is None else size) or b""


def encoders() -> int:
    """Returns how many encoders this process has started that still run."""
    found = 0
    for pid in children(os.getpid()):
        try:
            found += Path(f"/proc/{pid}/exe").readlink().name.startswith("ffmpeg")
        except OSError:  # it has ended
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
            pipeline.Settings(options=Options(bitrate=bitrate), filename="video.mp4", encoders=2),
            directory=directory,
            on_progress=lambda _: None,
        )
    return result, out.getvalue()


def test_encoders_run_while_the_source_is_read(video: Path, tmp_path: Path) -> None:
    seen = []

    def on_second_half() -> None:
        await_encoders()
        seen.append(encoders())

    result, mp3 = convert(HookedSource(video, on_second_half), tmp_path)
    assert seen == [2]
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "160k")
    assert result.warning is None


class StoreUnavailable(Exception):
    """Stands for an error of a store."""


def test_error_of_the_source_while_encoding_propagates(video: Path, tmp_path: Path) -> None:
    def on_second_half() -> None:
        await_encoders()
        raise StoreUnavailable

    with pytest.raises(StoreUnavailable):
        convert(HookedSource(video, on_second_half), tmp_path)
    assert encoders() == 0
    assert list(tmp_path.iterdir()) == []


def test_source_that_ends_early_while_encoding_is_an_error(video: Path, tmp_path: Path) -> None:
    class EndingSource(HookedSource):
        ended = False

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            return b"" if self.ended else data

    def on_second_half() -> None:
        await_encoders()
        source.ended = True

    source = EndingSource(video, on_second_half)
    with pytest.raises(UnusableMedia, match="damaged"):
        convert(source, tmp_path)
    assert encoders() == 0


class CompletedAfterRead(io.BytesIO):
    """A track's file that is empty at the first read and complete right after it."""

    def __init__(self, client: DemuxClient) -> None:
        super().__init__()
        self._client = client

    def open(self, *_: object, **__: object) -> "CompletedAfterRead":
        return self

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not self.getvalue():
            self.write(b"all of it")
            self.seek(0)
            self._client._end(None)
        return data


def test_end_between_a_read_and_the_wait_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client, "HEARTBEAT", 3600.0)  # only a notification ends the wait
    extraction = DemuxClient(io.BytesIO(b"video"), tmp_path / "track", TrackOrder(0, copy=False))
    monkeypatch.setattr(extraction, "_path", CompletedAfterRead(extraction))
    assert b"".join(extraction.chunks()) == b"all of it"


class ShortReads(io.FileIO):
    """A source whose reads return less than requested."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(777 if size is None or size < 0 else min(size, 777)) or b""


def test_source_with_short_reads_is_read_completely(video: Path, tmp_path: Path) -> None:
    _, mp3 = convert(ShortReads(video), tmp_path)
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "160k")


class RemoteSource(io.FileIO):
    """A source that takes a millisecond per read, like a store on another machine."""

    def read(self, size: int | None = -1, /) -> bytes:
        time.sleep(0.001)
        return super().read(-1 if size is None else size) or b""


def test_encoder_that_waits_for_a_slow_source_gets_a_shorter_range(video: Path, tmp_path: Path) -> None:
    starts = {}
    for name, source in ("local", io.FileIO(video)), ("remote", RemoteSource(video)):
        with source, pipeline.prepared_track(source, tmp_path, Options(), lambda _: None) as stream:
            starts[name] = plan_for(stream.info, Options(), 2, decode_cost(stream)).ranges[1].start
    assert starts["remote"] > starts["local"]
    _, mp3 = convert(RemoteSource(video), tmp_path)
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "160k")
