"""A gigabyte whose line is cut twenty times, and whose server is killed: every byte arrives, and no byte twice.

And fifty gigabytes in parts of fifty megabytes, all but the first and the last of which are left out.
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
CUTS = 20
_BLOCK = 1 << 20
SOUND = wave_bytes(1.0)
NOISE = random.Random(5).randbytes(_BLOCK)  # noqa: S311 - bytes that are unlike each other
pytestmark = pytest.mark.timeout(600)


def block(n: int) -> bytes:
    """The n-th mebibyte; each is unlike every other."""
    return (SOUND + NOISE if n == 0 else struct.pack(">Q", n) + NOISE)[:_BLOCK]


def content(start: int, end: int) -> Iterator[bytes]:
    while start < end:
        n, within = divmod(start, _BLOCK)
        piece = block(n)[within : within + end - start]
        yield piece
        start += len(piece)


def send(upload: Tus, end: int, reset: bool) -> None:
    """PATCH up to a byte, as if more were to come, and cut the line."""
    line = upload.line(SIZE - upload.offset)
    for piece in content(upload.offset, end):
        line.send(piece)
    if reset:  # an RST in place of a FIN, and what the kernel has not sent yet is lost
        line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()


def settle(upload: Tus) -> None:
    """Ask where to go on until a part may begin there: the server may not have heard of the cut yet.

    Who goes on at once is answered 409 or 423 and asks again, which costs what was sent until then.
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
    """A directory whose media are gone after the test: pytest keeps the directories of three runs."""
    data = tmp_path_factory.mktemp("large") / "data"
    yield data
    shutil.rmtree(data / "media", ignore_errors=True)


def test_a_gigabyte_survives_twenty_cuts_and_a_kill(data: Path, measured: Callable[[str], None]) -> None:
    chance = random.Random(7)  # noqa: S311 - places, not secrets
    cuts, lost = sorted(chance.sample(range(1, SIZE), CUTS)), list[int]()
    began, platform = time.monotonic(), start(data)
    try:
        me = Client(platform.url).sign_up()
        upload = Tus(me).create(SIZE, filename="large.wav")
        for n, cut in enumerate(cuts):
            send(upload, cut, reset=n % 2 == 0)
            if n == CUTS // 2:
                kill(platform)
                platform.__exit__(None, None, None)
                platform = start(data)
                upload.user = me = Client(platform.url, me.token, me.username, me.user)
            before = upload.offset
            settle(upload)
            assert before <= upload.offset <= cut
            lost.append(cut - upload.offset)
        # After a FIN everything comes in, and is kept but for what the ingress held. An RST loses what was under way.
        assert statistics.median(lost[1::2]) < _BLOCK
        done = me.wait(rest(upload))
        uploaded = time.monotonic()
        assert done["status"] == "done"
        with connect({"MEDIA_DIR": str(data / "media")}).videos.open(done["fid"]) as reader:
            assert reader.stat.size == SIZE
            for n in range(SIZE // _BLOCK):
                assert reader.read(_BLOCK) == block(n), f"the mebibyte {n} is another's"
    finally:
        platform.__exit__(None, None, None)
    measured(
        f"1 GiB by tus in {uploaded - began:.0f} s through {CUTS} cuts and a kill, "
        f"{sum(lost) / CUTS / 1e6:.1f} MB sent again for each; compared in {time.monotonic() - uploaded:.0f} s"
    )


def rest(upload: Tus) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        upload.head()
        with contextlib.closing(upload.line(SIZE - upload.offset)) as line:
            for piece in content(upload.offset, SIZE):
                line.send(piece)
            with line.getresponse() as answer:
                if answer.status == 204:
                    return str(answer.headers["Mp3burst-Job"])
                assert answer.status in (409, 423)
    raise AssertionError("the upload does not come to its end")


HUGE, HUGE_PART = 50_000_000_000, 50_000_000
#: What lies between the sound and the end, in chunks that a reader of RIFF passes over.
JUNK = 3 << 30


def huge(start: int, end: int) -> Iterator[bytes]:
    """Bytes of a WAV file: a second of sound, then junk that is all zeros."""
    while start < end:
        n, within = divmod(start, JUNK)
        head = SOUND + junk(JUNK - len(SOUND)) if n == 0 else junk(JUNK)
        piece = (head + bytes(_BLOCK))[within : within + end - start] or bytes(min(_BLOCK, JUNK - within, end - start))
        yield piece
        start += len(piece)


def junk(size: int) -> bytes:
    return b"JUNK" + struct.pack("<I", size - 8)


def leave_out(platform: Platform, upload: Tus, to: int) -> None:
    """Have the upload stand as if everything up to a byte had been sent: zeros on disk, and the rows."""
    [file] = (platform.data / "media/videos").glob("*/*.part/bytes")
    os.truncate(file, to)
    with file.open("r+b") as there:
        for start in range(JUNK, to, JUNK):
            there.seek(start)
            there.write(junk(JUNK))
    database = Database(f"sqlite:///{platform.data / 'mp3burst.db'}")
    rows = update(uploads).where(uploads.c.id == upload.location.rpartition("/")[2])
    database.run(lambda connection: connection.execute(rows.values(received=to)))
    database.close()


def moved(pid: int) -> int:
    """Bytes of files that a process has read and written."""
    return sum(int(line.split()[1]) for line in Path(f"/proc/{pid}/io").read_text().splitlines()[:2])


def test_fifty_gigabytes_in_parts_of_fifty_megabytes(data: Path, measured: Callable[[str], None]) -> None:
    with start(data, env={"MAX_UPLOAD_BYTES": str(HUGE)}) as platform:
        me = Client(platform.url).sign_up()
        Tus(me).post(Upload_Length=str(HUGE + 1)).problem(413)
        upload = Tus(me).create(HUGE, filename="huge.wav")
        assert upload.patch(b"".join(huge(0, HUGE_PART))).status == 204
        leave_out(platform, upload, HUGE - HUGE_PART)
        assert upload.head().headers["Upload-Offset"] == str(HUGE - HUGE_PART)
        [server] = [each["pid"] for each in platform.instances("upload")]
        [worker] = descendants(server)
        before = moved(worker)
        job = upload.patch(b"".join(huge(HUGE - HUGE_PART, HUGE))).headers["Mp3burst-Job"]
        finished, peak = moved(worker) - before, vm_peak(worker)
        assert finished < 4 * HUGE_PART  # they are written, and nothing of the rest is read or written
        assert peak < 120 << 20
        assert me.wait(job)["duration"] == pytest.approx(1.0, abs=0.1)
    measured(f"50 GB by tus: {finished / 1e6:.0f} MB moved by the last 50 MB, {peak >> 20} MiB of memory at most")


def vm_peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10
