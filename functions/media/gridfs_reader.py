"""Reads a GridFS file: only the chunks that are asked for, and ahead where the reads just go on."""

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeGuard

from functions.media.integrity import VerifyingReader
from functions.media.interface import BlobCorrupt, BlobExists, BlobNotFound, Description, MediaUnavailable, Stat

if TYPE_CHECKING:
    from pymongo.collection import Collection
    from pymongo.cursor import Cursor

#: Chunks in one answer of the server, 4 MB: without a limit some servers answer with more than a message may hold.
BATCH = 16

#: Chunks, 1 MB, that are fetched one by one after a jump: whoever reads on after them is likely to go on for long.
RUN = 4

#: Chunks that are passed over without leaving a query for it: to ask anew takes as long.
PASSED = 3

#: Batches that are fetched while one is used.
AHEAD = 2

_DUPLICATE_KEY = 11000
_NO_THREAD = "can't start new thread"  # Modules/_threadmodule.c


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
            if passed and not (self._cursor is not None and 0 <= passed <= PASSED):
                self._leave()
                self._run = 0
            self._run += 1
            with plain_errors():
                streams = self._run > RUN and self._streams(n)
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
        self._cursor = self._chunks.find(rest).sort("n", 1).batch_size(BATCH)
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
        while self._cursor is not None and len(self._ahead) <= AHEAD:
            try:
                self._ahead.append(self._worker.submit(_load, self._cursor))
            except RuntimeError:  # no thread for it: nobody is to come later and take a batch of this query
                self._cursor = self._worker = None
                raise

    def _explain(self) -> None:
        """Raise BlobNotFound if bytes are missing because the file was deleted."""
        self._leave()
        with plain_errors():
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


def _load(cursor: "Cursor[dict[str, Any]]") -> list[dict[str, Any]]:
    return list(islice(cursor, BATCH))


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
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
