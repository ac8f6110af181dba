"""Users whom an identity provider, or a proxy in front, logs in: which account there is which user here.

The provider and its own id for the account say who it is. Of an identity provider an email address does not: whoever
gets an address later must not get the account of whoever had it before. A proxy has no other id than the address that
it sends, so whoever gets the address there logs in as the user who had it.
"""

import hashlib
import json
import re
import secrets
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from sqlalchemy import Connection, Row, and_, delete, func, insert, select

from events.errors import Mp3burstError
from functions.auth.accounts import User, normalize_username
from functions.auth.limits import MAX_USERNAME
from functions.state.database import Conflict, Database
from functions.state.owners import lock_version
from functions.state.schema import UserId, external_logins, now, users

#: Logins of one new user at once insert the same rows in turn.
_MAX_TRIES: Final = 3
_ID: Final = re.compile("[0-9a-f]{64}")


class AccountExists(Mp3burstError):
    """A user with this confirmed address exists, whom nobody has linked to the account at the provider."""

    status = 409


class OtherAddress(Mp3burstError):
    """The user has not confirmed the address of the account at the provider, so the two are not linked."""

    status = 403
    reason = "other"


class LoginNotFound(Mp3burstError):
    """There is no such external login, or it is another user's."""

    status = 404
    security_event = "object.refused"


class OnlyLogin(Mp3burstError):
    """The user has no password and no other external login."""

    status = 409

    def __init__(self) -> None:
        """Uses the one message there is for it."""
        super().__init__("You have no other way to log in: set a password with POST /password-reset first.")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom a provider has authenticated.

    Attributes:
        provider: the issuer of the identity provider's tokens, or the word that stands for the proxy.
        subject: the provider's id for the account, or the address that the proxy has sent, in lower case.
        email: the address, which the provider has verified or the proxy has sent.
        name: the name for mails.
    """

    provider: str
    subject: str
    email: str
    name: str

    @property
    def id(self) -> str:
        """The key of the row in ``external_logins``."""
        return hashlib.sha256(json.dumps([self.provider, self.subject]).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Returns the attributes, for a ticket."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ExternalLogin:
    """What logs a user in, as the user sees it in a list.

    Attributes:
        id: 64 hexadecimal digits.
        provider: the issuer of the identity provider's tokens, or the word that stands for the proxy.
        created_at: milliseconds since 1970.
    """

    id: str
    provider: str
    created_at: int

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Returns the external login of a row."""
        return cls(row.id, row.provider, row.created_at)


class ExternalLogins:
    """The table of external logins."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, person: Person) -> User | None:
        """Returns the user whom this person logs in as; None if there is none yet."""
        query = (
            select(users)
            .join(external_logins, external_logins.c.owner == users.c.id)
            .where(external_logins.c.id == person.id, users.c.deleted_at.is_(None))
        )
        row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else User.from_row(row)

    def create(self, person: Person) -> User:
        """Adds a user without a password for the person, and returns it; if another login was first, that one's.

        The address counts as confirmed and is the username, unless somebody has taken this username without ever
        confirming the address, or it is too long in the form in which usernames are stored.

        Raises:
            AccountExists: a user has confirmed the address.
        """
        user_id = UserId(secrets.token_hex(16))

        def create(connection: Connection) -> User:
            if connection.scalar(_confirmed(person.email)) is not None:
                raise AccountExists("There is an account with your email address: log in with its password to link it.")
            user = User(user_id, _free_username(connection, person), person.email, person.name, "user")
            row = {field: getattr(user, field) for field in User.__dataclass_fields__}
            times = {"created_at": now(), "confirmed_at": now()}
            connection.execute(insert(users).values({**row, **times, "password_hash": ""}))
            connection.execute(_link(person, user.id))
            return user

        for _ in range(_MAX_TRIES):
            try:
                return self._database.run(create)
            except (Conflict, AccountExists) as error:
                # Another login of this person may have been first, or the confirmation of our own commit was lost.
                if (user := self.find(person)) is not None:
                    return user
                if isinstance(error, AccountExists):
                    raise
                conflict = error
        raise conflict

    def link(self, person: Person, user: User) -> None:
        """Lets the person log in as this user from now on; doing it again changes nothing.

        The user must have confirmed the person's address: otherwise whoever finds out a password could keep a way into
        the account that outlives it.

        Args:
            person: the account at the provider.
            user: as found when the password was checked.

        Raises:
            OtherAddress: the user has not confirmed the person's address.
            Conflict: the person logs in as another user; or the user was deleted, or all tokens were withdrawn, since
                the password was checked.
        """
        owner = select(external_logins.c.owner).where(external_logins.c.id == person.id)

        def link(connection: Connection) -> bool:
            if lock_version(connection, user.id) != user.token_version:
                return False
            found = connection.scalar(owner)
            if found is None:
                if connection.scalar(_confirmed(person.email).where(users.c.id == user.id)) is None:
                    raise OtherAddress("This account has another email address: use the one that has yours.")
                connection.execute(_link(person, user.id))
            return found in (None, user.id)

        if not self._database.run(link):
            raise Conflict("Your account was changed at the same time: log in again.")

    def of(self, owner: UserId) -> list[ExternalLogin]:
        """Returns the owner's external logins, oldest first."""
        query = select(external_logins).where(external_logins.c.owner == owner)
        query = query.order_by(external_logins.c.created_at, external_logins.c.id)
        return self._database.read(
            lambda connection: [ExternalLogin.from_row(row) for row in connection.execute(query)]
        )

    def remove(self, login: str, owner: UserId) -> None:
        """Removes one of the owner's external logins. Sessions that began with it go on.

        Raises:
            LoginNotFound: there is none with this id, or it is another user's.
            OnlyLogin: without it the owner could not log in again.
        """
        mine = and_(external_logins.c.id == login, external_logins.c.owner == owner)
        password = select(users.c.password_hash).where(users.c.id == owner).with_for_update()
        others = select(func.count()).select_from(external_logins)
        others = others.where(external_logins.c.owner == owner, external_logins.c.id != login)
        removed = []  # one entry per run: after a lost answer to the commit, only the first run found it

        def remove(connection: Connection) -> None:
            has_password = bool(connection.scalar(password))  # locks the user: of two at once, one stays
            is_last = not has_password and not connection.scalar(others)
            removed.append(connection.scalar(select(external_logins.c.id).where(mine)) is not None)
            if removed[-1] and is_last:
                raise OnlyLogin
            connection.execute(delete(external_logins).where(mine))

        if _ID.fullmatch(login):
            self._database.run(remove)
        if not any(removed):
            raise LoginNotFound("There is no such external login: GET /logins lists yours.")


def _link(person: Person, user: UserId) -> Any:
    return insert(external_logins).values(id=person.id, owner=user, provider=person.provider, created_at=now())


def _confirmed(email: str) -> Any:
    is_theirs = func.lower(users.c.email) == email.lower(), users.c.confirmed_at.is_not(None)
    return select(users.c.id).where(*is_theirs, users.c.deleted_at.is_(None)).limit(1)


def _free_username(connection: Connection, person: Person) -> str:
    username = normalize_username(person.email)
    taken = select(users.c.id).where(users.c.username == username)
    if username and connection.scalar(taken) is None:
        return username
    # At random, so that nobody can register the name first and keep the person out.
    return f"{username[: MAX_USERNAME - 9]}#{secrets.token_hex(4)}"
