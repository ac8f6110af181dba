"""A source that libav reads: what every one of them says of itself."""

import io


class Positioned(io.RawIOBase):
    """A binary file object to be read and moved in; ``_position`` is the byte offset of its next read."""

    _position: int

    def tell(self) -> int:
        """The byte offset of the next read."""
        return self._position

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True
