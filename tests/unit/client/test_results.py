"""What the client prints for scripts, and when."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from client.cli import mp3burst
from client.convert import Converter, Task, _Uploaded
from client.errors import NotLoggedIn


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
