"""Tests which permissions the platform takes away in its data directory."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import private
from infra.local.private import NotPrivate, make_private


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that is open to all, as an earlier version left it."""
    for name in ("mp3burst.db", "mp3burst.db-wal", "keys/link", "media/videos/aa/b", "mail/a.eml"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "data"


def open_to_others(folder: Path) -> set[str]:
    found = [folder, *folder.rglob("*")]
    return {path.name for path in found if not path.is_symlink() and path.stat().st_mode & 0o077}


def test_everything_is_closed(data: Path) -> None:
    make_private(data)
    assert open_to_others(data) == set()
    (data / "later").touch()
    assert open_to_others(data) == set()


def test_files_of_others_are_left_alone(data: Path, tmp_path: Path) -> None:
    """The directory may be a home directory, or have links to elsewhere."""
    (data / "letter.txt").touch()
    (tmp_path / "elsewhere").touch()
    (tmp_path / "folder").mkdir()
    (data / "mail/link").symlink_to(tmp_path / "elsewhere")
    (data / "demo").symlink_to(tmp_path / "folder")
    make_private(data)
    assert open_to_others(data) == {"data", "letter.txt"}
    assert open_to_others(tmp_path) >= {"elsewhere", "folder"}


def test_interrupted_change_is_finished_by_the_next(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(
            private, "_close", lambda path: (_ for _ in ()).throw(KeyboardInterrupt) if path.suffix else None
        )
        with pytest.raises(KeyboardInterrupt):
            make_private(data)
    make_private(data)
    assert open_to_others(data) == set()


def test_file_of_another_user_is_an_error(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(NotPrivate, match="belongs to another user"):
        make_private(data)
