"""A zip file that is streamed, and whose size is known before its first byte.

Its files are stored without compression: MP3s and videos are compressed already. Every one is written as zip64, with
its size and checksum behind it (APPNOTE 4.3.9), so that the writer never goes back.
"""

import io
import zipfile
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: Bytes: the head of a file (APPNOTE 4.3.7) with its zip64 extra field (4.5.3), the descriptor behind it (4.3.9), its
#: entry in the directory (4.3.12), and the ends of the directory (4.3.14 to 4.3.16).
_HEAD: Final = 30 + 20
_DESCRIPTOR: Final = 24
_ENTRY: Final = 46
_END: Final = 22
_ZIP64_END: Final = 56 + 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the archive.

    Attributes:
        name: its path.
        size: its bytes.
        time: when it was made: year, month, day, hour, minute, second.
        read: returns its bytes in chunks.
    """

    name: str
    size: int
    time: tuple[int, int, int, int, int, int]
    read: Callable[[], Iterable[bytes]]


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


def size_of(entries: Sequence[Entry]) -> int:
    """Returns the bytes of the archive with these files."""
    offset = 0
    directory = 0
    for entry in entries:
        name = len(entry.name.encode())
        large = 2 * (entry.size > zipfile.ZIP64_LIMIT) + (offset > zipfile.ZIP64_LIMIT)
        directory += _ENTRY + name + (4 + 8 * large if large else 0)
        offset += _HEAD + name + entry.size + _DESCRIPTOR
    is_large = (
        len(entries) > zipfile.ZIP_FILECOUNT_LIMIT or offset > zipfile.ZIP64_LIMIT or directory > zipfile.ZIP64_LIMIT
    )
    return offset + directory + (_ZIP64_END if is_large else 0) + _END


def stream(entries: Iterable[Entry]) -> Generator[bytes, None, None]:
    """Yields the archive in chunks about as large as those of its files."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, entry.time)
            with archive.open(info, "w", force_zip64=True) as target:
                for chunk in entry.read():
                    target.write(chunk)
                    yield sink.take()
            yield sink.take()
    yield sink.take()
