"""The temporary directories of conversions that were killed."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from functions.convert.workspace import workspace
from tests.support.kill_points import forked, outcome
from tests.support.processes import wait_for


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def work_for_ever() -> None:
    with workspace() as directory:
        (directory / "track").touch()
        signal.pause()


def test_what_a_killed_conversion_left_is_deleted_by_the_next_and_what_a_living_one_has_is_not(place: Path) -> None:
    (place / "mp3burst-convert-link").symlink_to(place.parent)
    killed, living = (forked(work_for_ever, place.parent) for _ in range(2))
    try:
        wait_for(lambda: len(list(place.glob("*-convert-*/track"))) == 2, "both to work")
        os.kill(killed, signal.SIGKILL)
        assert outcome(killed) == -signal.SIGKILL
        with workspace() as directory:
            assert len(list(place.glob("*-convert-*/track"))) == 1
            assert os.waitpid(living, os.WNOHANG) == (0, 0)
            assert directory.stat().st_mode & 0o777 == 0o700
        assert not directory.exists()
    finally:
        os.kill(living, signal.SIGKILL)
        outcome(living)
    with workspace() as directory:
        assert {path.name for path in place.iterdir()} == {directory.name, "mp3burst-convert-link"}
    assert place.parent.exists()


def test_an_exception_leaves_nothing(place: Path) -> None:
    with pytest.raises(RuntimeError), workspace() as directory:
        (directory / "track").touch()
        raise RuntimeError
    assert list(place.iterdir()) == []
