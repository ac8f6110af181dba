"""Demux children that are started before there is anything to read."""

import errno
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.errors import with_cause
from functions.convert import pipeline
from functions.convert.demux import spawner
from functions.convert.errors import DemuxerFailed, OutOfResources
from functions.options import Options
from tests.support import clips
from tests.support.paths import ROOT
from tests.support.processes import children, is_alive, wait_for

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.clip(tmp_path_factory.mktemp("clip") / "a.mp4", "-c:a", "aac", seconds=3)


@pytest.fixture(autouse=True)
def no_spare() -> Iterator[None]:
    spawner.spawner.dismiss()
    yield
    spawner.spawner.dismiss()
    assert started() == []


#: Processes that other tests keep running.
_others: set[int] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    _others.clear()
    _others.update(started())


def started() -> list[int]:
    """Returns the processes that the current test has started, zombies included."""
    return [pid for pid in children(os.getpid()) if pid not in _others]


def is_confined(pid: int) -> bool:
    """Returns whether a process has entered its limits, so that it dies with the thread that started it."""
    return "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()


def prepare() -> int:
    """Starts a spare child and returns its process."""
    spawner.spawner.prepare()
    wait_for(lambda: len(started()) == 1)
    return started()[0]


def convert(video: Path, directory: Path) -> tuple[set[int], bytes]:
    """Converts a video; returns the child processes that were seen, and the MP3."""
    seen: set[int] = set()
    out = io.BytesIO()
    with video.open("rb") as source:
        pipeline.to_mp3(
            source,
            out,
            pipeline.Settings(options=Options(bitrate=96), filename="a.mp4", encoders=1),
            directory=directory,
            on_progress=lambda _: seen.update(started()),
        )
    return seen, out.getvalue()


def test_spare_child_reads_one_file_only(video: Path, tmp_path: Path) -> None:
    pid = prepare()
    seen, mp3 = convert(video, tmp_path)
    assert pid in seen
    assert started() == []
    seen_later, same = convert(video, tmp_path)
    assert pid not in seen_later
    assert same == mp3
    assert clips.without_id3(mp3) == clips.serial(video, tmp_path / "serial.mp3", "-b:a", "96k")


def test_at_most_one_spare_is_started() -> None:
    pid = prepare()
    spawner.spawner.prepare()
    spawner.spawner.prepare()
    spawner.spawner._starter.submit(int).result(20)  # runs after everything submitted before
    assert started() == [pid]


def test_every_take_returns_another_child() -> None:
    prepare()
    first = spawner.spawner.take()
    second = spawner.spawner.take()
    assert first.process.pid != second.process.pid
    first.stop()
    second.stop()


def test_spare_child_outlives_the_thread_that_prepared_it(video: Path, tmp_path: Path) -> None:
    pids: list[int] = []

    def work() -> None:
        pids.append(prepare())
        wait_for(lambda: is_confined(pids[0]))  # if this thread had started it, it would die with it from here on

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (pid,) = pids
    wait_for(lambda: not any(task.name == str(thread.native_id) for task in Path("/proc/self/task").iterdir()))
    seen, _ = convert(video, tmp_path)
    assert pid in seen


def test_dead_spare_is_not_used(video: Path, tmp_path: Path) -> None:
    pid = prepare()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    seen, mp3 = convert(video, tmp_path)
    assert mp3
    assert pid not in seen


def test_conversion_succeeds_without_a_spare(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_thread(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    mine = spawner.DemuxSpawner()
    monkeypatch.setattr(spawner, "spawner", mine)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse_thread)
        mine.prepare()
    with monkeypatch.context() as full:
        full.setattr(subprocess, "Popen", refuse_process)
        mine.prepare()
        mine._spares[0].exception()
        with pytest.raises(OutOfResources, match=r"No process can be started.*retried"):
            convert(video, tmp_path)
    _, mp3 = convert(video, tmp_path)
    assert mp3
    mine.dismiss()


def refuse_process(*_: object, **__: object) -> None:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_spare_child_is_confined() -> None:
    pid = prepare()
    wait_for(lambda: is_confined(pid))
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    wait_for(lambda: Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink())

    def limits() -> dict[str, str]:
        rows = Path(f"/proc/{pid}/limits").read_text().splitlines()
        return {row[:26].strip(): row[26:47].strip() for row in rows}

    wait_for(lambda: limits()["Max processes"] == "0")
    assert limits()["Max address space"] != "unlimited"


def test_module_that_cannot_be_imported_is_named(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standard = [entry for entry in spawner._path() if "-packages" not in entry]
    monkeypatch.setattr(spawner, "_path", lambda: standard)
    with pytest.raises(DemuxerFailed) as failed:
        convert(video, tmp_path)
    assert "No module named 'av'" in with_cause(failed.value)


@pytest.mark.parametrize("end", ["sys.exit()", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_spare_child_dies_with_its_parent(end: str) -> None:
    script = f"""
import os, sys
from functions.convert.demux.spawner import spawner
from tests.support.processes import children, wait_for
spawner.prepare()
print(wait_for(lambda: children(os.getpid()))[0], flush=True)
{end}
"""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environ, check=False)
    pid = int(done.stdout)
    wait_for(lambda: not is_alive(pid))


def start_and_take() -> spawner.DemuxProcess:
    spawner.spawner.prepare()
    return spawner.spawner.take()


def test_fork_does_not_use_the_spare_of_its_parent() -> None:
    mine = prepare()
    child = os.fork()
    if not child:
        try:
            signal.alarm(20)  # a fork that relied on the starter thread of its parent would hang
            spawner.spawner.prepare()
            theirs = spawner.spawner.take(), start_and_take()
            for taken in theirs:
                taken.stop()
            os._exit(any(taken.process.pid == mine for taken in theirs))
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    taken = spawner.spawner.take()
    assert taken.process.pid == mine
    taken.stop()
