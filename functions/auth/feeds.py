"""The secret of a user's podcast feed, which lists all MP3s of the user and downloads them without a login.

It is ``mp3f_`` and 32 random bytes; the database has its SHA-256 only. A user has one at most: another one replaces it.
"""

import secrets
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select

from functions.auth.links import BadLink
from functions.auth.stored_secrets import digest
from functions.state.database import Database
from functions.state.owners import lock_owner
from functions.state.schema import UserId, feeds, now, users

FEED_PREFIX: Final = "mp3f_"
# Built once: building a statement costs SQLAlchemy as much as running it.
_FIND: Final = (
    select(feeds.c.owner)
    .join(users, users.c.id == feeds.c.owner)
    .where(feeds.c.digest == bindparam("secret"), users.c.deleted_at.is_(None), users.c.locked_at.is_(None))
)


class Feeds:
    """The table of feeds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, owner: UserId, version: int | None = None, key: str | None = None) -> str:
        """Returns a new secret, which is not stored, and replaces the one before.

        Args:
            owner: the user.
            version: of the token that the request was sent with; None for an API key.
            key: the id of the API key that it was sent with, as ``lock_owner`` has it.

        Raises:
            OwnerChanged: the owner or the key was deleted, or the token was withdrawn.
        """
        secret = FEED_PREFIX + secrets.token_urlsafe(32)
        row = insert(feeds).values(owner=owner, digest=digest(secret), created_at=now())

        def create(connection: Connection) -> None:
            lock_owner(connection, owner, version, key)
            connection.execute(delete(feeds).where(feeds.c.owner == owner))
            connection.execute(row)

        self._database.run(create)
        return secret

    def delete(self, owner: UserId) -> None:
        """Deletes the owner's secret, if there is one."""
        statement = delete(feeds).where(feeds.c.owner == owner)
        self._database.run(lambda connection: connection.execute(statement))

    def created_at(self, owner: UserId) -> int | None:
        """Returns when the owner's feed was created, in milliseconds since 1970; None if there is none."""
        query = select(feeds.c.created_at).where(feeds.c.owner == owner)
        return self._database.read(lambda connection: connection.scalar(query))

    def verify(self, secret: str) -> UserId:
        """Returns the owner of a feed.

        Raises:
            BadLink: the secret was deleted or replaced, or its owner is locked or deleted.
        """
        values = {"secret": digest(secret)}
        owner = self._database.read(lambda connection: connection.scalar(_FIND, values))
        if owner is None:
            raise BadLink("The address of this feed is invalid, or was deleted or replaced: ask for the new one.")
        return UserId(owner)
