"""Media in a directory, for one machine or a volume that all instances share.

``ROOT/ab/abcdef…/`` holds the ``bytes`` of blob abcdef… and its ``stat.json``. Both are written in ``abcdef….part/``
and made durable there; renaming that directory makes the blob visible, atomically. A blob moves from .part to its final
name and never back, so deleting .part first and the final directory second misses nothing.

A blob that grows over many requests may have several writers: one that was believed dead may still write. So every
writer has a number, the file ``writer`` beside the bytes holds the latest one's, and a writer changes the bytes only
under the kernel's lock (flock) and only if it finds its own number there.
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
    DiskFull,
    MediaUnavailable,
    Space,
    StaleWriter,
    Stat,
    Usage,
    is_blob_id,
)

_BYTES: Final = "bytes"
#: How often a directory is emptied in which a writer creates files at the same time. Each writer creates three.
_REMOVALS: Final = 20
_STAT: Final = "stat.json"
#: The file with the number of the latest writer of a growing blob.
_WRITER: Final = "writer"
#: The errors of a full disk, an exhausted quota, and the file system's limit on a file.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Seconds to wait for another writer's lock, which lasts as long as writing 4 MB does.
_LOCK_TIMEOUT: Final = 5.0


class DirectoryStore:
    """Blobs below one directory, which is created at the first write and is accessible to its owner alone."""

    def __init__(self, root: str | Path, min_free: int | None = 0) -> None:
        """Stores blobs below ``root``; writing fails where it would leave less than half the floor of free space.

        Args:
            root: the directory.
            min_free: the floor in bytes; None for the default share of the disk.
        """
        self._root = Path(root)
        self._min_free = min_free

    def space(self) -> Space:
        """Returns the space of the directory's disk."""
        with _translated_errors():
            return _space(self._root)

    def usage(self) -> Usage:
        """Returns what the directory's disk has."""
        space = self.space()
        return Usage(space.total - space.free, space)

    def connect(self) -> None:
        """Does nothing: a directory needs no connection."""

    def create(self, blob: str, description: Description) -> "DirectoryWriter":
        """Returns a writer for a new blob; entering it raises BlobExists if the id is taken."""
        return DirectoryWriter(self._root, self._path(blob), description, self._min_free)

    def append(self, blob: str, checkpoint: Checkpoint, writer: int) -> "DirectoryAppender":
        """Returns an appender to ``ab/abcdef….part/bytes``."""
        return DirectoryAppender(self._root, self._path(blob), checkpoint, writer, self._min_free)

    def open(self, blob: str) -> "DirectoryReader":
        """Returns a reader of a finished blob; BlobNotFound if there is none, BlobCorrupt if stat.json is damaged."""
        path = self._path(blob)
        with _translated_errors():
            try:
                stat_text = (path / _STAT).read_bytes()
                file = (path / _BYTES).open("rb")
            except FileNotFoundError as error:
                raise BlobNotFound from error
        try:
            return DirectoryReader(file, _parse_stat(stat_text))
        except BaseException:
            file.close()
            raise

    def delete(self, blob: str) -> None:
        """Deletes a blob, finished or not. If somebody is writing it, that writer fails."""
        if is_blob_id(blob):
            path = self._path(blob)
            with _translated_errors():
                _remove(_partial(path))
                _remove(path)
                with contextlib.suppress(FileNotFoundError):
                    _sync_directory(path.parent)

    def _path(self, blob: str) -> Path:
        """Returns the directory of a finished blob; BlobNotFound if the id is malformed."""
        if not is_blob_id(blob):
            raise BlobNotFound
        return self._root / blob[:2] / blob


class DirectoryWriter(HashingWriter):
    """Writes one blob in its .part directory."""

    def __init__(self, root: Path, path: Path, description: Description, min_free: int | None) -> None:
        super().__init__(description)
        self._min_free = min_free
        self._root = root
        self._path = path
        self._part = _partial(path)
        self._file: BinaryIO | None = None
        self._is_visible = False

    def _begin(self) -> None:
        with _translated_errors():
            _make_directory(self._path.parent)
            try:
                if self._path.exists():
                    raise FileExistsError(self._path)
                self._part.mkdir(mode=0o700)
            except FileExistsError as error:
                raise BlobExists from error
            try:
                self._file = _create_file(self._part / _BYTES)
            except BaseException:
                self._discard()
                raise

    def _append(self, data: memoryview) -> None:
        assert self._file is not None  # noqa: S101 - for mypy: _begin has opened it
        with _translated_errors():
            _check_space(self._file.fileno(), len(data), self._min_free)
            self._file.write(data)

    def _finish(self, stat: Stat) -> None:
        assert self._file is not None  # noqa: S101 - for mypy: _begin has opened it
        with _translated_errors():
            with self._file as file:
                file.flush()
                os.fsync(file.fileno())
            with _create_file(self._part / _STAT) as file:
                file.write(json.dumps(asdict(stat)).encode())
                file.flush()
                os.fsync(file.fileno())
            _sync_directory(self._part)
            self._part.rename(self._path)
            self._is_visible = True
            _sync_directory(self._path.parent)
            _sync_directory(self._root)  # Another process may have created ROOT/ab but not synced it yet.

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            if self._file is not None:
                with contextlib.suppress(OSError):  # Closing flushes, which fails again on a full disk.
                    self._file.close()
            _remove(self._part)
            if self._is_visible:
                _remove(self._path)


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
    """Appends to one blob in its .part directory."""

    def __init__(self, root: Path, path: Path, checkpoint: Checkpoint, writer: int, min_free: int | None) -> None:
        super().__init__(checkpoint)
        self._min_free = min_free
        self._root = root
        self._path = path
        self._part = _partial(path)
        self._writer = writer
        self._file = -1
        self._is_new = checkpoint.size == 0

    def _begin(self) -> bool:
        with _translated_errors():
            if self._path.exists():
                return False
            if self._is_new:
                _make_directory(self._path.parent)
                self._part.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if self._is_new else 0)
            try:
                self._file = os.open(self._part / _BYTES, flags, 0o600)
            except FileNotFoundError as error:
                if self._path.exists():
                    return False
                raise BlobNotFound from error
            try:
                self._take_over()
            except BaseException:
                self._close()
                raise
        return True

    def _take_over(self) -> None:
        """Becomes the latest writer, unless there is a later one."""
        with self._locked():
            latest = self._latest_writer()
            if latest is not None and latest > self._writer:
                raise StaleWriter
            if os.fstat(self._file).st_size < self.checkpoint.size:
                raise BlobNotFound
            # The number always has the same length, so one write replaces the old one.
            number = os.open(self._part / _WRITER, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(number, f"{self._writer:020d}".encode(), 0)
            finally:
                os.close(number)
            if self._is_new:
                os.ftruncate(self._file, 0)

    def _read_back(self, block: int, size: int) -> bytes:
        with _translated_errors():
            return os.pread(self._file, size, block * BLOCK_SIZE)

    def _put(self, first: int, blocks: list[bytes]) -> None:
        with _translated_errors(), self._locked():
            if self._latest_writer() != self._writer:
                raise StaleWriter
            _check_space(self._file, sum(map(len, blocks)), self._min_free)
            position = first * BLOCK_SIZE
            unwritten = [memoryview(block) for block in blocks]
            while unwritten:
                written = os.pwritev(self._file, unwritten, position)
                position += written
                while unwritten and written >= len(unwritten[0]):
                    written -= len(unwritten.pop(0))
                if unwritten:
                    unwritten[0] = unwritten[0][written:]

    def _flush(self) -> None:
        with _translated_errors():
            os.fdatasync(self._file)
            if self._is_new:
                _sync_directory(self._part)
                _sync_directory(self._path.parent)
                _sync_directory(self._root)
                self._is_new = False

    def _finish(self, stat: Stat) -> None:
        with _translated_errors(), self._locked():
            if self._latest_writer() != self._writer:
                if self._path.exists():
                    return
                raise StaleWriter
            os.ftruncate(self._file, stat.size)
            os.fsync(self._file)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with open(os.open(self._part / _STAT, flags, 0o600), "wb") as file:  # noqa: PTH123 - no Path for that
                file.write(json.dumps(asdict(stat)).encode())
                file.flush()
                os.fsync(file.fileno())
            _sync_directory(self._part)
            self._part.rename(self._path)
            _sync_directory(self._path.parent)
            (self._path / _WRITER).unlink(missing_ok=True)

    def _withdraw(self) -> None:
        """Does nothing: a writer that was shut out has put nothing."""

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise MediaUnavailable("Another request is writing the file; try again later.") from error
                time.sleep(0.01)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _latest_writer(self) -> int | None:
        """Returns the latest writer's number; None before the first one, and if the blob is finished or deleted."""
        try:
            return int((self._part / _WRITER).read_bytes() or b"0")
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """Turns the operating system's errors into those of ``functions.media.interface``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull from error
        raise MediaUnavailable("The media store does not answer; try again later.") from error


def _space(place: Path | int) -> Space:
    """Returns the space of the disk of a path, which need not exist yet, or of an open file."""
    if isinstance(place, Path):
        place = next(parent for parent in (place, *place.resolve().parents) if parent.exists())
    disk = os.statvfs(place)
    return Space(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)


def _check_space(file: int, size: int, min_free: int | None) -> None:
    """Raises ENOSPC if ``size`` more bytes would leave less than half the floor, which is the database's."""
    space = _space(file)
    if space.free - size < space.floor(min_free) // 2:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _partial(path: Path) -> Path:
    """Returns the directory of an unfinished blob, given that of the finished one."""
    return path.with_name(f"{path.name}.part")


def _create_file(path: Path) -> BinaryIO:
    """Creates a file and opens it for writing; FileExistsError if it exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return open(os.open(path, flags, 0o600), "wb", buffering=1 << 18)  # noqa: PTH123 - Path.open takes no descriptor


def _make_directory(directory: Path) -> None:
    """Creates a directory and its parents durably, unless it exists."""
    if directory.is_dir():
        return
    if directory.parent != directory:
        _make_directory(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    """Makes a directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Removes a blob's directory, even while a writer is creating files in it.

    Raises:
        OSError: another file is in it, such as the one that NFS keeps while a reader has the bytes open.
    """
    for tries_left in reversed(range(_REMOVALS)):
        for name in (_STAT, _BYTES, _WRITER):
            (path / name).unlink(missing_ok=True)
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or not tries_left:
                raise
        else:
            return


def _parse_stat(text: bytes) -> Stat:
    try:
        fields = json.loads(text)
        return Stat(fields["size"], fields["sha256"], fields.get("crc32c", ""), Description(**fields["description"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BlobCorrupt from error
