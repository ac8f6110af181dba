"""Sessions: the logins of a user, tokens that were logged out, and the cookie in which browsers keep a token.

No script reads the cookie, and browsers send it with requests of our own pages only (SameSite=Strict). A browser may be
old, and other sites may run on the same domain, so a request with the cookie that can change something must also come
from our origin, that of PUBLIC_URL.
"""

import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from events.errors import Mp3burstError
from functions.auth.tokens import AccountLocked, Identity, NotAllowed
from functions.networks import networks
from functions.settings import required
from functions.state.database import Conflict, Database
from functions.state.owners import lock_version
from functions.state.schema import UserId, ended_tokens, is_id, now, sessions, users

if TYPE_CHECKING:
    from functions.auth.accounts import User
    from functions.auth.tokens import Signer

_NAME: Final = "mp3burst"
#: With this prefix, browsers accept a cookie only from a page of this host over HTTPS, for all its paths (RFC 6265bis,
#: 4.1.3.2).
_HOST_PREFIX: Final = "__Host-"
#: Methods that change nothing (RFC 9110, 9.2.1).
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
#: Sessions in a list.
MAX_LISTED: Final = 100
#: Sessions of one user whose tokens have not expired: the next login withdraws them all, so that whoever logs in again
#: and again fills no table.
MAX_SESSIONS: Final = 1000
#: Characters that are kept of what a client says it is.
_MAX_AGENT: Final = 200
_MAX_NETWORK: Final = 45
_DAY: Final = 86_400_000  # milliseconds
#: Milliseconds for which an ended token is remembered beyond its expiry: by how much the clocks of the function that
#: signed it, of those that verify it, and of the database may differ.
_CLOCK_SKEW: Final = 600_000
# Built once: building a statement costs SQLAlchemy as much as running it.
_USED: Final = select(sessions.c.used_at, now().label("time")).where(sessions.c.id == bindparam("session"))
_EXPIRY: Final = select(sessions.c.expires_at).where(
    sessions.c.id == bindparam("session"), sessions.c.owner == bindparam("owner")
)


class ForeignOrigin(NotAllowed):
    """A request with the cookie of a session comes from another site."""

    security_event = "origin.refused"


def cookie_name(environ: Mapping[str, str]) -> str:
    """Returns the name of the cookie, which begins with __Host- if users reach mp3burst over HTTPS (``PUBLIC_URL``)."""
    return f"{_HOST_PREFIX}{_NAME}" if _is_https(environ) else _NAME


def cookie(token: str, seconds: int, environ: Mapping[str, str]) -> str:
    """Returns the Set-Cookie header of a token that is valid for so many seconds; an empty one deletes the cookie."""
    return _cookie(cookie_name(environ), token, seconds, "Strict", environ)


def login_cookie_name(environ: Mapping[str, str]) -> str:
    """Returns the name of the cookie that a browser has while it is at the identity provider."""
    return f"{cookie_name(environ)}-login"


def login_cookie(ticket: str, seconds: int, environ: Mapping[str, str]) -> str:
    """Returns the Set-Cookie header of a ticket, which the browser also sends when the provider sends it back to us."""
    return _cookie(login_cookie_name(environ), ticket, seconds, "Lax", environ)


def _cookie(name: str, value: str, seconds: int, same_site: str, environ: Mapping[str, str]) -> str:
    secure = "; Secure" if _is_https(environ) else ""
    return f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={same_site}{secure}"


def require_own_origin(method: str, origin: str | None, site: str | None, environ: Mapping[str, str]) -> None:
    """Checks where a request with the cookie comes from, unless its method changes nothing.

    Args:
        method: the request's.
        origin: the request's ``Origin``.
        site: the request's ``Sec-Fetch-Site``, which counts without an ``Origin``; no script can set either.
        environ: ``PUBLIC_URL``.

    Raises:
        ForeignOrigin: it comes from another origin, or does not say from where.
        BadSetting: PUBLIC_URL is not set.
    """
    if method in _SAFE:
        return
    url = urlsplit(required(environ, "PUBLIC_URL", "the URL at which users reach mp3burst"))
    own = f"{url.scheme}://{url.netloc}".lower()
    is_own = origin.lower() == own if origin is not None else site == "same-origin"
    if not is_own:
        raise ForeignOrigin(f"This request does not come from {own}: use the pages there, or send a token.")


class SessionNotFound(Mp3burstError):
    """There is no such session, or it is another user's."""

    status = 404
    security_event = "object.refused"


@dataclass(frozen=True, slots=True)
class Session:
    """A login whose token is valid, as its user sees it in a list.

    Attributes:
        id: that of its token (``jti``).
        created_at: milliseconds since 1970.
        used_at: the beginning of the day on which it was last used.
        expires_at: milliseconds since 1970.
        agent: what the client that logged in said it is, shortened.
        network: from which it logged in: an IPv4 address, or the /64 of an IPv6 address.
    """

    id: str
    created_at: int
    used_at: int
    expires_at: int
    agent: str
    network: str

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Returns the session of a row."""
        return cls(*(getattr(row, name) for name in cls.__dataclass_fields__))


class Sessions:
    """The table of sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, user: "User", signer: "Signer", agent: str, address: str) -> str:
        """Records a login of the user and returns its token.

        If the user has MAX_SESSIONS, all others are withdrawn.

        Args:
            user: who has logged in.
            signer: signs the token.
            agent: what the client says it is (``User-Agent``).
            address: the client's.

        Raises:
            AccountLocked: an administrator keeps the user out.
            Conflict: the user was deleted or locked, or all tokens were withdrawn, since the password was checked.
        """
        if user.locked_at is not None:
            raise AccountLocked
        session = secrets.token_hex(16)
        row = insert(sessions).values(
            id=session,
            owner=user.id,
            created_at=now(),
            used_at=now() - now() % _DAY,
            expires_at=now() + signer.seconds * 1000,
            agent="".join(each for each in agent if each.isprintable())[:_MAX_AGENT],
            network=networks(address)[0][:_MAX_NETWORK],
        )
        recorded = select(sessions.c.token_version).where(sessions.c.id == session)

        def begin(connection: Connection) -> int:
            version: int | None = connection.scalar(recorded)
            if version is None:  # it is there if the answer to a commit was lost
                if lock_version(connection, user.id) != user.token_version:
                    raise Conflict("Your account was changed at the same time: log in again.")
                version = user.token_version + self._withdraw_too_many(connection, user)
                connection.execute(row.values(token_version=version))
            return version

        version = self._database.run(begin)
        return signer.sign(user.id, user.username, user.role, version, session)

    @staticmethod
    def _withdraw_too_many(connection: Connection, user: "User") -> int:
        """Withdraws the user's tokens if there are MAX_SESSIONS; returns by how much their version has grown."""
        count = select(func.count()).select_from(sessions).where(sessions.c.owner == user.id)
        if (connection.scalar(count) or 0) < MAX_SESSIONS:
            return 0
        withdrawn = update(users).where(users.c.id == user.id).values(token_version=users.c.token_version + 1)
        connection.execute(withdrawn)
        connection.execute(delete(sessions).where(sessions.c.owner == user.id))
        connection.execute(delete(ended_tokens).where(ended_tokens.c.owner == user.id))
        return 1

    def of(self, owner: UserId) -> list[Session]:
        """Returns the owner's sessions, the newest MAX_LISTED, newest first, without those that were ended."""
        ended = select(ended_tokens.c.id).where(ended_tokens.c.owner == owner)
        query = (
            select(sessions)
            .join(users, users.c.id == sessions.c.owner)
            .where(
                sessions.c.owner == owner,
                sessions.c.expires_at > now(),
                sessions.c.token_version == users.c.token_version,
                sessions.c.id.not_in(ended),
            )
            .order_by(sessions.c.created_at.desc(), sessions.c.id)
            .limit(MAX_LISTED)
        )
        return self._database.read(lambda connection: [Session.from_row(row) for row in connection.execute(query)])

    def end(self, session: str, owner: UserId) -> None:
        """Ends the owner's session with this id; doing it again changes nothing.

        Raises:
            SessionNotFound: there is none, or it is another user's.
        """

        def end(connection: Connection) -> bool:
            expires_at = connection.scalar(_EXPIRY, {"session": session, "owner": owner})
            if expires_at is None:
                return False
            connection.execute(
                insert(ended_tokens).values(id=session, owner=owner, expires_at=expires_at + _CLOCK_SKEW)
            )
            return True

        if not is_id(session):
            found = False
        else:
            try:
                found = self._database.run(end)
            except Conflict:  # it has ended already
                found = True
        if not found:
            raise SessionNotFound("There is no such session: GET /sessions lists yours.")

    def use(self, session: str) -> float:
        """Records that the session was used today; returns the seconds for which this need not be done again."""
        row = self._database.read(lambda connection: connection.execute(_USED, {"session": session}).one_or_none())
        if row is None:  # of a login before migration 0017
            return _DAY / 1000
        today = row.time - row.time % _DAY
        if row.used_at < today:
            older = sessions.c.id == session, sessions.c.used_at < today
            used = update(sessions).where(*older).values(used_at=today)
            self._database.run(lambda connection: connection.execute(used))
        return float(today + _DAY - row.time) / 1000


class EndedTokens:
    """The tokens that were logged out before they expired."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def end(self, identity: Identity) -> bool:
        """Ends the token of this identity; doing it again changes nothing.

        Returns:
            False if the token has no id: those of the version before migration 0012.
        """
        token = identity.claims.get("jti")
        if token is None:
            return False
        expires_at = int(identity.claims["exp"]) * 1000 + _CLOCK_SKEW
        row = insert(ended_tokens).values(id=token, owner=identity.user, expires_at=expires_at)
        with contextlib.suppress(Conflict):  # it has ended already
            self._database.run(lambda connection: connection.execute(row))
        return True

    def of(self, user: UserId) -> frozenset[str]:
        """Returns the ids of the user's tokens that were ended and have not expired."""
        query = select(ended_tokens.c.id).where(ended_tokens.c.owner == user, ended_tokens.c.expires_at > now())
        return self._database.read(lambda connection: frozenset(connection.scalars(query)))


def _is_https(environ: Mapping[str, str]) -> bool:
    return environ.get("PUBLIC_URL", "").lower().startswith("https://")
