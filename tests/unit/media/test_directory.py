"""Behavior specific to the directory store: permissions, a full disk, files over 4 GB, damaged stat.json."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from functions.media import BlobCorrupt, BlobNotFound, Description, MediaUnavailable, connect, new_blob_id
from functions.media.directory import DirectoryStore
from functions.settings import BadSetting
from tests.support.paths import ROOT

A = Description("owner", "job", "a.mp4", "video/mp4")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB; skips the test if this machine does not allow mounting one."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(tmp_path)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def put(store: DirectoryStore, content: bytes) -> str:
    blob = new_blob_id()
    with store.create(blob, A) as writer:
        writer.write(content)
    return blob


def test_a_full_disk_raises_unavailable_and_leaves_nothing_behind(small_disk: Path) -> None:
    store = DirectoryStore(small_disk / "videos")
    earlier = put(store, bytes(1 << 20))
    blob = new_blob_id()
    with pytest.raises(MediaUnavailable, match="no space"), store.create(blob, A) as writer:
        for _ in range(20):
            writer.write(bytes(1 << 20))
    assert not list(small_disk.glob(f"videos/*/{blob}*"))
    put(store, bytes(6 << 20))  # the space is free again
    with store.open(earlier) as reader:
        assert reader.read() == bytes(1 << 20)


def test_a_disk_that_fills_up_at_the_end_leaves_nothing_behind(small_disk: Path) -> None:
    store = DirectoryStore(small_disk / "videos")
    (small_disk / "videos").mkdir()
    blob = new_blob_id()
    with pytest.raises(MediaUnavailable, match="no space"), store.create(blob, A) as writer:
        writer.write(bytes(100_000))  # still in the writer's buffer
        with pytest.raises(OSError, match="No space"):
            (small_disk / "filler").write_bytes(bytes(9 << 20))
    assert not list(small_disk.glob(f"videos/*/{blob}*"))


def test_a_blob_is_not_finished_after_an_ignored_write_error(tmp_path: Path) -> None:
    # A limit on file sizes needs no privileges, but it affects the whole process: hence a child.
    code = """
import resource, sys
from functions.media.directory import DirectoryStore
from functions.media import Description, MediaUnavailable
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
try:
    with DirectoryStore(sys.argv[1]).create("ab" * 12, Description("", "", "", "")) as writer:
        for _ in range(5):
            try:
                writer.write(bytes(1 << 20))
            except MediaUnavailable:
                print("full")
except MediaUnavailable:
    print("unavailable")
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    environ = {"PYTHONPATH": str(ROOT)}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout
    assert output.split() == ["full", "full", "unavailable"]
    assert not list(tmp_path.glob("*/*"))


def test_only_the_owner_has_access(tmp_path: Path) -> None:
    put(DirectoryStore(tmp_path / "media" / "videos"), b"content")
    for path in (tmp_path / "media").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "media").stat().st_mode & 0o777 == 0o700


def test_a_file_over_4_gb_is_read_at_any_offset(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    blob = put(store, b"begin")
    directory = tmp_path / blob[:2] / blob
    size = 5 << 30
    with (directory / "bytes").open("r+b") as file:
        file.seek(size - 3)
        file.write(b"end")
    stat = json.loads((directory / "stat.json").read_text())
    (directory / "stat.json").write_text(json.dumps({**stat, "size": size}))
    with store.open(blob) as reader:
        assert reader.stat.size == size
        assert reader.seek(-5, os.SEEK_END) == size - 5
        assert reader.read() == b"\0\0end"
        reader.seek(0)
        assert reader.read(6) == b"begin\0"


def test_damaged_stat_json_raises_corrupt(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    blob = put(store, b"content")
    (tmp_path / blob[:2] / blob / "stat.json").write_text("{")
    with pytest.raises(BlobCorrupt):
        store.open(blob)


def test_a_killed_deletion_hides_the_blob_and_can_be_repeated(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    for gone in ("stat.json", "bytes"):
        blob = put(store, b"content")
        (tmp_path / blob[:2] / blob / gone).unlink()
        with pytest.raises(BlobNotFound):
            store.open(blob)
        store.delete(blob)
        assert not list(tmp_path.glob(f"*/{blob}*"))


def test_a_directory_that_cannot_be_created_raises_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = DirectoryStore(tmp_path / "file" / "videos")
    with pytest.raises(MediaUnavailable), store.create(new_blob_id(), A):
        pass
    for use in (store.open, store.delete):
        with pytest.raises(MediaUnavailable):
            use(new_blob_id())


def test_connect_without_settings_names_the_variables() -> None:
    with pytest.raises(BadSetting, match=r"MONGO_URI.*MEDIA_DIR"):
        connect({})


def test_foreign_file_in_a_blob_ends_its_deletion(tmp_path: Path) -> None:
    """NFS keeps a file while a reader has it open. Sweep postpones the blob, and deletes others meanwhile."""
    store = DirectoryStore(tmp_path)
    blob = put(store, b"abc")
    foreign = next(tmp_path.glob("*/*/bytes")).with_name(".nfs0001")
    foreign.touch()
    with pytest.raises(MediaUnavailable):
        store.delete(blob)
    foreign.unlink()
    store.delete(blob)
    assert list(tmp_path.glob("*/*")) == []
