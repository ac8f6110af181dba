"""Tests scripts/demo as a user runs it, with its platform: no process is left behind, however it ends."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.processes import descendants, is_alive, wait_for
from tests.support.servers import free_port

SCRIPT = ROOT / "scripts" / "demo.py"
_SERVERS = {
    "DATABASE_URL": "postgresql://127.0.0.1:9/mp3burst",
    "MONGO_URI": "mongodb://127.0.0.1:9/videos?serverSelectionTimeoutMS=100",
    "AMQP_URL": "amqp://127.0.0.1:9",
    "SMTP_HOST": "127.0.0.1",
}


@pytest.fixture
def demo(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Runs the demo with its own platform, both logging to the test's directory; other servers are set."""
    command = [sys.executable, str(SCRIPT), "--data", str(tmp_path / "da ta"), "--port", str(free_port())]
    # nohup, for example, ignores SIGHUP, and a child inherits that.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    with (
        (tmp_path / "demo.log").open("w") as log,
        subprocess.Popen(
            command,
            env={**os.environ, **_SERVERS},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        yield process
        for pid in [*descendants(process.pid), process.pid]:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def read_to(process: "subprocess.Popen[str]", text: str) -> str:
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if text in line:
            return read
    raise AssertionError(f"{text!r} was not printed: {read}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_job_stops_the_platform_too(
    demo: "subprocess.Popen[str]", tmp_path: Path, number: signal.Signals
) -> None:
    read_to(demo, "mp3burst is ready")
    processes = descendants(demo.pid)
    demo.send_signal(number)
    try:
        assert demo.wait(60) == 130
        wait_for(lambda: not any(map(is_alive, processes)), "the end of the platform")
    finally:
        for pid in filter(is_alive, processes):
            os.kill(pid, signal.SIGKILL)
    assert (tmp_path / "demo.log").read_text() == ""


def test_commands_can_be_typed_and_a_second_interrupt_is_handled(demo: "subprocess.Popen[str]", tmp_path: Path) -> None:
    data = tmp_path / "da ta"
    output = read_to(demo, "is running on")
    assert f"--data '{data}'" in output
    assert f"-F 'file=@{data / 'demo.mp4'}'" in output
    assert 'curl -X POST "http://localhost' in output
    assert "Subject: Confirm your address" in output
    assert "Subject: Your MP3 is ready" in output
    assert re.search("log in as demo-.*@example.org with the password .{16}\n", output)
    processes = descendants(demo.pid)
    demo.send_signal(signal.SIGINT)
    demo.send_signal(signal.SIGINT)
    assert demo.wait(60) == 0
    assert not any(map(is_alive, processes))
    assert (tmp_path / "demo.log").read_text() == ""


def test_a_directory_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, str(SCRIPT), "--data", str(tmp_path / "file"), "--port", str(free_port())]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith(f"Cannot write to {tmp_path / 'file'} ")
