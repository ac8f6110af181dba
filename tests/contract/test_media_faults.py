"""The contract of every media store under faults and concurrency."""

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
def shared_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A store that other processes can reach."""
    with opened(request.param, request) as found:
        yield found


def test_a_changed_byte_is_detected_at_the_end_of_a_complete_read(place: Place) -> None:
    content = noise(5 * CHUNK_SIZE)
    blob = put(place.videos, content)
    place.change(blob, lambda stored: stored[:-1] + bytes([stored[-1] ^ 1]))
    with place.videos.open(blob) as reader:
        assert reader.read(4 * CHUNK_SIZE) == content[: 4 * CHUNK_SIZE]
        with pytest.raises(BlobCorrupt):
            reader.read(CHUNK_SIZE)
    with place.videos.open(blob) as reader:
        reader.seek(10)
        assert len(reader.read()) == len(content) - 10  # a partial read cannot be checked
        reader.seek(0)
        with pytest.raises(BlobCorrupt):
            reader.read()


@pytest.mark.parametrize("block", [1000, 10 * CHUNK_SIZE])
def test_missing_bytes_are_detected(place: Place, block: int) -> None:
    blob = put(place.videos, noise(5 * CHUNK_SIZE))
    place.change(blob, lambda stored: stored[:-100])
    with pytest.raises(BlobCorrupt):
        get(place.videos, blob, block)


def test_eight_threads_write_and_read_concurrently(place: Place) -> None:
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
    prelude = "import os, sys; from functions.media import *; media = connect(os.environ)\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, *arguments],
        env={**place.environ, "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE,  # stays open, so a child that reads it to its end runs until it is killed
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_writer_leaves_nothing_visible_and_delete_removes_the_rest(shared_place: Place) -> None:
    blob = new_blob_id()
    code = """
with media.videos.create(sys.argv[1], Description("", "", "", "")) as writer:
    for _ in range(20):
        writer.write(bytes(1 << 20))
    print("here", flush=True)
    sys.stdin.read()
"""
    with child(shared_place, code, blob) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    assert shared_place.remains(blob)
    with pytest.raises(BlobNotFound):
        shared_place.videos.open(blob)
    shared_place.videos.delete(blob)
    assert not shared_place.remains(blob)


def test_writing_and_reading_300_mb_needs_constant_memory(shared_place: Place) -> None:
    code = """
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
    with child(shared_place, code) as process:
        peak = int(process.communicate()[0]) / 1024  # unlike ru_maxrss, this does not start at the parent's peak
    assert process.returncode == 0
    assert peak <= 120, f"{peak:.0f} MB"
