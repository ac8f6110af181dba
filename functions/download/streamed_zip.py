"""A zip file whose files are not known before it is streamed (``functions.download.archive`` knows them, and resumes).

Its files are stored without compression: MP3s and videos are compressed already. Every one is written as zip64, with
its size and checksum behind it (APPNOTE 4.3.9), so that the writer never goes back, and nothing of a file needs to be
known before its first byte.
"""

import io
import zipfile
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, Final

from functions.mp3.names import without_unsafe

#: Bytes of a file's name: file systems allow 255 with what the archive puts before it.
_MAX_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the archive.

    Attributes:
        name: its path.
        time: when it was made: year, month, day, hour, minute, second.
        chunks: its bytes.
    """

    name: str
    time: tuple[int, int, int, int, int, int]
    chunks: Iterable[bytes]


class _Sink(io.RawIOBase):
    """Collects what is written until it is taken."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        before = len(self._written)
        self._written += data
        return len(self._written) - before

    def take(self) -> bytes:
        """Returns what was written since the last call."""
        taken = bytes(self._written)
        self._written.clear()
        return taken


def safe_name(name: str) -> str:
    """Returns a name that every program can extract: without characters that some system does not allow, and short."""
    clean = without_unsafe(name)
    stem, dot, suffix = clean.rpartition(".")
    end = (dot + suffix).encode()[-_MAX_NAME:] if stem else b""
    start = (stem if stem else clean).encode()[: _MAX_NAME - len(end)]
    return (start + end).decode(errors="ignore").rstrip(". ")


def stream(entries: Iterable[Entry]) -> Generator[bytes, None, None]:
    """Yields the archive in chunks about as large as those of its files; takes a file when those before it are done."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, entry.time)
            with archive.open(info, "w", force_zip64=True) as target:
                for chunk in entry.chunks:
                    target.write(chunk)
                    yield sink.take()
            yield sink.take()
    yield sink.take()
