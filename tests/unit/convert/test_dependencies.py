"""Which ffmpeg is taken, what is said of one that cannot be, and how many of it work at once."""

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


def test_none_is_none() -> None:
    assert configured_ffmpeg({}) is None
    assert configured_ffmpeg({"FFMPEG": ""}) is None


def test_the_one_that_came_along_is_good_enough() -> None:
    assert configured_ffmpeg({"FFMPEG": clips.ffmpeg()}) == clips.ffmpeg()


def test_one_that_is_not_there_is_said_so() -> None:
    with pytest.raises(BadSetting, match="no such program"):
        configured_ffmpeg({"FFMPEG": "/nowhere/ffmpeg"})


def test_one_that_is_too_old_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="no fd protocol"):
        configured_ffmpeg({"FFMPEG": program(tmp_path / "old", "file pipe")})
    assert configured_ffmpeg({"FFMPEG": program(tmp_path / "new", "file fd pipe")}) == str(tmp_path / "new")


@pytest.mark.parametrize(("seconds", "encoders"), [(0.0, 1), (20.0, 1), (59.0, 2), (600.0, 4)])
def test_a_short_clip_leaves_the_cores_to_others(seconds: float, encoders: int) -> None:
    stores = {name: MagicMock() for name in ("media", "blobs", "jobs", "joins", "pieces", "outbox")}
    assert Dependencies(**stores, encoders=4).encoders_for(seconds) == encoders


@pytest.mark.parametrize("text", ["0", "-1", "257", "1000000000", "inf", "nan", "two"])
def test_a_number_of_encoders_that_is_none_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
