"""Zip files that are streamed from any byte on: their size is known before, and every program can read them."""

import io
import random
import subprocess
import zipfile
import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from functions.download import archive
from functions.download.archive import Archive, Entry

TIME = (2026, 11, 26, 12, 30, 0)
KNOWN = pytest.mark.parametrize("is_known", [True, False], ids=["checksums known", "unknown"])


def entry(name: str, content: bytes, is_known: bool) -> Entry:
    def read(first: int, last: int) -> Iterable[bytes]:
        for start in range(first, last, 50_000):
            yield content[start : min(start + 50_000, last)]

    return Entry(name, len(content), TIME, read, zlib.crc32(content) if is_known else None)


def entries(is_known: bool) -> list[Entry]:
    contents = {
        "account.json": b"{}",
        "empty": b"",
        "mp3s/Größe ☃.mp3": b"a" * 70_000 + b"b" * 10,
        **{f"videos/{n}": bytes(n) for n in range(50)},
    }
    return [entry(name, content, is_known) for name, content in contents.items()]


def assert_readable(content: bytes, files: list[Entry]) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as read:
        assert read.testzip() is None
        assert [info.filename for info in read.infolist()] == [each.name for each in files]
        for each in files:
            assert read.read(each.name) == b"".join(each.read(0, each.size))
        assert {info.date_time for info in read.infolist()} == {TIME}


@KNOWN
def test_size_is_known_before_and_every_file_is_there(tmp_path: Path, is_known: bool) -> None:
    files = entries(is_known)
    content = b"".join(Archive(files).stream())
    assert len(content) == Archive(files).size
    assert_readable(content, files)
    (tmp_path / "a.zip").write_bytes(content)
    listed = subprocess.run(["python3", "-m", "zipfile", "-t", tmp_path / "a.zip"], capture_output=True, text=True)
    assert "Done testing" in listed.stdout


@KNOWN
def test_any_range_is_that_of_the_whole(is_known: bool) -> None:
    files = entries(is_known)
    content = b"".join(Archive(files).stream())
    size = len(content)
    draw = random.Random(7)  # noqa: S311 - the same ranges in each run
    drawn = [sorted((draw.randrange(size + 1), draw.randrange(size + 1))) for _ in range(200)]
    for start, stop in [(0, 1), (size - 1, size), (size, size), (0, size + 9), *drawn]:
        assert b"".join(Archive(files).stream(start, stop)) == content[start:stop], (start, stop)


@KNOWN
@pytest.mark.parametrize("limit", [1, 300, 2_000, 5_000, 60_000, 75_000])
def test_large_archive(limit: int, is_known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 4 GB were so few bytes."""
    monkeypatch.setattr(archive, "_MAX_LONG", limit)
    files = entries(is_known)
    content = b"".join(Archive(files).stream())
    assert len(content) == Archive(files).size
    assert_readable(content, files)


def test_archive_of_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MAX_SHORT", 10)
    files = entries(is_known=True)
    assert_readable(b"".join(Archive(files).stream()), files)


class Noting:
    """Makes files of 1,000 bytes and notes which of their bytes are read."""

    def __init__(self) -> None:
        self.read: list[tuple[int, int, int]] = []

    def entry(self, n: int, crc32: int | None) -> Entry:
        return Entry(str(n), 1000, TIME, partial(self._read, n), crc32)

    def _read(self, n: int, first: int, last: int) -> list[bytes]:
        self.read.append((n, first, last))
        return [b"x" * (last - first)]


def test_resuming_reads_only_what_is_left() -> None:
    noting = Noting()
    whole = Archive([noting.entry(n, zlib.crc32(b"x" * 1000)) for n in range(4)])
    head = 30 + 1
    for _ in whole.stream(2 * (head + 1000) + head + 400):
        pass
    assert noting.read == [(2, 400, 1000), (3, 0, 1000)]


def test_nothing_is_read_ahead() -> None:
    noting = Noting()
    chunks = Archive([noting.entry(n, None) for n in range(3)]).stream()
    while len(noting.read) < 2:
        assert len(next(chunks)) < 1200
    chunks.close()
    assert noting.read == [(0, 0, 1000), (1, 0, 1000)]


def test_no_files() -> None:
    assert len(b"".join(Archive([]).stream())) == Archive([]).size == 22
