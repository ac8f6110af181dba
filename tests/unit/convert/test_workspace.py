"""The temporary directories of conversions, killed ones included."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from functions.convert.workspace import workspace
from tests.support.kill_points import exit_status, fork
from tests.support.processes import wait_for


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def work_forever() -> None:
    with workspace() as directory:
        (directory / "track").touch()
        signal.pause()


def test_next_conversion_deletes_only_directories_of_killed_ones(temporary: Path) -> None:
    (temporary / "mp3burst-convert-link").symlink_to(temporary.parent)
    killed, running = (fork(work_forever, temporary.parent) for _ in range(2))
    try:
        wait_for(lambda: len(list(temporary.glob("*-convert-*/track"))) == 2, "both to work")
        os.kill(killed, signal.SIGKILL)
        assert exit_status(killed) == -signal.SIGKILL
        with workspace() as directory:
            assert len(list(temporary.glob("*-convert-*/track"))) == 1
            assert os.waitpid(running, os.WNOHANG) == (0, 0)
            assert directory.stat().st_mode & 0o777 == 0o700
        assert not directory.exists()
    finally:
        os.kill(running, signal.SIGKILL)
        exit_status(running)
    with workspace() as directory:
        assert {path.name for path in temporary.iterdir()} == {directory.name, "mp3burst-convert-link"}
    assert temporary.parent.exists()


def test_exception_leaves_nothing_behind(temporary: Path) -> None:
    with pytest.raises(RuntimeError), workspace() as directory:
        (directory / "track").touch()
        raise RuntimeError
    assert list(temporary.iterdir()) == []
