"""Media in a directory, for one machine or a volume that all share.

``ROOT/ab/abcdef…/`` holds the ``bytes`` of blob abcdef… and what is known of them, ``stat.json``. Both are written
in ``abcdef….part/`` and made durable there; the rename of that directory is the one moment at which the blob becomes
visible. A blob moves from .part to its name and never back, so whoever deletes first the one and then the other
misses nothing.
"""

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Final

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

_BYTES = "bytes"
_STAT = "stat.json"
#: The number of the last writer of a blob that grows.
_WRITER = "writer"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: Seconds to wait for another writer's lock, which lasts as long as writing 4 MB does.
_PATIENCE: Final = 5.0


class DirectoryStore:
    """Blobs below one directory, which is made at the first write, for its owner's eyes only."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)

    def create(self, blob: str, description: Description) -> "DirectoryWriter":
        """A writer for a new blob; BlobExists at the ``with`` where the id is taken."""
        if not is_blob_id(blob):
            raise _not_found()
        return DirectoryWriter(self._root, self._place(blob), description)

    def append(self, blob: str, checkpoint: Checkpoint, writer: int) -> "DirectoryAppender":
        """An appender to ``ab/abcdef….part/bytes``."""
        if not is_blob_id(blob):
            raise _not_found()
        return DirectoryAppender(self._root, self._place(blob), checkpoint, writer)

    def open(self, blob: str) -> "DirectoryReader":
        """A reader of a finished blob; BlobNotFound where there is none, BlobCorrupt without a description."""
        if not is_blob_id(blob):
            raise _not_found()
        place = self._place(blob)
        with _translated_errors():
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
            with _translated_errors():
                _remove(_partial(place))
                _remove(place)
                with contextlib.suppress(FileNotFoundError):
                    _sync_directory(place.parent)

    def _place(self, blob: str) -> Path:
        return self._root / blob[:2] / blob


class DirectoryWriter(HashingWriter):
    """Writes one blob beside its place."""

    def __init__(self, root: Path, place: Path, description: Description) -> None:
        super().__init__(description)
        self._root = root
        self._place = place
        self._part = _partial(place)
        self._file: BinaryIO | None = None
        self._moved = False

    def _begin(self) -> None:
        with _translated_errors():
            _make_durable(self._place.parent)
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
        with _translated_errors():
            self._file.write(data)

    def _finish(self, stat: Stat) -> None:
        assert self._file is not None  # noqa: S101 - for mypy: _begin has opened it
        with _translated_errors():
            with self._file as file:
                file.flush()
                os.fsync(file.fileno())
            with _open_new(self._part / _STAT) as file:
                file.write(json.dumps(asdict(stat)).encode())
                file.flush()
                os.fsync(file.fileno())
            _sync_directory(self._part)
            self._part.rename(self._place)
            self._moved = True
            _sync_directory(self._place.parent)
            _sync_directory(self._root)  # another process may have made our shard and not yet come so far

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
        with _translated_errors():
            self._file.seek(start)
            return self._file.read(size)

    def _close(self) -> None:
        self._file.close()


class DirectoryAppender(BlockAppender):
    """Appends to one blob beside its place."""

    def __init__(self, root: Path, place: Path, checkpoint: Checkpoint, writer: int) -> None:
        super().__init__(checkpoint)
        self._root, self._place, self._part = root, place, _partial(place)
        self._writer = writer
        self._file = -1
        self._is_new = checkpoint.size == 0

    def _begin(self) -> bool:
        with _translated_errors():
            if self._place.exists():
                return False
            if self._is_new:
                _make_durable(self._place.parent)
                self._part.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if self._is_new else 0)
            try:
                self._file = os.open(self._part / _BYTES, flags, 0o600)
            except FileNotFoundError as error:
                if self._place.exists():
                    return False
                raise _not_found() from error
            try:
                self._take_over()
            except BaseException:
                self._close()
                raise
        return True

    def _take_over(self) -> None:
        with self._locked():
            last = self._last_writer()
            if last is not None and last > self._writer:
                raise _stale()
            if os.fstat(self._file).st_size < self.checkpoint.size:
                raise _not_found()
            # As many digits each time: one write puts the one number in the other's place.
            number = os.open(self._part / _WRITER, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(number, f"{self._writer:020d}".encode(), 0)
            finally:
                os.close(number)

    def _read_back(self, block: int, size: int) -> bytes:
        with _translated_errors():
            return os.pread(self._file, size, block * BLOCK_SIZE)

    def _put(self, first: int, blocks: list[bytes]) -> None:
        with _translated_errors(), self._mine():
            position, left = first * BLOCK_SIZE, [memoryview(block) for block in blocks]
            while left:
                written = os.pwritev(self._file, left, position)
                position += written
                while left and written >= len(left[0]):
                    written -= len(left.pop(0))
                if left:
                    left[0] = left[0][written:]

    def _settle(self) -> None:
        with _translated_errors():
            os.fdatasync(self._file)
            if self._is_new:
                _sync_directory(self._part)
                _sync_directory(self._place.parent)
                _sync_directory(self._root)
                self._is_new = False

    def _finish(self, stat: Stat) -> None:
        with _translated_errors(), self._locked():
            if self._last_writer() != self._writer:
                if self._place.exists():
                    return
                raise _stale()
            os.ftruncate(self._file, stat.size)
            os.fsync(self._file)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with open(os.open(self._part / _STAT, flags, 0o600), "wb") as file:  # noqa: PTH123 - no Path for that
                file.write(json.dumps(asdict(stat)).encode())
                file.flush()
                os.fsync(file.fileno())
            _sync_directory(self._part)
            self._part.rename(self._place)
            _sync_directory(self._place.parent)
            (self._place / _WRITER).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @contextlib.contextmanager
    def _mine(self) -> Iterator[None]:
        with self._locked():
            if self._last_writer() != self._writer:
                raise _stale()
            yield

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise MediaUnavailable("The file is being written by another; try again later.") from error
                time.sleep(0.01)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _last_writer(self) -> int | None:
        """None where there was none yet, and where the blob is finished or deleted."""
        try:
            return int((self._part / _WRITER).read_bytes() or b"0")
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn the system's errors into those of ``functions.media.interface``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise MediaUnavailable("The media store is full; try again later.") from error
        raise MediaUnavailable("The media store does not answer; try again later.") from error


def _not_found() -> BlobNotFound:
    """The error for a blob that is not there."""
    return BlobNotFound("There is no such file; it may have been deleted.")


def _partial(place: Path) -> Path:
    """Where a blob lies until it is finished, by its place."""
    return place.with_name(f"{place.name}.part")


def _open_new(path: Path) -> BinaryIO:
    """Open a file to write that is not there yet."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return open(os.open(path, flags, 0o600), "wb", buffering=1 << 18)  # noqa: PTH123 - Path.open takes no descriptor


def _make_durable(directory: Path) -> None:
    """Make a directory, durable, with all above it."""
    if directory.is_dir():
        return
    if directory.parent != directory:
        _make_durable(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    """Make a directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(place: Path) -> None:
    """Remove a blob's directory; a writer may put a file into it between two lines of this."""
    while place.exists():
        for name in (_STAT, _BYTES, _WRITER):
            (place / name).unlink(missing_ok=True)
        try:
            place.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise


def _parse(text: bytes) -> Stat:
    try:
        fields = json.loads(text)
        return Stat(fields["size"], fields["sha256"], fields.get("crc32c", ""), Description(**fields["description"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BlobCorrupt("The file is damaged in the media store; upload it again.") from error


def _stale() -> StaleWriter:
    return StaleWriter("Another request goes on with this upload: ask for its offset before you do.")
