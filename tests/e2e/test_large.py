"""A video of more than 4 GB goes through upload and convert, an MP3 of that size through download, in little memory.

The video is made by ffmpeg on the fly and never lies on disk but in the media store: raw pictures, so that convert has
to read every byte of it, and no length known in advance.
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

#: Bytes of a process (design, section 7).
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
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose media are gone after the test: pytest keeps the directories of three runs."""
    data = tmp_path_factory.mktemp("large") / "data"
    if shutil.disk_usage(data.parent).free < 10 * GIB:
        pytest.skip("there are no 10 GB of disk left")
    try:
        with start(data) as running:
            yield running
    finally:
        shutil.rmtree(data / "media", ignore_errors=True)


def processes(platform: Platform) -> list[tuple[str, int]]:
    """Every process of every function, encoders aside."""
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


def pieces(pipe: IO[bytes], sizes: list[int]) -> Iterator[bytes]:
    while piece := pipe.read(1 << 20):
        sizes.append(len(piece))
        yield piece


def receive(user: Client, fid: str, **headers: str) -> tuple[int, int, bytes]:
    """Status, number of bytes, and the last of them, of a download that fits no memory."""
    line = http.client.HTTPConnection("localhost", int(user.url.rpartition(":")[2]), timeout=120)
    with contextlib.closing(line):
        line.request("GET", f"/download?fid={fid}", headers={"Authorization": f"Bearer {user.token}", **headers})
        with line.getresponse() as answer:
            size, last = 0, b""
            while chunk := answer.read(1 << 20):
                size, last = size + len(chunk), chunk
            return answer.status, size, last


def test_four_gigabytes_take_little_memory(roomy: Platform, measured: Callable[[str], None]) -> None:
    me, sizes = Client(roomy.url).sign_up(), list[int]()
    began = time.monotonic()
    with PeakRss(lambda: processes(roomy)) as memory:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), *MAKE]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as maker:
            assert maker.stdout
            answer = me.upload_raw(pieces(maker.stdout, sizes), "video/x-matroska", filename="large.mkv")
        assert answer.status == 202, answer.body
        assert maker.returncode == 0
        assert sum(sizes) > 4 * GIB
        uploaded = time.monotonic()
        job = me.wait(answer.json()["job"], 300)
        converted = time.monotonic()
        assert job["status"] == "done", job
        assert job["warning"] is None
        assert job["duration"] == pytest.approx(SECONDS, abs=0.1)

        size = 4 * GIB + 12_345
        make_mp3_as_large_as(roomy, job["mp3"], size)
        assert receive(me, job["mp3"], Range=f"bytes={3 * GIB}-")[:2] == (206, size - 3 * GIB)
        assert receive(me, job["mp3"], Range="bytes=-5") == (206, 5, b"[end]")
        assert receive(me, job["mp3"], Range=f"bytes={size - 5}-{size - 4}") == (206, 2, b"[e")
        assert receive(me, job["mp3"], Range=f"bytes={4 * GIB - 1}-")[:2] == (206, 12_346)
        memory.sample()
    ended = time.monotonic()
    peaks = {name: max(peak for (of, _), peak in memory.peaks.items() if of == name) for name, _ in memory.peaks}
    shown = ", ".join(f"{name} {peak >> 20} MB" for name, peak in sorted(peaks.items()))
    line = (
        f"{sum(sizes) / 1e9:.2f} GB: upload {uploaded - began:.0f} s, convert {converted - uploaded:.0f} s, "
        f"download {ended - converted:.0f} s; highest memory of a process: {shown}"
    )
    measured(line)
    assert {"upload", "convert", "download"} <= peaks.keys()
    assert max(peaks.values()) <= LIMIT, line


def make_mp3_as_large_as(platform: Platform, fid: str, size: int) -> None:
    """Give the MP3 so many bytes, a hole for the most part: encoding 4 GB of MP3 would take hours."""
    place = platform.data / "media" / "mp3s" / fid[:2] / fid
    os.truncate(place / "bytes", size)
    with (place / "bytes").open("r+b") as file:
        file.seek(size - 5)
        file.write(b"[end]")
    stat = json.loads((place / "stat.json").read_text())
    (place / "stat.json").write_text(json.dumps(stat | {"size": size, "sha256": "", "crc32c": ""}))
