"""Media in MongoDB, as GridFS files that every GridFS client reads.

The files document is written last and deleted first, so that a blob is there whole or not at all. pymongo's own GridIn
is not used: it holds up to 48 MB of a file in memory, and its abort() deletes the chunks of whoever has the same id.
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
    StaleWriter,
    Stat,
    is_blob_id,
)
from functions.settings import BadSetting

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection
    from pymongo.cursor import Cursor

    Documents = Collection[dict[str, Any]]

#: Bytes of a chunk.
CHUNK_SIZE = BLOCK_SIZE

#: Chunks that go to the server together, and such batches that are on their way at the same time. Twice as many chunks
#: took 20 MB more, and no less time.
CHUNKS_PER_INSERT = 8
INSERTS_IN_FLIGHT = 2

#: Milliseconds, where the URI does not say otherwise; no call of ours lasts longer than one batch.
DRIVER_TIMEOUTS = {"serverSelectionTimeoutMS": 5_000, "connectTimeoutMS": 5_000, "socketTimeoutMS": 30_000}
_WRITE_TIMEOUT = 20_000  # milliseconds for a majority to have it

#: Chunks, 256 MB, that one call deletes: all those of a large file take longer than a call may.
CHUNKS_PER_DELETE = 1024

#: Chunks in one answer of the server, 4 MB: without a limit some servers answer with more than a message may hold.
CHUNKS_PER_FETCH = 16

#: Chunks, 1 MB, that are fetched one by one after a jump: whoever reads on after them is likely to go on for long.
SINGLE_FETCHES = 4

#: Chunks that are passed over without leaving a query for it: to ask anew takes as long.
MAX_SKIPPED_CHUNKS = 3

#: Batches that are fetched while one is used.
BATCHES_AHEAD = 2

_DUPLICATE_KEY = 11000
_NO_THREAD = "can't start new thread"  # Modules/_threadmodule.c

#: The field of a chunk with its writer's number; clients of GridFS pass over what they do not know.
_WRITER: Final = "writer"

_clients: dict[tuple[int, str], "MongoClient[dict[str, Any]]"] = {}


class GridFSStore:
    """Blobs in the bucket ``fs`` of one database. Nothing is imported or connected before the first use."""

    def __init__(self, uri: str, database: str) -> None:
        self._uri = uri
        self._database = database
        self._connected: tuple[int, Documents, Documents] | None = None
        self._indexed = False

    def create(self, blob: str, description: Description) -> "GridFSWriter":
        """A writer for a new blob; BlobExists at the first 4 MB or at the end where the id is taken."""
        if not is_blob_id(blob):
            raise _not_found()
        return GridFSWriter(self, blob, description)

    def append(self, blob: str, checkpoint: Checkpoint, writer: int) -> "GridFSAppender":
        """An appender of chunks; the last one is short until more comes."""
        if not is_blob_id(blob):
            raise _not_found()
        self.prepare()
        return GridFSAppender(*self.collections(), blob, checkpoint, writer)

    def open(self, blob: str) -> "GridFSReader":
        """A reader of a finished blob; BlobNotFound where there is none."""
        if not is_blob_id(blob):
            raise _not_found()
        from bson import ObjectId

        files, chunks = self.collections()
        with _translated_errors():
            document = files.find_one({"_id": ObjectId(blob)})
        if document is None:
            raise _not_found()
        return GridFSReader(files, chunks, document)

    def delete(self, blob: str) -> None:
        """Delete a blob, finished or not, also while somebody writes it; that writer fails."""
        if not is_blob_id(blob):
            return
        from bson import ObjectId

        files, chunks = self.collections()
        with _translated_errors():
            files.delete_one({"_id": ObjectId(blob)})
            for first in itertools.count(0, CHUNKS_PER_DELETE):
                some = {"files_id": ObjectId(blob), "n": {"$gte": first, "$lt": first + CHUNKS_PER_DELETE}}
                if chunks.delete_many(some).deleted_count < CHUNKS_PER_DELETE:
                    break
            chunks.delete_many({"files_id": ObjectId(blob)})
            # A writer that finished between those two looks for its first chunk after it, and fails without it; one
            # that looked before the chunks went has put its document in before this.
            files.delete_one({"_id": ObjectId(blob)})

    def collections(self) -> tuple["Documents", "Documents"]:
        """The files and the chunks, on this process's own connection."""
        if self._connected is None or self._connected[0] != os.getpid():
            from pymongo import ReadPreference, WriteConcern
            from pymongo.read_concern import ReadConcern

            client = _client(self._uri)
            with _translated_errors():
                client.admin.command("ping")
                # A lone server has no majority to ask for. Secondaries may not have yet what was just written.
                alone = client.topology_description.topology_type_name == "Single"
                database = client.get_database(
                    self._database,
                    read_preference=ReadPreference.PRIMARY,
                    read_concern=ReadConcern() if alone else ReadConcern("majority"),
                    write_concern=WriteConcern("majority", wtimeout=_WRITE_TIMEOUT),
                )
            self._connected = os.getpid(), database["fs.files"], database["fs.chunks"]
        return self._connected[1:]

    def prepare(self) -> None:
        """Make the indexes of the GridFS specification, before the first file is written."""
        if self._indexed:
            return
        files, chunks = self.collections()
        with _translated_errors():
            if files.find_one({}, {"_id": 1}) is None:
                files.create_index([("filename", 1), ("uploadDate", 1)])
                chunks.create_index([("files_id", 1), ("n", 1)], unique=True)
        self._indexed = True


class GridFSWriter(HashingWriter):
    """Writes one blob: while batches of chunks are on their way to the server, the next one is taken in."""

    def __init__(self, store: GridFSStore, blob: str, description: Description) -> None:
        super().__init__(description)
        self._store = store
        self._blob = blob
        self._partial = bytearray()
        self._full: list[bytes] = []
        self._inserted = 0
        self._workers: ThreadPoolExecutor | None = None
        self._under_way: deque[Future[None]] = deque()

    def _begin(self) -> None:
        from bson import ObjectId

        self._store.prepare()
        self._files, self._chunks = self._store.collections()
        self._id = ObjectId(self._blob)

    def _append(self, data: memoryview) -> None:
        while data:
            room = CHUNK_SIZE - len(self._partial)
            self._partial += data[:room]
            data = data[room:]
            if len(self._partial) == CHUNK_SIZE:
                self._complete()
            if len(self._full) == CHUNKS_PER_INSERT:
                self._flush()

    def _complete(self) -> None:
        self._full.append(bytes(self._partial))
        self._partial.clear()

    def _flush(self) -> None:
        from bson import ObjectId

        numbered = enumerate(self._full, self._inserted)
        documents = [{"_id": ObjectId(), "files_id": self._id, "n": n, "data": data} for n, data in numbered]
        self._full = []
        if not self._inserted:  # an id that is taken is known before more is taken in
            self._insert(documents)
        else:
            self._workers = self._workers or ThreadPoolExecutor(INSERTS_IN_FLIGHT, "gridfs-writer")
            self._settle(INSERTS_IN_FLIGHT - 1)
            with _translated_errors():
                self._under_way.append(self._workers.submit(self._insert, documents))
        self._inserted += len(documents)

    def _insert(self, documents: list[dict[str, Any]]) -> None:
        with _translated_errors():
            self._chunks.insert_many(documents)

    def _settle(self, most: int = 0) -> None:
        """Wait until so few batches are under way, the oldest first, and raise what went wrong with one."""
        while len(self._under_way) > most:
            self._under_way.popleft().result()

    def _close(self) -> None:
        """Wait until nothing is under way, whatever becomes of it."""
        if self._workers is not None:
            self._workers.shutdown(wait=True)

    def _finish(self, stat: Stat) -> None:
        from bson import Int64

        if self._partial:
            self._complete()
        if self._full:
            self._flush()
        self._settle()
        self._close()
        document = {
            "_id": self._id,
            "length": Int64(stat.size),
            "chunkSize": CHUNK_SIZE,
            "uploadDate": datetime.now(UTC),
            "filename": stat.description.filename,
            "metadata": {**asdict(stat.description), "sha256": stat.sha256, "crc32c": stat.crc32c},
        }
        with _translated_errors():
            self._files.insert_one(document)
            if self._inserted and self._chunks.find_one({"files_id": self._id, "n": 0}, {"_id": 1}) is None:
                raise MediaUnavailable("The file was deleted while it was written; try again.")

    def _give_up(self, failure: BaseException | None) -> None:
        self._close()  # what arrives later than the deletion, whoever deletes, would stay
        super()._give_up(failure)

    def _discard(self) -> None:
        with contextlib.suppress(Mp3burstError):
            self._store.delete(self._blob)


class GridFSReader(VerifyingReader):
    """Reads one file by its document in the files collection, whichever GridFS client wrote it."""

    def __init__(
        self,
        files: "Collection[dict[str, Any]]",
        chunks: "Collection[dict[str, Any]]",
        document: Mapping[str, Any],
    ) -> None:
        super().__init__(_stat(document))
        self._files = files
        self._chunks = chunks
        self._id = document["_id"]
        self._chunk_size = int(document["chunkSize"])
        self._last = -2, b""  # the chunk read last, since small reads come back to it
        self._run = 0  # so many chunks were read one after the other
        self._cursor: Cursor[dict[str, Any]] | None = None
        self._batch: deque[dict[str, Any]] = deque()
        self._ahead: deque[Future[list[dict[str, Any]]]] = deque()  # the batches after that
        self._worker: ThreadPoolExecutor | None = None
        self._answered = False  # whether the query has

    def _fetch(self, start: int, size: int) -> bytes:
        end = start + size
        parts: list[bytes | memoryview] = []
        for n in range(start // self._chunk_size, (end - 1) // self._chunk_size + 1):
            data = self._chunk(n)
            base = n * self._chunk_size
            whole = base >= start and base + len(data) <= end
            parts.append(data if whole else memoryview(data)[max(0, start - base) : end - base])
            if base + len(data) < min(end, base + self._chunk_size):
                self._explain()
                break
        return b"".join(parts)

    def _chunk(self, n: int) -> bytes:
        """The bytes of chunk ``n``, none if it is missing."""
        if n != self._last[0]:
            passed = n - self._last[0] - 1
            if passed and not (self._cursor is not None and 0 <= passed <= MAX_SKIPPED_CHUNKS):
                self._leave()
                self._run = 0
            self._run += 1
            with _translated_errors():
                streams = self._run > SINGLE_FETCHES and self._streams(n)
                self._last = n, self._from_stream(n) if streams else self._alone(n)
        return self._last[1]

    def _alone(self, n: int) -> bytes:
        document = self._chunks.find_one({"files_id": self._id, "n": n})
        return b"" if document is None else bytes(document["data"])

    def _streams(self, n: int) -> bool:
        """Whether a query has answered that goes on from here; where there is none, one begins behind chunk ``n``.

        Until it has, each chunk is fetched alone: some servers look for long before they answer.
        """
        if self._cursor is None:
            self._begin(n + 1)
            return False
        self._answered = self._answered or self._ahead[0].done()
        return self._answered

    def _begin(self, n: int) -> None:
        rest = {"files_id": self._id, "n": {"$gte": n}}
        self._cursor = self._chunks.find(rest).sort("n", 1).batch_size(CHUNKS_PER_FETCH)
        self._answered = False
        self._fill()

    def _from_stream(self, n: int) -> bytes:
        from pymongo.errors import AutoReconnect, CursorNotFound

        try:
            self._refill(n)
        except (AutoReconnect, CursorNotFound):  # the driver repeats a query, but never the next batch of one
            self._leave()
            self._begin(n)
            self._refill(n)
        if not self._batch or self._batch[0]["n"] != n:
            return b""
        return bytes(self._batch.popleft()["data"])

    def _refill(self, n: int) -> None:
        """Have a batch that begins with chunk ``n``, and the next ones on their way while this one is used."""
        while True:
            while self._batch and self._batch[0]["n"] < n:
                self._batch.popleft()
            if self._batch:
                return
            self._fill()
            if not (loaded := self._ahead.popleft().result()):
                return
            self._batch.extend(loaded)

    def _fill(self) -> None:
        """Have batches on their way; one by one, as a cursor gives them."""
        self._worker = self._worker or ThreadPoolExecutor(1, "gridfs-reader")
        while self._cursor is not None and len(self._ahead) <= BATCHES_AHEAD:
            try:
                self._ahead.append(self._worker.submit(_load, self._cursor))
            except RuntimeError:  # no thread for it: nobody is to come later and take a batch of this query
                self._cursor = self._worker = None
                raise

    def _explain(self) -> None:
        """Raise BlobNotFound if bytes are missing because the file was deleted."""
        self._leave()
        with _translated_errors():
            if self._files.find_one({"_id": self._id}, {"_id": 1}) is None:
                raise BlobNotFound("The file was deleted while it was read.")

    def _leave(self) -> None:
        """Let go of the query; a batch that is just under way is waited for by the worker alone."""
        for batch in self._ahead:
            batch.cancel()  # those that are not under way yet
        if self._cursor is not None and self._worker is not None:
            self._worker.submit(self._cursor.close)
        self._cursor = None
        self._ahead.clear()
        self._batch.clear()

    def _close(self) -> None:
        self._leave()
        if self._worker is not None:
            self._worker.shutdown(wait=False)
            self._worker = None


class GridFSAppender(BlockAppender):
    """Appends to one blob."""

    def __init__(self, files: "Documents", chunks: "Documents", blob: str, checkpoint: Checkpoint, writer: int) -> None:
        from bson import ObjectId

        super().__init__(checkpoint)
        self._files, self._chunks = files, chunks
        self._id, self._writer = ObjectId(blob), writer
        self._short = -1  # the number of a chunk that is there in part

    def _begin(self) -> bool:
        with _translated_errors():
            return self._files.find_one({"_id": self._id}, {"_id": 1}) is None

    def _read_back(self, block: int, size: int) -> bytes:
        with _translated_errors():
            chunk = self._chunks.find_one({"files_id": self._id, "n": block})
        if chunk is None or len(chunk["data"]) < size:
            raise BlobNotFound("A part of the file is gone from the media store: begin again.")
        self._short = block
        # A request that was cut short may have left more than was kept; the next sync takes it away.
        self._changed = len(chunk["data"]) > size
        return bytes(chunk["data"][:size])

    def _put(self, first: int, blocks: list[bytes]) -> None:
        chunks = {first + i: {"n": first + i, "data": data, _WRITER: self._writer} for i, data in enumerate(blocks)}
        if self._short in chunks:
            self._replace(chunks.pop(self._short))
        for n in self._insert(list(chunks.values())) if chunks else []:
            self._replace(chunks[n])
        self._short = first + len(blocks) - 1 if len(blocks[-1]) < BLOCK_SIZE else -1

    def _insert(self, chunks: list[dict[str, Any]]) -> list[int]:
        """Insert new chunks; the numbers of those that are there already."""
        from pymongo.errors import BulkWriteError

        with _translated_errors():
            try:
                self._chunks.insert_many([{"files_id": self._id, **chunk} for chunk in chunks], ordered=False)
            except BulkWriteError as error:
                faults = error.details.get("writeErrors", [])
                if not faults or any(fault.get("code") != _DUPLICATE_KEY for fault in faults):
                    raise
                return [chunks[fault["index"]]["n"] for fault in faults]
        return []

    def _replace(self, chunk: dict[str, Any]) -> None:
        """Put a chunk in the place of what this writer or an earlier one left."""
        with _translated_errors():
            there = self._chunks.find_one({"files_id": self._id, "n": chunk["n"]}, {"_id": 1})
            # By _id: some servers look through every chunk for anything else when they update.
            which = {"_id": there and there["_id"], _WRITER: {"$lte": self._writer}}
            done = self._chunks.update_one(which, {"$set": {"data": chunk["data"], _WRITER: self._writer}})
        if not done.matched_count:
            raise StaleWriter("Another request goes on with this upload: ask for its offset before you do.")

    def _settle(self) -> None:
        """Nothing to do: the write concern has seen to it."""

    def _finish(self, stat: Stat) -> None:
        from bson import Int64

        document = {
            "_id": self._id,
            "length": Int64(stat.size),
            "chunkSize": BLOCK_SIZE,
            "uploadDate": datetime.now(UTC),
            "filename": stat.description.filename,
            "metadata": {**asdict(stat.description), "sha256": stat.sha256, "crc32c": stat.crc32c},
        }
        try:
            with _translated_errors():
                self._files.insert_one(document)
        except BlobExists:
            return  # finished by an attempt whose process was killed, or whose answer was lost
        with _translated_errors():
            if stat.size and self._chunks.find_one({"files_id": self._id, "n": 0}, {"_id": 1}) is None:
                self._files.delete_one({"_id": self._id})
                raise MediaUnavailable("The file was deleted while it was written; try again.")

    def _close(self) -> None:
        """Nothing to let go of."""


def disconnect() -> None:
    """Close this process's connections; the next use of a store connects again."""
    for key in [key for key in _clients if key[0] == os.getpid()]:
        _clients.pop(key).close()


def _client(uri: str) -> "MongoClient[dict[str, Any]]":
    from pymongo import MongoClient
    from pymongo.errors import ConfigurationError

    key = os.getpid(), uri  # a client that went through fork() is not to be used
    if key not in _clients:
        options: dict[str, Any] = {
            name: value for name, value in DRIVER_TIMEOUTS.items() if name.lower() not in uri.lower()
        }
        try:
            made: MongoClient[dict[str, Any]] = MongoClient(uri, connect=False, appname="mp3burst", **options)
        except (ConfigurationError, ValueError) as error:
            raise BadSetting(
                "MONGO_URI or MONGO_MP3_URI is no MongoDB URI: write mongodb://USER:PASSWORD@HOST:27017/DATABASE."
            ) from error
        _clients.setdefault(key, made)  # whoever loses the race never connected
    return _clients[key]


def _not_found() -> BlobNotFound:
    return BlobNotFound("There is no such file; it may have been deleted.")


def _load(cursor: "Cursor[dict[str, Any]]") -> list[dict[str, Any]]:
    return list(itertools.islice(cursor, CHUNKS_PER_FETCH))


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn pymongo's errors, and that there is no room for a thread, into those of ``functions.media.interface``."""
    from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

    try:
        yield
    except DuplicateKeyError as error:
        raise BlobExists("A file is written once; use a fresh id.") from error
    except BulkWriteError as error:
        if any(fault.get("code") == _DUPLICATE_KEY for fault in error.details.get("writeErrors", ())):
            raise BlobExists("A file is written once; use a fresh id.") from error
        raise MediaUnavailable("The media store took only a part of the file; try again later.") from error
    except PyMongoError as error:
        raise MediaUnavailable("The media store does not answer; try again later.") from error
    except RuntimeError as error:  # of threading, whether ours or the driver's
        if _NO_THREAD not in str(error):
            raise
        raise MediaUnavailable("There is no room to reach the media store just now; try again later.") from error


def _stat(document: Mapping[str, Any]) -> Stat:
    metadata = document.get("metadata")
    known = metadata if isinstance(metadata, Mapping) else {}
    texts = {name: str(known.get(name) or "") for name in Description.__dataclass_fields__}
    sha256, crc32c = (str(known.get(name) or "") for name in ("sha256", "crc32c"))
    texts["filename"] = texts["filename"] or str(document.get("filename") or "")
    size, chunk_size = document.get("length"), document.get("chunkSize")
    if not _whole(size, 0) or not _whole(chunk_size, 1):
        raise BlobCorrupt("The file is damaged in the media store; upload it again.")
    return Stat(int(size), sha256, crc32c, Description(**texts))


def _whole(value: Any, least: int) -> TypeGuard[float]:
    # Some clients write whole numbers as floats, of which infinity and NaN are none.
    return isinstance(value, int | float) and float(value).is_integer() and value >= least
