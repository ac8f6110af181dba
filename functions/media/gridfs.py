"""Media in MongoDB, as GridFS files that every GridFS client can read.

The files document is inserted last and deleted first, so a blob is visible completely or not at all. pymongo's own
GridIn is not used: it keeps up to 48 MB of a file in memory, and its abort() deletes the chunks of any other file with
the same id.

A blob that grows over many requests may have several writers: one that was believed dead may still write. So every
chunk carries its writer's number, and a chunk is replaced only if it is from the same writer or an earlier one.
"""

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from events.errors import Mp3burstError
from functions.media.integrity import BLOCK_SIZE, BlockAppender, HashingWriter, VerifyingReader
from functions.media.interface import (
    BlobCorrupt,
    BlobExists,
    BlobNotFound,
    Checkpoint,
    Description,
    MediaUnavailable,
    Space,
    StaleWriter,
    Stat,
    Usage,
    is_blob_id,
)
from functions.settings import BadSetting

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection
    from pymongo.cursor import Cursor

    Documents = Collection[dict[str, Any]]

#: Bytes of a chunk.
CHUNK_SIZE: Final = BLOCK_SIZE

#: Milliseconds, unless the URI has its own. None of our calls takes longer than one batch of chunks does.
DRIVER_TIMEOUTS: Final = {"serverSelectionTimeoutMS": 5_000, "connectTimeoutMS": 5_000, "socketTimeoutMS": 30_000}
#: Milliseconds until a majority must have acknowledged a write.
_WRITE_TIMEOUT: Final = 20_000

#: Chunks that a writer inserts together, 2 MB, and how many such inserts run at the same time. With twice as many
#: chunks an insert took 20 MB more memory and was no faster.
CHUNKS_PER_INSERT: Final = 8
INSERTS_IN_FLIGHT: Final = 2

#: Chunks that a reader fetches together, 2 MB. Without a limit some servers exceed the maximum size of a message.
CHUNKS_PER_FETCH: Final = 8
#: Chunks, 1.5 MB, that are fetched singly after a seek. A reader that continues past them will probably read much more,
#: so a query streams the chunks from then on.
SINGLE_FETCHES: Final = 6
#: Chunks that are still fetched singly while the query starts, so that few are fetched twice.
STARTING_FETCHES: Final = 2
#: Chunks that a short seek may skip within the running query: starting a new one takes as long.
MAX_SKIPPED_CHUNKS: Final = 3
#: Bytes of the chunks that a reader keeps, six of ours: small reads ask for the same one again, and whoever reads the
#: tables of a video goes back and forth between its ends.
RECENT_BYTES: Final = 6 * CHUNK_SIZE
#: Batches that are fetched while one is read, 4 MB, and no more than were read before: an encoder reads a few seconds
#: of the video here and there.
BATCHES_AHEAD: Final = 2

#: Chunks, 256 MB, that one call deletes: deleting all those of a large file would exceed a call's timeout.
CHUNKS_PER_DELETE: Final = 1024

#: The field of a chunk with its writer's number. GridFS clients ignore fields that they do not know.
_WRITER: Final = "writer"
#: MongoDB's error code for a duplicate key.
_DUPLICATE_KEY: Final = 11000
#: The message of the RuntimeError when no thread can be started (Modules/_threadmodule.c).
_NO_THREAD: Final = "can't start new thread"

_clients: dict[tuple[int, str], "MongoClient[dict[str, Any]]"] = {}


class GridFSStore:
    """Blobs in the bucket ``fs`` of one database. Nothing is imported or connected before the first use."""

    def __init__(self, uri: str, database: str) -> None:
        self._uri = uri
        self._database = database
        self._connected: tuple[int, Documents, Documents] | None = None
        self._has_indexes = False

    def connect(self) -> None:
        """Imports the driver and connects to the server."""
        self.collections()

    def create(self, blob: str, description: Description) -> "GridFSWriter":
        """Returns a writer for a new blob. If the id is taken, the first insert or the exit raises BlobExists."""
        _check_id(blob)
        return GridFSWriter(self, blob, description)

    def append(self, blob: str, checkpoint: Checkpoint, writer: int) -> "GridFSAppender":
        """Returns an appender of chunks; the last chunk stays short until more bytes arrive."""
        _check_id(blob)
        self.prepare()
        return GridFSAppender(*self.collections(), blob, checkpoint, writer)

    def open(self, blob: str) -> "GridFSReader":
        """Returns a reader of a finished blob; BlobNotFound if there is none."""
        _check_id(blob)
        from bson import ObjectId

        files, chunks = self.collections()
        with _translated_errors():
            document = files.find_one({"_id": ObjectId(blob)})
        if document is None:
            raise BlobNotFound
        return GridFSReader(files, chunks, document)

    def delete(self, blob: str) -> None:
        """Deletes a blob, finished or not. If somebody is writing it, that writer fails."""
        if not is_blob_id(blob):
            return
        from bson import ObjectId

        files, chunks = self.collections()
        with _translated_errors():
            files.delete_one({"_id": ObjectId(blob)})
            _delete_chunks(chunks, {"files_id": ObjectId(blob)})
            # A writer inserts its files document and then looks for its first chunk. If it looks after the chunks were
            # deleted, it fails; if it looked before, its document is there by now and is deleted here.
            files.delete_one({"_id": ObjectId(blob)})

    def space(self) -> Space | None:
        """Returns the space of the server's disk; None if it does not tell."""
        return self.usage().space

    def usage(self) -> Usage:
        """Returns what the server's disk has, or the store's database if the server does not tell (MongoDB before 3.6).

        Raises:
            MediaUnavailable: the server does not answer.
        """
        files, _ = self.collections()
        with _translated_errors():
            stats = files.database.command("dbStats")
        total = stats.get("fsTotalSize")
        used = stats.get("fsUsedSize")
        if _is_integer(total, 1) and _is_integer(used, 0):
            return Usage(int(used), Space(int(total - used), int(total)))
        sizes = (stats.get("storageSize"), stats.get("indexSize"))
        return Usage(sum(int(size) for size in sizes if _is_integer(size, 0)), None)

    def collections(self) -> tuple["Documents", "Documents"]:
        """Returns the collections of files and of chunks, on this process's own connection."""
        if self._connected is None or self._connected[0] != os.getpid():
            from pymongo import ReadPreference, WriteConcern
            from pymongo.read_concern import ReadConcern

            client = _client(self._uri)
            with _translated_errors():
                client.admin.command("ping")
                # A single server has no majority to read from. Secondaries may lack what was just written.
                is_single = client.topology_description.topology_type_name == "Single"
                database = client.get_database(
                    self._database,
                    read_preference=ReadPreference.PRIMARY,
                    read_concern=ReadConcern() if is_single else ReadConcern("majority"),
                    write_concern=WriteConcern("majority", wtimeout=_WRITE_TIMEOUT),
                )
            self._connected = os.getpid(), database["fs.files"], database["fs.chunks"]
        return self._connected[1:]

    def prepare(self) -> None:
        """Creates the indexes of the GridFS specification, before the first file is written."""
        if self._has_indexes:
            return
        files, chunks = self.collections()
        with _translated_errors():
            if files.find_one({}, {"_id": 1}) is None:
                files.create_index([("filename", 1), ("uploadDate", 1)])
                chunks.create_index([("files_id", 1), ("n", 1)], unique=True)
        self._has_indexes = True


class GridFSWriter(HashingWriter):
    """Writes one blob: accepts the next batch of chunks while earlier batches are being inserted."""

    def __init__(self, store: GridFSStore, blob: str, description: Description) -> None:
        super().__init__(description)
        self._store = store
        self._blob = blob
        self._partial = bytearray()
        self._full: list[bytes] = []
        self._inserted = 0  # chunks that were inserted, or whose insert was started
        self._workers: ThreadPoolExecutor | None = None
        self._in_flight: deque[Future[None]] = deque()

    def _begin(self) -> None:
        from bson import ObjectId

        self._store.prepare()
        self._files, self._chunks = self._store.collections()
        self._id = ObjectId(self._blob)

    def _append(self, data: memoryview) -> None:
        while data:
            space = CHUNK_SIZE - len(self._partial)
            self._partial += data[:space]
            data = data[space:]
            if len(self._partial) == CHUNK_SIZE:
                self._complete_chunk()
            if len(self._full) == CHUNKS_PER_INSERT:
                self._insert_full_chunks()

    def _complete_chunk(self) -> None:
        self._full.append(bytes(self._partial))
        self._partial.clear()

    def _insert_full_chunks(self) -> None:
        from bson import ObjectId

        numbered = enumerate(self._full, self._inserted)
        documents = [{"_id": ObjectId(), "files_id": self._id, "n": n, "data": data} for n, data in numbered]
        self._full = []
        if not self._inserted:  # Wait for the first insert: it shows whether the id is taken.
            self._insert(documents)
        else:
            self._workers = self._workers or ThreadPoolExecutor(INSERTS_IN_FLIGHT, "gridfs-writer")
            self._wait_for_inserts(INSERTS_IN_FLIGHT - 1)
            with _translated_errors():
                self._in_flight.append(self._workers.submit(self._insert, documents))
        self._inserted += len(documents)

    def _insert(self, documents: list[dict[str, Any]]) -> None:
        with _translated_errors():
            self._chunks.insert_many(documents)

    def _wait_for_inserts(self, limit: int = 0) -> None:
        """Waits until at most ``limit`` inserts are in flight, and raises the error of one that failed."""
        while len(self._in_flight) > limit:
            self._in_flight.popleft().result()

    def _close(self) -> None:
        """Waits until no insert is in flight, whether they succeed or not."""
        if self._workers is not None:
            self._workers.shutdown(wait=True)

    def _finish(self, stat: Stat) -> None:
        if self._partial:
            self._complete_chunk()
        if self._full:
            self._insert_full_chunks()
        self._wait_for_inserts()
        self._close()
        with _translated_errors():
            self._files.insert_one(_files_document(self._id, stat))
            if self._inserted and self._chunks.find_one({"files_id": self._id, "n": 0}, {"_id": 1}) is None:
                raise MediaUnavailable("The file was deleted while it was being written; try again.")

    def _abandon(self, failure: BaseException | None) -> None:
        self._close()  # A chunk that is inserted after the deletion would never be deleted.
        super()._abandon(failure)

    def _discard(self) -> None:
        with contextlib.suppress(Mp3burstError):
            self._store.delete(self._blob)


class GridFSReader(VerifyingReader):
    """Reads one file, whichever GridFS client wrote it.

    Fetches only the chunks that are asked for. While reads are sequential, a query streams the next ones in advance.
    """

    def __init__(self, files: "Documents", chunks: "Documents", document: Mapping[str, Any]) -> None:
        """Reads the file of this document of the files collection."""
        super().__init__(_parse_files_document(document))
        self._files = files
        self._chunks = chunks
        self._id = document["_id"]
        self._chunk_size = int(document["chunkSize"])
        self._last = -2  # number of the chunk that was fetched last
        # The bytes of the chunks that were read last, by number; the latest is last.
        self._recent: dict[int, bytes] = {}
        self._sequential = 0  # how many chunks were read one after the other
        self._cursor: Cursor[dict[str, Any]] | None = None
        self._streamed_from = 0  # the first chunk that the cursor yields
        self._batch: deque[dict[str, Any]] = deque()
        self._batches_ahead: deque[Future[list[dict[str, Any]]]] = deque()  # the batches after ``_batch``
        self._worker: ThreadPoolExecutor | None = None
        self._cursor_answered = False

    def _fetch(self, start: int, size: int) -> bytes:
        end = start + size
        parts: list[bytes | memoryview] = []
        for n in range(start // self._chunk_size, (end - 1) // self._chunk_size + 1):
            data = self._chunk(n)
            base = n * self._chunk_size
            is_needed_whole = base >= start and base + len(data) <= end
            parts.append(data if is_needed_whole else memoryview(data)[max(0, start - base) : end - base])
            if base + len(data) < min(end, base + self._chunk_size):
                self._check_deleted()
                break
        return b"".join(parts)

    def _chunk(self, n: int) -> bytes:
        """Returns the bytes of chunk ``n``, or no bytes if it is missing."""
        data = self._recent.pop(n, None)
        if data is None:
            skipped = n - self._last - 1
            if skipped and not (self._cursor is not None and 0 <= skipped <= MAX_SKIPPED_CHUNKS):
                self._stop_streaming()
                self._sequential = 0
            self._sequential += 1
            with _translated_errors():
                is_ahead = self._sequential > SINGLE_FETCHES and n * self._chunk_size < self._end
                is_streamed = is_ahead and self._ensure_streaming(n)
                data = self._next_streamed(n) if is_streamed else self._fetch_single(n)
            self._last = n
            if len(self._recent) >= max(RECENT_BYTES // self._chunk_size, 1):
                del self._recent[next(iter(self._recent))]
        self._recent[n] = data
        return data

    def _fetch_single(self, n: int) -> bytes:
        document = self._chunks.find_one({"files_id": self._id, "n": n})
        return b"" if document is None else bytes(document["data"])

    def _ensure_streaming(self, n: int) -> bool:
        """Starts a query for the chunks after ``n`` unless one is running, and returns whether it has answered.

        Until it has, chunks are fetched singly: some servers take long to answer. So are the last few of a file.
        """
        if self._cursor is None:
            if n + SINGLE_FETCHES >= self._end // self._chunk_size:
                return False
            self._start_streaming(n + 1 + STARTING_FETCHES)
            return False
        self._cursor_answered = self._cursor_answered or self._batches_ahead[0].done()
        return self._cursor_answered and n >= self._streamed_from

    def _start_streaming(self, n: int) -> None:
        """Queries the chunks from ``n`` on that the caller may read."""
        end = max(-(-self._end // self._chunk_size), n)
        wanted = {"files_id": self._id, "n": {"$gte": n, "$lt": end}}
        self._cursor = self._chunks.find(wanted).sort("n", 1).batch_size(CHUNKS_PER_FETCH)
        self._streamed_from = n
        self._cursor_answered = False
        self._fetch_ahead()

    def _next_streamed(self, n: int) -> bytes:
        from pymongo.errors import AutoReconnect, CursorNotFound

        try:
            self._advance_to(n)
        except (AutoReconnect, CursorNotFound):  # The driver retries a query, but never its next batch.
            self._stop_streaming()
            self._start_streaming(n)
            self._advance_to(n)
        if not self._batch or self._batch[0]["n"] != n:
            return b""
        return bytes(self._batch.popleft()["data"])

    def _advance_to(self, n: int) -> None:
        """Makes chunk ``n``, or the next one that exists, the first of the batch, and fetches further batches ahead."""
        while True:
            while self._batch and self._batch[0]["n"] < n:
                self._batch.popleft()
            if self._batch:
                return
            self._fetch_ahead()
            batch = self._batches_ahead.popleft().result()
            if not batch:
                return
            self._batch.extend(batch)

    def _fetch_ahead(self) -> None:
        """Starts to fetch batches, one after the other, as the cursor yields them."""
        self._worker = self._worker or ThreadPoolExecutor(1, "gridfs-reader")
        ahead = min(BATCHES_AHEAD, max(self._sequential // CHUNKS_PER_FETCH - 1, 0))
        while self._cursor is not None and len(self._batches_ahead) <= ahead:
            try:
                self._batches_ahead.append(self._worker.submit(_next_batch, self._cursor))
            except RuntimeError:  # No thread can be started. Drop the query, so that no later read takes a batch of it.
                self._cursor = None
                self._worker = None
                raise

    def _check_deleted(self) -> None:
        """Raises BlobNotFound if bytes are missing because the file was deleted."""
        self._stop_streaming()
        with _translated_errors():
            if self._files.find_one({"_id": self._id}, {"_id": 1}) is None:
                raise BlobNotFound("The file was deleted while it was being read: upload the video again.")

    def _stop_streaming(self) -> None:
        """Drops the query. Only the worker waits for a batch that is being fetched."""
        for batch in self._batches_ahead:
            batch.cancel()  # has no effect on one that is being fetched
        if self._cursor is not None and self._worker is not None:
            self._worker.submit(self._cursor.close)
        self._cursor = None
        self._batches_ahead.clear()
        self._batch.clear()

    def _close(self) -> None:
        self._stop_streaming()
        if self._worker is not None:
            self._worker.shutdown(wait=False)
            self._worker = None


class GridFSAppender(BlockAppender):
    """Appends chunks to one blob."""

    def __init__(self, files: "Documents", chunks: "Documents", blob: str, checkpoint: Checkpoint, writer: int) -> None:
        from bson import ObjectId

        super().__init__(checkpoint)
        self._files = files
        self._chunks = chunks
        self._id = ObjectId(blob)
        self._writer = writer
        self._short_chunk = -1  # the number of the chunk that is stored in part, or -1

    def _begin(self) -> bool:
        if self._is_visible():
            return False
        if self.checkpoint.size == 0:
            self._delete_from(0)
        return True

    def _is_visible(self) -> bool:
        with _translated_errors():
            return self._files.find_one({"_id": self._id}, {"_id": 1}) is not None

    def _delete_from(self, first: int) -> None:
        """Deletes the chunks from ``first`` on; StaleWriter if a later writer has stored some of them."""
        left = {"files_id": self._id, "n": {"$gte": first}}
        with _translated_errors():
            if self._chunks.find_one(left, {"_id": 1}) is None:
                return
            _delete_chunks(self._chunks, {"files_id": self._id, _WRITER: {"$lte": self._writer}}, first)
            if self._chunks.find_one(left, {"_id": 1}) is not None:
                raise StaleWriter

    def _read_back(self, block: int, size: int) -> bytes:
        with _translated_errors():
            chunk = self._chunks.find_one({"files_id": self._id, "n": block})
        if chunk is None or len(chunk["data"]) < size:
            raise BlobNotFound("Part of the file is missing in the media store: start the upload again.")
        self._short_chunk = block
        # An interrupted request may have stored bytes past the checkpoint; the next sync replaces the chunk.
        self._partial_changed = len(chunk["data"]) > size
        return bytes(chunk["data"][:size])

    def _put(self, first: int, blocks: list[bytes]) -> None:
        chunks = {n: {"n": n, "data": data, _WRITER: self._writer} for n, data in enumerate(blocks, first)}
        if self._short_chunk in chunks:
            self._replace(chunks.pop(self._short_chunk))
        for n in self._insert(list(chunks.values())) if chunks else []:
            self._replace(chunks[n])
        self._short_chunk = first + len(blocks) - 1 if len(blocks[-1]) < CHUNK_SIZE else -1

    def _insert(self, chunks: list[dict[str, Any]]) -> list[int]:
        """Inserts new chunks, and returns the numbers of those that exist already."""
        from pymongo.errors import BulkWriteError

        with _translated_errors():
            try:
                self._chunks.insert_many([{"files_id": self._id, **chunk} for chunk in chunks], ordered=False)
            except BulkWriteError as error:
                failures = error.details.get("writeErrors", [])
                if not failures or any(failure.get("code") != _DUPLICATE_KEY for failure in failures):
                    raise
                return [chunks[failure["index"]]["n"] for failure in failures]
        return []

    def _replace(self, chunk: dict[str, Any]) -> None:
        """Replaces a chunk that this writer or an earlier one stored; StaleWriter if it is from a later one."""
        with _translated_errors():
            existing = self._chunks.find_one({"files_id": self._id, "n": chunk["n"]}, {"_id": 1})
            # Select by _id: for any other condition some servers scan all chunks when they update.
            condition = {"_id": existing and existing["_id"], _WRITER: {"$lte": self._writer}}
            result = self._chunks.update_one(condition, {"$set": {"data": chunk["data"], _WRITER: self._writer}})
        if not result.matched_count:
            raise StaleWriter

    def _flush(self) -> None:
        """Does nothing: the write concern has made it durable."""

    def _finish(self, stat: Stat) -> None:
        try:
            # Other GridFS clients refuse a file with more chunks than its length needs.
            self._delete_from(-(-stat.size // CHUNK_SIZE))
        except StaleWriter:
            if self._is_visible():
                return
            raise
        try:
            with _translated_errors():
                self._files.insert_one(_files_document(self._id, stat))
        except BlobExists:
            return  # Finished by an attempt that was killed, or whose response was lost.
        # An earlier writer that finds no file after it has put its last chunk has put it before this.
        self._delete_behind(stat.size)
        with _translated_errors():
            if stat.size and self._chunks.find_one({"files_id": self._id, "n": 0}, {"_id": 1}) is None:
                self._files.delete_one({"_id": self._id})
                raise MediaUnavailable("The file was deleted while it was being written; try again.")

    def _withdraw(self) -> None:
        with _translated_errors():
            document = self._files.find_one({"_id": self._id}, {"length": 1})
        if document is not None:
            self._delete_behind(int(document["length"]))

    def _delete_behind(self, size: int) -> None:
        with contextlib.suppress(StaleWriter):
            self._delete_from(-(-size // CHUNK_SIZE))

    def _close(self) -> None:
        """Does nothing: there are no resources to release."""


def disconnect() -> None:
    """Closes this process's connections; a store reconnects at its next use."""
    for key in [key for key in _clients if key[0] == os.getpid()]:
        _clients.pop(key).close()


def _client(uri: str) -> "MongoClient[dict[str, Any]]":
    """Returns this process's client for a server. A client must not be used after fork()."""
    from pymongo import MongoClient
    from pymongo.errors import ConfigurationError

    key = os.getpid(), uri
    if key not in _clients:
        lowercase_uri = uri.lower()
        options: dict[str, Any] = {
            name: value for name, value in DRIVER_TIMEOUTS.items() if name.lower() not in lowercase_uri
        }
        try:
            client: MongoClient[dict[str, Any]] = MongoClient(uri, connect=False, appname="mp3burst", **options)
        except (ConfigurationError, ValueError) as error:
            raise BadSetting(
                "MONGO_URI or MONGO_MP3_URI is not a MongoDB URI: write mongodb://USER:PASSWORD@HOST:27017/DATABASE."
            ) from error
        _clients.setdefault(key, client)  # If another thread was faster, this client is dropped before it connects.
    return _clients[key]


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """Turns pymongo's errors, and a failure to start a thread, into those of ``functions.media.interface``."""
    from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

    try:
        yield
    except DuplicateKeyError as error:
        raise BlobExists from error
    except BulkWriteError as error:
        if any(failure.get("code") == _DUPLICATE_KEY for failure in error.details.get("writeErrors", ())):
            raise BlobExists from error
        raise MediaUnavailable("The media store accepted only part of the file; try again later.") from error
    except PyMongoError as error:
        raise MediaUnavailable("The media store does not answer; try again later.") from error
    except RuntimeError as error:  # from threading, called by us or by the driver
        if _NO_THREAD not in str(error):
            raise
        raise MediaUnavailable("The service is too busy to reach the media store; try again later.") from error


def _delete_chunks(chunks: "Documents", condition: Mapping[str, Any], first: int = 0) -> None:
    """Deletes the chunks that meet the condition, from number ``first`` on, a batch at a time."""
    for start in itertools.count(first, CHUNKS_PER_DELETE):
        batch = {**condition, "n": {"$gte": start, "$lt": start + CHUNKS_PER_DELETE}}
        if chunks.delete_many(batch).deleted_count < CHUNKS_PER_DELETE:
            break
    chunks.delete_many({**condition, "n": {"$gte": first}})  # those behind a gap


def _next_batch(cursor: "Cursor[dict[str, Any]]") -> list[dict[str, Any]]:
    return list(itertools.islice(cursor, CHUNKS_PER_FETCH))


def _check_id(blob: str) -> None:
    """Raises BlobNotFound if the id is malformed."""
    if not is_blob_id(blob):
        raise BlobNotFound


def _files_document(blob: Any, stat: Stat) -> dict[str, Any]:
    """Returns the files document of a finished blob, given its ObjectId."""
    from bson import Int64

    return {
        "_id": blob,
        "length": Int64(stat.size),
        "chunkSize": CHUNK_SIZE,
        "uploadDate": datetime.now(UTC),
        "filename": stat.description.filename,
        "metadata": {**asdict(stat.description), "sha256": stat.sha256, "crc32c": stat.crc32c},
    }


def _parse_files_document(document: Mapping[str, Any]) -> Stat:
    """Reads a files document, which any GridFS client may have written."""
    metadata = document.get("metadata")
    known = metadata if isinstance(metadata, Mapping) else {}
    description = {name: str(known.get(name) or "") for name in Description.__dataclass_fields__}
    description["filename"] = description["filename"] or str(document.get("filename") or "")
    sha256 = str(known.get("sha256") or "")
    crc32c = str(known.get("crc32c") or "")
    size = document.get("length")
    chunk_size = document.get("chunkSize")
    if not _is_integer(size, 0) or not _is_integer(chunk_size, 1):
        raise BlobCorrupt
    return Stat(int(size), sha256, crc32c, Description(**description))


def _is_integer(value: Any, minimum: int) -> TypeGuard[float]:
    # Some clients write integers as floats; infinity and NaN are not integers.
    return isinstance(value, int | float) and float(value).is_integer() and value >= minimum
