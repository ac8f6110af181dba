"""Deletes accounts with everything in them, in steps that may be repeated.

A user who deletes the account loses name, address, password and keys at once. The rest goes in batches, by account and,
if that was killed, by sweep, which does all of it for a user whom an administrator has deleted. The row stays until
nothing of the user's is left, for ten minutes at least: until then, a request that began before may still add
something.
"""

from typing import Final

from sqlalchemy import Connection, and_, bindparam, delete, exists, or_, select, update

from functions.state.administrators import keep_another
from functions.state.blobs import expire
from functions.state.database import Conflict, Database
from functions.state.jobs import delete_jobs
from functions.state.schema import (
    UserId,
    api_keys,
    blobs,
    ended_tokens,
    external_logins,
    feeds,
    jobs,
    mails,
    now,
    presets,
    sessions,
    shared_links,
    users,
)
from functions.state.webhooks import delete_webhooks

#: Jobs that are deleted in one transaction.
BATCH: Final = 100
#: Milliseconds for which a deleted user's row stays: longer than tokens are remembered
#: (``functions.auth.identification``) and than a request without an upload takes.
GRACE: Final = 600_000
_DELETED: Final = select(users.c.id).where(users.c.deleted_at.is_not(None)).order_by(users.c.deleted_at)
_JOBS: Final = select(jobs.c.id).where(jobs.c.owner == bindparam("user")).limit(BATCH)


class DeletedUsers:
    """The users who are being deleted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def delete(self, user: UserId, version: int | None = None) -> None:
        """Deletes the user. Once ``mark`` has been committed, sweep does the rest if this process is killed.

        Args:
            user: the user.
            version: of the tokens, as it was when the caller's right to delete the user was checked; None if that does
                not depend on it.

        Raises:
            Conflict: the password was changed, or the tokens were withdrawn, at the same time.
        """
        self.mark(user, version)
        while self.purge(user):
            pass

    def mark(self, user: UserId, version: int | None = None) -> None:
        """Removes what identifies the user or logs them in, links, webhooks and mails; it may be repeated.

        Raises:
            Conflict: as in ``delete``.
            LastAdministrator: nobody could administer the installation any more.
        """
        unnamed = {"username": f"deleted:{user}", "email": "", "name": "", "password_hash": "", "confirmed_at": None}
        withdrawn = {"token_version": users.c.token_version + 1, "deleted_at": now()}
        statement = update(users).where(users.c.id == user, users.c.deleted_at.is_(None)).values(**unnamed, **withdrawn)

        locked = select(users.c.token_version).where(users.c.id == user, users.c.deleted_at.is_(None)).with_for_update()

        def mark(connection: Connection) -> None:
            keep_another(connection, user)
            if version is not None and connection.scalar(locked) not in (None, version):
                raise Conflict("Your account was changed at the same time: log in and try again.")
            if connection.execute(statement).rowcount:
                _delete_belongings(connection, user)

        self._database.run(mark)

    def pending(self, limit: int) -> list[UserId]:
        """Returns users who are deleted and whose rows are still there, the longest first."""
        return self._database.read(lambda connection: list(connection.scalars(_DELETED.limit(limit))))

    def purge(self, user: UserId) -> bool:
        """Deletes up to BATCH jobs of a deleted user and all else but blobs, which expire.

        Of a user whom an administrator has deleted, everything is still there. During a rolling update, the previous
        version may have left or added something.

        Returns:
            Whether there may be more.
        """
        alive = or_(blobs.c.expires_at.is_(None), blobs.c.expires_at > now())

        def purge(connection: Connection) -> int:
            ids = list(connection.scalars(_JOBS, {"user": user}))
            deleted = delete_jobs(connection, jobs.c.id.in_(ids)) if ids else 0
            _delete_belongings(connection, user)
            expire(connection, and_(blobs.c.owner == user, alive))
            return deleted

        return self._database.run(purge) == BATCH

    def forget(self, user: UserId) -> None:
        """Deletes the row of a deleted user of whom nothing is left, once GRACE has passed."""
        left = or_(exists().where(jobs.c.owner == user), exists().where(blobs.c.owner == user))
        statement = delete(users).where(users.c.id == user, users.c.deleted_at < now() - GRACE, ~left)
        self._database.run(lambda connection: connection.execute(statement))


def _delete_belongings(connection: Connection, user: UserId) -> None:
    """Deletes what logs the user in, presets, links, webhooks, and mails that are not about a job."""
    for table in (api_keys, ended_tokens, sessions, external_logins, presets, feeds, shared_links, mails):
        connection.execute(delete(table).where(table.c.owner == user))
    delete_webhooks(connection, user)
