"""Appends to a file of the media directory, request by request, until it is whole.

A writer that was taken for dead may still write. So every writer has a number, the last one's stands in a file beside
the bytes, and the bytes are only touched under a lock of the kernel's (flock) by whoever finds its own number there.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from functions.media.blocks import BLOCK, BlockAppender
from functions.media.folders import BYTES, STAT, WRITER, make, not_found, part_of, plain_errors, sync
from functions.media.interface import Kept, MediaUnavailable, StaleWriter, Stat

#: Seconds to wait for another writer's lock, which lasts as long as writing 4 MB does.
_PATIENCE: Final = 5.0


class DirectoryAppender(BlockAppender):
    """Appends to one blob beside its place."""

    def __init__(self, root: Path, place: Path, kept: Kept, writer: int) -> None:
        super().__init__(kept)
        self._root, self._place, self._part = root, place, part_of(place)
        self._writer = writer
        self._file = -1
        self._is_new = kept.size == 0

    def _begin(self) -> bool:
        with plain_errors():
            if self._place.exists():
                return False
            if self._is_new:
                make(self._place.parent)
                self._part.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if self._is_new else 0)
            try:
                self._file = os.open(self._part / BYTES, flags, 0o600)
            except FileNotFoundError as error:
                if self._place.exists():
                    return False
                raise not_found() from error
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
            if os.fstat(self._file).st_size < self.kept.size:
                raise not_found()
            # As many digits each time: one write puts the one number in the other's place.
            number = os.open(self._part / WRITER, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(number, f"{self._writer:020d}".encode(), 0)
            finally:
                os.close(number)

    def _read_back(self, block: int, size: int) -> bytes:
        with plain_errors():
            return os.pread(self._file, size, block * BLOCK)

    def _put(self, first: int, blocks: list[bytes]) -> None:
        with plain_errors(), self._mine():
            position, left = first * BLOCK, [memoryview(block) for block in blocks]
            while left:
                written = os.pwritev(self._file, left, position)
                position += written
                while left and written >= len(left[0]):
                    written -= len(left.pop(0))
                if left:
                    left[0] = left[0][written:]

    def _settle(self) -> None:
        with plain_errors():
            os.fdatasync(self._file)
            if self._is_new:
                sync(self._part)
                sync(self._place.parent)
                sync(self._root)
                self._is_new = False

    def _finish(self, stat: Stat) -> None:
        with plain_errors(), self._locked():
            if self._last_writer() != self._writer:
                if self._place.exists():
                    return
                raise _stale()
            os.ftruncate(self._file, stat.size)
            os.fsync(self._file)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with open(os.open(self._part / STAT, flags, 0o600), "wb") as file:  # noqa: PTH123 - no Path for that
                file.write(json.dumps(asdict(stat)).encode())
                file.flush()
                os.fsync(file.fileno())
            sync(self._part)
            self._part.rename(self._place)
            sync(self._place.parent)
            (self._place / WRITER).unlink(missing_ok=True)

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
            return int((self._part / WRITER).read_bytes() or b"0")
        except FileNotFoundError:
            return None


def _stale() -> StaleWriter:
    return StaleWriter("Another request goes on with this upload: ask for its offset before you do.")
