"""The folders that a directory store keeps its blobs in, and what can go wrong there."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from functions.media.interface import BlobNotFound, MediaUnavailable

BYTES = "bytes"
STAT = "stat.json"
#: The number of the last writer of a blob that grows.
WRITER = "writer"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn the system's errors into those of ``functions.media.interface``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise MediaUnavailable("The media store is full; try again later.") from error
        raise MediaUnavailable("The media store does not answer; try again later.") from error


def not_found() -> BlobNotFound:
    """The error for a blob that is not there."""
    return BlobNotFound("There is no such file; it may have been deleted.")


def part_of(place: Path) -> Path:
    """Where a blob lies until it is finished, by its place."""
    return place.with_name(f"{place.name}.part")


def open_new(path: Path) -> BinaryIO:
    """Open a file to write that is not there yet."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return open(os.open(path, flags, 0o600), "wb", buffering=1 << 18)  # noqa: PTH123 - Path.open takes no descriptor


def make(directory: Path) -> None:
    """Make a directory, durable, with all above it."""
    if directory.is_dir():
        return
    if directory.parent != directory:
        make(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    sync(directory.parent)


def sync(directory: Path) -> None:
    """Make a directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(place: Path) -> None:
    """Remove a blob's directory; a writer may put a file into it between two lines of this."""
    while place.exists():
        for name in (STAT, BYTES, WRITER):
            (place / name).unlink(missing_ok=True)
        try:
            place.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
