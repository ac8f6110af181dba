"""A temporary directory for one conversion, which is gone soon even if the conversion was killed."""

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
    """A new directory, deleted at the end of the block.

    A worker that is killed deletes nothing, and its container or machine goes on. So a conversion holds a lock on its
    directory, which the kernel takes off with the process, and the next one deletes the directories without a lock.
    """
    for place in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _delete_if_abandoned(place)
    while True:
        place = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _lock(place, fcntl.LOCK_EX)
        if lock is not None:
            break
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def _delete_if_abandoned(place: Path) -> None:
    lock = _lock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if lock is not None:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def _lock(place: Path, how: int) -> int | None:
    """The open directory, locked; None where another has it, or it is gone or somebody else's."""
    try:
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(directory, how)
        found = os.fstat(directory)
        # Between its making and its locking it may have passed for an abandoned one.
        if found.st_nlink and found.st_uid == os.geteuid():
            return directory
    except OSError:
        pass
    os.close(directory)
    return None
