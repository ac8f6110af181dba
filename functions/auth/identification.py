"""Who sends a request: the user of a token or an API key, as the database has the user now.

Each process asks the database about a user or a key at most every ``MAX_AGE`` seconds. So a key that was deleted, a
token that was withdrawn and an account that no longer exists are refused everywhere within that time.
"""

import functools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from sqlalchemy import bindparam, select

from events.errors import Mp3burstError
from functions.auth.keys import PREFIX, ApiKeys, KnownKey, is_well_formed, operator_keys
from functions.auth.sessions import EndedTokens, Sessions
from functions.auth.stored_secrets import digest
from functions.auth.tokens import (
    AUDIENCE,
    ISSUER,
    AccountLocked,
    Identity,
    NotAuthenticated,
    Verifier,
    bearer,
    verifier,
)
from functions.networks import networks
from functions.rate_limits import RateLimit
from functions.state.database import Database, shared
from functions.state.schema import UserId, users

K = TypeVar("K")
V = TypeVar("V")

#: Seconds for which an answer of the database is used.
MAX_AGE: Final = 30.0
#: Users, keys or networks that a process remembers.
_REMEMBERED: Final = 10_000
#: Unknown keys with a right checksum that a network may send to a process at once, and seconds until one more.
_FREE_KEYS: Final = 20
_KEY_INTERVAL: Final = 3.0
_USER: Final = select(users.c.username, users.c.role, users.c.token_version, users.c.locked_at).where(
    users.c.id == bindparam("user"), users.c.deleted_at.is_(None)
)
_WITHDRAWN: Final = "This token was withdrawn: log in again."
log = logging.getLogger(__name__)
_BAD_KEY: Final = "Invalid API key: it is mistyped, was deleted or has expired. Create another with POST /keys."


class TooManyUnknownKeys(Mp3burstError):
    """The network has sent too many keys that do not exist; the next is checked in ``retry_after`` seconds."""

    status = 429
    security_event = "key.refused"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many invalid API keys from your network: wait {retry_after} s and try again.")
        self.retry_after = retry_after
        window = int(_FREE_KEYS * _KEY_INTERVAL)
        self.limits = (RateLimit("unknown-keys", _FREE_KEYS, 0, window=window, reset=retry_after),)


class Remembered(Generic[K, V]):
    """The values that were loaded last, each with the time until which it may be used."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Returns the value unless it is too old."""
        with self._lock:
            until, value = self._values.get(key, (0.0, None))
        return value if self._clock() < until else None

    def __contains__(self, key: K) -> bool:
        """Whether the value is known, however old it is."""
        with self._lock:
            return key in self._values

    def put(self, key: K, value: V, seconds: float) -> None:
        """Remembers the value for so long, and forgets the oldest if there are too many."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = (self._clock() + seconds, value)
            if len(self._values) > _REMEMBERED:
                self._values.popitem(last=False)

    def forget(self, key: K) -> None:
        """Forgets the value."""
        with self._lock:
            self._values.pop(key, None)


@dataclass(frozen=True, slots=True)
class KnownUser:
    """What decides whether a user's tokens are valid."""

    username: str
    role: str
    token_version: int
    ended: frozenset[str]
    is_locked: bool


class Identification:
    """Finds the users of tokens and keys."""

    def __init__(
        self,
        verifier: Verifier,
        database: Database,
        operator_keys: Mapping[str, KnownKey],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Creates the identification.

        Args:
            verifier: verifies tokens.
            database: has the users and keys.
            operator_keys: further keys, by digest.
            clock: in seconds.
        """
        self._verifier = verifier
        self._database = database
        self._api_keys = ApiKeys(database)
        self._ended = EndedTokens(database)
        self._sessions = Sessions(database)
        self._operator_keys = operator_keys
        self._clock = clock
        self._users: Remembered[UserId, KnownUser] = Remembered(clock)
        self._keys: Remembered[str, KnownKey] = Remembered(clock)
        self._unknown: Remembered[str, float] = Remembered(clock)
        self._used: Remembered[str, bool] = Remembered(clock)

    def identify(self, authorization: str | None, address: str, max_age: float = MAX_AGE) -> Identity:
        """Returns the identity in an Authorization header.

        Args:
            authorization: the header.
            address: the client's, for which unknown keys are counted.
            max_age: seconds; 0 to ask the database.

        Raises:
            NotAuthenticated: the token or key is missing or invalid.
            AccountLocked: an administrator keeps the user out.
            TooManyUnknownKeys: the client's network has sent too many.
            DatabaseUnavailable: the database is needed and unavailable.
        """
        credentials = bearer(authorization)
        if credentials.startswith(PREFIX):
            return self._by_key(credentials, address, max_age)
        return self._by_token(credentials, max_age)

    def _by_token(self, token: str, max_age: float) -> Identity:
        identity = self._verifier.verify(token)
        version = identity.token_version
        known = self._users.get(identity.user) if max_age else None
        if known is None or known.token_version != version:
            # A token that is newer than what is remembered is valid, too.
            known = self._user(identity.user)
        session = identity.claims.get("jti")
        if known is None or known.token_version != version or session in known.ended:
            raise NotAuthenticated(_WITHDRAWN, "withdrawn")
        if known.is_locked:
            raise AccountLocked
        if session is not None and not self._used.get(session):
            self._use(session)
        # The role may have been changed since the token was signed.
        return replace(identity, role=known.role, claims={**identity.claims, "role": known.role})

    def _use(self, session: str) -> None:
        """Records that the session was used today; best effort."""
        try:
            seconds = self._sessions.use(session)
        except Mp3burstError:  # such as a full disk, on which reading and deleting must go on
            log.warning("the day on which session %s was used could not be recorded", session, exc_info=True)
            seconds = MAX_AGE
        self._used.put(session, True, seconds)

    def _user(self, user: UserId) -> KnownUser | None:
        # Before the version: ended tokens are deleted when a new version withdraws them.
        ended = self._ended.of(user)
        row = self._database.read(lambda connection: connection.execute(_USER, {"user": user}).one_or_none())
        if row is None:
            self._users.forget(user)
            return None
        known = KnownUser(row.username, row.role, row.token_version, ended, row.locked_at is not None)
        self._users.put(user, known, MAX_AGE)
        return known

    def _by_key(self, key: str, address: str, max_age: float) -> Identity:
        if not is_well_formed(key):
            raise NotAuthenticated(_BAD_KEY, "key")
        key_digest = digest(key)
        known = self._operator_keys.get(key_digest)
        if known is not None:
            owner = (self._users.get(known.user) if max_age else None) or self._user(known.user)
            if owner is None:
                raise NotAuthenticated(_BAD_KEY, "key")
            if owner.is_locked:
                raise AccountLocked
            return _identity(known, owner.username, owner.role)
        known = (self._keys.get(key_digest) if max_age else None) or self._find(key_digest, networks(address)[0])
        if known.is_locked:
            raise AccountLocked
        return replace(_identity(known, known.username, known.role), stored_key=known.id)

    def _find(self, key_digest: str, network: str) -> KnownKey:
        """Returns the key.

        Raises:
            NotAuthenticated: there is none.
            TooManyUnknownKeys: the network has sent too many. Keys that were valid before are still looked up.
        """
        time = self._clock()
        clear_at = max(self._unknown.get(network) or time, time)
        wait = clear_at - time - (_FREE_KEYS - 1) * _KEY_INTERVAL
        if wait > 0 and key_digest not in self._keys:
            raise TooManyUnknownKeys(int(wait) + 1)
        known = self._api_keys.find(key_digest)
        if known is None:
            self._keys.forget(key_digest)
            self._unknown.put(network, clear_at + _KEY_INTERVAL, clear_at + _KEY_INTERVAL - time)
            raise NotAuthenticated(_BAD_KEY, "key")
        left = MAX_AGE if known.milliseconds is None else min(known.milliseconds / 1000, MAX_AGE)
        self._keys.put(key_digest, known, left)
        return known


def _identity(key: KnownKey, username: str, role: str) -> Identity:
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": key.user,
        "username": username,
        "role": role,
        "scope": " ".join(sorted(key.scopes)),
        "key": key.id,
    }
    return Identity(key.user, username, role, claims, key.scopes)


def identification(environ: Mapping[str, str]) -> Identification:
    """Returns the identification with the environment's keys and database. Created once per process.

    Raises:
        BadSetting: TOKEN_PUBLIC_KEYS, API_KEYS or the database's address is missing or invalid.
    """
    return _identification(verifier(environ), shared(environ), environ.get("API_KEYS", ""))


@functools.lru_cache(maxsize=1)
def _identification(verifier: Verifier, database: Database, keys: str) -> Identification:
    return Identification(verifier, database, operator_keys({"API_KEYS": keys}))
