"""Media in MongoDB, as GridFS files that every GridFS client reads.

The files document is written last and deleted first, so that a blob is there whole or not at all. pymongo's own GridIn
is not used: it holds up to 48 MB of a file in memory, and its abort() deletes the chunks of whoever has the same id.
"""

import contextlib
import itertools
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from events.errors import Mp3burstError
from functions.media.blocks import BLOCK
from functions.media.gridfs_appender import GridFSAppender
from functions.media.gridfs_reader import GridFSReader, plain_errors
from functions.media.integrity import HashingWriter
from functions.media.interface import BlobNotFound, Description, Kept, MediaUnavailable, Stat, is_blob_id
from functions.settings import BadSetting

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection

    Documents = Collection[dict[str, Any]]

#: Bytes of a chunk.
CHUNK = BLOCK

#: Chunks that go to the server together, and such batches that are on their way at the same time. Twice as many chunks
#: took 20 MB more, and no less time.
BATCH, UNDER_WAY = 8, 2

#: Milliseconds, where the URI does not say otherwise; no call of ours lasts longer than one batch.
TIMEOUTS = {"serverSelectionTimeoutMS": 5_000, "connectTimeoutMS": 5_000, "socketTimeoutMS": 30_000}
_WRITE_TIMEOUT = 20_000  # milliseconds for a majority to have it

#: Chunks, 256 MB, that one call deletes: all those of a large file take longer than a call may.
DELETED_AT_ONCE = 1024

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

    def append(self, blob: str, kept: Kept, writer: int) -> GridFSAppender:
        """An appender of chunks; the last one is short until more comes."""
        if not is_blob_id(blob):
            raise _not_found()
        self.prepare()
        return GridFSAppender(*self.collections(), blob, kept, writer)

    def open(self, blob: str) -> GridFSReader:
        """A reader of a finished blob; BlobNotFound where there is none."""
        if not is_blob_id(blob):
            raise _not_found()
        from bson import ObjectId

        files, chunks = self.collections()
        with plain_errors():
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
        with plain_errors():
            files.delete_one({"_id": ObjectId(blob)})
            for first in itertools.count(0, DELETED_AT_ONCE):
                some = {"files_id": ObjectId(blob), "n": {"$gte": first, "$lt": first + DELETED_AT_ONCE}}
                if chunks.delete_many(some).deleted_count < DELETED_AT_ONCE:
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
            with plain_errors():
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
        with plain_errors():
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
            room = CHUNK - len(self._partial)
            self._partial += data[:room]
            data = data[room:]
            if len(self._partial) == CHUNK:
                self._complete()
            if len(self._full) == BATCH:
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
            self._workers = self._workers or ThreadPoolExecutor(UNDER_WAY, "gridfs-writer")
            self._settle(UNDER_WAY - 1)
            with plain_errors():
                self._under_way.append(self._workers.submit(self._insert, documents))
        self._inserted += len(documents)

    def _insert(self, documents: list[dict[str, Any]]) -> None:
        with plain_errors():
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
            "chunkSize": CHUNK,
            "uploadDate": datetime.now(UTC),
            "filename": stat.description.filename,
            "metadata": {**asdict(stat.description), "sha256": stat.sha256, "crc32c": stat.crc32c},
        }
        with plain_errors():
            self._files.insert_one(document)
            if self._inserted and self._chunks.find_one({"files_id": self._id, "n": 0}, {"_id": 1}) is None:
                raise MediaUnavailable("The file was deleted while it was written; try again.")

    def _give_up(self, failure: BaseException | None) -> None:
        self._close()  # what arrives later than the deletion, whoever deletes, would stay
        super()._give_up(failure)

    def _discard(self) -> None:
        with contextlib.suppress(Mp3burstError):
            self._store.delete(self._blob)


def disconnect() -> None:
    """Close this process's connections; the next use of a store connects again."""
    for key in [key for key in _clients if key[0] == os.getpid()]:
        _clients.pop(key).close()


def _client(uri: str) -> "MongoClient[dict[str, Any]]":
    from pymongo import MongoClient
    from pymongo.errors import ConfigurationError

    key = os.getpid(), uri  # a client that went through fork() is not to be used
    if key not in _clients:
        options: dict[str, Any] = {name: value for name, value in TIMEOUTS.items() if name.lower() not in uri.lower()}
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
