"""Users: adding them and checking their passwords."""

import secrets
import unicodedata
from dataclasses import dataclass
from typing import Any, Final, NewType

from sqlalchemy import bindparam, insert, select, update

from events.errors import Mp3burstError
from functions.state.database import Conflict, Database
from functions.state.schema import now, users

#: OWASP's least for argon2id: 19 MiB, 2 passes, 1 lane, so that 20 logins at once fit a small pod.
MEMORY_KIB: Final = 19_456
PASSES: Final = 2
_NAMED: Final = select(users).where(users.c.username == bindparam("name"))
#: The hash of a random password of nobody, made with these figures: checking against it takes as long as any other.
_NOBODY: Final = "$argon2id$v=19$m=19456,t=2,p=1$xPBmdTdtccdhDWsoFZnTxw$XaoTqvduO0a4UYM+PyHvKvO8+9+lozuxUfvbIF/O8NI"

#: A user's id: 32 lowercase hexadecimal digits.
UserId = NewType("UserId", str)


class UsernameTaken(Mp3burstError):
    """Somebody has this username."""

    status = 409


class WrongCredentials(Mp3burstError):
    """No such user, or not their password: the same sentence for both."""

    status = 401


@dataclass(frozen=True, slots=True)
class User:
    """A user, without the password."""

    id: str
    username: str
    email: str
    name: str
    role: str


def fold(username: str) -> str:
    """The one spelling under which a username is kept: NFKC, no outer blanks, no capitals; folded again, it stays."""
    folded = unicodedata.normalize("NFKC", username).strip().casefold()
    # To fold a letter's case may put its marks into another order; the second time finds them in that order.
    return folded if folded == username else fold(folded)


class Accounts:
    """The users table."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hasher: Any = None

    def add(self, name: str, username: str, password: str, email: str, role: str = "user") -> User:
        """Add a user.

        Raises:
            UsernameTaken: there is one of that name.
        """
        user = User(secrets.token_hex(16), fold(username), email.strip(), name.strip(), role)
        columns = {field: getattr(user, field) for field in User.__dataclass_fields__}
        row = insert(users).values(**columns, password_hash=self._argon2().hash(password), created_at=now())
        try:
            self._database.run(lambda connection: connection.execute(row))
        except Conflict as error:
            taken = self._database.run(
                lambda connection: connection.scalar(select(users.c.id).where(users.c.username == user.username))
            )
            # Our own row: its commit took place and the answer to it was lost.
            if taken != user.id:
                raise UsernameTaken("This username is taken: choose another, or log in.") from error
        return user

    def check(self, username: str, password: str) -> User:
        """The user of these credentials; it takes as long for one who does not exist.

        Raises:
            WrongCredentials: no such user, or not their password.
        """
        from argon2.exceptions import VerificationError

        name = fold(username)
        row = None
        if len(name) <= 254 and "\0" not in name:  # PostgreSQL takes no NUL
            row = self._database.run(lambda connection: connection.execute(_NAMED, {"name": name}).one_or_none())
        hasher = self._argon2()
        try:
            hasher.verify(_NOBODY if row is None else row.password_hash, password)
        except VerificationError as error:
            raise WrongCredentials("The username or the password is wrong.") from error
        if row is None:
            raise WrongCredentials("The username or the password is wrong.")
        if hasher.check_needs_rehash(row.password_hash):
            self._rehash(row.id, password)
        return User(*(getattr(row, field) for field in User.__dataclass_fields__))

    def set_role(self, username: str, role: str) -> bool:
        """Give a user a role; False where there is no such user."""
        statement = update(users).where(users.c.username == fold(username)).values(role=role)
        return self._database.run(lambda connection: connection.execute(statement).rowcount == 1)

    def _rehash(self, user: str, password: str) -> None:
        statement = update(users).where(users.c.id == user).values(password_hash=self._argon2().hash(password))
        self._database.run(lambda connection: connection.execute(statement))

    def _argon2(self) -> Any:
        from argon2 import PasswordHasher

        if self._hasher is None:
            self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=1)
        return self._hasher
