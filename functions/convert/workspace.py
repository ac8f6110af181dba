"""A temporary directory for one conversion, cleaned up by the next conversion if this one is killed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PREFIX: Final = "mp3burst-convert-"


@contextmanager
def workspace() -> Iterator[Path]:
    """Creates a directory that is deleted when the block ends.

    A worker that is killed deletes nothing, while its container or machine lives on. So each conversion locks its
    directory, the kernel releases the lock when the process ends, and the next conversion deletes every directory that
    is not locked.
    """
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _delete_if_abandoned(directory)
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _lock(directory, fcntl.LOCK_EX)
        if lock is not None:
            break
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _delete_if_abandoned(directory: Path) -> None:
    lock = _lock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if lock is not None:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _lock(path: Path, mode: int) -> int | None:
    """Opens and locks the directory; None if another process has locked it, or it was deleted or is another user's."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(directory, mode)
        status = os.fstat(directory)
        # Between mkdtemp and flock it was not locked, so another process may have deleted it as abandoned.
        if status.st_nlink and status.st_uid == os.geteuid():
            return directory
    except OSError:
        pass
    os.close(directory)
    return None
