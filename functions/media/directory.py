"""Media in a directory, for one machine or a volume that all share.

``ROOT/ab/abcdef…/`` holds the ``bytes`` of blob abcdef… and what is known of them, ``stat.json``. Both are written
in ``abcdef….part/`` and made durable there; the rename of that directory is the one moment at which the blob becomes
visible. A blob moves from .part to its name and never back, so whoever deletes first the one and then the other
misses nothing.
"""

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from functions.media.directory_appender import DirectoryAppender
from functions.media.folders import BYTES, STAT, make, not_found, open_new, part_of, plain_errors, remove, sync
from functions.media.integrity import HashingWriter, VerifyingReader
from functions.media.interface import BlobCorrupt, BlobExists, Description, Kept, Stat, is_blob_id


class DirectoryStore:
    """Blobs below one directory, which is made at the first write, for its owner's eyes only."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)

    def create(self, blob: str, description: Description) -> "DirectoryWriter":
        """A writer for a new blob; BlobExists at the ``with`` where the id is taken."""
        if not is_blob_id(blob):
            raise not_found()
        return DirectoryWriter(self._root, self._place(blob), description)

    def append(self, blob: str, kept: Kept, writer: int) -> DirectoryAppender:
        """An appender to ``ab/abcdef….part/bytes``."""
        if not is_blob_id(blob):
            raise not_found()
        return DirectoryAppender(self._root, self._place(blob), kept, writer)

    def open(self, blob: str) -> "DirectoryReader":
        """A reader of a finished blob; BlobNotFound where there is none, BlobCorrupt without a description."""
        if not is_blob_id(blob):
            raise not_found()
        place = self._place(blob)
        with plain_errors():
            try:
                text = (place / STAT).read_bytes()
                file = (place / BYTES).open("rb")
            except FileNotFoundError as error:
                raise not_found() from error
        try:
            return DirectoryReader(file, _parse(text))
        except BaseException:
            file.close()
            raise

    def delete(self, blob: str) -> None:
        """Delete a blob, finished or not, also while somebody writes it; that writer fails."""
        if is_blob_id(blob):
            place = self._place(blob)
            with plain_errors():
                remove(part_of(place))
                remove(place)
                with contextlib.suppress(FileNotFoundError):
                    sync(place.parent)

    def _place(self, blob: str) -> Path:
        return self._root / blob[:2] / blob


class DirectoryWriter(HashingWriter):
    """Writes one blob beside its place."""

    def __init__(self, root: Path, place: Path, description: Description) -> None:
        super().__init__(description)
        self._root = root
        self._place = place
        self._part = part_of(place)
        self._file: BinaryIO | None = None
        self._moved = False

    def _begin(self) -> None:
        with plain_errors():
            make(self._place.parent)
            try:
                if self._place.exists():
                    raise FileExistsError(self._place)
                self._part.mkdir(mode=0o700)
            except FileExistsError as error:
                raise BlobExists("A file is written once; use a fresh id.") from error
            try:
                self._file = open_new(self._part / BYTES)
            except BaseException:
                self._discard()
                raise

    def _append(self, data: memoryview) -> None:
        assert self._file is not None  # noqa: S101 - for mypy: _begin has opened it
        with plain_errors():
            self._file.write(data)

    def _finish(self, stat: Stat) -> None:
        assert self._file is not None  # noqa: S101 - for mypy: _begin has opened it
        with plain_errors():
            with self._file as file:
                file.flush()
                os.fsync(file.fileno())
            with open_new(self._part / STAT) as file:
                file.write(json.dumps(asdict(stat)).encode())
                file.flush()
                os.fsync(file.fileno())
            sync(self._part)
            self._part.rename(self._place)
            self._moved = True
            sync(self._place.parent)
            sync(self._root)  # another process may have made our shard and not yet come so far

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            if self._file is not None:
                with contextlib.suppress(OSError):  # the flush of a full disk fails here once more
                    self._file.close()
            remove(self._part)
            if self._moved:
                remove(self._place)


class DirectoryReader(VerifyingReader):
    """Reads one blob."""

    def __init__(self, file: BinaryIO, stat: Stat) -> None:
        super().__init__(stat)
        self._file = file

    def _fetch(self, start: int, size: int) -> bytes:
        with plain_errors():
            self._file.seek(start)
            return self._file.read(size)

    def _close(self) -> None:
        self._file.close()


def _parse(text: bytes) -> Stat:
    try:
        fields = json.loads(text)
        return Stat(fields["size"], fields["sha256"], fields.get("crc32c", ""), Description(**fields["description"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BlobCorrupt("The file is damaged in the media store; upload it again.") from error
