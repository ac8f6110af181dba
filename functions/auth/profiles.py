"""The accounts of users, as they see and change them."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Connection, Row, bindparam, delete, select, update

from events.schema import AddressUnconfirmed
from functions.auth.allowance import confirmations, use
from functions.auth.tokens import NotAuthenticated
from functions.state.database import Conflict, Database
from functions.state.mails import ask_to_confirm
from functions.state.schema import UserId, api_keys, external_logins, feeds, now, shared_links, users
from functions.state.webhooks import delete_webhooks

_COLUMNS: Final[tuple[Column[Any], ...]] = (
    users.c.id,
    users.c.username,
    users.c.name,
    users.c.email,
    users.c.role,
    users.c.created_at,
    users.c.confirmed_at,
    users.c.token_version,
    users.c.quota_bytes,
    users.c.quota_jobs,
)
_PROFILE: Final = select(*_COLUMNS).where(users.c.id == bindparam("user"), users.c.deleted_at.is_(None))


@dataclass(frozen=True, slots=True)
class Profile:
    """A user's account.

    Attributes:
        id: the user's id.
        username: in stored form.
        name: the name in mails.
        email: where mails are sent to.
        role: ``user`` or ``admin``.
        created_at: milliseconds since 1970.
        confirmed_at: when the address was confirmed; None if it was not.
        token_version: of the user's tokens.
        quota_bytes: bytes that the user may store; None for those of the installation.
        quota_jobs: likewise, uploads and conversions in progress.
    """

    id: UserId
    username: str
    name: str
    email: str
    role: str
    created_at: int
    confirmed_at: int | None
    token_version: int
    quota_bytes: int | None
    quota_jobs: int | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> "Profile":
        """Returns the profile of a row."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})


class Profiles:
    """The users table, as account uses it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, user: UserId) -> Profile:
        """Returns the user's account.

        Raises:
            NotAuthenticated: it was deleted.
        """
        row = self._database.read(lambda connection: connection.execute(_PROFILE, {"user": user}).one_or_none())
        return _profile(row)

    def change(
        self, user: UserId, name: str | None, email: str | None, *, version: int | None, confirms: bool
    ) -> tuple[Profile, AddressUnconfirmed | None]:
        """Changes the name, the address, or both.

        Args:
            user: the user.
            name: the new name; None to leave it.
            email: the new address; None to leave it.
            version: of the tokens, as it was when the user's right to change the address was checked; None if the
                address stays.
            confirms: whether another address has to be confirmed; the same transaction then creates the mail for it.

        Returns:
            The account, and the event of the mail to emit; None if there is none, or the address got too many.

        Raises:
            NotAuthenticated: the account was deleted.
            Conflict: the password was changed, or the tokens were withdrawn, at the same time.
        """
        asked: list[AddressUnconfirmed] = []

        def change(connection: Connection) -> Row[Any] | None:
            row = connection.execute(_PROFILE.with_for_update(), {"user": user}).one_or_none()
            if row is None:
                return None
            if version not in (None, row.token_version):
                raise Conflict("Your account was changed at the same time: log in and try again.")
            values: dict[str, Any] = {} if name is None else {"name": name}
            if email is not None and email != row.email:
                values |= {"email": email, "confirmed_at": None if confirms else now()}
            if values:
                connection.execute(update(users).where(users.c.id == user).values(values))
            if "email" in values and confirms and not use(connection, confirmations(str(email))):
                asked.append(ask_to_confirm(connection, user))
            return connection.execute(_PROFILE, {"user": user}).one()

        try:
            row = self._database.run(change)
        except Conflict:
            # Another user with this address was first to insert what the address has used of its allowance.
            row = self._database.run(change)
        return _profile(row), asked[-1] if asked else None

    def set_password(self, user: UserId, version: int, password_hash: str, *, revokes_access: bool = False) -> None:
        """Sets the password's hash and withdraws all tokens, unless that was done since the caller has looked.

        Args:
            user: the user.
            version: of the tokens, as the caller has seen it.
            password_hash: the hash of the new password.
            revokes_access: whether the same transaction deletes what somebody else may have added to the account to
                keep a way into it: API keys, external logins, the feed, shared links and webhooks.

        Raises:
            Conflict: the password was changed, the tokens were withdrawn, or the account was deleted at the same time.
        """
        unchanged = users.c.id == user, users.c.token_version == version, users.c.deleted_at.is_(None)
        statement = update(users).where(*unchanged).values(password_hash=password_hash, token_version=version + 1)
        mine = select(users.c.id).where(users.c.id == user, users.c.password_hash == password_hash)

        def change(connection: Connection) -> bool:
            # On a second try, after a commit whose confirmation was lost, the new hash is there already.
            if not connection.execute(statement).rowcount:
                return connection.scalar(mine) is not None
            if revokes_access:
                for table in (api_keys, external_logins, feeds, shared_links):
                    connection.execute(delete(table).where(table.c.owner == user))
                delete_webhooks(connection, user, with_callbacks=False)
            return True

        if not self._database.run(change):
            raise Conflict("Your account was changed at the same time: log in and try again.")

    def withdraw_tokens(self, user: UserId) -> None:
        """Withdraws all tokens of the user."""
        statement = update(users).where(users.c.id == user).values(token_version=users.c.token_version + 1)
        self._database.run(lambda connection: connection.execute(statement))


def _profile(row: Row[Any] | None) -> Profile:
    if row is None:
        raise NotAuthenticated("Your account no longer exists: register again.", "withdrawn")
    return Profile.from_row(row)
