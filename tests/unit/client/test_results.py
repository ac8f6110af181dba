"""What the client prints for scripts, and when."""

import contextlib
import json
import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from client.cli import mp3burst
from client.convert import Converter, Task, _Uploaded
from client.errors import NotLoggedIn
from tests.support.paths import ROOT
from tests.support.processes import wait_for


@pytest.mark.parametrize("has_bars", [False, True], ids=["lines", "bars"])
def test_result_of_a_file_is_printed_before_the_next_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_bars: bool
) -> None:
    """And although the next one ends the command; the terminal's bars do not get it."""

    def upload(_: Converter, task: Task) -> _Uploaded:
        return _Uploaded(task, job="1" * 32) if task.video == first else _Uploaded(task, error=NotLoggedIn("Log in."))

    first, second = tmp_path / "a.wav", tmp_path / "b.wav"
    for video in (first, second):
        video.write_bytes(b"sound")
    monkeypatch.setattr(Converter, "_upload", upload)
    environ = {
        "MP3BURST_URL": "http://localhost:1",
        "MP3BURST_KEY": "x",
        "XDG_STATE_HOME": str(tmp_path),
        **({"TTY_COMPATIBLE": "1"} if has_bars else {}),
    }

    result = CliRunner().invoke(mp3burst, ["convert", "--no-wait", "--json", str(first), str(second)], env=environ)

    assert result.exit_code == NotLoggedIn.exit_status
    [line] = result.stdout.splitlines()
    assert (json.loads(line)["file"], json.loads(line)["status"]) == (str(first), "uploaded")


def test_interrupted_prompt_ends_with_the_status_of_an_interruption(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        environ = {"PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which whoever runs the tests may ignore
        os.execve(sys.executable, [sys.executable, "-m", "client", "login", "http://localhost:1"], environ)  # noqa: S606
    ended: list[int] = []

    def has_ended() -> bool:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            ended.append(os.waitstatus_to_exitcode(status))
        return bool(pid)

    try:
        shown = b""
        while not shown.endswith(b"Username: "):
            assert select.select([terminal], [], [], 30)[0], shown
            shown += os.read(terminal, 1000)
        deadline = time.monotonic() + 60
        # The first one may arrive between the prompt and the read, which Python does not notice: it is typed again.
        while not ended and time.monotonic() < deadline:
            os.write(terminal, b"\x03")
            with contextlib.suppress(AssertionError):
                wait_for(has_ended, "the command to end", 3)
    finally:
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(terminal)
    assert ended == [130]


def test_end_of_the_input_at_a_prompt_is_a_failure(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert CliRunner().invoke(mp3burst, ["login", "http://localhost:1"], env=environ).exit_code == 1
