"""A full disk: uploads are refused, and everything that frees space or only reads goes on."""

import os
from pathlib import Path

import pytest

from functions.auth.accounts import Accounts
from functions.file_checks import StreamChecks
from functions.media import Description, DiskFull, MediaUnavailable, Space, new_blob_id
from functions.media.directory import DirectoryStore
from functions.media.space import FreeSpace
from functions.state.database import Database
from functions.state.quota import Reservation
from functions.state.reserve import SIZE, Reserve
from tests.e2e.client import wave_bytes
from tests.support.databases import sqlite
from tests.support.disks import disk, fill

GB = 1_000_000_000


@pytest.mark.parametrize(
    ("total", "floor"),
    [(2 * GB, GB // 2), (10 * GB, GB), (100 * GB, 5 * GB), (20 * GB, GB)],
)
def test_the_floor_is_a_share_of_the_disk(total: int, floor: int) -> None:
    assert Space(total, total).floor() == floor
    assert Space(total, total).floor(7) == 7


def test_uploads_end_at_the_floor() -> None:
    free = [10 * GB]
    now = [0.0]
    space = FreeSpace(lambda: Space(free[0], 10 * GB), GB, lambda: now[0])
    space.require(9 * GB)
    with pytest.raises(DiskFull) as refused:
        space.require(9 * GB + 1)
    assert refused.value.status == 507
    assert refused.value.retry_after > 0
    free[0] = GB
    space.require()  # a measurement lasts for a second
    now[0] += 1
    with pytest.raises(DiskFull):
        space.require()


def test_a_store_that_cannot_tell_its_space_takes_uploads() -> None:
    def fail() -> Space:
        raise MediaUnavailable("The media store does not answer; try again later.")

    for measure in (lambda: None, fail):
        FreeSpace(measure).require(GB)


def test_an_upload_in_progress_stops_at_the_floor() -> None:
    free = [GB + 1000]
    now = [0.0]
    space = FreeSpace(lambda: Space(free[0], 10 * GB), GB, lambda: now[0])
    reservation = Reservation(None, new_blob_id(), GB, lambda _, __: lambda _, __: 0)  # type: ignore[arg-type]
    sound = wave_bytes(0.1)
    content = StreamChecks(reservation, GB, space=space).apply(iter([sound[:900], sound[900:1000]]))
    assert len(next(content)) == 900
    now[0] += 1
    free[0] = GB
    with pytest.raises(DiskFull):
        next(content)


def test_mp3s_may_use_half_the_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryStore(tmp_path, 1000)
    blob = new_blob_id()
    description = Description("a" * 32, "b" * 32, "a.mp3", "audio/mpeg")
    monkeypatch.setattr("functions.media.directory._space", lambda _: Space(600, 10_000))
    with pytest.raises(MediaUnavailable, match="no space"), store.create(blob, description) as writer:
        writer.write(bytes(101))
    with store.create(blob, description) as writer:
        writer.write(bytes(100))
    with store.open(blob) as reader:
        assert reader.read() == bytes(100)


def test_sqlite_writes_on_a_full_disk_from_its_reserve(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 64) as small_disk:
        write_on_full(small_disk)


def write_on_full(small_disk: Path) -> None:
    with sqlite(small_disk) as made:
        file = Path(str(made.engine.url.database))
    reserve = Reserve(file)
    reserve_file = file.with_name(f"{file.name}.reserve")
    with reserve_file.open("wb") as out:
        os.posix_fallocate(out.fileno(), 0, SIZE)
    assert not reserve.release(), "there is space"
    fill(small_disk)
    database = Database(f"sqlite:///{file}")
    accounts = Accounts(database)
    user = accounts.add("Ada", "ada@example.org", "correct horse", "ada@example.org")
    assert accounts.authenticate("ada@example.org", "correct horse").id == user.id
    assert not reserve_file.exists()
    database.close()


def test_the_reserve_is_not_made_on_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = Reserve(tmp_path / "a.db")
    monkeypatch.setattr(Reserve, "_free", lambda _: 8 * SIZE - 1)
    reserve.restore()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(Reserve, "_free", lambda _: 8 * SIZE)
    reserve.restore()
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("a.db.reserve", SIZE)]
