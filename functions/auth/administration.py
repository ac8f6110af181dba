"""The users of the installation, as its administrators see and change them."""

from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import Column, ColumnElement, Connection, Executable, Row, and_, func, or_, select, update

from events.errors import Mp3burstError
from functions.auth.tokens import NotAllowed
from functions.state.administrators import LastAdministrator, lock_administrators
from functions.state.database import Database
from functions.state.schema import UserId, is_id, now, users

#: The columns of a user, without the password.
_COLUMNS: Final[tuple[Column[Any], ...]] = (
    users.c.id,
    users.c.username,
    users.c.name,
    users.c.email,
    users.c.role,
    users.c.created_at,
    users.c.confirmed_at,
    users.c.locked_at,
    users.c.quota_bytes,
    users.c.quota_jobs,
)
_NOT_FOUND: Final = "There is no such user: GET /admin/users lists them."
_EXISTS: Final = users.c.deleted_at.is_(None)


class UserNotFound(Mp3burstError):
    """There is no such user."""

    status = 404


class OwnAccount(Mp3burstError):
    """Administrators cannot do this to themselves."""

    status = 409


@dataclass(frozen=True, slots=True)
class ManagedUser:
    """A user, as administrators see it.

    Attributes:
        id: the user's id.
        username: in stored form.
        name: the name in mails.
        email: where mails are sent to.
        role: ``user`` or ``admin``.
        created_at: milliseconds since 1970.
        confirmed_at: when the address was confirmed; None if it was not.
        locked_at: since when an administrator keeps the user out; None if the user may log in.
        quota_bytes: bytes that the user may store; None for those of the installation, 0 for no limit.
        quota_jobs: likewise, uploads and conversions in progress.
    """

    id: UserId
    username: str
    name: str
    email: str
    role: str
    created_at: int
    confirmed_at: int | None
    locked_at: int | None
    quota_bytes: int | None
    quota_jobs: int | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Returns the user of a row."""
        return cls(*(getattr(row, name) for name in cls.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class Search:
    """Which users to list.

    Attributes:
        text: a part of the username, the name or the address; empty for all.
        role: only users with this role.
        is_locked: only users who are locked, or only those who are not.
    """

    text: str = ""
    role: str | None = None
    is_locked: bool | None = None


class Administration:
    """The users table, as administrators use it.

    ``by`` is always the administrator, whose role is looked up again in the transaction; None for the operator, who has
    the database and may do everything.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, search: Search, limit: int, after: str | None = None) -> list[ManagedUser]:
        """Returns users in the order of their usernames, starting after the user ``after``.

        Raises:
            UserNotFound: there is no user ``after``.
        """
        where = _matches(search)
        if after is not None:
            where = and_(where, users.c.username > self.get(after).username)
        query = select(*_COLUMNS).where(where).order_by(users.c.username).limit(limit)
        return self._database.read(lambda connection: [ManagedUser.from_row(row) for row in connection.execute(query)])

    def get(self, user: str) -> ManagedUser:
        """Returns the user.

        Raises:
            UserNotFound: there is none with this id.
        """
        return self._database.read(lambda connection: _get(connection, user))

    def change(
        self, user: str, by: UserId | None, *, role: str | None = None, is_locked: bool | None = None
    ) -> ManagedUser:
        """Changes the user's role, or locks or unlocks the user; what is None stays as it is.

        Raises:
            UserNotFound: there is no such user.
            LastAdministrator: nobody could administer the installation any more.
            NotAllowed: ``by`` is no longer an administrator.
        """

        def change(connection: Connection) -> ManagedUser:
            administrators = lock_administrators(connection, _id(user))
            before = _get(connection, user)
            values: dict[str, Any] = {}
            if role is not None and role != before.role:
                values["role"] = role
            if is_locked is not None and is_locked != (before.locked_at is not None):
                values["locked_at"] = now() if is_locked else None
            if not values:  # also after a lost answer to the commit: then ``by`` may have given up the role
                return before
            if by is not None:
                _require_administrator(by, administrators)
                if administrators == {user}:
                    raise LastAdministrator
            connection.execute(update(users).where(users.c.id == user).values(values))
            return _get(connection, user)

        return self._database.run(change)

    def set_quota(self, user: str, by: UserId | None, size: int | None, jobs: int | None) -> ManagedUser:
        """Sets the user's quota; None for that of the installation, 0 for no limit.

        Raises:
            UserNotFound: there is no such user.
            NotAllowed: ``by`` is no longer an administrator.
        """
        values = {"quota_bytes": size, "quota_jobs": jobs}
        statement = update(users).where(users.c.id == user).values(values)
        return self._administer(user, by, statement)

    def withdraw_tokens(self, user: str, by: UserId | None) -> ManagedUser:
        """Withdraws all tokens of the user.

        Raises:
            UserNotFound: there is no such user.
            NotAllowed: ``by`` is no longer an administrator.
        """
        statement = update(users).where(users.c.id == user).values(token_version=users.c.token_version + 1)
        return self._administer(user, by, statement)

    def delete(self, user: str, by: UserId) -> ManagedUser:
        """Deletes the account; returns it as it was. Nobody logs in to it from now on, and sweep deletes what it has.

        So whoever may do this need not have the right to delete jobs, keys and links, or to change an address.

        Raises:
            UserNotFound: there is no such user.
            OwnAccount: it is the administrator's own.
            NotAllowed: ``by`` is no longer an administrator.
        """
        if user == by:
            raise OwnAccount("This is your own account: delete it with POST /me/deletion.")
        found: list[ManagedUser] = []
        ended = {"deleted_at": now(), "token_version": users.c.token_version + 1}

        def delete(connection: Connection) -> None:
            _require_administrator(by, lock_administrators(connection, _id(user)))
            # After a lost answer to the commit, only the first run finds the user.
            if not found:
                found.append(_get(connection, user))
            connection.execute(update(users).where(users.c.id == user, _EXISTS).values(ended))

        self._database.run(delete)
        return found[0]

    def _administer(self, user: str, by: UserId | None, change: Executable) -> ManagedUser:
        """Runs a statement that changes a user; returns the user as it is then."""

        def administer(connection: Connection) -> ManagedUser:
            administrators = lock_administrators(connection, _id(user))
            if by is not None:
                _require_administrator(by, administrators)
            _get(connection, user)
            connection.execute(change)
            return _get(connection, user)

        return self._database.run(administer)


def _require_administrator(user: UserId, administrators: set[UserId]) -> None:
    if user not in administrators:
        raise NotAllowed("You are no longer an administrator: ask one.")


def _get(connection: Connection, user: str) -> ManagedUser:
    query = select(*_COLUMNS).where(users.c.id == _id(user), _EXISTS)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UserNotFound(_NOT_FOUND)
    return ManagedUser.from_row(row)


def _id(user: str) -> UserId:
    """Returns what has the form of a user's id. Other texts are not looked up in the database."""
    if not is_id(user):
        raise UserNotFound(_NOT_FOUND)
    return UserId(user)


def _matches(search: Search) -> ColumnElement[bool]:
    where: list[ColumnElement[bool]] = [_EXISTS]
    text = search.text.replace("\0", "").strip().lower()  # PostgreSQL rejects NUL in text
    if text:
        columns = users.c.username, users.c.name, users.c.email
        where.append(or_(*(func.lower(column).contains(text, autoescape=True) for column in columns)))
    if search.role is not None:
        where.append(users.c.role == search.role)
    if search.is_locked is not None:
        where.append(users.c.locked_at.is_not(None) if search.is_locked else users.c.locked_at.is_(None))
    return and_(*where)
