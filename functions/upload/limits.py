"""What one user may have at once: uploads and conversions under way, and bytes of media.

Blobs are what is counted. An upload has the row of its blob, with as many bytes as it may grow to, before its first
byte is read, and the job that it becomes keeps that row. Whoever adds to what a user has locks the user's row first, so
that of two at once the second sees what the first has taken.
"""

import functools
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, bindparam, case, func, or_, select

from events.errors import Mp3burstError
from functions.auth.tokens import Identity
from functions.state.blobs import Grant
from functions.state.jobs import FINISHED
from functions.state.schema import blobs, jobs, now, users

#: Bytes that an upload of unknown length is given at a time.
STEP: Final = 64 << 20

_ADMIN: Final = "admin"
#: Seconds; a short video is converted in less.
_WAIT: Final = 30
# Made once: to build a statement costs SQLAlchemy as much as to run it.
_USER: Final = select(users.c.id).where(users.c.id == bindparam("owner")).with_for_update()
_UNFINISHED: Final = and_(blobs.c.store == "videos", or_(jobs.c.id.is_(None), jobs.c.state.not_in(FINISHED)))
_TAKEN: Final = (
    select(func.coalesce(func.sum(blobs.c.size), 0), func.coalesce(func.sum(case((_UNFINISHED, 1), else_=0)), 0))
    .select_from(blobs.outerjoin(jobs, jobs.c.id == blobs.c.job))
    .where(
        blobs.c.owner == bindparam("owner"),
        blobs.c.id != bindparam("own"),
        blobs.c.store.in_(("videos", "mp3s")),
        or_(blobs.c.expires_at.is_(None), blobs.c.expires_at > now()),
    )
)


class TooManyJobs(Mp3burstError):
    """The user has as many uploads and conversions under way as one may have; ``retry_after`` is in seconds."""

    status = 429
    retry_after = _WAIT


class QuotaFull(Mp3burstError):
    """The upload would not fit into what the user may keep."""

    status = 413


@dataclass(frozen=True, slots=True)
class Quota:
    """What one user may have, administrators aside; 0 is any number.

    Attributes:
        jobs: uploads and conversions under way at once.
        size: bytes of videos and MP3s, with what an upload under way has announced.
    """

    jobs: int = 0
    size: int = 0

    def begin(self, who: Identity, size: int, slack: int = 0) -> Grant:
        """For a new upload: gives it room for so many bytes, or for up to ``slack`` less where there is no more.

        What is returned raises:
            TooManyJobs, QuotaFull: the user has too much already.
        """
        return functools.partial(self._admit, who=who, size=size, slack=slack, begins=True)

    def grow(self, who: Identity, size: int, slack: int = 0) -> Grant:
        """For an upload under way: gives it room for so many bytes in all; else as ``begin``."""
        return functools.partial(self._admit, who=who, size=size, slack=slack, begins=False)

    def _admit(self, connection: Connection, blob: str, *, who: Identity, size: int, slack: int, begins: bool) -> int:
        if who.role == _ADMIN or not (self.size or (self.jobs and begins)):
            return size
        connection.execute(_USER, {"owner": who.user})
        taken, unfinished = connection.execute(_TAKEN, {"owner": who.user, "own": blob}).one()
        if begins and 0 < self.jobs <= unfinished:
            raise TooManyJobs(
                f"You have {unfinished} uploads and conversions under way, and no more are taken at once: "
                "wait until one is done, or delete one."
            )
        left = max(self.size - int(taken), 0)
        if self.size and max(size - slack, 1) > left:
            raise QuotaFull(
                f"You may keep {self.size} bytes of videos and MP3s here, and {left} are left: "
                "delete a job that you no longer need."
            )
        return min(size, left) if self.size else size
