"""Reads a GridFS file: only the chunks that are asked for, and ahead where the reads go on where the last one ended."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from functions.blob_io import VerifyingReader
from functions.media import BlobCorrupt, BlobExists, BlobNotFound, Description, MediaUnavailable, Stat

if TYPE_CHECKING:
    from pymongo.collection import Collection
    from pymongo.cursor import Cursor

#: Chunks in one answer of the server, 4 MB: without a limit some servers answer with more than a message may hold.
BATCH = 16

_DUPLICATE_KEY = 11000


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
        self._cursor: Cursor[dict[str, Any]] | None = None
        self._coming = range(0)  # the chunks that the cursor still gives
        self._last = -1, b""  # the chunk read last, since small reads come back to it

    def _fetch(self, start: int, size: int) -> bytes:
        end = start + size
        numbers = range(start // self._chunk_size, (end - 1) // self._chunk_size + 1)
        parts = []
        for n in numbers:
            data = self._chunk(n, numbers.stop)
            base = n * self._chunk_size
            parts.append(data[max(0, start - base) : end - base])
            if base + len(data) < min(end, base + self._chunk_size):
                self._explain()
                break
        return b"".join(parts)

    def _chunk(self, n: int, stop: int) -> bytes:
        """The bytes of chunk ``n``, none if it is missing; chunks before ``stop`` are wanted too."""
        if n != self._last[0]:
            if n not in self._coming[:1]:
                # The reads go on where they ended: everything up to the file's end is likely to be wanted.
                total = -(-self.stat.size // self._chunk_size)
                self._query(range(n, total if n == self._last[0] + 1 else stop))
            self._last = n, self._next()
        return self._last[1]

    def _next(self) -> bytes:
        from pymongo.errors import AutoReconnect, CursorNotFound

        assert self._cursor is not None  # noqa: S101 - for mypy: _query has made it
        with plain_errors():
            try:
                document = next(self._cursor, None)
            except (AutoReconnect, CursorNotFound):  # the driver repeats a query, but never the next batch of one
                self._query(self._coming)
                document = next(self._cursor, None)
        n, self._coming = self._coming[0], self._coming[1:]
        if document is None or document["n"] != n:
            return b""
        return bytes(document["data"])

    def _query(self, numbers: range) -> None:
        self._close()
        wanted = {"files_id": self._id, "n": {"$gte": numbers.start, "$lt": numbers.stop}}
        self._cursor = self._chunks.find(wanted).sort("n", 1).batch_size(BATCH)
        self._coming = numbers

    def _explain(self) -> None:
        """Raise BlobNotFound if bytes are missing because the file was deleted."""
        self._close()
        with plain_errors():
            if self._files.find_one({"_id": self._id}, {"_id": 1}) is None:
                raise BlobNotFound("The file was deleted while it was read.")

    def _close(self) -> None:
        from pymongo.errors import PyMongoError

        if self._cursor is not None:
            with contextlib.suppress(PyMongoError):
                self._cursor.close()
            self._cursor = None
            self._coming = range(0)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn pymongo's errors into those of ``functions.media``."""
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


def _stat(document: Mapping[str, Any]) -> Stat:
    metadata = document.get("metadata")
    known = metadata if isinstance(metadata, Mapping) else {}
    texts = {name: str(known.get(name) or "") for name in ("owner", "job", "filename", "content_type", "sha256")}
    sha256 = texts.pop("sha256")
    texts["filename"] = texts["filename"] or str(document.get("filename") or "")
    size, chunk_size = document.get("length"), document.get("chunkSize")
    if not isinstance(size, int | float) or size < 0 or not isinstance(chunk_size, int | float) or chunk_size < 1:
        raise BlobCorrupt("The file is damaged in the media store; upload it again.")
    return Stat(int(size), sha256, Description(**texts))
