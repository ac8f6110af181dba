"""Which ffmpeg is used, why one is rejected, and how many encoders run at once."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest

from functions.convert.dependencies import Dependencies, dependencies
from functions.convert.ffmpeg.binary import configured_ffmpeg
from functions.settings import BadSetting
from tests.support import clips
from tests.support.processes import shell_program


def program(path: Path, protocols: str) -> str:
    return shell_program(path, f"echo 'Input: {protocols}'")


def test_no_setting_means_no_program() -> None:
    assert configured_ffmpeg({}) is None
    assert configured_ffmpeg({"FFMPEG": ""}) is None


def test_bundled_ffmpeg_is_accepted() -> None:
    assert configured_ffmpeg({"FFMPEG": clips.ffmpeg()}) == clips.ffmpeg()


def test_missing_program_is_rejected() -> None:
    with pytest.raises(BadSetting, match="no such program"):
        configured_ffmpeg({"FFMPEG": "/nowhere/ffmpeg"})


@pytest.mark.usefixtures("unconfined")
def test_old_program_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="no fd protocol"):
        configured_ffmpeg({"FFMPEG": program(tmp_path / "old", "file pipe")})
    new = {"FFMPEG": program(tmp_path / "new", "file fd pipe"), "SANDBOX": "off"}
    assert configured_ffmpeg(new) == str(tmp_path / "new")


def test_program_that_does_not_start_in_the_sandbox_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="does not start in the sandbox"):
        configured_ffmpeg({"FFMPEG": program(tmp_path / "script", "file fd pipe")})


@pytest.mark.parametrize(("seconds", "encoders"), [(0.0, 1), (20.0, 1), (59.0, 2), (600.0, 4)])
def test_short_clips_get_fewer_encoders(seconds: float, encoders: int) -> None:
    stores = {name: MagicMock() for name in ("media", "blobs", "jobs", "joins", "pieces", "outbox")}
    assert Dependencies(**stores, encoders=4).encoders_for(seconds) == encoders


@pytest.mark.parametrize("text", ["0", "-1", "257", "1000000000", "inf", "nan", "two"])
def test_invalid_number_of_encoders_is_rejected(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ENCODERS": text,
        "DATABASE_URL": f"sqlite:///{tmp_path}/db",
        "MEDIA_DIR": str(tmp_path),
        "K_SINK": "http://localhost:1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting, match=r"ENCODERS is .*: it must be a number from 1 to 256"):
        dependencies.__wrapped__()
    monkeypatch.setenv("ENCODERS", "256")
    assert dependencies.__wrapped__().encoders == 256
