"""The processes that open a user's file are confined, and end with the conversion or with their parent."""

import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from functions.convert import pipeline
from functions.convert.demux.child import main
from functions.convert.errors import EncoderKilled, OutOfResources, UnusableMedia
from functions.convert.ffmpeg import encoder
from functions.convert.sandbox import spawn
from functions.options import Options
from tests.support import clips
from tests.support.processes import children, is_alive, shell_program, wait_for

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough for two encoders to be seen at work."""
    return clips.clip(tmp_path_factory.mktemp("clip") / "long.mkv", "-c:a", "aac", sound=clips.NOISE, seconds=300)


#: Processes that other tests keep running.
_others: set[int] = set()


def started() -> list[int]:
    """Returns the processes that the current test has started, zombies included."""
    return [pid for pid in children(os.getpid()) if pid not in _others]


def name(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError):  # it has ended
        return Path(f"/proc/{pid}/exe").readlink().name
    return ""


def limits(pid: int) -> dict[str, str]:
    rows = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {row[:26].strip(): row[26:47].strip() for row in rows}


class WatchedSource(io.FileIO):
    """A source that calls ``on_read`` at the first read."""

    def __init__(self, path: Path, on_read: Callable[[], None]) -> None:
        super().__init__(path)
        self._on_read: Callable[[], None] | None = on_read

    def read(self, size: int | None = -1, /) -> bytes:
        if self._on_read is not None:
            on_read, self._on_read = self._on_read, None
            on_read()
        return super().read(-1 if size is None else size) or b""


def convert(source: io.FileIO, directory: Path, on_progress: Callable[[float], None], ffmpeg: str = "") -> None:
    with source:
        pipeline.to_mp3(
            source,
            io.BytesIO(),
            pipeline.Settings(options=Options(), filename="clip.mkv", encoders=2, ffmpeg=ffmpeg or clips.ffmpeg()),
            directory=directory,
            on_progress=on_progress,
        )


def when_encoding(count: int, then: Callable[[list[int]], None]) -> Callable[[float], None]:
    """Returns a progress function that calls ``then`` once ``count`` encoders run."""
    done = False

    def on_progress(_: float) -> None:
        nonlocal done
        encoders = [pid for pid in started() if is_alive(pid) and name(pid).startswith("ffmpeg")]
        if len(encoders) == count and not done:
            done = True
            then(encoders)

    return on_progress


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """Checks that every test leaves no process and no file."""
    _others.clear()
    _others.update(started())
    yield
    assert started() == []
    assert list(tmp_path.iterdir()) == []


def check_confined(pid: int) -> None:
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    status = Path(f"/proc/{pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    for limit in ("Max address space", "Max cpu time", "Max file size"):
        assert limits(pid)[limit] != "unlimited"
    assert limits(pid)["Max core file size"] == "0"


def test_demux_child_is_confined(video: Path, tmp_path: Path) -> None:
    seen = []

    def look() -> None:
        (pid,) = started()
        check_confined(pid)
        assert limits(pid)["Max open files"] == "0"
        assert limits(pid)["Max processes"] == "0"
        files = sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda path: int(path.name))
        targets = [str(path.readlink()).split(":")[0] for path in files]
        assert targets[:3] == ["/dev/null"] * 3
        assert [Path(target).name for target in targets[3:]] in (["socket", "track"], ["track", "socket"])
        seen.append(pid)

    convert(WatchedSource(video, look), tmp_path, lambda _: None)
    assert seen


def test_encoders_are_confined(video: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def look(encoders: list[int]) -> None:
        for pid in encoders:
            check_confined(pid)
            seen.append(pid)

    convert(io.FileIO(video), tmp_path, when_encoding(2, look))
    assert len(seen) == 2


def test_limits_are_enforced(tmp_path: Path) -> None:
    target = tmp_path / "file"
    script = f"open({str(target)!r}, 'wb').write(bytes(1 << 20))"
    process = spawn.spawn([sys.executable, "-I", "-c", script], {"FSIZE": 1000})
    assert process.wait() != 0
    assert target.stat().st_size <= 1000
    target.unlink()
    process = spawn.spawn([sys.executable, "-I", "-c", "while True: pass"], {"CPU": 2})
    assert process.wait() == -signal.SIGXCPU  # SIGKILL would lead to a retry
    network = "import socket; socket.create_connection(('127.0.0.1', {}), 1)"
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert spawn.spawn([sys.executable, "-I", "-c", network.format(port)], {}).wait() != 0
        assert subprocess.run([sys.executable, "-I", "-c", network.format(port)]).returncode == 0


def test_spawned_program_dies_with_its_parent() -> None:
    # Unlike a demux child or an encoder, it has no open socket or pipe that would end it.
    script = """
import time
from functions.convert.sandbox import spawn
print(spawn.spawn(["/bin/sleep", "60"], {}).pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for(lambda: name(pid) == "sleep")
        parent.kill()
    wait_for(lambda: not is_alive(pid))


class Cancelled(Exception):
    pass


class FullDisk(io.BytesIO):
    def write(self, _: object, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_is_not_the_files_fault(video: Path, tmp_path: Path) -> None:
    script = "echo '[fd] [error] Error writing: No space left on device' >&2\nexit 228"
    ffmpeg = shell_program(tmp_path / "ffmpeg", script)
    with pytest.raises(OutOfResources):
        convert(io.FileIO(video), tmp_path, lambda _: None, ffmpeg)
    Path(ffmpeg).unlink()
    with io.FileIO(video) as source, pytest.raises(OSError, match="No space left") as caught:
        main.extract(source, FullDisk(), 0, False)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.timeout(60)
def test_encoder_that_closes_its_pipes_before_it_ends(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "HEARTBEAT", 3600.0)  # waiting for it exceeds the timeout
    script = f'{clips.ffmpeg()} "$@" || exit\nexec >&- 2>&-\nsleep 0.3'
    ffmpeg = shell_program(tmp_path / "ffmpeg", script)
    convert(io.FileIO(video), tmp_path, lambda _: None, ffmpeg)
    Path(ffmpeg).unlink()


def test_error_in_the_progress_function_stops_the_encoders(video: Path, tmp_path: Path) -> None:
    def cancel(_: list[int]) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        convert(io.FileIO(video), tmp_path, when_encoding(2, cancel))


def test_error_in_the_progress_function_stops_the_demux_child(video: Path, tmp_path: Path) -> None:
    def cancel(_: float) -> None:
        assert len(started()) == 1
        raise Cancelled

    with pytest.raises(Cancelled):
        convert(io.FileIO(video), tmp_path, cancel)


def test_error_of_the_source_propagates(video: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise ConnectionResetError("the store is unavailable")

    with pytest.raises(ConnectionResetError, match="the store is unavailable"):
        convert(WatchedSource(video, fail), tmp_path, lambda _: None)


def test_killed_encoder_is_retried(video: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderKilled):
        convert(io.FileIO(video), tmp_path, when_encoding(2, lambda encoders: os.kill(encoders[1], signal.SIGKILL)))


def test_crashed_encoder_is_the_files_fault(video: Path, tmp_path: Path) -> None:
    ffmpeg = shell_program(tmp_path / "ffmpeg", "kill -SEGV $$")
    with pytest.raises(UnusableMedia):
        convert(io.FileIO(video), tmp_path, lambda _: None, ffmpeg)
    Path(ffmpeg).unlink()


@pytest.mark.parametrize(("number", "error"), [(signal.SIGKILL, EncoderKilled), (signal.SIGSEGV, UnusableMedia)])
def test_dead_demux_child(number: int, error: type[Exception], video: Path, tmp_path: Path) -> None:
    with pytest.raises(error):
        convert(WatchedSource(video, lambda: os.kill(started()[0], number)), tmp_path, lambda _: None)


@pytest.mark.parametrize("stage", ["demux child", "encoders"])
def test_children_die_with_their_parent(stage: str, video: Path, tmp_path: Path) -> None:
    script = f"""
import io, sys, time
from itertools import pairwise
from pathlib import Path
from tests.unit.convert import test_sandbox as sandbox

def stop(pids):
    print(*pids, flush=True)
    time.sleep(60)

if {stage!r} == "demux child":
    source, progress = sandbox.WatchedSource(Path({str(video)!r}), lambda: stop(sandbox.started())), lambda _: None
else:
    source, progress = io.FileIO({str(video)!r}), sandbox.when_encoding(2, stop)
sandbox.convert(source, Path({str(tmp_path)!r}), progress)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == (1 if stage == "demux child" else 2)
        assert all(map(is_alive, pids))
        parent.kill()
    wait_for(lambda: not any(map(is_alive, pids)))
    for directory in tmp_path.iterdir():  # no process was left to clean up
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


def test_progress_is_reported_every_second_and_only_grows(video: Path, tmp_path: Path) -> None:
    reported: list[tuple[float, float]] = []
    convert(io.FileIO(video), tmp_path, lambda part: reported.append((time.monotonic(), part)))
    times, parts = zip(*reported, strict=True)
    assert max(after - before for before, after in pairwise(times)) < 1
    assert list(parts) == sorted(parts)
    assert parts[0] == 0
    assert parts[-1] == pytest.approx(1)


@pytest.mark.parametrize("cpus", [1, 2])
def test_encoders_are_pinned_if_there_is_exactly_one_cpu_for_each(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: int
) -> None:
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        pytest.skip("needs two CPUs")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(available[: 2 if cpus == 2 else 1]))
    seen: list[set[int]] = []

    def look(encoders: list[int]) -> None:
        monkeypatch.undo()
        seen.extend(os.sched_getaffinity(pid) for pid in encoders)

    convert(io.FileIO(video), tmp_path, when_encoding(2, look))
    if cpus == 2:
        assert sorted(seen, key=min) == [{available[0]}, {available[1]}]
    else:
        assert seen == [set(available)] * 2
