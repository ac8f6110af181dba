"""User accounts: registration, password checks and roles."""

import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from events.errors import Mp3burstError
from events.schema import AddressUnconfirmed
from functions.auth.allowance import confirmations, use
from functions.auth.limits import MAX_TYPED_USERNAME, MAX_USERNAME
from functions.rate_limits import RateLimit
from functions.state.database import Conflict, Database
from functions.state.mails import ask_to_confirm
from functions.state.schema import UserId, now, users

#: OWASP's minimum for argon2id: 19 MiB, 2 passes, 1 lane. Twenty simultaneous logins fit a small pod.
MEMORY_KIB: Final = 19_456
PASSES: Final = 2
#: Registrations that name one address at once insert its allowance in turn.
_MAX_TRIES: Final = 3
_BY_USERNAME: Final = select(users).where(users.c.username == bindparam("name"), users.c.deleted_at.is_(None))
#: The hash of a random, discarded password with these parameters, checked when there is no such user: the check then
#: takes as long as for a user who exists.
_DUMMY_HASH: Final = "$argon2id$v=19$m=19456,t=2,p=1$xPBmdTdtccdhDWsoFZnTxw$XaoTqvduO0a4UYM+PyHvKvO8+9+lozuxUfvbIF/O8NI"
_WRONG_CREDENTIALS: Final = "Wrong username or password: check both and try again."


class UsernameTaken(Mp3burstError):
    """The username already belongs to a user."""

    status = 409


class WrongCredentials(Mp3burstError):
    """Unknown user or wrong password; the message is the same for both."""

    status = 401
    limits: tuple[RateLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """A user, without the password; ``locked_at`` is since when an administrator keeps the user out."""

    id: UserId
    username: str
    email: str
    name: str
    role: str
    token_version: int = 0
    locked_at: int | None = None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Returns the user of a row."""
        return cls(*(getattr(row, name) for name in cls.__dataclass_fields__))


def normalize_username(username: str) -> str:
    """Returns the form in which a username is stored: NFKC, stripped and case-folded. Idempotent.

    Returns an empty string, which is no user's name, for a text that is too long.
    """
    if len(username) > MAX_TYPED_USERNAME:
        return ""
    normalized = unicodedata.normalize("NFKC", username).strip().casefold()
    # Case folding can change the order of combining marks, which the next NFKC puts back: repeat until stable.
    if normalized != username:
        return normalize_username(normalized)
    return normalized if len(normalized) <= MAX_USERNAME else ""


class Accounts:
    """The users table."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hasher: Any = None

    def add(self, name: str, username: str, password: str, email: str, role: str = "user") -> User:
        """Adds a user whose address counts as confirmed.

        Raises:
            UsernameTaken: the username already belongs to a user.
        """
        user = User(UserId(secrets.token_hex(16)), normalize_username(username), email.strip(), name.strip(), role)
        row = insert(users).values(**self._columns(user, password), confirmed_at=now())
        self._insert(user, lambda connection: connection.execute(row))
        return user

    def register(self, name: str, username: str, password: str, email: str) -> tuple[User, AddressUnconfirmed | None]:
        """Adds a user and, in the same transaction, the mail that asks to confirm the address.

        Returns:
            The user, and the event to emit; None if the address got too many of these mails, so that there is none.

        Raises:
            UsernameTaken: the username already belongs to a user.
        """
        user = User(UserId(secrets.token_hex(16)), normalize_username(username), email.strip(), name.strip(), "user")
        row = insert(users).values(self._columns(user, password))
        events: list[AddressUnconfirmed] = []

        def register(connection: Connection) -> None:
            connection.execute(row)
            if not use(connection, confirmations(user.email)):
                events.append(ask_to_confirm(connection, user.id))

        self._insert(user, register)
        # A transaction that was repeated may have appended its event twice.
        return user, events[-1] if events else None

    def _columns(self, user: User, password: str) -> dict[str, Any]:
        columns = {field: getattr(user, field) for field in User.__dataclass_fields__}
        return {**columns, "password_hash": self.hash(password), "created_at": now()}

    def _insert(self, user: User, work: Callable[[Connection], object]) -> None:
        """Runs a transaction that inserts the user.

        Raises:
            UsernameTaken: the username already belongs to a user.
        """
        for _ in range(_MAX_TRIES):
            try:
                self._database.run(work)
                return
            except Conflict as error:
                conflict = error
            owner = self._database.read(
                lambda connection: connection.scalar(select(users.c.id).where(users.c.username == user.username))
            )
            if owner == user.id:
                return  # an earlier try was committed, and only its confirmation was lost
            if owner is not None:
                raise UsernameTaken("This username is taken: choose another one, or log in.") from conflict
            # Another user with this address was first to insert what the address has used of its allowance.
        raise conflict

    def authenticate(self, username: str, password: str) -> User:
        """Returns the user with these credentials. Takes the same time whether or not the user exists.

        Raises:
            WrongCredentials: there is no such user, or the password is wrong.
        """
        from argon2.exceptions import VerificationError

        name = normalize_username(username)
        row = None
        if name and "\0" not in name:  # PostgreSQL rejects NUL in text
            row = self._database.read(lambda connection: connection.execute(_BY_USERNAME, {"name": name}).one_or_none())
        # Users whom an identity provider logs in have no password.
        password_hash = row.password_hash if row is not None else ""
        hasher = self._argon2()
        try:
            hasher.verify(password_hash or _DUMMY_HASH, password)
        except VerificationError as error:
            raise WrongCredentials(_WRONG_CREDENTIALS) from error
        if row is None or not password_hash:
            raise WrongCredentials(_WRONG_CREDENTIALS)
        if hasher.check_needs_rehash(row.password_hash):
            self._rehash(row.id, password, row.password_hash)
        return User.from_row(row)

    def hash(self, password: str) -> str:
        """Returns what is stored of a password."""
        return str(self._argon2().hash(password))

    def id_of(self, username: str) -> UserId | None:
        """Returns the id of the user with this name; None if there is none."""
        exists = users.c.username == normalize_username(username), users.c.deleted_at.is_(None)
        statement = select(users.c.id).where(*exists)
        return self._database.read(lambda connection: connection.scalar(statement))

    def has_password(self, user: UserId) -> bool:
        """Returns whether the user has a password; those whom an identity provider logs in have none at first."""
        statement = select(users.c.password_hash).where(users.c.id == user)
        return bool(self._database.read(lambda connection: connection.scalar(statement)))

    def _rehash(self, user: UserId, password: str, old_hash: str) -> None:
        # The user may have changed the password meanwhile.
        unchanged = users.c.id == user, users.c.password_hash == old_hash
        statement = update(users).where(*unchanged).values(password_hash=self.hash(password))
        self._database.run(lambda connection: connection.execute(statement))

    def _argon2(self) -> Any:
        from argon2 import PasswordHasher

        if self._hasher is None:
            self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=1)
        return self._hasher
