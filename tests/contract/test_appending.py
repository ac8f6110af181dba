"""The contract of appending to a blob over many requests: the fake in memory, the directory and GridFS."""

import hashlib
import random
from typing import Any

import gridfs
import pymongo
import pytest
from bson import ObjectId
from pymongo import monitoring

from functions.media import BlobCorrupt, BlobNotFound, Checkpoint, MediaUnavailable, StaleWriter, new_blob_id
from functions.media import gridfs as module
from functions.media.integrity import BLOCK_SIZE, BLOCKS_PER_WRITE
from tests.contract.media_places import A, Place, drain, get, in_mongodb, noise
from tests.support.servers.mongodb import MongoDB


def grow(
    place: Place, blob: str, checkpoint: Checkpoint, writer: int, content: bytes, block: int = 300_007
) -> Checkpoint:
    """Appends the content in one request that succeeds."""
    with place.videos.append(blob, checkpoint, writer) as appender:
        for start in range(0, len(content), block):
            appender.write(content[start : start + block])
        return appender.sync()


def finish(place: Place, blob: str, checkpoint: Checkpoint, writer: int) -> None:
    with place.videos.append(blob, checkpoint, writer) as appender:
        appender.finish(A)


@pytest.mark.parametrize(
    "sizes",
    [
        [1],
        [BLOCK_SIZE],
        [BLOCK_SIZE - 1, 1, 1],
        [100, BLOCK_SIZE, 2 * BLOCK_SIZE, 7],
        [BLOCKS_PER_WRITE * BLOCK_SIZE, BLOCKS_PER_WRITE * BLOCK_SIZE + 1],
        [BLOCK_SIZE // 2, 2 * BLOCKS_PER_WRITE * BLOCK_SIZE, 3],
    ],
)
def test_every_byte_of_a_successful_request_is_durable(place: Place, sizes: list[int]) -> None:
    content = noise(sum(sizes))
    blob = new_blob_id()
    checkpoint = Checkpoint()
    for number, size in enumerate(sizes, 1):
        start = checkpoint.size
        checkpoint = grow(place, blob, checkpoint, number, content[start : start + size])
        assert checkpoint.size == start + size
        with pytest.raises(BlobNotFound):
            place.videos.open(blob)
    finish(place, blob, checkpoint, len(sizes))
    with place.videos.open(blob) as reader:
        assert (reader.stat.size, reader.stat.description, reader.stat.sha256) == (len(content), A, "")
        assert drain(reader) == content


def test_synced_bytes_survive_a_killed_request(place: Place) -> None:
    """Bytes after the last sync may or may not be stored; the next request continues from the checkpoint."""
    content = noise(40 * BLOCK_SIZE + 11)
    blob = new_blob_id()
    checkpoint = Checkpoint()
    chance = random.Random(3)  # noqa: S311 - sizes, not secrets
    for number in range(1, 30):
        with place.videos.append(blob, checkpoint, number) as appender:
            start = checkpoint.size
            for _ in range(chance.choice([1, 1, 4])):
                size = chance.choice([1, 1000, BLOCK_SIZE // 2, BLOCK_SIZE, 5 * BLOCK_SIZE])
                appender.write(content[start : start + size])
                start = min(start + size, len(content))
                whole = appender.sync(full_blocks_only=True)
                assert start - BLOCK_SIZE < whole.size <= start
                if chance.random() < 0.3:
                    checkpoint = whole
                    break
                checkpoint = appender.sync()
                assert checkpoint.size == start
            appender.write(b"?" * chance.choice([0, 1, BLOCK_SIZE, 17 * BLOCK_SIZE]))  # wrong bytes that are not synced
            if chance.random() < 0.3:
                appender.sync()  # succeeds, but its checkpoint is lost
    checkpoint = grow(place, blob, checkpoint, 30, content[checkpoint.size :])
    finish(place, blob, checkpoint, 30)
    assert get(place.videos, blob) == content


def test_finish_can_be_repeated(place: Place) -> None:
    blob = new_blob_id()
    checkpoint = grow(place, blob, Checkpoint(), 1, noise(BLOCK_SIZE + 9))
    for _ in range(2):
        finish(place, blob, checkpoint, 1)
        assert get(place.videos, blob) == noise(BLOCK_SIZE + 9)
    with place.videos.append(blob, checkpoint, 2) as appender:
        with pytest.raises(ValueError, match="finished"):
            appender.write(b"more")
        appender.finish(A)
    assert get(place.videos, blob) == noise(BLOCK_SIZE + 9)


def test_concurrent_finishes_both_succeed(place: Place) -> None:
    blob = new_blob_id()
    checkpoint = grow(place, blob, Checkpoint(), 1, noise(BLOCK_SIZE + 9))
    with place.videos.append(blob, checkpoint, 1) as one, place.videos.append(blob, checkpoint, 1) as other:
        one.finish(A)
        other.finish(A)
    assert get(place.videos, blob) == noise(BLOCK_SIZE + 9)


@pytest.mark.parametrize("size", [1000, 3 * BLOCK_SIZE + 5])
def test_a_writer_that_was_believed_dead_is_shut_out(place: Place, size: int) -> None:
    content = noise(6 * BLOCK_SIZE + 77)
    blob = new_blob_id()
    checkpoint = grow(place, blob, Checkpoint(), 1, content[:size])
    with place.videos.append(blob, checkpoint, 2) as stale, place.videos.append(blob, checkpoint, 3) as later:
        later.write(content[size:])
        checkpoint = later.sync()
        stale.write(b"?" * 2 * BLOCK_SIZE)
        with pytest.raises(StaleWriter):
            stale.sync()
        later.finish(A)
        with pytest.raises(StaleWriter):
            stale.finish(A)
    assert get(place.videos, blob) == content


def test_bytes_that_a_stale_writer_left_are_overwritten(place: Place) -> None:
    content = noise(6 * BLOCK_SIZE + 77)
    blob = new_blob_id()
    checkpoint = grow(place, blob, Checkpoint(), 1, content[:1000])
    grow(place, blob, checkpoint, 2, b"?" * 4 * BLOCK_SIZE)
    checkpoint = grow(place, blob, checkpoint, 3, content[1000:])
    finish(place, blob, checkpoint, 3)
    assert get(place.videos, blob) == content


@pytest.mark.parametrize("left", [500, BLOCK_SIZE, 40 * BLOCK_SIZE])
@pytest.mark.parametrize("size", [1000, 2 * BLOCK_SIZE, 2 * BLOCK_SIZE + 7])
def test_bytes_that_a_stale_writer_left_past_the_end_are_removed(place: Place, size: int, left: int) -> None:
    blob = new_blob_id()
    checkpoint = grow(place, blob, Checkpoint(), 1, noise(size))
    grow(place, blob, checkpoint, 2, b"?" * left)
    assert place.stored(blob) == size + left
    finish(place, blob, checkpoint, 3)
    assert get(place.videos, blob) == noise(size)
    assert place.stored(blob) == size


@pytest.mark.parametrize("writer", [1, 2])
def test_a_blob_that_begins_again_keeps_nothing_of_what_it_was(place: Place, writer: int) -> None:
    blob = new_blob_id()
    grow(place, blob, Checkpoint(), 1, b"?" * (20 * BLOCK_SIZE + 5))
    with place.videos.append(blob, Checkpoint(), writer):
        assert place.stored(blob) == 0
    checkpoint = grow(place, blob, Checkpoint(), writer, noise(BLOCK_SIZE + 9))
    finish(place, blob, checkpoint, writer)
    assert get(place.videos, blob) == noise(BLOCK_SIZE + 9)
    assert place.stored(blob) == BLOCK_SIZE + 9


def test_a_stale_writer_that_begins_again_changes_nothing(place: Place) -> None:
    content = noise(3 * BLOCK_SIZE + 5)
    blob = new_blob_id()
    checkpoint = grow(place, blob, Checkpoint(), 2, content)
    with pytest.raises(StaleWriter), place.videos.append(blob, Checkpoint(), 1):
        pass
    finish(place, blob, checkpoint, 2)
    assert get(place.videos, blob) == content
    with place.videos.append(blob, Checkpoint(), 3) as late:
        late.finish(A)
    assert get(place.videos, blob) == content


def test_a_stale_writer_does_not_finish_a_part_of_the_blob(place: Place) -> None:
    content = noise(5 * BLOCK_SIZE + 5)
    blob = new_blob_id()
    checkpoint = grow(place, blob, Checkpoint(), 1, content[:BLOCK_SIZE])
    with place.videos.append(blob, checkpoint, 2) as stale:
        checkpoint = grow(place, blob, checkpoint, 3, content[BLOCK_SIZE:])
        with pytest.raises(StaleWriter):
            stale.finish(A)
        finish(place, blob, checkpoint, 3)
        stale.finish(A)
    assert get(place.videos, blob) == content


@pytest.mark.parametrize("when", ["before it writes", "after it has written", "after it has gone"])
def test_a_stale_writer_leaves_nothing_behind_the_end_of_a_finished_blob(place: Place, when: str) -> None:
    """It stores what it can of its chunks before it sees that some are from a later writer."""
    content = noise(2 * BLOCK_SIZE + 5)
    blob = new_blob_id()
    checkpoint = grow(place, blob, Checkpoint(), 1, content[:BLOCK_SIZE])
    with pytest.raises(StaleWriter), place.videos.append(blob, checkpoint, 2) as stale:
        checkpoint = grow(place, blob, checkpoint, 3, content[BLOCK_SIZE:])
        if when == "before it writes":
            finish(place, blob, checkpoint, 3)
        stale.write(b"?" * 4 * BLOCK_SIZE)
        try:
            stale.sync()
        finally:
            if when == "after it has written":
                finish(place, blob, checkpoint, 3)
    if when == "after it has gone":
        finish(place, blob, checkpoint, 3)
    assert get(place.videos, blob) == content
    assert place.stored(blob) == len(content)


def test_a_store_that_does_not_answer_is_asked_nothing_more(mongodb: MongoDB) -> None:
    listener = Replies()
    monitoring.register(listener)
    with in_mongodb(mongodb) as place:
        with pytest.raises(MediaUnavailable), place.videos.append(new_blob_id(), Checkpoint(), 1):
            listener.sizes.clear()
            raise MediaUnavailable
        assert listener.sizes == []


def test_a_stale_writer_stores_nothing_behind_the_end_while_the_blob_is_finished(
    mongodb: MongoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GridFS's later writer has looked for such chunks, and the file is not visible yet."""
    blob = new_blob_id()
    start = Checkpoint()
    document = module._files_document

    def interfere(*arguments: Any) -> dict[str, Any]:
        with pytest.raises(StaleWriter):
            grow(place, blob, start, 2, b"?" * 4 * BLOCK_SIZE)
        return document(*arguments)

    with in_mongodb(mongodb) as place:
        start = grow(place, blob, start, 1, noise(BLOCK_SIZE))
        checkpoint = grow(place, blob, start, 3, noise(BLOCK_SIZE + 5))
        monkeypatch.setattr(module, "_files_document", interfere)
        finish(place, blob, checkpoint, 3)
        assert place.stored(blob) == 2 * BLOCK_SIZE + 5


def test_a_deleted_blob_cannot_be_resumed(place: Place) -> None:
    blob = new_blob_id()
    checkpoint = grow(place, blob, Checkpoint(), 1, noise(2 * BLOCK_SIZE + 5))
    place.videos.delete(blob)
    assert not place.remains(blob)
    with pytest.raises(BlobNotFound), place.videos.append(blob, checkpoint, 2):
        pass


def test_bytes_changed_in_the_store_are_detected(place: Place) -> None:
    blob = new_blob_id()
    checkpoint = grow(place, blob, Checkpoint(), 1, noise(3 * BLOCK_SIZE + 5))
    finish(place, blob, checkpoint, 1)
    place.change(blob, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BlobCorrupt), place.videos.open(blob) as reader:
        drain(reader)


def test_a_blob_of_50_gb_is_finished_without_being_read(mongodb: MongoDB) -> None:
    """Only the first and the last chunk are stored: finishing must not need the chunks in between."""
    size = 50_000_000_000
    blob = new_blob_id()
    last = size // BLOCK_SIZE * BLOCK_SIZE
    listener = Replies()
    monitoring.register(listener)
    with in_mongodb(mongodb) as place:
        grow(place, blob, Checkpoint(), 1, noise(BLOCK_SIZE))
        checkpoint = grow(place, blob, Checkpoint(last, "00000000"), 2, noise(size - last))
        assert checkpoint.size == size
        with place.videos.append(blob, checkpoint, 2) as appender:
            listener.sizes.clear()
            appender.finish(A)
        assert sum(listener.sizes) < 1000
        with place.videos.open(blob) as reader:
            assert reader.stat.size == size
            assert reader.read(BLOCK_SIZE) == noise(BLOCK_SIZE)
            reader.seek(last)
            assert reader.read() == noise(size - last)
        place.videos.delete(blob)
        assert not place.remains(blob)


class Replies(monitoring.CommandListener):
    """Records the size of every reply of the server."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self.sizes.append(len(repr(event.reply)))


def test_other_gridfs_clients_can_read_it(mongodb: MongoDB) -> None:
    content = noise(5 * BLOCK_SIZE + 77)
    blob = new_blob_id()
    with in_mongodb(mongodb) as place, pymongo.MongoClient[dict[str, Any]](place.environ["MONGO_URI"]) as client:
        checkpoint = grow(place, blob, Checkpoint(), 1, content[: BLOCK_SIZE + 3])
        grow(place, blob, checkpoint, 2, b"?" * 20 * BLOCK_SIZE)
        checkpoint = grow(place, blob, checkpoint, 3, content[BLOCK_SIZE + 3 :])
        finish(place, blob, checkpoint, 3)
        database = client.get_default_database()
        with gridfs.GridFSBucket(database).open_download_stream(ObjectId(blob)) as stream:
            assert stream.filename == A.filename
            assert hashlib.sha256(stream.read()).digest() == hashlib.sha256(content).digest()
        sizes = [len(chunk["data"]) for chunk in database["fs.chunks"].find({"files_id": ObjectId(blob)}).sort("n", 1)]
        assert sizes == [*[BLOCK_SIZE] * 5, 77]
