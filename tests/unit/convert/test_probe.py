"""A file that libav does not know is described by ffmpeg."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from functions.convert.errors import EncoderKilled
from functions.convert.ffmpeg import probe
from tests.support import clips


def test_killed_ffmpeg_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(process: subprocess.Popen[bytes], _: Callable[[], None]) -> bool:
        process.kill()
        process.wait()
        return True

    monkeypatch.setattr(probe, "_wait", kill)
    video = clips.clip(tmp_path / "a.wav", seconds=1)
    with pytest.raises(EncoderKilled):
        probe.identify(clips.ffmpeg(), video, 0, lambda: None)


def test_text_is_not_described(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("This is not music.\n" * 100)
    assert probe.identify(clips.ffmpeg(), text, 0, lambda: None) is None
