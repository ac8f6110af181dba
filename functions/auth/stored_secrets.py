"""Secrets that users hand out, such as API keys and shared links: the database has a digest of each and no more."""

import hashlib
from typing import Final

from sqlalchemy import Connection, bindparam, select

from functions.state.schema import UserId, users

# Built once: building a statement costs SQLAlchemy as much as running it.
_LOCK_OWNER: Final = (
    select(users.c.id).where(users.c.id == bindparam("owner"), users.c.deleted_at.is_(None)).with_for_update()
)


def digest(secret: str) -> str:
    """Returns what is stored of a secret: its SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def lock_owner(connection: Connection, owner: UserId) -> bool:
    """Locks the user's row until the transaction ends; returns False if the user was deleted."""
    return connection.scalar(_LOCK_OWNER, {"owner": owner}) is not None
