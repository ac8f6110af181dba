"""Signed download links: the link in a mail downloads one MP3 without a login until it expires.

A link contains a JWT (RFC 7519) signed with HS256 (RFC 7518, section 3.2). Only notify and download have the key.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Final, Self
from urllib.parse import urlencode

from events.errors import Mp3burstError
from functions.settings import BadSetting, number, required
from functions.state.schema import UserId

_AUDIENCE: Final = "download"
_ISSUER: Final = "mp3burst"
_DAY: Final = 24 * 60 * 60  # seconds
#: Bytes: "a key of the same size as the hash output or larger MUST be used" (RFC 7518, section 3.2).
_MIN_KEY: Final = 32


class BadLink(Mp3burstError):
    """The link was not signed by us, is for another file, or has expired."""

    status = 401
    security_event = "link.refused"


class Links:
    """Creates and verifies download links."""

    def __init__(self, keys: Sequence[str], public_url: str, days: float = 7) -> None:
        """Creates links signed with the first key and verified with all keys.

        Args:
            keys: at least one, each of at least 32 bytes in UTF-8.
            public_url: the URL at which users reach mp3burst, without a path; only ``make`` needs it.
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
                ``PUBLIC_URL``, which download does not need.

        Raises:
            BadSetting: LINK_KEY is missing or too short, or LINK_DAYS is not a number.
        """
        keys = required(environ, "LINK_KEY", "the key that signs download links")
        return cls(
            [key.strip() for key in keys.split(",") if key.strip()],
            environ.get("PUBLIC_URL", ""),
            number(environ, "LINK_DAYS", 7, minimum=0.01),
        )

    def make(self, owner: UserId, fid: str) -> str:
        """Returns the URL that downloads the owner's MP3 without a login, valid for ``days`` days from now.

        Args:
            owner: the user who owns the MP3.
            fid: the MP3's blob id.

        Raises:
            BadSetting: PUBLIC_URL is not set.
        """
        import jwt

        if not self._public_url:
            raise BadSetting("PUBLIC_URL is not set: it must be the URL at which users reach mp3burst.")
        claims = {
            "aud": _AUDIENCE,
            "iss": _ISSUER,
            "sub": owner,
            "fid": fid,
            "exp": int(time.time() + self.days * _DAY),
        }
        token = jwt.encode(claims, self._keys[0], algorithm="HS256")
        return f"{self._public_url}/download?{urlencode({'fid': fid, 'token': token})}"

    def verify(self, token: str, fid: str) -> UserId:
        """Returns the owner of the MP3 that the link downloads.

        Args:
            token: from the link.
            fid: the MP3's blob id, from the link.

        Raises:
            BadLink: the link has expired, was not signed by us, or is for another file.
        """
        import jwt

        for key in self._keys:
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=["HS256"],
                    audience=_AUDIENCE,
                    issuer=_ISSUER,
                    options={"require": ["aud", "iss", "sub", "fid", "exp"]},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError as error:
                raise BadLink("This download link has expired: log in and download the MP3 with your token.") from error
            except (jwt.InvalidTokenError, UnicodeError, RecursionError) as error:
                raise _invalid() from error
            if claims["fid"] != fid:
                break
            return UserId(str(claims["sub"]))
        raise _invalid()


def _invalid() -> BadLink:
    return BadLink(
        "This download link is invalid: open the complete link from the mail, or log in and download the MP3 with your "
        "token."
    )
