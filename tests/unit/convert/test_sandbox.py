"""The processes that open a user's file are confined, and end with the conversion or with their parent."""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from functions.convert import pipeline
from functions.convert.demux.child import audio_track
from functions.convert.errors import EncoderKilled, OutOfResources, UnusableMedia
from functions.convert.ffmpeg import encoder
from functions.convert.sandbox import landlock, seccomp, setting, spawn
from functions.options import Options
from functions.settings import BadSetting
from infra import config
from tests.support import clips, intruder
from tests.support.paths import ROOT
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
    assert "Seccomp:\t2" in status
    assert "CapEff:\t0000000000000000" in status
    if os.geteuid() == 0:
        (uid,) = {*re.findall(r"^[UG]id:.*", status, re.MULTILINE)[0].split()[1:]}
        assert int(uid) > 65535
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
        assert "Threads:\t1\n" in Path(f"/proc/{pid}/status").read_text()  # Landlock confines one thread
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


def python_for(user: str) -> str:
    """Returns a Python that this user can run; "" is the current one."""
    own = Path(sys.executable).resolve()
    if user and not all(folder.stat().st_mode & 0o1 for folder in own.parents):
        other = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")
        if other is None:
            pytest.skip("no Python that other users can run")
        return other
    return str(own)


def intrude(place: str, user: str = "", *, unshare_refused: bool = False, **environ: str) -> set[str]:
    """Returns what hostile code in a decoder's place succeeded at (``tests/support/intruder.py``)."""
    if user and os.geteuid() != 0:
        pytest.skip("only root can start processes of another user")
    # ffmpeg's place is another user's where this is root.
    python = python_for(user or ("1" if os.geteuid() == 0 else ""))
    command = [python, intruder.__file__, place, user, "refused" if unshare_refused else "", python]
    path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry.endswith("site-packages"))])
    environment = {"PYTHONPATH": path, **environ}
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=60)
    return set(json.loads(result.stdout))


@pytest.mark.parametrize("unshare_refused", [False, True], ids=["", "unshare refused"])
@pytest.mark.parametrize("user", ["", "12345"], ids=["this user", "unprivileged user"])
@pytest.mark.parametrize(
    "place", ["demux child", "picture child", "ffmpeg", "cover child", "ffmpeg of the cover child"]
)
def test_hostile_decoder_succeeds_at_nothing(place: str, user: str, unshare_refused: bool) -> None:
    # The cover child decodes nothing itself, and has to start ffmpeg, which dies with it.
    needed = {"fork", "clone", "outliving the parent"} if place == "cover child" else set()
    assert intrude(place, user, unshare_refused=unshare_refused) == needed


def test_hostile_decoder_succeeds_without_the_sandbox() -> None:
    """Checks that the attempts of the test above can succeed."""
    succeeded = intrude("ffmpeg", "12345", unshare_refused=True, SANDBOX="off")
    assert {"read a key", "write the database", "TCP", "abstract Unix socket", "kill", "fork", "delete"} <= succeeded


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_has_the_numbers_of_the_kernel_headers(machine: str) -> None:
    name = {"x86_64": "x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "asm-generic/unistd.h"}[machine]
    header = Path("/usr/include") / name
    if not header.exists():
        pytest.skip("needs the kernel's headers")
    column = ["x86_64", "aarch64"].index(machine)
    found = dict(re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text(), re.MULTILINE))
    last = max(map(int, found.values()))
    for call, numbers in seccomp.CALLS.items():
        number = numbers[column]
        if number is None:
            assert call not in found
        elif number <= last:
            assert int(found[call]) == number


def unsupported(monkeypatch: pytest.MonkeyPatch, landlock_version: int, has_seccomp: bool) -> None:
    monkeypatch.setattr(landlock, "version", lambda _: landlock_version)
    monkeypatch.setattr(seccomp, "available", lambda _: has_seccomp)


@pytest.mark.parametrize(
    ("landlock_version", "has_seccomp", "named"),
    [
        (0, False, "Landlock (Linux 5.13) and seccomp filters"),
        (0, True, "Landlock (Linux 5.13),"),
        (7, False, "needs seccomp filters"),
    ],
)
def test_converter_refuses_to_start_without_a_sandbox(
    landlock_version: int,
    has_seccomp: bool,
    named: str,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unsupported(monkeypatch, landlock_version, has_seccomp)
    for start in (
        lambda: setting.check({}),
        lambda: config.check({}),
        lambda: spawn.spawn(["/bin/true"], {}),
        lambda: convert(io.FileIO(video), tmp_path, lambda _: None),
    ):
        with pytest.raises(BadSetting, match="SANDBOX=off") as caught:
            start()
        assert named in str(caught.value)
    setting.check({"SANDBOX": "off"})


def test_sandbox_that_is_off_is_logged_at_every_start(caplog: pytest.LogCaptureFixture) -> None:
    setting.check({"SANDBOX": "off"})
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("SANDBOX=off: ")
    with pytest.raises(BadSetting, match="on or off"):
        setting.check({"SANDBOX": "no"})


def test_old_landlock_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO")
    unsupported(monkeypatch, 3, has_seccomp=True)
    setting.check({"SANDBOX": "on"})
    unsupported(monkeypatch, 6, has_seccomp=True)
    setting.check({})
    (record,) = caplog.records
    assert "version 3 here, which does not restrict TCP, device ioctls, signals; the" in record.getMessage()


def test_decoder_dies_if_the_kernel_refuses_to_confine_it() -> None:
    """The parent checked what the kernel has; this happens where a container's profile refuses it all the same."""
    code = """
import os
from functions.convert.sandbox import landlock, limits

def refuse(*_):
    raise OSError("no")

landlock.restrict = refuse
limits.confine(os.getppid(), tasks=0)
print("runs")
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert result.returncode == -signal.SIGKILL
    assert b"the sandbox cannot be entered" in result.stderr
    assert result.stdout == b""


def test_limits_are_enforced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX", "off")  # which would apply other limits, and not let Python start
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
from functions.convert.sandbox import landlock, seccomp, setting, spawn
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


@pytest.mark.usefixtures("unconfined")
def test_full_disk_is_not_the_files_fault(video: Path, tmp_path: Path) -> None:
    script = "echo '[fd] [error] Error writing: No space left on device' >&2\nexit 228"
    ffmpeg = shell_program(tmp_path / "ffmpeg", script)
    with pytest.raises(OutOfResources):
        convert(io.FileIO(video), tmp_path, lambda _: None, ffmpeg)
    Path(ffmpeg).unlink()
    with io.FileIO(video) as source, pytest.raises(OSError, match="No space left") as caught:
        audio_track.extract(source, FullDisk(), 0, False)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.usefixtures("unconfined")
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


@pytest.mark.usefixtures("unconfined")
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
    source = sandbox.WatchedSource(Path({str(video)!r}), lambda: stop(sandbox.started()))
    progress = lambda _: None
else:
    source = io.FileIO({str(video)!r})
    progress = sandbox.when_encoding(2, stop)
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
