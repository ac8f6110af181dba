"""Media in a directory, for one machine or a volume that all share.

``ROOT/ab/abcdef…/`` holds the ``bytes`` of blob abcdef… and what is known of them, ``stat.json``. Both are written
in ``abcdef….part/`` and made durable there; the rename of that directory is the one moment at which the blob becomes
visible. A blob moves from .part to its name and never back, so whoever deletes first the one and then the other
misses nothing.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from functions.blob_io import HashingWriter, VerifyingReader
from functions.media import (
    BlobCorrupt,
    BlobExists,
    BlobNotFound,
    Description,
    MediaUnavailable,
    Stat,
    is_blob_id,
)

_BYTES = "bytes"
_STAT = "stat.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DirectoryStore:
    """Blobs below one directory, which is made at the first write, for its owner's eyes only."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)

    def create(self, blob: str, description: Description) -> "DirectoryWriter":
        """A writer for a new blob; BlobExists at the ``with`` where the id is taken."""
        if not is_blob_id(blob):
            raise _not_found()
        return DirectoryWriter(self._root, self._place(blob), description)

    def open(self, blob: str) -> "DirectoryReader":
        """A reader of a finished blob; BlobNotFound where there is none, BlobCorrupt without a description."""
        if not is_blob_id(blob):
            raise _not_found()
        place = self._place(blob)
        with _plain_errors():
            try:
                text = (place / _STAT).read_bytes()
                file = (place / _BYTES).open("rb")
            except FileNotFoundError as error:
                raise _not_found() from error
        try:
            return DirectoryReader(file, _parse(text))
        except BaseException:
            file.close()
            raise

    def delete(self, blob: str) -> None:
        """Delete a blob, finished or not, also while somebody writes it; that writer fails."""
        if is_blob_id(blob):
            place = self._place(blob)
            with _plain_errors():
                _remove(_part(place))
                _remove(place)
                with contextlib.suppress(FileNotFoundError):
                    _sync(place.parent)

    def _place(self, blob: str) -> Path:
        return self._root / blob[:2] / blob


class DirectoryWriter(HashingWriter):
    """Writes one blob beside its place."""

    def __init__(self, root: Path, place: Path, description: Description) -> None:
        super().__init__(description)
        self._root = root
        self._place = place
        self._part = _part(place)
        self._file: BinaryIO | None = None
        self._moved = False

    def _begin(self) -> None:
        with _plain_errors():
            _make(self._place.parent)
            try:
                if self._place.exists():
                    raise FileExistsError(self._place)
                self._part.mkdir(mode=0o700)
            except FileExistsError as error:
                raise BlobExists("A file is written once; use a fresh id.") from error
            try:
                self._file = _open_new(self._part / _BYTES)
            except BaseException:
                self._discard()
                raise

    def _append(self, data: memoryview) -> None:
        assert self._file is not None  # noqa: S101 - for mypy: _begin has opened it
        with _plain_errors():
            self._file.write(data)

    def _finish(self, stat: Stat) -> None:
        assert self._file is not None  # noqa: S101 - for mypy: _begin has opened it
        with _plain_errors():
            with self._file as file:
                file.flush()
                os.fsync(file.fileno())
            with _open_new(self._part / _STAT) as file:
                file.write(json.dumps(asdict(stat)).encode())
                file.flush()
                os.fsync(file.fileno())
            _sync(self._part)
            self._part.rename(self._place)
            self._moved = True
            _sync(self._place.parent)
            _sync(self._root)  # another process may have made our shard and not yet come so far

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            if self._file is not None:
                with contextlib.suppress(OSError):  # the flush of a full disk fails here once more
                    self._file.close()
            _remove(self._part)
            if self._moved:
                _remove(self._place)


class DirectoryReader(VerifyingReader):
    """Reads one blob."""

    def __init__(self, file: BinaryIO, stat: Stat) -> None:
        super().__init__(stat)
        self._file = file

    def _fetch(self, start: int, size: int) -> bytes:
        with _plain_errors():
            self._file.seek(start)
            return self._file.read(size)

    def _close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise MediaUnavailable("The media store is full; try again later.") from error
        raise MediaUnavailable("The media store does not answer; try again later.") from error


def _not_found() -> BlobNotFound:
    return BlobNotFound("There is no such file; it may have been deleted.")


def _part(place: Path) -> Path:
    return place.with_name(f"{place.name}.part")


def _parse(text: bytes) -> Stat:
    try:
        fields = json.loads(text)
        return Stat(fields["size"], fields["sha256"], fields.get("crc32c", ""), Description(**fields["description"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BlobCorrupt("The file is damaged in the media store; upload it again.") from error


def _open_new(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return open(os.open(path, flags, 0o600), "wb", buffering=1 << 18)  # noqa: PTH123 - Path.open takes no descriptor


def _make(directory: Path) -> None:
    if directory.is_dir():
        return
    if directory.parent != directory:
        _make(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    _sync(directory.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(place: Path) -> None:
    """Remove a blob's directory; a writer may put a file into it between two lines of this."""
    while place.exists():
        for name in (_STAT, _BYTES):
            (place / name).unlink(missing_ok=True)
        try:
            place.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
