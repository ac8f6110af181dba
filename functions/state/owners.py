"""Locks the row of a user who is about to own something, so that what ends the user's access comes before or after."""

from typing import Final

from sqlalchemy import Connection, bindparam, select

from events.errors import Mp3burstError
from functions.state.schema import UserId, api_keys, users

# Built once: building a statement costs SQLAlchemy as much as running it.
_WELCOME: Final = select(users.c.token_version).where(
    users.c.id == bindparam("owner"), users.c.deleted_at.is_(None), users.c.locked_at.is_(None)
)
_LOCK: Final = _WELCOME.with_for_update()
_KEY: Final = select(api_keys.c.id).where(api_keys.c.id == bindparam("key"), api_keys.c.owner == bindparam("owner"))


class OwnerChanged(Mp3burstError):
    """The user or the API key was deleted, the user locked, or the token withdrawn, while the request was handled."""

    status = 401
    reason = "withdrawn"
    security_event = "token.refused"

    def __init__(self) -> None:
        """Uses the one message there is for it."""
        super().__init__("Your account was changed, locked or deleted at the same time: log in again.")


def lock_version(connection: Connection, owner: UserId) -> int | None:
    """Locks the user's row until the transaction ends.

    Returns:
        The version of the user's tokens; None if the user was deleted or locked.
    """
    version: int | None = connection.scalar(_LOCK, {"owner": owner})
    return version


def lock_owner(connection: Connection, owner: UserId, version: int | None = None, key: str | None = None) -> None:
    """Locks the user's row until the transaction ends.

    Args:
        connection: the caller's.
        owner: the user.
        version: of the token that the request was sent with; None for an API key.
        key: the id of the API key that the request was sent with; None for a token, and for one of API_KEYS.

    Raises:
        OwnerChanged: the user or the key was deleted, the user was locked, or the token was withdrawn.
    """
    found = lock_version(connection, owner)
    if found is None or version not in (None, found):
        raise OwnerChanged
    # In a statement of its own: one that has waited for the lock has a snapshot from before.
    if key is not None and connection.scalar(_KEY, {"owner": owner, "key": key}) is None:
        raise OwnerChanged


def may_enter(connection: Connection, owner: UserId) -> bool:
    """Returns whether the user exists and is not locked."""
    return connection.scalar(_WELCOME, {"owner": owner}) is not None
