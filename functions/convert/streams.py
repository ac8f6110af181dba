"""Interfaces of the byte streams that the converter reads and writes."""

from typing import Protocol


class SupportsReadSeek(Protocol):
    """A source of bytes: any binary file object."""

    def read(self, size: int = -1, /) -> bytes:
        """Reads up to ``size`` bytes; empty only at the end."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves to a byte offset and returns it."""
        ...

    def tell(self) -> int:
        """Returns the byte offset."""
        ...


class SupportsWrite(Protocol):
    """A destination of bytes."""

    def write(self, data: bytes, /) -> object:
        """Appends bytes."""
        ...
