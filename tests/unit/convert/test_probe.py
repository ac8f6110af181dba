"""A file that libav does not know is described by ffmpeg."""

from pathlib import Path

import pytest

from functions.convert.errors import EncoderKilled, TemporaryStorageFull
from functions.convert.ffmpeg import probe
from tests.support import clips
from tests.support.processes import shell_program


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize(
    ("script", "error", "sentence"),
    [
        ("kill -9 $$", EncoderKilled, "was killed"),
        ("echo '[error] No space left on device' >&2; exit 228", TemporaryStorageFull, "storage is full"),
    ],
    ids=["killed", "full"],
)
def test_failure_that_says_nothing_about_the_file_is_retried(
    script: str, error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    video = clips.clip(tmp_path / "a.wav", seconds=1)
    with pytest.raises(error, match=sentence):
        probe.identify(shell_program(tmp_path / "ffmpeg", script), video, 0, lambda: None)


@pytest.mark.usefixtures("unconfined")
def test_stalled_ffmpeg_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functions.convert.sandbox.watchdog.CHECK_INTERVAL", 0.0)
    monkeypatch.setattr("functions.convert.sandbox.watchdog.STALL_SECONDS", 0.0)
    monkeypatch.setattr("functions.convert.sandbox.watchdog.MIN_CPU_SECONDS", 1e9)
    video = clips.clip(tmp_path / "a.wav", seconds=1)
    with pytest.raises(EncoderKilled, match="stalled"):
        probe.identify(shell_program(tmp_path / "ffmpeg", "exec sleep 1000"), video, 0, lambda: None)


def test_text_is_not_described(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("This is not music.\n" * 100)
    assert probe.identify(clips.ffmpeg(), text, 0, lambda: None) is None
