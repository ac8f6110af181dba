"""Signed links in mails: they download one MP3, confirm an address, reset a password, or unsubscribe from mails.

A link contains a JWT (RFC 7519) signed with HS256 (RFC 7518, section 3.2). Only notify, download, confirm and
account have the key. The token's audience says what the link does, so no link can be used for anything else.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlencode

from events.errors import Mp3burstError
from functions.settings import BadSetting, number, required
from functions.state.schema import UserId

_DOWNLOAD: Final = "download"
_CONFIRM: Final = "confirm"
_UNSUBSCRIBE: Final = "unsubscribe"
_RESET: Final = "reset"
#: Seconds for which a link resets a password.
RESET_SECONDS: Final = 30 * 60
_ISSUER: Final = "mp3burst"
_DAY: Final = 24 * 60 * 60  # seconds
#: Bytes: "a key of the same size as the hash output or larger MUST be used" (RFC 7518, section 3.2).
_MIN_KEY: Final = 32
#: What to do with a link that has expired or is invalid, by its audience.
_REMEDIES: Final = {
    _DOWNLOAD: ("log in and download the MP3 with your token", "download link"),
    _CONFIRM: ("log in and ask for a new one with POST /confirm/again", "link"),
    _RESET: ("ask for a new one with POST /password-reset", "link"),
    _UNSUBSCRIBE: ("use the link in the latest email", "link"),
}


class BadLink(Mp3burstError):
    """The link was not signed by us, is for something else, or has expired."""

    status = 401
    security_event = "link.refused"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a link confirms: that a user has an address, of which the link contains only a digest."""

    user: UserId
    digest: str

    def is_for(self, email: str) -> bool:
        """Returns whether this is the address."""
        return hmac.compare_digest(self.digest, _digest(email))


@dataclass(frozen=True, slots=True)
class Reset:
    """Whose password a link resets, if the user's tokens still have this version: once.

    It was sent to an address of which the link contains only a digest.
    """

    user: UserId
    version: int
    digest: str

    def is_for(self, version: int, email: str) -> bool:
        """Returns whether this is the version of the user's tokens and the user's address."""
        return self.version == version and hmac.compare_digest(self.digest, _digest(email))


class Links:
    """Creates and verifies the links in mails."""

    def __init__(self, keys: Sequence[str], public_url: str, days: float = 7) -> None:
        """Creates links signed with the first key and verified with all keys.

        Args:
            keys: at least one, each of at least 32 bytes in UTF-8.
            public_url: the URL at which users reach mp3burst, without a path; only making links needs it.
            days: how long a link is valid.

        Raises:
            BadSetting: there is no key, or one is too short.
        """
        if not keys or any(len(key.encode()) < _MIN_KEY for key in keys):
            raise BadSetting(
                f"LINK_KEY must be a random text of at least {_MIN_KEY} bytes, such as the output of "
                "`openssl rand -hex 32`, or several separated by commas."
            )
        self._keys = tuple(keys)
        self._public_url = public_url.rstrip("/")
        self.days = days

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Creates links from the environment.

        Args:
            environ: ``LINK_KEY``, several separated by commas while keys are rotated; ``LINK_DAYS``, 7 by default;
                ``PUBLIC_URL``, which only notify needs.

        Raises:
            BadSetting: LINK_KEY is missing or too short, or LINK_DAYS is not a number.
        """
        keys = required(environ, "LINK_KEY", "the key that signs the links in mails")
        return cls(
            [key.strip() for key in keys.split(",") if key.strip()],
            environ.get("PUBLIC_URL", ""),
            number(environ, "LINK_DAYS", 7, minimum=0.01),
        )

    @property
    def public_url(self) -> str:
        """The URL at which users reach mp3burst.

        Raises:
            BadSetting: PUBLIC_URL is not set.
        """
        if not self._public_url:
            raise BadSetting("PUBLIC_URL is not set: it must be the URL at which users reach mp3burst.")
        return self._public_url

    def make(self, owner: UserId, fid: str) -> str:
        """Returns the URL that downloads the owner's MP3 without a login, valid for ``days`` days from now.

        Args:
            owner: the user who owns the MP3.
            fid: the MP3's blob id.

        Raises:
            BadSetting: PUBLIC_URL is not set.
        """
        token = self._sign(_DOWNLOAD, sub=owner, fid=fid, exp=self._expiry())
        return self.download_url(fid, token)

    def download_url(self, fid: str, token: str) -> str:
        """Returns the URL that downloads an MP3 with the token of a link.

        Raises:
            BadSetting: PUBLIC_URL is not set.
        """
        return f"{self.public_url}/download?{urlencode({'fid': fid, 'token': token})}"

    def verify(self, token: str, fid: str) -> UserId:
        """Returns the owner of the MP3 that the link downloads.

        Args:
            token: from the link.
            fid: the MP3's blob id, from the link.

        Raises:
            BadLink: the link has expired, was not signed by us, or is for another file.
        """
        claims = self._claims(_DOWNLOAD, token, ("fid", "exp"))
        if claims["fid"] != fid:
            raise _invalid(_DOWNLOAD)
        return UserId(str(claims["sub"]))

    def make_confirmation(self, user: UserId, email: str) -> str:
        """Returns the URL that confirms the user's address, valid for ``days`` days from now.

        Raises:
            BadSetting: PUBLIC_URL is not set.
        """
        token = self._sign(_CONFIRM, sub=user, address=_digest(email), exp=self._expiry())
        return f"{self.public_url}/confirm?token={token}"

    def verify_confirmation(self, token: str) -> Confirmation:
        """Returns what a link confirms.

        Raises:
            BadLink: the link has expired or was not signed by us.
        """
        claims = self._claims(_CONFIRM, token, ("address", "exp"))
        return Confirmation(UserId(str(claims["sub"])), str(claims["address"]))

    def make_reset(self, user: UserId, version: int, email: str) -> str:
        """Returns the URL that resets the user's password, valid for RESET_SECONDS from now.

        Args:
            user: the user.
            version: of the user's tokens: a new password changes it, so the link works once.
            email: where the link is sent to; once the user has another address, the link works no more.

        Raises:
            BadSetting: PUBLIC_URL is not set.
        """
        token = self._sign(_RESET, sub=user, ver=version, address=_digest(email), exp=int(time.time() + RESET_SECONDS))
        return f"{self.public_url}/password-reset/new?token={token}"

    def verify_reset(self, token: str) -> Reset:
        """Returns whose password a link resets.

        Raises:
            BadLink: the link has expired or was not signed by us.
        """
        claims = self._claims(_RESET, token, ("ver", "address", "exp"))
        return Reset(UserId(str(claims["sub"])), int(claims["ver"]), str(claims["address"]))

    def make_unsubscription(self, user: UserId) -> str:
        """Returns the URL that unsubscribes the user from mails about jobs. It does not expire.

        Raises:
            BadSetting: PUBLIC_URL is not set.
        """
        return f"{self.public_url}/unsubscribe?token={self._sign(_UNSUBSCRIBE, sub=user)}"

    def verify_unsubscription(self, token: str) -> UserId:
        """Returns the user whom a link unsubscribes.

        Raises:
            BadLink: the link was not signed by us.
        """
        return UserId(str(self._claims(_UNSUBSCRIBE, token, ())["sub"]))

    def _expiry(self) -> int:
        return int(time.time() + self.days * _DAY)

    def _sign(self, audience: str, **claims: object) -> str:
        import jwt

        return jwt.encode({"aud": audience, "iss": _ISSUER, **claims}, self._keys[0], algorithm="HS256")

    def _claims(self, audience: str, token: str, needed: tuple[str, ...]) -> dict[str, Any]:
        """Returns the claims of a token for this audience.

        Raises:
            BadLink: it has expired, or was not signed by us for this audience with all claims ``needed``.
        """
        import jwt

        for key in self._keys:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=["HS256"],
                    audience=audience,
                    issuer=_ISSUER,
                    options={"require": ["aud", "iss", "sub", *needed]},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError as error:
                remedy, name = _REMEDIES[audience]
                raise BadLink(f"This {name} has expired: {remedy}.") from error
            except (jwt.InvalidTokenError, UnicodeError, RecursionError) as error:
                raise _invalid(audience) from error
            return claims
        raise _invalid(audience)


def _digest(email: str) -> str:
    return hashlib.sha256(email.encode()).hexdigest()[:32]


def _invalid(audience: str) -> BadLink:
    remedy, name = _REMEDIES[audience]
    return BadLink(f"This {name} is invalid: open the complete link from the email, or {remedy}.")
