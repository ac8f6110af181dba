"""A view of a file: parts of it, and bytes between them, in a new order; nothing is copied to disk."""

import os
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

from client.errors import ClientError, FileChanged


class UnsupportedLayout(Exception):
    """The pictures cannot be left out of this file for certain: it is uploaded as it is."""


class Span(NamedTuple):
    """Bytes of a file, from ``start`` up to ``end``; or, if it has any, the bytes of ``data`` in their place."""

    start: int
    end: int
    data: bytes = b""

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self.data) or self.end - self.start


class View:
    """The bytes of some spans, one after another. The file must not change while it is read."""

    def __init__(self, path: Path, spans: Iterable[Span] | None = None) -> None:
        """Opens the file; without spans the view is the complete file."""
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ClientError(f"{path}: {error.strerror}.") from error
        self.path = path
        self._identity = self._now()
        self._spans = [span for span in (spans or [Span(0, self.file_size)]) if span.size]
        self._starts = []
        self.size = 0
        for span in self._spans:
            self._starts.append(self.size)
            self.size += span.size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)

    @property
    def file_size(self) -> int:
        """The size of the complete file in bytes."""
        return self._identity[1]

    @property
    def identity(self) -> tuple[int, int, int]:
        """The file's inode, size and time of change: they differ after any usual change."""
        return self._identity

    def read(self, offset: int, size: int) -> bytes:
        """Returns up to ``size`` bytes from ``offset``; none at the end.

        Raises:
            FileChanged: the file is shorter than it was.
        """
        parts = []
        number = bisect_right(self._starts, offset) - 1
        while size and 0 <= number < len(self._spans):
            span = self._spans[number]
            skipped = offset - self._starts[number]
            wanted = min(size, span.size - skipped)
            if wanted <= 0:
                break
            parts.append(self._bytes(span, skipped, wanted))
            offset += wanted
            size -= wanted
            number += 1
        return b"".join(parts)

    def check(self) -> None:
        """Raises FileChanged if the file is no longer the one that was opened."""
        if self._now() != self._identity:
            raise FileChanged(f"{self.path} was changed while it was uploaded: try again when it is complete.")

    def _bytes(self, span: Span, skipped: int, size: int) -> bytes:
        if span.data:
            return span.data[skipped : skipped + size]
        found = os.pread(self._descriptor, size, span.start + skipped)
        if len(found) < size:
            raise FileChanged(f"{self.path} was shortened while it was uploaded: try again when it is complete.")
        return found

    def _now(self) -> tuple[int, int, int]:
        status = os.fstat(self._descriptor)
        return status.st_ino, status.st_size, status.st_mtime_ns
