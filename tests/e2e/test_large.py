"""Tests that a video and an MP3 of more than 4 GB are uploaded, converted and downloaded in little memory.

ffmpeg makes the video while it is uploaded, so it is on disk only in the media store. Its pictures are uncompressed, so
that convert has to read every byte, and its length is not known in advance.
"""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import imageio_ffmpeg  # type: ignore[import-untyped]  # it carries no types
import pytest

from tests.e2e.client import Client, PeakRss
from tests.support.platform import Platform, start
from tests.support.processes import descendants

#: The highest memory of a process, in bytes.
LIMIT = 120 << 20
GIB = 1 << 30
SECONDS = 128
MAKE = (
    *("-v", "error", "-nostdin", "-f", "lavfi", "-i", f"color=s=1280x720:r=25:d={SECONDS}"),
    *("-f", "lavfi", "-i", f"sine=r=44100:d={SECONDS}", "-pix_fmt", "yuv420p", "-c:v", "rawvideo", "-c:a", "aac"),
    *("-f", "matroska", "pipe:1"),
)
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def large_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose media are deleted after the test, because pytest keeps the directories of three runs."""
    data = tmp_path_factory.mktemp("large") / "data"
    if shutil.disk_usage(data.parent).free < 10 * GIB:
        pytest.skip("less than 10 GB of disk space is free")
    try:
        with start(data) as running:
            yield running
    finally:
        shutil.rmtree(data / "media", ignore_errors=True)


def processes(platform: Platform) -> list[tuple[str, int]]:
    """Returns every process of every function except encoders."""
    found = []
    for name, function in platform.status()["functions"].items():
        for instance in function["instances"]:
            if instance["pid"]:
                found += [
                    (name, pid) for pid in (instance["pid"], *descendants(instance["pid"])) if not is_encoder(pid)
                ]
    return found


def is_encoder(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().startswith("ffmpeg")
    return True


def chunks(pipe: IO[bytes], sizes: list[int]) -> Iterator[bytes]:
    """Yields the bytes of a pipe and appends the size of each chunk to ``sizes``."""
    while chunk := pipe.read(1 << 20):
        sizes.append(len(chunk))
        yield chunk


def receive(user: Client, fid: str, **headers: str) -> tuple[int, int, bytes]:
    """Downloads without keeping the bytes; returns the status, the size, and the last chunk."""
    connection = http.client.HTTPConnection("localhost", int(user.url.rpartition(":")[2]), timeout=120)
    with contextlib.closing(connection):
        connection.request("GET", f"/download?fid={fid}", headers={"Authorization": f"Bearer {user.token}", **headers})
        with connection.getresponse() as answer:
            size = 0
            last = b""
            while chunk := answer.read(1 << 20):
                size += len(chunk)
                last = chunk
            return answer.status, size, last


def test_four_gigabytes_take_little_memory(large_platform: Platform, measured: Callable[[str], None]) -> None:
    me = Client(large_platform.url).sign_up()
    sizes: list[int] = []
    began = time.monotonic()
    with PeakRss(lambda: processes(large_platform)) as memory:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), *MAKE]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as encoder:
            assert encoder.stdout
            answer = me.upload_raw(chunks(encoder.stdout, sizes), "video/x-matroska", filename="large.mkv")
        assert answer.status == 202, answer.body
        assert encoder.returncode == 0
        assert sum(sizes) > 4 * GIB
        uploaded = time.monotonic()
        job = me.wait(answer.json()["job"], 300)
        converted = time.monotonic()
        assert job["status"] == "done", job
        assert job["warning"] is None
        assert job["duration"] == pytest.approx(SECONDS, abs=0.1)

        size = 4 * GIB + 12_345
        resize_mp3(large_platform, job["mp3"], size)
        assert receive(me, job["mp3"], Range=f"bytes={3 * GIB}-")[:2] == (206, size - 3 * GIB)
        assert receive(me, job["mp3"], Range="bytes=-5") == (206, 5, b"[end]")
        assert receive(me, job["mp3"], Range=f"bytes={size - 5}-{size - 4}") == (206, 2, b"[e")
        assert receive(me, job["mp3"], Range=f"bytes={4 * GIB - 1}-")[:2] == (206, 12_346)
        memory.sample()
    ended = time.monotonic()
    peaks = {name: max(peak for (of, _), peak in memory.peaks.items() if of == name) for name, _ in memory.peaks}
    memory_line = ", ".join(f"{name} {peak >> 20} MB" for name, peak in sorted(peaks.items()))
    line = (
        f"{sum(sizes) / 1e9:.2f} GB: upload {uploaded - began:.0f} s, convert {converted - uploaded:.0f} s, "
        f"download {ended - converted:.0f} s; highest memory of a process: {memory_line}"
    )
    measured(line)
    assert {"upload", "convert", "download"} <= peaks.keys()
    assert max(peaks.values()) <= LIMIT, line


def resize_mp3(platform: Platform, fid: str, size: int) -> None:
    """Resizes the MP3 in the media store, mostly with a hole: encoding 4 GB of MP3 would take hours."""
    folder = platform.data / "media" / "mp3s" / fid[:2] / fid
    os.truncate(folder / "bytes", size)
    with (folder / "bytes").open("r+b") as file:
        file.seek(size - 5)
        file.write(b"[end]")
    stat = json.loads((folder / "stat.json").read_text())
    (folder / "stat.json").write_text(json.dumps(stat | {"size": size, "sha256": "", "crc32c": ""}))
