"""Behavior specific to GridFS: chunks, other clients, and servers that fail."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC
from typing import Any

import gridfs
import pymongo
import pytest
from bson import ObjectId
from fastcrc import crc32
from pymongo import monitoring

from functions.media import (
    BlobCorrupt,
    BlobExists,
    BlobNotFound,
    Description,
    MediaUnavailable,
    Stat,
    connect,
    new_blob_id,
)
from functions.media import gridfs as gridfs_store
from functions.media.gridfs import CHUNK_SIZE, CHUNKS_PER_INSERT, GridFSReader, GridFSStore, GridFSWriter
from functions.settings import BadSetting
from tests.support.processes import wait_for
from tests.support.servers import free_port
from tests.support.servers.mongodb import MongoDB

A = Description("owner", "job", "Grüße 🎬.mp4", "video/mp4")

Client = pymongo.MongoClient[dict[str, Any]]


@pytest.fixture
def client(mongodb: MongoDB) -> Iterator[Client]:
    with Client(mongodb.url) as client:
        yield client


@pytest.fixture
def store(mongodb: MongoDB) -> GridFSStore:
    return GridFSStore(mongodb.url, "videos")


def noise(size: int) -> bytes:
    return hashlib.shake_128(b"").digest(size)


def put(store: GridFSStore, content: bytes) -> str:
    blob = new_blob_id()
    with store.create(blob, A) as writer:
        writer.write(content)
    return blob


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE, 20 * CHUNK_SIZE + 1])
def test_other_gridfs_clients_can_read_our_files(store: GridFSStore, client: Client, size: int) -> None:
    content = noise(size)
    blob = put(store, content)
    with gridfs.GridFSBucket(client["videos"]).open_download_stream(ObjectId(blob)) as stream:
        assert stream.read() == content
        assert (stream.length, stream.chunk_size, stream.filename) == (size, CHUNK_SIZE, A.filename)
        assert abs(stream.upload_date.replace(tzinfo=UTC).timestamp() - time.time()) < 60
        assert stream.metadata == {
            "owner": "owner",
            "job": "job",
            "filename": A.filename,
            "content_type": "video/mp4",
            "sha256": hashlib.sha256(content).hexdigest(),
            "crc32c": f"{crc32.iscsi(content):08x}",
        }


def test_files_of_other_gridfs_clients_can_be_read(store: GridFSStore, client: Client) -> None:
    content = noise(1_000_000)
    bucket = gridfs.GridFSBucket(client["videos"])
    digest = hashlib.sha256(content).hexdigest()
    for metadata in (None, {"owner": "somebody"}, {"owner": "somebody", "sha256": digest}):
        file = bucket.upload_from_stream("ü.mp4", content, chunk_size_bytes=100_000, metadata=metadata)
        with store.open(str(file)) as reader:
            owner = "somebody" if metadata else ""
            assert reader.stat == Stat(
                1_000_000, (metadata or {}).get("sha256", ""), "", Description(owner, "", "ü.mp4", "")
            )
            assert reader.read() == content
            reader.seek(99_999)
            assert reader.read(2) == content[99_999:100_001]
        store.delete(str(file))
        with pytest.raises(gridfs.NoFile):
            bucket.open_download_stream(file)


def test_chunks_stored_in_any_order_are_read_in_sequence(store: GridFSStore, client: Client) -> None:
    content = noise(60 * CHUNK_SIZE + 5)
    fs = client["videos"]["fs"]
    blob = put(store, content)
    chunks = list(fs["chunks"].find({"files_id": ObjectId(blob)}))
    chunks = [*chunks[30:], *reversed(chunks[:30])]
    fs["chunks"].delete_many({"files_id": ObjectId(blob)})
    fs["chunks"].insert_many([{**chunk, "_id": ObjectId()} for chunk in chunks])
    with store.open(blob) as reader:
        assert reader.read() == content


def test_the_sha256_of_another_client_is_checked(store: GridFSStore, client: Client) -> None:
    metadata = {"sha256": hashlib.sha256(b"something else").hexdigest()}
    file = gridfs.GridFSBucket(client["videos"]).upload_from_stream("a.mp4", b"content", metadata=metadata)
    with store.open(str(file)) as reader, pytest.raises(BlobCorrupt):
        reader.read()


def test_the_indexes_of_the_gridfs_specification_are_created(store: GridFSStore, client: Client) -> None:
    put(store, b"content")
    fs = client["videos"]["fs"]
    assert [("files_id", 1), ("n", 1)] in [index["key"] for index in fs["chunks"].index_information().values()]
    assert fs["chunks"].index_information()["files_id_1_n_1"]["unique"]
    assert [("filename", 1), ("uploadDate", 1)] in [i["key"] for i in fs["files"].index_information().values()]


def test_a_range_needs_only_its_own_chunks(store: GridFSStore, client: Client) -> None:
    content = noise(40 * CHUNK_SIZE)
    blob = put(store, content)
    client["videos"]["fs"]["chunks"].delete_many({"files_id": ObjectId(blob), "n": {"$nin": [20, 21]}})
    with store.open(blob) as reader:
        start = reader.seek(20 * CHUNK_SIZE + 100)
        assert reader.read(CHUNK_SIZE) == content[start : start + CHUNK_SIZE]


@pytest.mark.parametrize("n", [0, 3, 12, 30, 39])
def test_a_missing_chunk_is_detected_at_any_position(store: GridFSStore, client: Client, n: int) -> None:
    blob = put(store, noise(40 * CHUNK_SIZE))
    client["videos"]["fs"]["chunks"].delete_one({"files_id": ObjectId(blob), "n": n})
    with store.open(blob) as reader, pytest.raises(BlobCorrupt):
        while reader.read(100_000):
            assert reader.tell() <= n * CHUNK_SIZE


def test_a_file_deleted_while_it_is_read_raises_not_found(store: GridFSStore) -> None:
    blob = put(store, noise(80 * CHUNK_SIZE))
    with store.open(blob) as reader:
        reader.read(CHUNK_SIZE)
        store.delete(blob)
        with pytest.raises(BlobNotFound):
            while reader.read(CHUNK_SIZE):
                pass


def test_an_absent_server_raises_unavailable_within_seconds() -> None:
    store = GridFSStore(f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=500", "videos")
    began = time.monotonic()
    with pytest.raises(MediaUnavailable):
        store.connect()
    with pytest.raises(MediaUnavailable):
        store.open(new_blob_id())
    with pytest.raises(MediaUnavailable):
        store.delete(new_blob_id())
    with pytest.raises(MediaUnavailable), store.create(new_blob_id(), A):
        pass
    assert time.monotonic() - began < 5


def test_reading_and_writing_work_after_a_server_restart() -> None:
    content = noise(80 * CHUNK_SIZE)
    with MongoDB() as server:
        store = GridFSStore(f"{server.url}/?serverSelectionTimeoutMS=3000", "videos")
        blob = put(store, content)
        with store.open(blob) as reader:
            assert reader.read(20 * CHUNK_SIZE) == content[: 20 * CHUNK_SIZE]
            server.kill()
            server.start()
            assert reader.read() == content[20 * CHUNK_SIZE :]
        lost = new_blob_id()
        with pytest.raises(MediaUnavailable), store.create(lost, A) as writer:
            writer.write(content)
            server.kill()
            writer.write(content)
        server.start()
        with pytest.raises(BlobNotFound):
            store.open(lost)

        def writes() -> bool:
            # The driver repeats no write: one may still meet a connection that the kill has broken.
            try:
                store.delete(lost)
                put(store, content)
            except MediaUnavailable:
                return False
            return True

        wait_for(writes, "a write to succeed")
        gridfs_store.disconnect()


class Deletions(monitoring.CommandListener):
    """Records how many documents each call deleted."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.command_name == "delete":
            self.counts.append(event.reply["n"])


def test_large_files_are_deleted_in_batches(mongodb: MongoDB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gridfs_store, "CHUNKS_PER_DELETE", 4)
    deletions = Deletions()
    monitoring.register(deletions)
    store = GridFSStore(f"{mongodb.url}/?appname=deletions", "videos")
    blob = put(store, noise(11 * CHUNK_SIZE))
    store.delete(blob)
    assert [count for count in deletions.counts if count] == [1, 4, 4, 3]
    with Client(mongodb.url) as client:
        assert client["videos"]["fs"]["chunks"].count_documents({"files_id": ObjectId(blob)}) == 0


def test_a_hanging_server_raises_unavailable() -> None:
    with MongoDB() as server:
        blob = put(GridFSStore(server.url, "videos"), b"content")  # A cold server may take longer than half a second.
        store = GridFSStore(f"{server.url}/?socketTimeoutMS=500&serverSelectionTimeoutMS=500", "videos")
        with store.open(blob) as reader:
            assert reader.read() == b"content"
        server.suspend()
        with pytest.raises(MediaUnavailable):
            store.open(blob)
        server.resume()

        def has_recovered() -> bool:
            try:
                with store.open(blob) as reader:
                    return reader.read() == b"content"
            except MediaUnavailable:  # recovery may take more than half a second
                return False

        wait_for(has_recovered)
        gridfs_store.disconnect()


def test_an_abandoned_writer_leaves_no_chunks_that_were_in_flight(
    store: GridFSStore, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = GridFSWriter._insert
    abandon = GridFSWriter._abandon
    abandoned = threading.Event()
    workers: list[ThreadPoolExecutor] = []

    def delayed_insert(self: GridFSWriter, documents: list[dict[str, Any]]) -> None:
        if documents[0]["n"]:
            assert abandoned.wait(30)
        insert(self, documents)

    def recording_abandon(self: GridFSWriter, failure: BaseException | None) -> None:
        assert self._workers is not None
        workers.append(self._workers)
        threading.Timer(0.2, abandoned.set).start()
        abandon(self, failure)

    monkeypatch.setattr(GridFSWriter, "_insert", delayed_insert)
    monkeypatch.setattr(GridFSWriter, "_abandon", recording_abandon)
    blob = new_blob_id()
    with pytest.raises(ZeroDivisionError), store.create(blob, A) as writer:
        writer.write(noise(3 * CHUNKS_PER_INSERT * CHUNK_SIZE))
        raise ZeroDivisionError
    for worker in workers:
        worker.shutdown(wait=True)
    assert client["videos"]["fs"]["chunks"].count_documents({"files_id": ObjectId(blob)}) == 0


def test_a_failed_insert_with_others_in_flight_leaves_no_file(
    store: GridFSStore, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = GridFSWriter._insert

    def failing_insert(self: GridFSWriter, documents: list[dict[str, Any]]) -> None:
        if documents[0]["n"] == CHUNKS_PER_INSERT:
            raise MediaUnavailable("refused")
        insert(self, documents)

    monkeypatch.setattr(GridFSWriter, "_insert", failing_insert)
    for batches in 2, 3, 6:
        blob = new_blob_id()
        with pytest.raises(MediaUnavailable), store.create(blob, A) as writer:
            writer.write(noise(batches * CHUNKS_PER_INSERT * CHUNK_SIZE + 1))
        with pytest.raises(BlobNotFound):
            store.open(blob)
        assert client["videos"]["fs"]["chunks"].count_documents({"files_id": ObjectId(blob)}) == 0


def test_a_writer_with_a_taken_id_waits_for_its_inserts_in_flight(
    store: GridFSStore, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = GridFSWriter._insert
    ended = threading.Event()
    in_flight = threading.Event()
    inserts_after_end: list[bool] = []

    def delayed_insert(self: GridFSWriter, documents: list[dict[str, Any]]) -> None:
        if documents[0]["n"] == CHUNKS_PER_INSERT:
            assert in_flight.wait(30)
        if documents[0]["n"] == 2 * CHUNKS_PER_INSERT:
            in_flight.set()
            inserts_after_end.append(ended.wait(0.5))
        insert(self, documents)

    monkeypatch.setattr(GridFSWriter, "_insert", delayed_insert)
    blob = new_blob_id()
    store.prepare()
    client["videos"]["fs"]["chunks"].insert_one(
        {"files_id": ObjectId(blob), "n": CHUNKS_PER_INSERT + 2, "data": b"taken"}
    )
    with pytest.raises(BlobExists), store.create(blob, A) as writer:
        writer.write(noise(4 * CHUNKS_PER_INSERT * CHUNK_SIZE))
    ended.set()
    assert inserts_after_end == [False]
    store.delete(blob)
    assert client["videos"]["fs"]["chunks"].count_documents({"files_id": ObjectId(blob)}) == 0


def test_reads_continue_until_the_streaming_query_answers(store: GridFSStore, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(60 * CHUNK_SIZE + 5)
    blob = put(store, content)
    next_batch = gridfs_store._next_batch
    may_answer = threading.Event()

    def delayed_batch(cursor: Any) -> list[dict[str, Any]]:
        assert may_answer.wait(30)
        return next_batch(cursor)

    monkeypatch.setattr(gridfs_store, "_next_batch", delayed_batch)
    with store.open(blob) as reader:
        assert reader.read(20 * CHUNK_SIZE) == content[: 20 * CHUNK_SIZE]
        may_answer.set()
        assert reader.read() == content[20 * CHUNK_SIZE :]


def test_no_further_batch_is_fetched_after_streaming_stops(store: GridFSStore, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = put(store, noise(60 * CHUNK_SIZE))
    next_batch = gridfs_store._next_batch
    begun = threading.Event()
    may_answer = threading.Event()
    batches: list[int] = []

    def delayed_batch(cursor: Any) -> list[dict[str, Any]]:
        begun.set()
        assert may_answer.wait(30)
        batches.append(1)
        return next_batch(cursor)

    monkeypatch.setattr(gridfs_store, "_next_batch", delayed_batch)
    with store.open(blob) as reader:
        reader.read(8 * CHUNK_SIZE)
        assert begun.wait(30)
        worker = reader._worker
    may_answer.set()
    assert worker is not None
    worker.shutdown(wait=True)
    assert len(batches) == 1


def test_nothing_is_fetched_in_advance_that_will_not_be_read(
    store: GridFSStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(90 * CHUNK_SIZE)
    blob = put(store, content)
    next_batch = gridfs_store._next_batch
    fetched: list[int] = []

    def counted_batch(cursor: Any) -> list[dict[str, Any]]:
        batch = next_batch(cursor)
        fetched.extend(chunk["n"] for chunk in batch)
        return batch

    monkeypatch.setattr(gridfs_store, "_next_batch", counted_batch)
    with store.open(blob) as reader:
        reader.fetch_until(40 * CHUNK_SIZE + 1)
        start = reader.seek(10 * CHUNK_SIZE)
        assert reader.read(30 * CHUNK_SIZE + 1) == content[start : 40 * CHUNK_SIZE + 1]
        assert max(fetched) == 40
        assert reader.read() == content[40 * CHUNK_SIZE + 1 :]


def test_chunks_are_fetched_once_that_are_read_in_turn(store: GridFSStore, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(30 * CHUNK_SIZE)
    blob = put(store, content)
    fetch_single = GridFSReader._fetch_single
    fetched: list[int] = []

    def counted_fetch(self: GridFSReader, n: int) -> bytes:
        fetched.append(n)
        return fetch_single(self, n)

    monkeypatch.setattr(GridFSReader, "_fetch_single", counted_fetch)
    with store.open(blob) as reader:
        for place in range(3):
            for chunk in (0, 20, 21, 8):
                offset = chunk * CHUNK_SIZE + place
                reader.seek(offset)
                assert reader.read(7) == content[offset : offset + 7]
    assert sorted(fetched) == [0, 8, 20, 21]


def test_little_is_fetched_in_advance_of_a_short_read_and_nothing_twice(
    store: GridFSStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(90 * CHUNK_SIZE)
    blob = put(store, content)
    next_batch = gridfs_store._next_batch
    fetch_single = GridFSReader._fetch_single
    fetched: list[int] = []

    def counted_batch(cursor: Any) -> list[dict[str, Any]]:
        batch = next_batch(cursor)
        fetched.extend(chunk["n"] for chunk in batch)
        return batch

    def counted_fetch(self: GridFSReader, n: int) -> bytes:
        fetched.append(n)
        return fetch_single(self, n)

    monkeypatch.setattr(gridfs_store, "_next_batch", counted_batch)
    monkeypatch.setattr(GridFSReader, "_fetch_single", counted_fetch)
    monkeypatch.setattr(gridfs_store, "ThreadPoolExecutor", Immediate)
    with store.open(blob) as reader:
        for first, last, in_advance in ((10, 15, 0), (40, 51, 5)):
            fetched.clear()
            start = reader.seek(first * CHUNK_SIZE)
            end = (last + 1) * CHUNK_SIZE
            assert b"".join(reader.read(CHUNK_SIZE) for _ in range(first, last + 1)) == content[start:end]
            assert sorted(fetched) == [*range(first, last + 1 + in_advance)]


class Immediate(ThreadPoolExecutor):
    """Threads whose work is done when it is submitted."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(work, *args, **kwargs)
        future.exception()
        return future


@pytest.mark.parametrize("chunks", range(1, 8))
def test_the_last_chunk_is_read_even_if_the_query_answers_at_once(
    store: GridFSStore, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    monkeypatch.setattr(gridfs_store, "ThreadPoolExecutor", Immediate)
    content = os.urandom(chunks * CHUNK_SIZE)
    with store.open(put(store, content)) as reader:
        assert b"".join(iter(lambda: reader.read(CHUNK_SIZE), b"")) == content


@pytest.fixture
def no_threads() -> Iterator[Callable[[], int]]:
    """Returns a function after whose call no thread can start: the stack it would need is too large."""
    default = threading.stack_size()
    yield lambda: threading.stack_size(1 << 47)
    threading.stack_size(default)


def test_a_reader_without_threads_raises_unavailable(store: GridFSStore, no_threads: Callable[[], int]) -> None:
    content = noise(60 * CHUNK_SIZE + 5)
    with store.open(put(store, content)) as reader:
        no_threads()
        for _ in range(2):
            with pytest.raises(MediaUnavailable, match="too busy"):
                reader.read()
        threading.stack_size(0)
        assert reader.read() == content


def test_a_writer_without_threads_raises_unavailable(
    store: GridFSStore, client: Client, no_threads: Callable[[], int]
) -> None:
    blob = new_blob_id()
    store.prepare()
    with pytest.raises(MediaUnavailable, match="too busy"), store.create(blob, A) as writer:
        no_threads()
        writer.write(noise(4 * CHUNKS_PER_INSERT * CHUNK_SIZE))
    threading.stack_size(0)
    assert client["videos"]["fs"]["chunks"].count_documents({"files_id": ObjectId(blob)}) == 0


def test_a_driver_without_threads_raises_unavailable(mongodb: MongoDB, no_threads: Callable[[], int]) -> None:
    store = GridFSStore(f"{mongodb.url}?appname=threadless", "videos")  # a connection of its own
    no_threads()
    with pytest.raises(MediaUnavailable, match="too busy"):
        store.open(new_blob_id())
    threading.stack_size(0)
    with pytest.raises(BlobNotFound):
        store.open(new_blob_id())


@pytest.mark.parametrize(
    "broken",
    [{"chunkSize": value} for value in (float("nan"), float("inf"), 0, -1, 1000.5, "261120", None)]
    + [{"length": value} for value in (float("nan"), float("inf"), -1, 0.5, "5", None)],
    ids=str,
)
def test_a_size_that_is_not_an_integer_raises_corrupt(
    store: GridFSStore, client: Client, broken: dict[str, Any]
) -> None:
    blob = put(store, b"sound")
    client["videos"]["fs"]["files"].update_one({"_id": ObjectId(blob)}, {"$set": broken})
    with pytest.raises(BlobCorrupt):
        store.open(blob)


def test_an_integer_size_stored_as_a_float_is_accepted(store: GridFSStore, client: Client) -> None:
    blob = put(store, b"sound")
    client["videos"]["fs"]["files"].update_one(
        {"_id": ObjectId(blob)}, {"$set": {"length": 5.0, "chunkSize": float(CHUNK_SIZE)}}
    )
    with store.open(blob) as reader:
        assert reader.read() == b"sound"


def test_a_forked_child_has_its_own_connection(store: GridFSStore) -> None:
    blob = put(store, b"content")
    child = os.fork()
    if not child:
        try:
            with store.open(blob) as reader:
                os._exit(reader.read() != b"content")
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    with store.open(blob) as reader:
        assert reader.read() == b"content"


def test_the_uris_determine_the_databases() -> None:
    def names(**environ: str) -> list[str]:
        media = connect(environ)
        return [vars(store)["_database"] for store in (media.videos, media.pieces, media.mp3s)]

    assert names(MONGO_URI="mongodb://db", MEDIA_DIR="/media") == ["videos", "pieces", "mp3s"]
    assert names(MONGO_URI="mongodb://u:p@a,b:1/v?w=1") == ["v", "pieces", "mp3s"]
    assert names(MONGO_URI="mongodb://db/v", MONGO_MP3_URI="mongodb://db/m") == ["v", "pieces", "m"]
    assert names(MONGO_URI="mongodb://db/x", MONGO_MP3_URI="mongodb://other/x") == ["x", "pieces", "x"]
    for video, mp3 in (("db/x", "u:p@db/x"), ("db/pieces", ""), ("db/mp3s", "")):
        with pytest.raises(BadSetting, match="different"):
            names(MONGO_URI=f"mongodb://{video}", MONGO_MP3_URI=mp3 and f"mongodb://{mp3}")


def test_a_malformed_uri_is_named_in_the_error() -> None:
    with pytest.raises(BadSetting, match="MONGO_URI"):
        connect({"MONGO_URI": "db:27017"})
    with pytest.raises(BadSetting, match="MONGO_MP3_URI"):
        connect({"MONGO_URI": "mongodb://db", "MONGO_MP3_URI": "http://db"})
    with pytest.raises(BadSetting, match="MONGO_URI"):
        connect({"MONGO_URI": "mongodb://db:many"}).videos.open(new_blob_id())
