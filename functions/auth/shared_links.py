"""Links that users make to give an MP3 to others: they download it without a login, until they expire or are deleted.

The secret in a link is ``mp3l_`` and 32 random bytes; the database has its SHA-256 only. A link is for one MP3 of one
job: when the job is deleted it leads nowhere, and stays so if another MP3 takes its place.
"""

import contextlib
import secrets
from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, delete, exists, func, insert, select

from events.errors import Mp3burstError
from events.schema import JobId
from functions.auth.links import BadLink
from functions.auth.stored_secrets import digest
from functions.media import BlobId
from functions.state.database import Conflict, Database
from functions.state.owners import lock_owner
from functions.state.schema import UserId, is_id, jobs, now, shared_links, users

#: Links of one user that have not expired.
MAX_LINKS: Final = 1000
LINK_PREFIX: Final = "mp3l_"
# Built once: building a statement costs SQLAlchemy as much as running it.
_FIND: Final = (
    select(shared_links.c.owner)
    .join(users, users.c.id == shared_links.c.owner)
    .where(
        shared_links.c.digest == bindparam("secret"),
        shared_links.c.mp3 == bindparam("fid"),
        shared_links.c.expires_at > now(),
        users.c.deleted_at.is_(None),
        users.c.locked_at.is_(None),
    )
)


class TooManyLinks(Mp3burstError):
    """The user has as many links as a user may have."""

    status = 409


class LinkNotFound(Mp3burstError):
    """There is no such link, or it is another user's."""

    status = 404
    security_event = "object.refused"


@dataclass(frozen=True, slots=True)
class SharedLink:
    """A link, as its owner sees it in a list.

    Attributes:
        id: 32 hexadecimal digits.
        job: the job whose MP3 it downloads.
        mp3: the id of that.
        filename: the name of the job's video.
        created_at: milliseconds since 1970.
        expires_at: milliseconds since 1970.
    """

    id: str
    job: JobId
    mp3: BlobId
    filename: str
    created_at: int
    expires_at: int

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Returns the link of a row."""
        return cls(*(getattr(row, name) for name in cls.__dataclass_fields__))


class SharedLinks:
    """The table of links."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, owner: UserId, job: JobId, mp3: BlobId, seconds: int, version: int | None = None, key: str | None = None
    ) -> tuple[str, SharedLink]:
        """Creates a link to the MP3 of a job of the owner.

        Args:
            owner: the user.
            job: the job.
            mp3: its MP3.
            seconds: for which the link is valid.
            version: of the token that the request was sent with; None for an API key.
            key: the id of the API key that it was sent with, as ``lock_owner`` has it.

        Returns:
            The secret, which is not stored, and the link.

        Raises:
            TooManyLinks: the owner has MAX_LINKS of them.
            LinkNotFound: the job was deleted.
            OwnerChanged: the owner or the key was deleted, or the token was withdrawn.
        """
        secret = LINK_PREFIX + secrets.token_urlsafe(32)
        new_id = secrets.token_hex(16)
        row = insert(shared_links).values(
            id=new_id,
            digest=digest(secret),
            owner=owner,
            job=job,
            mp3=mp3,
            created_at=now(),
            expires_at=now() + seconds * 1000,
        )
        # It is there if the answer to a commit was lost.
        mine = _valid(owner).where(shared_links.c.id != new_id).subquery()
        leads = exists().where(jobs.c.id == shared_links.c.job, jobs.c.mp3 == shared_links.c.mp3)
        useless = delete(shared_links).where(shared_links.c.owner == owner, ~leads)

        def create(connection: Connection) -> None:
            lock_owner(connection, owner, version, key)
            connection.execute(useless)  # nothing else deletes them for up to ten years
            if (connection.scalar(select(func.count()).select_from(mine)) or 0) >= MAX_LINKS:
                raise TooManyLinks(f"You have {MAX_LINKS} links, and no more are allowed: delete some.")
            connection.execute(row)

        with contextlib.suppress(Conflict):  # the first try was committed, and only its confirmation was lost
            self._database.run(create)
        found = self._select(owner, shared_links.c.id == new_id)
        if not found:
            raise LinkNotFound("The job no longer exists: GET /jobs lists yours.")
        return secret, found[0]

    def of(self, owner: UserId) -> list[SharedLink]:
        """Returns the owner's links that have not expired and whose MP3s exist, newest first."""
        return self._select(owner)

    def delete(self, link: str, owner: UserId) -> None:
        """Deletes the owner's link with this id.

        Raises:
            LinkNotFound: there is none, or it is another user's.
        """
        mine = and_(shared_links.c.id == link, shared_links.c.owner == owner)
        deleted: list[int] = []  # one entry per run: after a lost answer to the commit, only the first run found it
        if is_id(link):
            self._database.run(
                lambda connection: deleted.append(connection.execute(delete(shared_links).where(mine)).rowcount)
            )
        if not any(deleted):
            raise LinkNotFound("There is no such link: GET /links lists yours.")

    def verify(self, secret: str, fid: str) -> UserId:
        """Returns the owner of the MP3 that a link downloads.

        Args:
            secret: from the link.
            fid: the MP3's blob id, from the link.

        Raises:
            BadLink: the link has expired, was deleted, or is for another file; or its owner is locked or deleted.
        """
        values = {"secret": digest(secret), "fid": fid}
        owner = self._database.read(lambda connection: connection.scalar(_FIND, values))
        if owner is None:
            raise BadLink("This link is invalid, has expired or was deleted: ask for another one.")
        return UserId(owner)

    def _select(self, owner: UserId, *where: ColumnElement[bool]) -> list[SharedLink]:
        query = _valid(owner).where(*where).order_by(shared_links.c.created_at.desc(), shared_links.c.id)
        return self._database.read(lambda connection: [SharedLink.from_row(row) for row in connection.execute(query)])


def _valid(owner: UserId) -> Any:
    """Returns the query for the links of an owner that have not expired and whose MP3s exist."""
    columns = shared_links.c
    return (
        select(columns.id, columns.job, columns.mp3, jobs.c.filename, columns.created_at, columns.expires_at)
        .join_from(shared_links, jobs, and_(jobs.c.id == columns.job, jobs.c.mp3 == columns.mp3))
        .where(columns.owner == owner, columns.expires_at > now())
    )
