"""Who administers the installation: at any time somebody can, once somebody could."""

from typing import Final

from sqlalchemy import Connection, select

from events.errors import Mp3burstError
from functions.state.schema import UserId, users

ADMIN: Final = "admin"
_CAN_ADMINISTER: Final = users.c.role == ADMIN, users.c.deleted_at.is_(None), users.c.locked_at.is_(None)


class LastAdministrator(Mp3burstError):
    """Without this user, nobody could administer the installation."""

    status = 409

    def __init__(self) -> None:
        """Uses the one message there is for it."""
        super().__init__("This is the last administrator: make another user an administrator first.")


def lock_administrators(connection: Connection, user: UserId) -> set[UserId]:
    """Locks the rows of the user and of all administrators until the transaction ends.

    So of two administrators who take the role from each other, the second finds out that it is no longer one.

    Returns:
        The administrators who are neither locked nor deleted.
    """
    found = {user, *connection.scalars(select(users.c.id).where(*_CAN_ADMINISTER))}
    those = users.c.id.in_(found)
    # In the order of the ids, so that two transactions do not wait for each other.
    connection.execute(select(users.c.id).where(those).order_by(users.c.id).with_for_update()).all()
    # In a statement of its own: one that has waited for the lock has a snapshot from before.
    return set(connection.scalars(select(users.c.id).where(those, *_CAN_ADMINISTER)))


def keep_another(connection: Connection, user: UserId) -> None:
    """Locks all administrators, before the user ceases to be one.

    Raises:
        LastAdministrator: there is no other.
    """
    if lock_administrators(connection, user) == {user}:
        raise LastAdministrator
