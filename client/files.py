"""Locks files between processes, and gives complete files their names."""

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from client.errors import TargetExists


def lock(file: IO[bytes]) -> None:
    """Waits until no other process has locked the file, and locks it until it is closed.

    A file system without locks leaves it unlocked: a command that is run once at a time needs none.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)


def place(source: Path, target: Path, record: Callable[[], object] = lambda: None) -> None:
    """Renames a file, unless another has the name, also one that has appeared just now.

    Args:
        source: the file, in the same directory as ``target``.
        target: its name.
        record: is called once the name is certain, and before ``source`` is gone: a link shows what became of it. On a
            file system without hard links it is called first, because nothing else shows that the file is there.

    Raises:
        TargetExists: another file has the name.
        OSError: the directory cannot be written.
    """
    try:
        os.link(source, target)
    except FileExistsError as error:
        raise TargetExists(target) from error
    except OSError:  # the file system has no hard links, or the next call says what is wrong
        record()
        _reserve(target)
        source.replace(target)
        return
    record()
    source.unlink()


def _reserve(target: Path) -> None:
    try:
        target.open("xb").close()
    except FileExistsError as error:
        raise TargetExists(target) from error
