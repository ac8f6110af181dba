"""A zip file that is streamed, from any byte on, and whose size is known before its first byte.

Its files are stored without compression: MP3s and videos are compressed already. A file whose checksum is not known
before it is read has it behind its bytes (APPNOTE 4.3.9); then, and above 4 GB, its sizes have eight bytes (zip64).
"""

import struct
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

#: What fits into four and into two bytes, and what stands there if the zip64 field has the value (APPNOTE 4.4.1.4).
_MAX_LONG: Final = 0xFFFFFFFE
_MAX_SHORT: Final = 0xFFFE
_LONG_ELSEWHERE: Final = 0xFFFFFFFF
_SHORT_ELSEWHERE: Final = 0xFFFF
#: Flags (4.4.4): the name is UTF-8; the checksum and the sizes are behind the file.
_UTF8: Final = 1 << 11
_BEHIND: Final = 1 << 3
#: Versions that a reader must know (4.4.3.2): 2.0, and 4.5 for zip64. The upper byte of the version of the writer says
#: that the attributes are those of Unix: a regular file that its owner may write and everybody may read.
_VERSION: Final = 20
_ZIP64_VERSION: Final = 45
_UNIX: Final = 3 << 8
_ATTRIBUTES: Final = 0o100644 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the archive.

    Attributes:
        name: its path.
        size: its bytes.
        time: when it was made: year, month, day, hour, minute, second.
        read: returns its bytes from a first one to before a last one, in chunks.
        crc32: its CRC-32; None if it is not known.
    """

    name: str
    size: int
    time: tuple[int, int, int, int, int, int]
    read: Callable[[int, int], Iterable[bytes]]
    crc32: int | None = None


class Archive:
    """A zip file.

    Attributes:
        size: its bytes.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._files = [_File(entry) for entry in entries]
        offset = 0
        for file in self._files:
            file.offset = offset
            offset += len(file.head()) + file.entry.size + file.descriptor_size
        self._directory_at = offset
        self.size = offset + len(self._directory(is_draft=True))

    def stream(self, start: int = 0, stop: int | None = None) -> Generator[bytes, None, None]:
        """Yields the bytes from ``start`` on, to before ``stop``, in chunks about as large as those of the files.

        Files before ``start`` are read only if their checksums are not known, and only for the end of the archive.
        """
        stop = self.size if stop is None else min(stop, self.size)
        for file in self._files:
            head = file.head()
            sound_at = file.offset + len(head)
            end = sound_at + file.entry.size
            yield from _cut(head, file.offset, start, stop)
            if start < end and stop > sound_at:
                yield from file.read(max(start - sound_at, 0), min(stop - sound_at, file.entry.size))
            if file.descriptor_size and start < end + file.descriptor_size and stop > end:
                yield from _cut(file.descriptor(), end, start, stop)
        if stop > self._directory_at:
            yield from _cut(self._directory(), self._directory_at, start, stop)

    def _directory(self, *, is_draft: bool = False) -> bytes:
        """Returns the directory and its end; a draft without checksums, which has the same size."""
        directory = b"".join(file.directory_entry(is_draft=is_draft) for file in self._files)
        count = len(self._files)
        size = len(directory)
        offset = self._directory_at
        end = b""
        if count > _MAX_SHORT or size > _MAX_LONG or offset > _MAX_LONG:
            versions = (_UNIX | _ZIP64_VERSION, _ZIP64_VERSION)
            record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, *versions, 0, 0, count, count, size, offset)
            locator = struct.pack("<4sIQI", b"PK\6\7", 0, offset + size, 1)
            end = record + locator
        counts = (count if count <= _MAX_SHORT else _SHORT_ELSEWHERE,) * 2
        place = (_long(size), _long(offset))
        return directory + end + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, *counts, *place, 0)


class _File:
    """An entry at its place in the archive."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.offset = 0
        self._name = entry.name.encode()
        self._crc32 = entry.crc32
        self._is_behind = entry.crc32 is None
        self._flags = _UTF8 | (_BEHIND if self._is_behind else 0)
        year, month, day, hour, minute, second = entry.time
        self._time = (hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)

    @property
    def descriptor_size(self) -> int:
        """Bytes of the descriptor behind the file."""
        return 24 if self._is_behind else 0

    def head(self) -> bytes:
        """Returns what is in front of the file (4.3.7)."""
        size = self.entry.size
        extra = b""
        sizes = (size, size)
        if self._is_behind or size > _MAX_LONG:
            known = 0 if self._is_behind else size
            extra = struct.pack("<HHQQ", 1, 16, known, known)
            sizes = (_LONG_ELSEWHERE, _LONG_ELSEWHERE)
        version = _ZIP64_VERSION if extra else _VERSION
        crc32 = 0 if self._is_behind else self._checksum()
        lengths = (len(self._name), len(extra))
        fields = (version, self._flags, 0, *self._time, crc32, *sizes, *lengths)
        return struct.pack("<4sHHHHHIIIHH", b"PK\3\4", *fields) + self._name + extra

    def descriptor(self) -> bytes:
        """Returns what is behind the file (4.3.9)."""
        return struct.pack("<4sIQQ", b"PK\7\x08", self._checksum(), self.entry.size, self.entry.size)

    def directory_entry(self, *, is_draft: bool) -> bytes:
        """Returns the file's entry in the directory (4.3.12); a draft has no checksum."""
        size = self.entry.size
        large = [size, size] if size > _MAX_LONG else []
        large += [self.offset] if self.offset > _MAX_LONG else []
        extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        version = _ZIP64_VERSION if large or self._is_behind else _VERSION
        crc32 = 0 if is_draft else self._checksum()
        sizes = (_long(size), _long(size))
        lengths = (len(self._name), len(extra), 0, 0, 0)
        place = (_ATTRIBUTES, _long(self.offset))
        fields = (_UNIX | version, version, self._flags, 0, *self._time, crc32, *sizes, *lengths, *place)
        return struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", *fields) + self._name + extra

    def read(self, first: int, last: int) -> Iterator[bytes]:
        """Yields the file's bytes; learns its checksum if they are all of them."""
        crc32 = 0
        for chunk in self.entry.read(first, last):
            crc32 = crc32 if self._crc32 is not None else zlib.crc32(chunk, crc32)
            yield chunk
        if self._crc32 is None and (first, last) == (0, self.entry.size):
            self._crc32 = crc32

    def _checksum(self) -> int:
        """Returns the CRC-32; reads the file if it is not known."""
        if self._crc32 is None:
            for _ in self.read(0, self.entry.size):
                pass
        return self._crc32 or 0


def _long(value: int) -> int:
    """Returns what four bytes have of a value: the value, or the mark that it is in the zip64 field."""
    return value if value <= _MAX_LONG else _LONG_ELSEWHERE


def _cut(data: bytes, offset: int, start: int, stop: int) -> Iterator[bytes]:
    """Yields what is from ``start`` to before ``stop`` of ``data``, which is at ``offset``, if that is not empty."""
    if part := data[max(start - offset, 0) : max(stop - offset, 0)]:
        yield part
