"""Appends chunks to a GridFS file, request by request, until it is whole.

A writer that was taken for dead may still write. So every chunk bears the number of the writer that it is from, a chunk
is put in another's place only if that is from no later writer, and the files document, without which nobody sees the
chunks, comes last.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from functions.media.blocks import BLOCK, BlockAppender
from functions.media.gridfs_reader import plain_errors
from functions.media.interface import BlobExists, BlobNotFound, Kept, MediaUnavailable, StaleWriter, Stat

if TYPE_CHECKING:
    from pymongo.collection import Collection

    Documents = Collection[dict[str, Any]]

#: The field of a chunk with its writer's number; clients of GridFS pass over what they do not know.
_WRITER: Final = "writer"
_DUPLICATE_KEY: Final = 11000


class GridFSAppender(BlockAppender):
    """Appends to one blob."""

    def __init__(self, files: "Documents", chunks: "Documents", blob: str, kept: Kept, writer: int) -> None:
        from bson import ObjectId

        super().__init__(kept)
        self._files, self._chunks = files, chunks
        self._id, self._writer = ObjectId(blob), writer
        self._short = -1  # the number of a chunk that is there in part

    def _begin(self) -> bool:
        with plain_errors():
            return self._files.find_one({"_id": self._id}, {"_id": 1}) is None

    def _read_back(self, block: int, size: int) -> bytes:
        with plain_errors():
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
        self._short = first + len(blocks) - 1 if len(blocks[-1]) < BLOCK else -1

    def _insert(self, chunks: list[dict[str, Any]]) -> list[int]:
        """Insert new chunks; the numbers of those that are there already."""
        from pymongo.errors import BulkWriteError

        with plain_errors():
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
        with plain_errors():
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
            "chunkSize": BLOCK,
            "uploadDate": datetime.now(UTC),
            "filename": stat.description.filename,
            "metadata": {**asdict(stat.description), "sha256": stat.sha256, "crc32c": stat.crc32c},
        }
        try:
            with plain_errors():
                self._files.insert_one(document)
        except BlobExists:
            return  # finished by an attempt whose process was killed, or whose answer was lost
        with plain_errors():
            if stat.size and self._chunks.find_one({"files_id": self._id, "n": 0}, {"_id": 1}) is None:
                self._files.delete_one({"_id": self._id})
                raise MediaUnavailable("The file was deleted while it was written; try again.")

    def _close(self) -> None:
        """Nothing to let go of."""
