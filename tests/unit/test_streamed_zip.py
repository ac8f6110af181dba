"""Zip files of files that are not known before: nothing is read ahead, and every program can read them."""

import io
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from functions.download.streamed_zip import Entry, safe_name, stream

TIME = (2026, 11, 26, 12, 30, 0)


def entry(name: str, *chunks: bytes) -> Entry:
    return Entry(name, TIME, chunks)


ENTRIES = [
    entry("account.json", b"{}"),
    entry("empty", b""),
    entry("mp3s/Größe ☃.mp3", b"a" * 70_000, b"b" * 10),
    *(entry(f"videos/{n}", bytes(n)) for n in range(50)),
]


def test_every_file_is_there(tmp_path: Path) -> None:
    archive = b"".join(stream(ENTRIES))
    with zipfile.ZipFile(io.BytesIO(archive)) as read:
        assert read.testzip() is None
        assert [info.filename for info in read.infolist()] == [each.name for each in ENTRIES]
        assert read.read("mp3s/Größe ☃.mp3") == b"a" * 70_000 + b"b" * 10
        assert read.infolist()[0].date_time == TIME
    (tmp_path / "a.zip").write_bytes(archive)
    listed = subprocess.run(["python3", "-m", "zipfile", "-t", tmp_path / "a.zip"], capture_output=True, text=True)
    assert "Done testing" in listed.stdout


def test_archive_of_many_and_large_files_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 4 GB were 60 kB, and 65,535 files ten."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 60_000)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 10)
    with zipfile.ZipFile(io.BytesIO(b"".join(stream(ENTRIES)))) as read:
        assert read.testzip() is None
        assert len(read.namelist()) == len(ENTRIES)


def test_nothing_is_read_ahead() -> None:
    read = []

    def noting() -> Iterator[Entry]:
        for n in range(3):
            read.append(n)
            yield Entry(str(n), TIME, [b"x" * 1000])

    chunks = stream(noting())
    while read != [0, 1]:
        assert len(next(chunks)) < 1200
    chunks.close()
    assert read == [0, 1]


def test_no_files() -> None:
    assert len(b"".join(stream([]))) == 22


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Grüße ☃.mp3", "Grüße ☃.mp3"),
        ("a\0b.mp4", "a_b.mp4"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ('a:b*c?d"e<f>g|h\\i.mp4', "a_b_c_d_e_f_g_h_i.mp4"),
        ("a\r\nb\u2028c\udc80.mp4", "a__b_c_.mp4"),
        ("a\u202egpj.mp4", "a_gpj.mp4"),
        ("name. . ", "name"),
        ("a" * 300 + ".mp4", "a" * 196 + ".mp4"),
        ("ü" * 300, "ü" * 100),
        ("." + "b" * 300, "." + "b" * 199),
        ("a." + "ü" * 300, "ü" * 100),
    ],
)
def test_names_are_such_that_every_system_can_have(name: str, safe: str) -> None:
    assert safe_name(name) == safe
