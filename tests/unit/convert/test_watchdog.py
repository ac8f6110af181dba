"""A stalled ffmpeg is killed; one that waits for input, and a suspended machine, do not count as stalled."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from functions.convert import pipeline
from functions.convert.errors import EncoderKilled
from functions.convert.sandbox.watchdog import CHECK_INTERVAL, STALL_SECONDS, Watchdog
from functions.options import Options
from tests.support import clips
from tests.support.processes import shell_program

pytestmark = pytest.mark.timeout(60)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def check(watchdog: Watchdog, clock: Clock, seconds: float, step: float = CHECK_INTERVAL, done: float = 0.0) -> None:
    for _ in range(round(seconds / step)):
        clock.now += step
        watchdog.check(done)


def test_sleeping_process_is_stalled(sleeper: subprocess.Popen[bytes]) -> None:
    clock = Clock()
    watchdog = Watchdog(sleeper.pid, clock)
    check(watchdog, clock, STALL_SECONDS)
    with pytest.raises(EncoderKilled, match="stalled"):
        check(watchdog, clock, 2 * CHECK_INTERVAL)


def test_progress_resets_the_idle_time(sleeper: subprocess.Popen[bytes]) -> None:
    clock = Clock()
    watchdog = Watchdog(sleeper.pid, clock)
    for done in range(10):
        check(watchdog, clock, STALL_SECONDS / 2, done=done)


def test_computing_process_is_not_stalled() -> None:
    clock = Clock()
    # It prints a line for every second and a half of its CPU time.
    work = "import time\nn = 1.5\nwhile True:\n if time.process_time() > n: print(n, flush=True); n += 1.5"
    with subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE) as process:
        try:
            watchdog = Watchdog(process.pid, clock)
            for _ in range(2):
                check(watchdog, clock, STALL_SECONDS - 2 * CHECK_INTERVAL)
                assert process.stdout is not None
                process.stdout.readline()
                check(watchdog, clock, CHECK_INTERVAL)
        finally:
            process.kill()


def test_process_that_waits_for_input_is_not_stalled(sleeper: subprocess.Popen[bytes]) -> None:
    clock = Clock()
    watchdog = Watchdog(sleeper.pid, clock)
    for _ in range(200):
        clock.now += CHECK_INTERVAL
        watchdog.check(0.0, waiting=True)
    check(watchdog, clock, STALL_SECONDS - 2 * CHECK_INTERVAL)  # counted from the end of the wait


def test_hours_without_a_check_count_as_one_interval(sleeper: subprocess.Popen[bytes]) -> None:
    clock = Clock()
    watchdog = Watchdog(sleeper.pid, clock)
    check(watchdog, clock, 20 * 3600, step=3600)


def test_ended_process_is_not_stalled() -> None:
    clock = Clock()
    with subprocess.Popen(["true"]) as process:
        pass
    check(Watchdog(process.pid, clock), clock, 2 * STALL_SECONDS)


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize("options", [Options(), Options(fade_out=1.0)], ids=["encoding", "measuring"])
def test_stalled_ffmpeg_is_retried(options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functions.convert.sandbox.watchdog.CHECK_INTERVAL", 0.0)
    monkeypatch.setattr("functions.convert.sandbox.watchdog.STALL_SECONDS", 0.0)
    monkeypatch.setattr("functions.convert.sandbox.watchdog.MIN_CPU_SECONDS", 1e9)
    script = '[ "$*" = -version ] && exit\necho out_time_us=1\nexec sleep 1000'
    sleeper = shell_program(tmp_path / "ffmpeg", script)
    # Its container does not declare a length, so that it is measured before the fade.
    video = clips.clip(tmp_path / "a.aac", "-vn", "-c:a", "aac", seconds=3)
    with video.open("rb") as source, pytest.raises(EncoderKilled, match="stalled"):
        pipeline.to_mp3(
            source,
            io.BytesIO(),
            pipeline.Settings(options=options, filename="a.aac", encoders=2, ffmpeg=sleeper),
            directory=tmp_path,
            on_progress=lambda _: None,
        )
