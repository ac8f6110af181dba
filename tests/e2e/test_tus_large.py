"""Large resumable uploads.

A gigabyte arrives byte for byte although its connection is lost twenty times and its server is killed once. Of twenty
gigabytes in parts of fifty megabytes, only the first and the last part are really sent.
"""

import contextlib
import os
import random
import shutil
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from functions.media import connect
from functions.state.database import Database
from functions.state.schema import uploads
from tests.e2e.client import Client, wave_bytes
from tests.e2e.tus import Tus
from tests.support.platform import Platform, start
from tests.support.processes import descendants, is_alive, wait_for

SIZE = 1 << 30
LOSSES = 20
_BLOCK = 1 << 20
SOUND = wave_bytes(1.0)
NOISE = random.Random(5).randbytes(_BLOCK)  # noqa: S311 - incompressible bytes, not secrets
pytestmark = pytest.mark.timeout(600)


def block(n: int) -> bytes:
    """Returns the n-th mebibyte; they all differ."""
    return (SOUND + NOISE if n == 0 else struct.pack(">Q", n) + NOISE)[:_BLOCK]


def content(start: int, end: int) -> Iterator[bytes]:
    while start < end:
        n, within = divmod(start, _BLOCK)
        chunk = block(n)[within : within + end - start]
        yield chunk
        start += len(chunk)


def send(upload: Tus, end: int, reset: bool) -> None:
    """Sends PATCH for all that is missing, but only the bytes before ``end``, and closes the connection."""
    connection = upload.open_request(SIZE - upload.offset)
    for chunk in content(upload.offset, end):
        connection.send(chunk)
    if reset:  # An RST instead of a FIN: what the kernel has not sent yet is lost.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def settle(upload: Tus) -> None:
    """Asks for the offset until a part may start there: the server may not have noticed the lost connection yet.

    A client that resumes too early gets 409 or 423 and must send the same bytes again.
    """
    deadline = time.monotonic() + 60
    while upload.head() and upload.patch(b"").status != 204:
        assert time.monotonic() < deadline, "the upload stays locked"


def kill(platform: Platform) -> None:
    pids = [platform.process.pid, *descendants(platform.process.pid)]
    platform.kill()
    wait_for(lambda: not any(map(is_alive, pids)), "every process to end")


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory whose media are deleted after the test, since pytest keeps the directories of three runs."""
    data = tmp_path_factory.mktemp("large") / "data"
    yield data
    shutil.rmtree(data / "media", ignore_errors=True)


def test_a_gigabyte_survives_twenty_lost_connections_and_a_kill(data: Path, measured: Callable[[str], None]) -> None:
    chance = random.Random(7)  # noqa: S311 - offsets, not secrets
    ends = sorted(chance.sample(range(1, SIZE), LOSSES))
    lost: list[int] = []
    began = time.monotonic()
    platform = start(data)
    try:
        me = Client(platform.url).sign_up()
        upload = Tus(me).create(SIZE, filename="large.wav")
        for n, end in enumerate(ends):
            send(upload, end, reset=n % 2 == 0)
            if n == LOSSES // 2:
                kill(platform)
                platform.__exit__(None, None, None)
                platform = start(data)
                upload.user = me = Client(platform.url, me.token, me.username, me.user)
            before = upload.offset
            settle(upload)
            assert before <= upload.offset <= end
            lost.append(end - upload.offset)
        # After a FIN all sent bytes arrive and are saved, except those in the ingress. An RST loses those in transit.
        assert statistics.median(lost[1::2]) < _BLOCK
        done = me.wait(rest(upload))
        uploaded = time.monotonic()
        assert done["status"] == "done"
        with connect({"MEDIA_DIR": str(data / "media")}).videos.open(done["fid"]) as reader:
            assert reader.stat.size == SIZE
            for n in range(SIZE // _BLOCK):
                assert reader.read(_BLOCK) == block(n), f"mebibyte {n} differs"
    finally:
        platform.__exit__(None, None, None)
    measured(
        f"1 GiB by tus in {uploaded - began:.0f} s through {LOSSES} lost connections and a kill, "
        f"{sum(lost) / LOSSES / 1e6:.1f} MB sent again for each; compared in {time.monotonic() - uploaded:.0f} s"
    )


def rest(upload: Tus) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        upload.head()
        with contextlib.closing(upload.open_request(SIZE - upload.offset)) as connection:
            for chunk in content(upload.offset, SIZE):
                connection.send(chunk)
            with connection.getresponse() as answer:
                if answer.status == 204:
                    return str(answer.headers["Mp3burst-Job"])
                assert answer.status in (409, 423)
    raise AssertionError("the upload did not complete")


#: Bytes. The file has holes, but the platform accepts only what fits on the disk: a smaller disk makes a smaller test.
HUGE = 20_000_000_000
SPARE = 2_000_000_000
HUGE_PART = 50_000_000
#: Bytes of the RIFF chunks after the sound, which decoders skip.
JUNK = 3 << 30


def huge_size(folder: Path) -> int:
    """Returns how many bytes to upload: more than 32 bits can count, and at most what is free."""
    size = min(HUGE, shutil.disk_usage(folder).free - SPARE)
    assert size > 1 << 32, f"{folder} has too little space for a file of more than 4 GiB"
    return size


def huge(start: int, end: int) -> Iterator[bytes]:
    """Yields bytes of a WAV file: a second of sound, then JUNK chunks of zeros."""
    while start < end:
        n, within = divmod(start, JUNK)
        head = SOUND + junk(JUNK - len(SOUND)) if n == 0 else junk(JUNK)
        chunk = (head + bytes(_BLOCK))[within : within + end - start] or bytes(min(_BLOCK, JUNK - within, end - start))
        yield chunk
        start += len(chunk)


def junk(size: int) -> bytes:
    return b"JUNK" + struct.pack("<I", size - 8)


def skip_to(platform: Platform, upload: Tus, to: int) -> None:
    """Changes the file and the row of the upload as if everything before byte ``to`` had been received."""
    [file] = (platform.data / "media/videos").glob("*/*.part/bytes")
    os.truncate(file, to)
    with file.open("r+b") as opened:
        for start in range(JUNK, to, JUNK):
            opened.seek(start)
            opened.write(junk(JUNK))
    database = Database(f"sqlite:///{platform.data / 'mp3burst.db'}")
    rows = update(uploads).where(uploads.c.id == upload.location.rpartition("/")[2])
    database.run(lambda connection: connection.execute(rows.values(received=to)))
    database.close()


def io_bytes(pid: int) -> int:
    """Returns how many bytes a process has read and written."""
    return sum(int(line.split()[1]) for line in Path(f"/proc/{pid}/io").read_text().splitlines()[:2])


def test_twenty_gigabytes_in_parts_of_fifty_megabytes(data: Path, measured: Callable[[str], None]) -> None:
    size = huge_size(data.parent)
    env = {"MAX_UPLOAD_BYTES": str(size), "QUOTA_BYTES": "0", "MIN_FREE_BYTES": "0"}
    with start(data, env=env) as platform:
        me = Client(platform.url).sign_up()
        Tus(me).post(Upload_Length=str(size + 1)).problem(413)
        upload = Tus(me).create(size, filename="huge.wav")
        assert upload.patch(b"".join(huge(0, HUGE_PART))).status == 204
        skip_to(platform, upload, size - HUGE_PART)
        assert upload.head().headers["Upload-Offset"] == str(size - HUGE_PART)
        [server] = [each["pid"] for each in platform.instances("upload")]
        [worker] = descendants(server)
        before = io_bytes(worker)
        job = upload.patch(b"".join(huge(size - HUGE_PART, size))).headers["Mp3burst-Job"]
        transferred = io_bytes(worker) - before
        peak = peak_memory(worker)
        assert transferred < 4 * HUGE_PART  # the last part is written; the rest is neither read nor written
        assert peak < 120 << 20
        assert me.wait(job)["duration"] == pytest.approx(1.0, abs=0.1)
    measured(
        f"{size / 1e9:.0f} GB by tus: {transferred / 1e6:.0f} MB of I/O for the last 50 MB, "
        f"{peak >> 20} MiB of memory at peak"
    )


def peak_memory(pid: int) -> int:
    """Returns the peak memory of a process in bytes."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10
