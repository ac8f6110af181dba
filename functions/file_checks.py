"""Enforces what a file that arrives may be: its size, its owner's quota (``functions.state.quota``), its file type."""

from collections.abc import Iterator
from typing import Final

from events.errors import Mp3burstError
from functions.http_endpoint import Unprocessable
from functions.media.space import FreeSpace
from functions.sniff import HEAD_SIZE, require_media
from functions.state.quota import Reservation

#: Bytes of a file, unless MAX_UPLOAD_BYTES says otherwise.
MAX_BYTES: Final = 8 << 30


class TooLarge(Mp3burstError):
    """The file is larger than MAX_UPLOAD_BYTES, or than the length that was announced for it."""

    status = 413

    def __init__(self, limit: int) -> None:
        """Names the limit, in bytes, in the message."""
        super().__init__(f"The file is too large: the limit is {limit} bytes.")


class StreamChecks:
    """Checks the bytes of one upload as they arrive: the size limit, then the quota, then the file type.

    Attributes:
        received: bytes of the file so far, over all requests.
    """

    def __init__(
        self,
        reservation: Reservation,
        limit: int,
        received: int = 0,
        head: bytes | None = b"",
        space: FreeSpace | None = None,
    ) -> None:
        """Starts or resumes the checks.

        Args:
            reservation: the bytes reserved for the upload; extended as more arrive.
            limit: bytes that the file may have.
            received: bytes of it that earlier requests brought.
            head: those bytes, or None if they were HEAD_SIZE or more, and so have been checked.
            space: what the media store has left; None for enough.
        """
        self.received = received
        self._reservation = reservation
        self._limit = limit
        self._head = head
        self._space = space

    def apply(self, content: Iterator[bytes]) -> Iterator[bytes]:
        """Yields the same chunks, each one after its checks.

        Raises:
            TooLarge: the file exceeds the limit.
            QuotaFull: it exceeds its owner's quota. DiskFull: the media store has too little space left.
            BlobExpired: its blob has expired.
            UnsupportedMediaType: its first HEAD_SIZE bytes are certainly neither audio nor video.
        """
        for chunk in content:
            self.received += len(chunk)
            if self.received > self._limit:
                raise TooLarge(self._limit)
            self._reservation.extend(self.received)
            if self._space is not None:
                self._space.require(len(chunk))
            if self._head is not None:
                self._head += chunk[: HEAD_SIZE - len(self._head)]
                if len(self._head) == HEAD_SIZE:
                    require_media(self._head)
                    self._head = None
            yield chunk

    def finish(self) -> None:
        """Checks the complete file: ``apply`` cannot judge one that is shorter than HEAD_SIZE.

        Raises:
            Unprocessable: it is empty. UnsupportedMediaType: it is certainly neither audio nor video.
        """
        if not self.received:
            raise Unprocessable("The file is empty: choose another.", {"file": "is empty"})
        if self._head is not None:
            require_media(self._head)
            self._head = None
