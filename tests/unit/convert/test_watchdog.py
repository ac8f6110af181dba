"""An ffmpeg that does nothing any more is ended; one that waits, or a machine that was halted, is not taken for it."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from functions.convert import pipeline
from functions.convert.errors import EncoderKilled
from functions.convert.sandbox import watchdog
from functions.convert.sandbox.watchdog import CHECK_INTERVAL, STALL_SECONDS, Watchdog
from functions.options import Options
from tests.support import clips
from tests.support.processes import shell_program

pytestmark = pytest.mark.timeout(60)


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def asleep() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def looks(watch: Watchdog, clock: Clock, seconds: float, step: float = CHECK_INTERVAL, done: float = 0.0) -> None:
    for _ in range(round(seconds / step)):
        clock.now += step
        watch.check(done)


def test_a_process_that_sleeps_is_noticed(asleep: subprocess.Popen[bytes]) -> None:
    clock = Clock()
    watch = Watchdog(asleep.pid, clock)
    looks(watch, clock, STALL_SECONDS)
    with pytest.raises(EncoderKilled, match="stalled"):
        looks(watch, clock, 2 * CHECK_INTERVAL)


def test_one_that_gets_on_is_not(asleep: subprocess.Popen[bytes]) -> None:
    clock = Clock()
    watch = Watchdog(asleep.pid, clock)
    for done in range(10):
        looks(watch, clock, STALL_SECONDS / 2, done=done)


def test_one_that_computes_is_not() -> None:
    clock = Clock()
    # It says a line for each second and a half of its CPU time.
    work = "import time\nn = 1.5\nwhile True:\n if time.process_time() > n: print(n, flush=True); n += 1.5"
    with subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE) as process:
        try:
            watch = Watchdog(process.pid, clock)
            for _ in range(2):
                looks(watch, clock, STALL_SECONDS - 2 * CHECK_INTERVAL)
                assert process.stdout is not None
                process.stdout.readline()
                looks(watch, clock, CHECK_INTERVAL)
        finally:
            process.kill()


def test_one_that_may_have_to_wait_is_not(asleep: subprocess.Popen[bytes]) -> None:
    clock = Clock()
    watch = Watchdog(asleep.pid, clock)
    for _ in range(200):
        clock.now += CHECK_INTERVAL
        watch.check(0.0, waiting=True)
    looks(watch, clock, STALL_SECONDS - 2 * CHECK_INTERVAL)  # from when it need not


def test_hours_in_which_nobody_looked_count_for_one_look(asleep: subprocess.Popen[bytes]) -> None:
    clock = Clock()
    watch = Watchdog(asleep.pid, clock)
    looks(watch, clock, 20 * 3600, step=3600)


def test_one_that_is_over_is_not() -> None:
    clock = Clock()
    with subprocess.Popen(["true"]) as process:
        pass
    looks(Watchdog(process.pid, clock), clock, 2 * STALL_SECONDS)


@pytest.mark.parametrize("options", [Options(), Options(fade_out=1.0)], ids=["encoding", "measuring"])
def test_an_ffmpeg_that_sleeps_is_to_be_tried_again(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "CHECK_INTERVAL", 0.0)
    monkeypatch.setattr(watchdog, "STALL_SECONDS", 0.0)
    monkeypatch.setattr(watchdog, "MIN_CPU_SECONDS", 1e9)
    script = '[ "$*" = -version ] && exit\necho out_time_us=1\nexec sleep 1000'
    sleeper = shell_program(tmp_path / "ffmpeg", script)
    # Its container says nothing of its length, so that it is measured before it fades.
    video = clips.clip(tmp_path / "a.aac", "-vn", "-c:a", "aac", seconds=3)
    with video.open("rb") as source, pytest.raises(EncoderKilled, match="stalled"):
        pipeline.to_mp3(
            source,
            io.BytesIO(),
            options,
            filename="a.aac",
            directory=tmp_path,
            encoders=2,
            on_progress=lambda _: None,
            ffmpeg=sleeper,
        )
