"""What every media store promises when things go wrong or come in numbers."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from functions.media import BlobCorrupt, BlobNotFound, new_blob_id
from functions.media.gridfs import CHUNK_SIZE
from tests.contract.media_places import Place, get, noise, opened, put
from tests.support.paths import ROOT


@pytest.fixture(params=["directory", "gridfs"])
def lasting(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A store that other processes reach."""
    with opened(request.param, request) as found:
        yield found


def test_a_changed_byte_is_found_when_the_end_is_read(place: Place) -> None:
    content = noise(5 * CHUNK_SIZE)
    blob = put(place.videos, content)
    place.change(blob, lambda stored: stored[:-1] + bytes([stored[-1] ^ 1]))
    with place.videos.open(blob) as reader:
        assert reader.read(4 * CHUNK_SIZE) == content[: 4 * CHUNK_SIZE]
        with pytest.raises(BlobCorrupt):
            reader.read(CHUNK_SIZE)
    with place.videos.open(blob) as reader:
        reader.seek(10)
        assert len(reader.read()) == len(content) - 10  # a part of it cannot be checked
        reader.seek(0)
        with pytest.raises(BlobCorrupt):
            reader.read()


@pytest.mark.parametrize("block", [1000, 10 * CHUNK_SIZE])
def test_missing_bytes_are_found(place: Place, block: int) -> None:
    blob = put(place.videos, noise(5 * CHUNK_SIZE))
    place.change(blob, lambda stored: stored[:-100])
    with pytest.raises(BlobCorrupt):
        get(place.videos, blob, block)


def test_eight_threads_at_once(place: Place) -> None:
    def one(seed: int) -> None:
        for turn in range(4):
            content = noise(turn * seed * CHUNK_SIZE // 5, seed * 10 + turn)
            blob = put(place.videos, content)
            assert get(place.videos, blob) == content
            assert get(place.videos, shared) == noise(9 * CHUNK_SIZE)
            place.videos.delete(blob)
            assert not place.remains(blob)

    shared = put(place.videos, noise(9 * CHUNK_SIZE))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))


def child(place: Place, code: str, *arguments: str) -> subprocess.Popen[str]:
    lines = "import os, sys; from functions.media import *; media = connect(os.environ)\n"
    root = str(ROOT)
    return subprocess.Popen(
        [sys.executable, "-c", lines + code, *arguments],
        env={**place.environ, "PYTHONPATH": root, "PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE,  # kept open: one that waits for its end waits to be killed, whatever our own stdin is
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_writer_leaves_nothing_visible_and_nothing_after_delete(lasting: Place) -> None:
    blob = new_blob_id()
    writing = """
with media.videos.create(sys.argv[1], Description("", "", "", "")) as writer:
    for _ in range(20):
        writer.write(bytes(1 << 20))
    print("here", flush=True)
    sys.stdin.read()
"""
    with child(lasting, writing, blob) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    assert lasting.remains(blob)
    with pytest.raises(BlobNotFound):
        lasting.videos.open(blob)
    lasting.videos.delete(blob)
    assert not lasting.remains(blob)


def test_300_mb_go_through_in_flat_memory(lasting: Place) -> None:
    passing = """
blob, block = new_blob_id(), os.urandom(1 << 20)
with media.videos.create(blob, Description("", "", "", "")) as writer:
    for _ in range(300):
        writer.write(block)
with media.videos.open(blob) as reader:
    while reader.read(1 << 20):
        pass
media.videos.delete(blob)
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""
    with child(lasting, passing) as process:
        peak = int(process.communicate()[0]) / 1024  # not ru_maxrss, which begins with the parent's
    assert process.returncode == 0
    assert peak <= 120, f"{peak:.0f} MB"
