"""Enforces what an upload may be: its size, its owner's quota, and its file type.

The quota counts blobs: every upload in progress, with the bytes it may grow to, and every video and MP3 that is stored.
An upload's blob has a row before its first byte is read, and the job that it becomes keeps that row. A request that
adds to a user's blobs locks the user's row first, so the second of two concurrent requests sees what the first has
reserved.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, bindparam, case, func, or_, select

from events.errors import Mp3burstError
from functions.auth.tokens import Identity
from functions.http_endpoint import Unprocessable
from functions.media import BlobId
from functions.state.blobs import Blobs, Grant
from functions.state.jobs import FINISHED
from functions.state.schema import blobs, jobs, now, users
from functions.upload.sniff import HEAD_SIZE, require_media

#: Bytes that an upload of unknown length reserves at a time.
RESERVATION_STEP: Final = 64 << 20

_ADMIN: Final = "admin"
#: Seconds until a client may try again. A short video is converted in less.
_RETRY_AFTER: Final = 30
# Built once: building a statement costs SQLAlchemy as much as running it.
_LOCK_USER: Final = select(users.c.id).where(users.c.id == bindparam("owner")).with_for_update()
_IN_PROGRESS: Final = and_(blobs.c.store == "videos", or_(jobs.c.id.is_(None), jobs.c.state.not_in(FINISHED)))
#: (bytes stored or reserved, uploads and conversions in progress) of a user, leaving out the blob ``own``.
_USAGE: Final = (
    select(func.coalesce(func.sum(blobs.c.size), 0), func.coalesce(func.sum(case((_IN_PROGRESS, 1), else_=0)), 0))
    .select_from(blobs.outerjoin(jobs, jobs.c.id == blobs.c.job))
    .where(
        blobs.c.owner == bindparam("owner"),
        blobs.c.id != bindparam("own"),
        blobs.c.store.in_(("videos", "mp3s")),
        or_(blobs.c.expires_at.is_(None), blobs.c.expires_at > now()),
    )
)


class TooLarge(Mp3burstError):
    """The file is larger than MAX_UPLOAD_BYTES, or than the length that was announced for it."""

    status = 413

    def __init__(self, limit: int) -> None:
        """Names the limit, in bytes, in the message."""
        super().__init__(f"The file is too large: the limit is {limit} bytes.")


class TooManyJobs(Mp3burstError):
    """The user has the maximum number of uploads and conversions in progress; ``retry_after`` is in seconds."""

    status = 429
    retry_after = _RETRY_AFTER
    security_event = "upload.refused"
    reason = "jobs"


class QuotaFull(Mp3burstError):
    """The upload does not fit into the user's quota."""

    status = 413
    security_event = "upload.refused"
    reason = "bytes"


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits per user; administrators have none. 0 means unlimited.

    Attributes:
        jobs: uploads and conversions in progress.
        size: bytes of videos and MP3s, including what uploads in progress have reserved.
    """

    jobs: int = 0
    size: int = 0

    def begin(self, identity: Identity, size: int | None, overhead: int = 0) -> Grant:
        """Returns a grant for a new upload.

        Args:
            identity: its owner.
            size: bytes to reserve, or None if the length is unknown; then RESERVATION_STEP bytes are reserved, or all
                that are left if they are fewer.
            overhead: bytes of ``size`` that may not be the file's; they are reserved only if enough are left.

        The grant raises:
            TooManyJobs: the user has too many uploads and conversions in progress.
            QuotaFull: too few bytes are left.
        """
        if size is None:
            size = RESERVATION_STEP
            minimum = 0
        else:
            minimum = size - overhead
        return functools.partial(self._grant, identity=identity, size=size, minimum=minimum, is_new=True)

    def grow(self, identity: Identity, size: int, minimum: int) -> Grant:
        """Returns a grant for an upload in progress: ``size`` bytes in all, or as many as are left.

        The grant raises:
            QuotaFull: fewer than ``minimum`` bytes are left.
        """
        return functools.partial(self._grant, identity=identity, size=size, minimum=minimum, is_new=False)

    def _grant(
        self, connection: Connection, blob: str, *, identity: Identity, size: int, minimum: int, is_new: bool
    ) -> int:
        if identity.role == _ADMIN or not (self.size or (self.jobs and is_new)):
            return size
        connection.execute(_LOCK_USER, {"owner": identity.user})
        used, in_progress = connection.execute(_USAGE, {"owner": identity.user, "own": blob}).one()
        if is_new and 0 < self.jobs <= in_progress:
            raise TooManyJobs(
                f"You have {in_progress} uploads and conversions in progress, and {self.jobs} are allowed: "
                "wait until one finishes, or delete one."
            )
        left = max(self.size - int(used), 0)
        if self.size and max(minimum, 1) > left:
            raise QuotaFull(
                f"You may store {self.size} bytes of videos and MP3s, and {left} are left: "
                "delete a job that you no longer need."
            )
        return min(size, left) if self.size else size


class Reservation:
    """The part of the owner's quota that is reserved for one upload.

    Attributes:
        size: how many bytes are reserved.
    """

    def __init__(self, blobs: Blobs, quota: Quota, identity: Identity, blob: BlobId, size: int) -> None:
        self.size = size
        self._blobs = blobs
        self._quota = quota
        self._identity = identity
        self._blob = blob

    def require(self, size: int) -> None:
        """Makes sure that at least ``size`` bytes are reserved.

        Raises:
            QuotaFull: too few bytes are left.
            BlobExpired: the blob has expired.
        """
        self._grow(size, size)

    def extend(self, size: int) -> None:
        """Makes sure that at least ``size`` bytes are reserved, and prepares for more.

        A new reservation has up to RESERVATION_STEP more bytes, so that few chunks cost a transaction. Raises what
        ``require`` does.
        """
        self._grow(size + RESERVATION_STEP, size)

    def _grow(self, size: int, minimum: int) -> None:
        if minimum > self.size:
            self.size = self._blobs.grow(self._blob, self._quota.grow(self._identity, size, minimum))


class StreamChecks:
    """Checks the bytes of one upload as they arrive: the size limit, then the quota, then the file type.

    Attributes:
        received: bytes of the file so far, over all requests.
    """

    def __init__(self, reservation: Reservation, limit: int, received: int = 0, head: bytes | None = b"") -> None:
        """Starts or resumes the checks.

        Args:
            reservation: the bytes reserved for the upload; extended as more arrive.
            limit: bytes that the file may have.
            received: bytes of it that earlier requests delivered.
            head: those bytes, or None if they were HEAD_SIZE or more, and so have been checked.
        """
        self.received = received
        self._reservation = reservation
        self._limit = limit
        self._head = head

    def apply(self, content: Iterator[bytes]) -> Iterator[bytes]:
        """Yields the same chunks, each one after its checks.

        Raises:
            TooLarge: the file exceeds the limit.
            QuotaFull: it exceeds its owner's quota.
            BlobExpired: its blob has expired.
            UnsupportedMediaType: its first HEAD_SIZE bytes are neither audio nor video.
        """
        for chunk in content:
            self.received += len(chunk)
            if self.received > self._limit:
                raise TooLarge(self._limit)
            self._reservation.extend(self.received)
            if self._head is not None:
                self._head += chunk[: HEAD_SIZE - len(self._head)]
                if len(self._head) == HEAD_SIZE:
                    require_media(self._head)
                    self._head = None
            yield chunk

    def finish(self) -> None:
        """Checks the complete file: ``apply`` cannot judge one that is shorter than HEAD_SIZE.

        Raises:
            Unprocessable: it is empty.
            UnsupportedMediaType: it is neither audio nor video.
        """
        if not self.received:
            raise Unprocessable("The file is empty: choose another.", {"file": "is empty"})
        if self._head is not None:
            require_media(self._head)
            self._head = None
