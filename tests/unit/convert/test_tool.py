"""The command-line tool: its error messages, and the files that it leaves behind."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from functions.convert.__main__ import main
from tests.support import clips
from tests.support.processes import shell_program, wait_for


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([".", "-o", "out.mp3"], "Is a directory"),
        (["."], "Is a directory"),
        ([""], "Is a directory"),
        (["/"], "Is a directory"),
        (["a.wav", "-o", "a.wav"], "is the video itself"),
        (["a.wav", "-o", "."], "is not a file: name a file with -o."),
        (["a.wav", "-o", "pipe"], "pipe is not a file: name a file with -o."),
        (
            ["a.wav", "-o", "nowhere/out.mp3"],
            "directory nowhere does not exist: create it, or name another file with -o.",
        ),
        (["a.wav", "-o", "/proc/out.mp3"], "The directory /proc is not writable (No such file or directory): name "),
        (["a.wav", "-o", "-"], "The MP3 cannot be written to standard output: name a file with -o."),
        (["a.wav", "--volume", "-99dB"], "volume must be decibels from -30 to 30"),
        (["none.wav"], "none.wav: No such file or directory."),
        (["a.wav", "--bitrate", "9" * 64], "bitrate must be one of"),
        (["a.wav", "--bitrate", "9" * 5000], "bitrate is too long: use at most 64 characters."),
    ],
)
def test_wrong_command_line_is_explained_and_changes_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    clips.clip(tmp_path / "a.wav", seconds=0.2)
    os.mkfifo("pipe")
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.wav", "pipe"]
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)


@pytest.mark.usefixtures("unconfined")
def test_full_disk_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = "echo fd\necho '[fd] [error] Error writing: No space left on device' >&2\nexit 228"
    monkeypatch.setenv("FFMPEG", shell_program(tmp_path / "ffmpeg", script))
    assert main([str(clips.clip(tmp_path / "a.wav", seconds=0.2))]) == 1
    assert f"Temporary storage is full: free space in {tmp_path} and try again." in capsys.readouterr().err


@pytest.mark.parametrize("name", [b"-x.wav", b"caf\xe9.wav", "日本 😀 'q'.wav".encode(), b".wav"])
def test_file_may_have_any_name(name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clips.clip(tmp_path / "a.wav", seconds=0.2).rename(os.fsdecode(name))
    assert main(["--", os.fsdecode(name)]) == 0
    (mp3,) = tmp_path.glob("*.mp3")
    assert mp3.stem == Path(os.fsdecode(name)).stem
    assert clips.samples(mp3, 48000, 2) == 9600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_stopped_tool_leaves_no_file(number: signal.Signals, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.flac", sound=clips.SILENCE, seconds=300)
    command = [sys.executable, "-m", "functions.convert", str(video)]
    before = signal.signal(number, signal.default_int_handler)  # a shell starts background jobs with SIGINT ignored
    try:
        tool = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    finally:
        signal.signal(number, before)
    track = ".mp3burst-*/convert-*/track"
    wait_for(lambda: list(tmp_path.glob(track)) or tool.poll() is not None, "the track")
    assert tool.poll() is None
    tool.send_signal(number)
    assert tool.wait(30) == 128 + number
    assert list(tmp_path.iterdir()) == [video]


@pytest.mark.parametrize("encoders", ["0", "-1", "1000000000", "9" * 5000, "two"])
def test_invalid_number_of_encoders_is_refused(encoders: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["a.wav", f"--encoders={encoders}"])
    assert caught.value.code == 2
    assert "must be a number from 1 to 256" in capsys.readouterr().err
