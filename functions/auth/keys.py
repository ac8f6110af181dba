"""API keys: what programs send in place of a token.

A key is ``mp3b_``, 30 random letters and digits (178 bits) and a checksum of 6: the CRC-32 of the random part in base
62, as in GitHub's tokens. So secret scanners recognize a key, and a mistyped one is refused without a query. The
database has the SHA-256 of a key: with 178 random bits it needs neither salt nor a slow hash.
"""

import hmac
import logging
import re
import secrets
import string
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, get_args

from sqlalchemy import Connection, Row, and_, bindparam, delete, func, insert, or_, select, update

from events.errors import Mp3burstError
from functions.auth.stored_secrets import digest
from functions.operation import Scope
from functions.settings import BadSetting
from functions.state.database import Conflict, Database
from functions.state.owners import lock_owner
from functions.state.schema import UserId, api_keys, is_id, now, users

#: What a key may be used for. A user chooses from these; a token may be used for everything.
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
#: Keys of one user.
MAX_KEYS: Final = 50
PREFIX: Final = "mp3b_"
_RANDOM: Final = 30
_CHECKSUM: Final = 6
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY: Final = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{_RANDOM}}})([0-9A-Za-z]{{{_CHECKSUM}}})")
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_DAY: Final = 86_400_000
log = logging.getLogger(__name__)
# Built once: building a statement costs SQLAlchemy as much as running it.
_FIND: Final = (
    select(
        api_keys.c.id,
        api_keys.c.owner,
        api_keys.c.scopes,
        api_keys.c.expires_at,
        api_keys.c.used_at,
        users.c.username,
        users.c.role,
        users.c.locked_at,
        now().label("time"),
    )
    .join_from(api_keys, users, users.c.id == api_keys.c.owner)
    .where(
        api_keys.c.digest == bindparam("key"),
        users.c.deleted_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now()),
    )
)


class TooManyKeys(Mp3burstError):
    """The user has as many keys as a user may have."""

    status = 409


class KeyNotFound(Mp3burstError):
    """There is no such key, or it is another user's."""

    status = 404
    security_event = "object.refused"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, as its owner sees it in a list.

    Attributes:
        id: 32 hexadecimal digits.
        name: what its owner calls it.
        scopes: what it may be used for.
        created_at: milliseconds since 1970.
        expires_at: milliseconds since 1970; None if it does not expire.
        used_at: the beginning of the day on which it was last used; None if it never was.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int | None
    used_at: int | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Returns the key of a row."""
        values = {name: getattr(row, name) for name in cls.__dataclass_fields__}
        return cls(**{**values, "scopes": tuple(row.scopes.split())})


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What a valid key stands for.

    Attributes:
        id: the key's id; for one of API_KEYS, the beginning of its digest.
        user: its owner.
        scopes: what it may be used for.
        username: of the owner; empty for a key of API_KEYS.
        role: of the owner; empty for a key of API_KEYS.
        milliseconds: until it expires; None if it does not.
        is_locked: whether an administrator keeps the owner out; False for a key of API_KEYS.
    """

    id: str
    user: UserId
    scopes: frozenset[str]
    username: str = ""
    role: str = ""
    milliseconds: int | None = None
    is_locked: bool = False


def new_key() -> str:
    """Returns a fresh key."""
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return f"{PREFIX}{random}{_checksum(random)}"


def is_well_formed(text: str) -> bool:
    """Returns whether the text has the form of a key and the right checksum."""
    found = _KEY.fullmatch(text)
    return found is not None and hmac.compare_digest(found[2], _checksum(found[1]))


def in_order(scopes: Iterable[str]) -> tuple[str, ...]:
    """Returns the scopes, each once, in the order of SCOPES."""
    chosen = set(scopes)
    return tuple(scope for scope in SCOPES if scope in chosen)


class ApiKeys:
    """The table of keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        owner: UserId,
        name: str,
        scopes: Iterable[str],
        seconds: int | None = None,
        *,
        version: int | None = None,
    ) -> tuple[str, ApiKey]:
        """Creates a key.

        Args:
            owner: the user.
            name: what the user calls it.
            scopes: what it may be used for.
            seconds: after which it expires; None for never.
            version: of the token that the request was sent with.

        Returns:
            The key itself, which is not stored, and its row.

        Raises:
            TooManyKeys: the owner has MAX_KEYS of them.
            OwnerChanged: the owner was deleted, or the token was withdrawn.
        """
        key = new_key()
        new_id = secrets.token_hex(16)
        row = insert(api_keys).values(
            id=new_id,
            digest=digest(key),
            owner=owner,
            name=name,
            scopes=" ".join(in_order(scopes)),
            created_at=now(),
            expires_at=None if seconds is None else now() + seconds * 1000,
        )
        mine = select(api_keys).where(api_keys.c.id == new_id)

        def create(connection: Connection) -> Row[Any]:
            lock_owner(connection, owner, version)
            count = select(func.count()).select_from(api_keys).where(api_keys.c.owner == owner)
            if (connection.scalar(count) or 0) >= MAX_KEYS:
                raise TooManyKeys(f"You have {MAX_KEYS} API keys, and no more are allowed: delete one.")
            connection.execute(row)
            return connection.execute(mine).one()

        try:
            created = self._database.run(create)
        except Conflict:
            # The first try was committed, and only its confirmation was lost.
            created = self._database.read(lambda connection: connection.execute(mine).one())
        return key, ApiKey.from_row(created)

    def of(self, owner: UserId) -> list[ApiKey]:
        """Returns the owner's keys, newest first, expired ones too."""
        order = api_keys.c.created_at.desc(), api_keys.c.id
        query = select(api_keys).where(api_keys.c.owner == owner).order_by(*order)
        return self._database.read(lambda connection: [ApiKey.from_row(row) for row in connection.execute(query)])

    def delete(self, key: str, owner: UserId) -> None:
        """Deletes the owner's key with this id.

        Raises:
            KeyNotFound: there is none, or it is another user's.
        """
        mine = and_(api_keys.c.id == key, api_keys.c.owner == owner)
        deleted: list[
            int
        ] = []  # one entry per run: after a lost answer to the commit, only the first run found the key
        if is_id(key):
            self._database.run(
                lambda connection: deleted.append(connection.execute(delete(api_keys).where(mine)).rowcount)
            )
        if not any(deleted):
            raise KeyNotFound("There is no such API key: GET /keys lists yours.")

    def find(self, key_digest: str) -> KnownKey | None:
        """Returns what the key with this digest stands for, and records that it was used today; None if unknown."""
        row = self._database.read(lambda connection: connection.execute(_FIND, {"key": key_digest}).one_or_none())
        if row is None:
            return None
        today = row.time - row.time % _DAY
        if row.used_at is None or row.used_at < today:
            unused = or_(api_keys.c.used_at.is_(None), api_keys.c.used_at < today)
            used = update(api_keys).where(api_keys.c.id == row.id, unused).values(used_at=today)
            try:
                self._database.run(lambda connection: connection.execute(used))
            except Mp3burstError:  # such as a full disk, on which reading and deleting must go on
                log.warning("the day on which key %s was used could not be recorded", row.id, exc_info=True)
        left = None if row.expires_at is None else max(row.expires_at - row.time, 0)
        scopes = frozenset(row.scopes.split())
        return KnownKey(row.id, row.owner, scopes, row.username, row.role, left, row.locked_at is not None)


def operator_keys(environ: Mapping[str, str]) -> dict[str, KnownKey]:
    """Returns the keys in API_KEYS by their digests: ``DIGEST:USER:SCOPE+SCOPE``, separated by commas or blanks.

    ``./scripts/key`` makes a key with its entry. They do not expire: remove the entry to revoke one.

    Raises:
        BadSetting: an entry is malformed.
    """
    found = {}
    for entry in re.split(r"[\s,]+", environ.get("API_KEYS", "").strip()):
        key_digest, _, rest = entry.partition(":")
        user, _, text = rest.partition(":")
        scopes = frozenset(text.split("+"))
        if not entry:
            continue
        if not (_DIGEST.fullmatch(key_digest) and is_id(user) and scopes <= {*SCOPES}):
            raise BadSetting(
                "API_KEYS must be entries DIGEST:USER:SCOPE+SCOPE, separated by commas: ./scripts/key prints one."
            )
        found[key_digest] = KnownKey(key_digest[:32], UserId(user), scopes)
    return found


def _checksum(random: str) -> str:
    number = zlib.crc32(random.encode())
    digits = ""
    for _ in range(_CHECKSUM):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
