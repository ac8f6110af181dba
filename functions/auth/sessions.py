"""Sessions of browsers: a token in a cookie that no script reads, and tokens that were logged out.

Browsers send the cookie with requests of our own pages only (SameSite=Strict). A browser may be old, and other sites
may run on the same domain, so a request with the cookie that can change something must also come from our origin, that
of PUBLIC_URL.
"""

import contextlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import insert, select

from functions.auth.tokens import Identity, NotAllowed
from functions.settings import required
from functions.state.database import Conflict, Database
from functions.state.schema import UserId, ended_tokens, now

_NAME: Final = "mp3burst"
#: With this prefix, browsers accept a cookie only from a page of this host over HTTPS, for all its paths (RFC 6265bis,
#: 4.1.3.2).
_HOST_PREFIX: Final = "__Host-"
#: Methods that change nothing (RFC 9110, 9.2.1).
_SAFE: Final = ("GET", "HEAD", "OPTIONS")


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
        row = insert(ended_tokens).values(id=token, owner=identity.user, expires_at=int(identity.claims["exp"]) * 1000)
        with contextlib.suppress(Conflict):  # it has ended already
            self._database.run(lambda connection: connection.execute(row))
        return True

    def of(self, user: UserId) -> frozenset[str]:
        """Returns the ids of the user's tokens that were ended and have not expired."""
        query = select(ended_tokens.c.id).where(ended_tokens.c.owner == user, ended_tokens.c.expires_at > now())
        return self._database.read(lambda connection: frozenset(connection.scalars(query)))


def _is_https(environ: Mapping[str, str]) -> bool:
    return environ.get("PUBLIC_URL", "").lower().startswith("https://")
