"""Zip files that are streamed: their size is known before, and every program can read them."""

import io
import subprocess
import zipfile
from pathlib import Path

import pytest

from functions.download.archive import Entry, size_of, stream

TIME = (2026, 11, 26, 12, 30, 0)


def entry(name: str, *chunks: bytes) -> Entry:
    return Entry(name, sum(map(len, chunks)), TIME, lambda: chunks)


ENTRIES = [
    entry("account.json", b"{}"),
    entry("empty", b""),
    entry("mp3s/Größe ☃.mp3", b"a" * 70_000, b"b" * 10),
    *(entry(f"videos/{n}", bytes(n)) for n in range(50)),
]


def test_size_is_known_before_and_every_file_is_there(tmp_path: Path) -> None:
    archive = b"".join(stream(ENTRIES))
    assert len(archive) == size_of(ENTRIES)
    with zipfile.ZipFile(io.BytesIO(archive)) as read:
        assert read.testzip() is None
        assert [info.filename for info in read.infolist()] == [each.name for each in ENTRIES]
        assert read.read("mp3s/Größe ☃.mp3") == b"a" * 70_000 + b"b" * 10
        assert read.infolist()[0].date_time == TIME
    (tmp_path / "a.zip").write_bytes(archive)
    listed = subprocess.run(["python3", "-m", "zipfile", "-t", tmp_path / "a.zip"], capture_output=True, text=True)
    assert "Done testing" in listed.stdout


@pytest.mark.parametrize("limit", [1, 300, 2_000, 5_000, 60_000, 75_000])
def test_size_of_a_large_archive(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 4 GB were so few bytes."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    assert len(b"".join(stream(ENTRIES))) == size_of(ENTRIES)


def test_size_of_an_archive_of_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 10)
    assert len(b"".join(stream(ENTRIES))) == size_of(ENTRIES)


def test_nothing_is_read_ahead() -> None:
    read = []

    def noting(n: int) -> list[bytes]:
        read.append(n)
        return [b"x" * 1000]

    chunks = stream([Entry(str(n), 1000, TIME, lambda n=n: noting(n)) for n in range(3)])  # type: ignore[misc]
    while read != [0, 1]:
        assert len(next(chunks)) < 1200
    chunks.close()
    assert read == [0, 1]


def test_no_files() -> None:
    assert len(b"".join(stream([]))) == size_of([]) == 22
