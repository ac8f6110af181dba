"""Limits what a user may store and have in progress.

The quota counts blobs: every upload in progress with the bytes it may grow to, every conversion in progress with the
bytes that its MP3 may have, and every video and MP3 that is stored. A blob has a row before its first byte, whose size
is what is reserved for it. The head of a job that was split carries the reservation of the job's MP3; a piece that
needs more than its share carries the excess. Whoever adds to a user's blobs locks the user's row first, so of two
concurrent requests the second sees what the first has reserved.
"""

import functools
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol, Self

from sqlalchemy import Connection, and_, bindparam, case, func, or_, select

from events.errors import Mp3burstError, PermanentFailure
from events.schema import JobId
from functions.media import BlobId
from functions.rate_limits import RateLimit, Tell
from functions.settings import number
from functions.state.administrators import ADMIN
from functions.state.blobs import Blobs, Grant, RenewingWriter
from functions.state.database import Database
from functions.state.jobs import FINISHED
from functions.state.schema import UserId, blobs, jobs, now, users

#: Bytes that a user may store, unless QUOTA_BYTES says otherwise: 20 GB.
QUOTA_BYTES: Final = 20_000_000_000
#: Uploads and conversions that a user may have in progress, unless QUOTA_JOBS says otherwise: enough for a folder of
#: clips, too few to queue up a day's work.
QUOTA_JOBS: Final = 200
#: Bytes that are reserved at a time for an upload of unknown length.
RESERVATION_STEP: Final = 64 << 20
#: Bytes that are reserved at a time for an MP3 that is larger than expected: usually by a few kilobytes.
MP3_STEP: Final = 1 << 20

#: Seconds until a client may try again. A short video is converted in less.
_RETRY_AFTER: Final = 30
# Built once: building a statement costs SQLAlchemy as much as running it.
_LOCK_USER: Final = (
    select(users.c.role, users.c.quota_bytes, users.c.quota_jobs)
    .where(users.c.id == bindparam("owner"))
    .with_for_update()
)
_IN_PROGRESS: Final = and_(blobs.c.store == "videos", or_(jobs.c.id.is_(None), jobs.c.state.not_in(FINISHED)))
_IS_ALIVE: Final = or_(blobs.c.expires_at.is_(None), blobs.c.expires_at > now())
#: Bytes stored or reserved; uploads and conversions in progress.
_SUMS: Final = (
    func.coalesce(func.sum(blobs.c.size), 0),
    func.coalesce(func.sum(case((_IN_PROGRESS, 1), else_=0)), 0),
)
_BLOBS_WITH_JOBS: Final = blobs.outerjoin(jobs, jobs.c.id == blobs.c.job)
#: The sums of a user, leaving out the blob ``own``, and the pieces and MP3s of ``job``.
_USAGE: Final = (
    select(*_SUMS)
    .select_from(_BLOBS_WITH_JOBS)
    .where(
        blobs.c.owner == bindparam("owner"),
        blobs.c.id != bindparam("own"),
        or_(blobs.c.store == "videos", blobs.c.job != bindparam("job")),
        _IS_ALIVE,
    )
)
#: The sums of each of some users.
_USAGES: Final = (
    select(blobs.c.owner, *_SUMS)
    .select_from(_BLOBS_WITH_JOBS)
    .where(blobs.c.owner.in_(bindparam("owners", expanding=True)), _IS_ALIVE)
    .group_by(blobs.c.owner)
)


class Owner(Protocol):
    """The owner of an upload, such as ``functions.auth.tokens.Identity``."""

    @property
    def user(self) -> UserId:
        """The user's id."""

    @property
    def role(self) -> str:
        """The user's role."""


class Limited(Protocol):
    """A user with the limits that an administrator has set, such as ``functions.auth.profiles.Profile``."""

    @property
    def role(self) -> str:
        """The user's role."""

    @property
    def quota_bytes(self) -> int | None:
        """Bytes that the user may store; None for those of the installation."""

    @property
    def quota_jobs(self) -> int | None:
        """Uploads and conversions that the user may have in progress; None for those of the installation."""


class TooManyJobs(Mp3burstError):
    """The user has the maximum number of uploads and conversions in progress; ``retry_after`` is in seconds."""

    status = 429
    retry_after = _RETRY_AFTER
    security_event = "upload.refused"
    reason = "jobs"

    def __init__(self, in_progress: int, allowed: int) -> None:
        super().__init__(
            f"You have {in_progress} uploads and conversions in progress, and {allowed} are allowed: "
            "wait until one finishes, or delete one."
        )
        self.limits = (RateLimit("jobs", allowed, 0, "concurrent-requests", reset=_RETRY_AFTER),)


class QuotaFull(PermanentFailure):
    """The upload or the MP3 does not fit into the user's quota."""

    status = 413
    security_event = "upload.refused"
    reason = "bytes"

    def __init__(self, message: str, size: int, left: int) -> None:
        super().__init__(message)
        self.limits = (RateLimit("storage", size, left, "content-bytes"),)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a user has of the quota.

    Attributes:
        size: bytes stored or reserved.
        jobs: uploads and conversions in progress.
    """

    size: int
    jobs: int


def usage(database: Database, owner: UserId) -> Usage:
    """Returns what the user has stored, reserved and in progress."""
    return Usage(*database.read(lambda connection: _count(connection, owner)))


def usages(database: Database, owners: Collection[UserId]) -> dict[UserId, Usage]:
    """Returns what each of some users has stored, reserved and in progress."""
    rows = database.read(lambda connection: connection.execute(_USAGES, {"owners": list(owners)}).all())
    found = {UserId(owner): Usage(int(size), int(in_progress)) for owner, size, in_progress in rows}
    return {owner: found.get(owner, Usage(0, 0)) for owner in owners}


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits per user, unless an administrator has set others; administrators have none. 0 means unlimited.

    Attributes:
        jobs: uploads and conversions in progress.
        size: bytes of videos and MP3s, including what uploads and conversions in progress have reserved.
    """

    jobs: int = 0
    size: int = 0

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Returns the quota of QUOTA_JOBS and QUOTA_BYTES.

        Raises:
            BadSetting: one of them is not a number.
        """
        return cls(
            jobs=int(number(environ, "QUOTA_JOBS", QUOTA_JOBS)), size=int(number(environ, "QUOTA_BYTES", QUOTA_BYTES))
        )

    def of(self, user: Limited) -> Self:
        """Returns the limits of one user."""
        if user.role == ADMIN:
            return replace(self, jobs=0, size=0)
        jobs = self.jobs if user.quota_jobs is None else user.quota_jobs
        size = self.size if user.quota_bytes is None else user.quota_bytes
        return replace(self, jobs=jobs, size=size)

    def begin(self, identity: Owner, size: int | None, overhead: int = 0, tell: Tell | None = None) -> Grant:
        """Returns a grant for a new upload.

        Args:
            identity: its owner.
            size: bytes to reserve, or None if the length is unknown; then RESERVATION_STEP bytes are reserved, or all
                that are left if they are fewer.
            overhead: bytes of ``size`` that may not be the file's; they are reserved only if enough are left.
            tell: is told what is left, with this upload.

        The grant raises:
            TooManyJobs: the user has too many uploads and conversions in progress.
            QuotaFull: too few bytes are left.
        """
        if size is None:
            size = RESERVATION_STEP
            minimum = 0
        else:
            minimum = size - overhead
        tell = tell or _tell_nobody
        return functools.partial(self._grant_new, identity=identity, size=size, minimum=minimum, tell=tell)

    def grow(self, identity: Owner, size: int, minimum: int) -> Grant:
        """Returns a grant for an upload in progress: ``size`` bytes in all, or as many as are left.

        The grant raises:
            QuotaFull: fewer than ``minimum`` bytes are left.
        """
        return functools.partial(self._grant_growth, identity=identity, size=size, minimum=minimum)

    def convert(self, owner: UserId, size: int, minimum: int, replaces: JobId | None = None) -> Grant:
        """Returns a grant for an MP3, or a piece of one: ``size`` bytes, or as many as are left.

        Args:
            owner: the job's owner, who is no administrator unless the database says so.
            size: bytes to reserve.
            minimum: bytes that must be left.
            replaces: the job whose other pieces and MP3s do not count, since this blob takes their place; those of an
                earlier attempt, too.

        The grant raises:
            QuotaFull: fewer than ``minimum`` bytes are left.
        """
        return functools.partial(self._grant_mp3, owner=owner, size=size, minimum=minimum, job=replaces or "")

    def _grant_new(
        self, connection: Connection, blob: str, *, identity: Owner, size: int, minimum: int, tell: Tell
    ) -> int:
        own = self._locked(connection, identity)
        if not (own.size or own.jobs):
            return size
        used, in_progress = _count(connection, identity.user, blob)
        if 0 < own.jobs <= in_progress:
            raise TooManyJobs(in_progress, own.jobs)
        granted = own._granted(used, size, minimum)
        if own.jobs:
            tell(RateLimit("jobs", own.jobs, own.jobs - in_progress - 1, "concurrent-requests"))
        if own.size:
            tell(RateLimit("storage", own.size, own.size - used - granted, "content-bytes"))
        return granted

    def _grant_growth(self, connection: Connection, blob: str, *, identity: Owner, size: int, minimum: int) -> int:
        own = self._locked(connection, identity)
        if not own.size:
            return size
        used, _ = _count(connection, identity.user, blob)
        return own._granted(used, size, minimum)

    def _locked(self, connection: Connection, identity: Owner) -> "Quota":
        """Locks the user's row; returns the limits of the user, none if the identity is an administrator's."""
        return Quota() if identity.role == ADMIN else self._locked_owner(connection, identity.user)

    def _locked_owner(self, connection: Connection, owner: UserId) -> "Quota":
        """Locks the user's row; returns the limits of the user. If it is gone, those of everybody."""
        row = connection.execute(_LOCK_USER, {"owner": owner}).one_or_none()
        return self if row is None else self.of(row)

    def _granted(self, used: int, size: int, minimum: int) -> int:
        """Returns how many of ``size`` bytes an upload gets."""
        if not self.size:
            return size
        left = max(self.size - used, 0)
        if max(minimum, 1) > left:
            raise QuotaFull(
                f"You may store {self.size} bytes of videos and MP3s, and {left} are left: "
                "delete a job that you no longer need.",
                self.size,
                left,
            )
        return min(size, left)

    def _grant_mp3(self, connection: Connection, blob: str, *, owner: UserId, size: int, minimum: int, job: str) -> int:
        own = self._locked_owner(connection, owner)
        if not own.size:
            return size
        used, _ = _count(connection, owner, blob, job)
        left = max(own.size - used, 0)
        if minimum > left:
            raise QuotaFull(
                f"The MP3 needs about {minimum} bytes. You may store {own.size} bytes of videos and MP3s, and {left} "
                "are left: delete a job that you no longer need or choose a lower bit rate, and upload the file again.",
                own.size,
                left,
            )
        return min(size, left)


def _count(connection: Connection, owner: UserId, own: str = "", job: str = "") -> tuple[int, int]:
    """Returns the sums of ``_USAGE``."""
    size, in_progress = connection.execute(_USAGE, {"owner": owner, "own": own, "job": job}).one()
    return int(size), int(in_progress)


def _tell_nobody(_: RateLimit) -> None:
    pass


class Reservation:
    """The part of the owner's quota that is reserved for one blob.

    Attributes:
        size: how many bytes are reserved.
    """

    def __init__(
        self, blobs: Blobs, blob: BlobId, size: int, grant: Callable[[int, int], Grant], step: int = RESERVATION_STEP
    ) -> None:
        """Describes a reservation.

        Args:
            blobs: the records of blobs.
            blob: the blob.
            size: bytes that are reserved for it so far.
            grant: given the bytes to reserve and those that must be left, returns the grant.
            step: bytes that ``extend`` reserves in advance.
        """
        self.size = size
        self._blobs = blobs
        self._blob = blob
        self._grant = grant
        self._step = step

    def require(self, size: int) -> None:
        """Makes sure that at least ``size`` bytes are reserved.

        Raises:
            QuotaFull: too few bytes are left. BlobExpired: the blob has expired.
        """
        self._grow(size, size)

    def extend(self, size: int) -> None:
        """Makes sure that at least ``size`` bytes are reserved, and prepares for more.

        A new reservation has up to a step more bytes, so that few chunks cost a transaction. Raises what
        ``require`` does.
        """
        self._grow(size + self._step, size)

    def _grow(self, size: int, minimum: int) -> None:
        if minimum > self.size:
            self.size = self._blobs.grow(self._blob, self._grant(size, minimum))


class ReservedWriter:
    """Writes a blob, and stops where the owner's quota does."""

    def __init__(self, writer: RenewingWriter, reservation: "Reservation | ShareReservation") -> None:
        self._writer = writer
        self._reservation = reservation
        self._crc32 = 0

    @property
    def crc32(self) -> str:
        """The CRC-32 of the bytes written so far, in hexadecimal."""
        return f"{self._crc32:08x}"

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._writer.size

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Appends bytes; raises QuotaFull before any that do not fit, and what ``RenewingWriter.write`` does."""
        self._reservation.extend(self._writer.size + len(data))
        self._crc32 = zlib.crc32(data, self._crc32)
        return self._writer.write(data)


class ShareReservation:
    """Reserves only what a piece needs beyond its share of the bytes that are reserved for its job.

    Attributes:
        share: bytes of the piece that are part of the job's reservation.
    """

    def __init__(self, excess: Reservation, share: int) -> None:
        """Takes the reservation of the piece's own blob, which is empty until the piece exceeds its share."""
        self.share = share
        self._excess = excess

    def require(self, size: int) -> None:
        """As ``Reservation.require``, given the size of the piece."""
        self._excess.require(size - self.share)

    def extend(self, size: int) -> None:
        """As ``Reservation.extend``, given the size of the piece."""
        if size > self.share:
            self._excess.extend(size - self.share)
