"""What the disks of the media stores have: measured by sweep, and read by administrators, on every SQL database."""

from pathlib import Path
from typing import Any, Final

import pymongo.database
import pytest

from functions.media import DiskFull, MediaUnavailable, Space, Usage, connect
from functions.media.gridfs import GridFSStore
from functions.media.space import FreeSpace
from functions.state.database import Database
from functions.state.disks import Disk, Disks, StoreName
from functions.sweep.overview import overview
from tests.contract.media_places import Place, put
from tests.contract.test_jobs import at_once
from tests.support.databases import make_past

GB = 1_000_000_000
ALL: Final[tuple[StoreName, ...]] = ("videos", "pieces", "mp3s")


def on_disk(free: int, total: int = 100 * GB) -> Usage:
    return Usage(total - free, Space(free, total))


def test_store_says_what_it_uses(place: Place) -> None:
    before = place.media.usage(ALL)
    put(place.videos, bytes(range(256)) * 4096)
    after = place.media.usage(ALL)
    assert after.used > 0
    if after.space is None:
        assert after.used > before.used
    else:
        assert after.used == after.space.total - after.space.free
        assert after.space == place.media.space()


@pytest.mark.parametrize("place", ["gridfs"], indirect=True)
def test_disk_of_mongodb_is_that_of_its_server(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the tests does not tell, unlike MongoDB's own since 3.6."""
    command: Any = pymongo.database.Database.command

    def with_disk(self: object, name: str, *arguments: object, **options: object) -> Any:
        answer = command(self, name, *arguments, **options)
        return {**answer, "fsUsedSize": 30.0 * GB, "fsTotalSize": 100.0 * GB} if name == "dbStats" else answer

    monkeypatch.setattr(pymongo.database.Database, "command", with_disk)
    assert place.media.usage(ALL) == Usage(30 * GB, Space(70 * GB, 100 * GB))
    assert place.media.space() == Space(70 * GB, 100 * GB)


def test_disks_are_those_of_the_servers(tmp_path: Path) -> None:
    first, second = "mongodb://a:1@one/videos", "mongodb://two/mp3s"
    assert connect({"MEDIA_DIR": str(tmp_path)}).disks == connect({"MONGO_URI": first}).disks == (ALL,)
    assert connect({"MONGO_URI": first, "MONGO_MP3_URI": "mongodb://b:2@one/mp3s"}).disks == (ALL,)
    assert connect({"MONGO_URI": first, "MONGO_MP3_URI": second}).disks == (("videos", "pieces"), ("mp3s",))


@pytest.mark.parametrize("second", ["one", "two"])
def test_uploads_are_refused_if_their_mp3s_have_no_space(second: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload may be larger than what is free for MP3s."""
    free = {"videos": 80 * GB, "mp3s": 6 * GB}
    monkeypatch.setattr(GridFSStore, "usage", lambda store: on_disk(free[store._database]))
    media = connect({"MONGO_URI": "mongodb://one/videos", "MONGO_MP3_URI": f"mongodb://{second}/mp3s"})
    now = [0.0]
    space = FreeSpace(media.space, None, lambda: now[0], mp3s=media.mp3_space)
    space.require(60 * GB)
    now[0] += 1
    free["mp3s"] = 5 * GB
    if second == "two":
        with pytest.raises(DiskFull):
            space.require()
    else:
        space.require()


def test_server_of_mp3s_that_does_not_answer_is_not_awaited_for_each_chunk() -> None:
    now = [0.0]
    asked = 0

    def hang() -> Space:
        nonlocal asked
        asked += 1
        now[0] += 5
        raise MediaUnavailable("The media store does not answer; try again later.")

    space = FreeSpace(lambda: Space(80 * GB, 100 * GB), None, lambda: now[0], mp3s=hang)
    for _ in range(29):
        space.require(GB)
        now[0] += 1
    assert asked == 1


def test_videos_are_measured_while_the_server_of_mp3s_is_silent() -> None:
    now = [0.0]
    free = 80 * GB

    def hang() -> Space:
        raise MediaUnavailable("The media store does not answer; try again later.")

    space = FreeSpace(lambda: Space(free, 100 * GB), None, lambda: now[0], mp3s=hang)
    space.require(GB)
    free = 5 * GB
    now[0] += 1
    with pytest.raises(DiskFull):
        space.require(GB)


def test_server_that_does_not_answer_is_an_error_of_the_interface() -> None:
    media = connect({"MONGO_URI": "mongodb://127.0.0.1:9/videos?serverSelectionTimeoutMS=100"})
    with pytest.raises(MediaUnavailable):
        media.usage(ALL)


def test_latest_measurement_counts(database: Database) -> None:
    disks = Disks(database)
    assert disks.all() == []
    disks.record({ALL: on_disk(5 * GB)}, None)
    disks.record({ALL: on_disk(60 * GB)}, None)
    [found] = disks.all()
    assert found.measured_at is not None
    assert found == Disk(ALL, 40 * GB, 100 * GB, 5 * GB, found.measured_at, None)
    assert (found.free, found.level) == (60 * GB, "enough")


def test_store_that_does_not_answer_keeps_its_measurement(database: Database) -> None:
    disks = Disks(database)
    disks.record({ALL: None}, None)
    [unknown] = disks.all()
    assert (unknown.used, unknown.free, unknown.level, unknown.measured_at) == (None, None, "unknown", None)
    assert unknown.silent_since is not None
    disks.record({ALL: on_disk(60 * GB)}, None)
    disks.record({ALL: None}, None)
    make_past(database, "disks", "silent_since")
    [silent] = disks.all()
    disks.record({ALL: None}, None)
    assert disks.all() == [silent], "since the first time"
    assert (silent.free, silent.level) == (60 * GB, "enough")
    disks.record({ALL: on_disk(50 * GB)}, None)
    [found] = disks.all()
    assert (found.free, found.silent_since) == (50 * GB, None)


@pytest.mark.parametrize(
    ("free", "min_free", "level"),
    [
        (10 * GB, None, "enough"),
        (10 * GB - 1, None, "low"),
        (5 * GB + 1, None, "low"),
        (5 * GB, None, "full"),
        (5 * GB, 1000, "enough"),
        (0, 0, "full"),
        (1, 0, "enough"),
    ],
)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_level_is_about_what_uploads_leave_free(
    database: Database, free: int, min_free: int | None, level: str
) -> None:
    disks = Disks(database)
    disks.record({ALL: on_disk(free)}, min_free)
    assert [disk.level for disk in disks.all()] == [level]


def test_disks_that_are_no_longer_used_are_forgotten(database: Database) -> None:
    disks = Disks(database)
    disks.record({("videos", "pieces"): on_disk(60 * GB), ("mp3s",): Usage(7, None)}, None)
    both = [(disk.stores, disk.used, disk.level) for disk in disks.all()]
    assert both == [(("videos", "pieces"), 40 * GB, "enough"), (("mp3s",), 7, "unknown")]
    disks.record({ALL: on_disk(60 * GB)}, None)
    assert [disk.stores for disk in disks.all()] == [ALL]


def test_sweeps_at_once_record_one_row_for_a_disk(database: Database) -> None:
    disks = Disks(database)
    for _ in range(3):
        at_once(4, lambda n: disks.record({ALL: on_disk((60 + n) * GB)}, None))
        disks.record({("mp3s",): None}, None)
        [silent] = disks.all()
        assert silent.stores == ("mp3s",)
        at_once(4, lambda n: disks.record({ALL: on_disk((60 + n) * GB)}, None))
        assert [disk.stores for disk in disks.all()] == [ALL]


def test_overview_prints_them(database: Database) -> None:
    def lines() -> list[str]:
        return [" ".join(line.split()) for line in overview(database, {})][1:]

    disks = Disks(database)
    disks.record({("videos", "pieces"): on_disk(60 * GB), ("mp3s",): Usage(7_100_000_000, None)}, None)
    assert lines() == ["disk videos, pieces 60.0 GB free of 100.0 GB", "disk mp3s 7.1 GB used"]
    disks.record({("videos", "pieces"): on_disk(8 * GB), ("mp3s",): None}, None)
    assert lines() == ["disk videos, pieces 8.0 GB free of 100.0 GB: nearly full", "disk mp3s does not answer"]
    disks.record({ALL: on_disk(GB)}, None)
    assert lines() == ["disk videos, pieces, mp3s 1.0 GB free of 100.0 GB: full, uploads are refused"]
