"""A file beside SQLite's that is deleted when the disk is full: even a deletion needs space in SQLite's journal."""

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

#: Bytes: four times what SQLite's journal grows to before its contents move to the database (wal_autocheckpoint).
SIZE: Final = 16 << 20
#: The reserve is created only on a disk with this many times its size, lest it take what somebody needs.
_PLENTY: Final = 8


class Reserve:
    """The file."""

    def __init__(self, database: Path) -> None:
        """The reserve of the SQLite database in this file."""
        self._path = database.with_name(f"{database.name}.reserve")

    def restore(self) -> None:
        """Creates the file unless it exists or the disk is nearly full; best effort."""
        if self._path.exists() or self._free() < _PLENTY * SIZE:
            return
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            try:
                with partial.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, SIZE)
                partial.replace(self._path)
            except OSError:
                partial.unlink(missing_ok=True)
                raise

    def release(self) -> bool:
        """Deletes the file if the disk is full; returns whether that has freed space."""
        if self._free() >= SIZE:
            return False
        try:
            self._path.unlink()
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def _free(self) -> int:
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return 0
        return disk.f_bavail * disk.f_frsize
