"""Programs that compute for long run at a lower priority, with all their threads; short ones do not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from functions.convert.sandbox.priority import NICE, SHORT_SECONDS, lower_if_long
from functions.convert.sandbox.watchdog import cpu_seconds
from tests.support.processes import wait_for

_BUSY = "import threading\ndef work():\n    while True: pass\nthreading.Thread(target=work).start()\nwork()"


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A program whose two threads compute."""
    with subprocess.Popen([sys.executable, "-c", _BUSY]) as process:
        yield process
        process.kill()


def priorities(pid: int) -> list[int]:
    return [os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()]


def test_every_thread_of_a_long_program_gets_a_lower_priority(busy: subprocess.Popen[bytes]) -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)

    def is_long() -> bool:
        lower_if_long(busy.pid)
        return (cpu_seconds(busy.pid) or 0.0) >= SHORT_SECONDS

    lower_if_long(busy.pid)
    assert set(priorities(busy.pid)) == {usual}
    wait_for(is_long, "the program to compute")
    lower_if_long(busy.pid)
    assert priorities(busy.pid) == [NICE, NICE]


def test_idle_program_keeps_its_priority() -> None:
    with subprocess.Popen(["sleep", "1000"]) as idle:
        lower_if_long(idle.pid)
        assert priorities(idle.pid) == [os.getpriority(os.PRIO_PROCESS, 0)]
        idle.kill()


def test_program_that_has_ended_is_no_error() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
        lower_if_long(ended.pid)
