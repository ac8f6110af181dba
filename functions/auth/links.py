"""Signed download links: the mail's link downloads one MP3 of one owner, without a login, until it expires.

A link carries a JWT (RFC 7519) signed by HS256 (RFC 7518, section 3.2) with a key that only notify and
download hold.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Self
from urllib.parse import urlencode

from events.errors import Mp3burstError
from functions.settings import BadSetting, number, required

_AUDIENCE = "download"
_ISSUER = "mp3burst"
_DAY = 24 * 60 * 60
#: Bytes: "a key of the same size as the hash output or larger MUST be used" (RFC 7518, section 3.2).
_LEAST_KEY = 32


class BadLink(Mp3burstError):
    """The link is none of ours, is for another file, or has expired."""

    status = 401


class Links:
    """Makes and verifies download links."""

    def __init__(self, keys: Sequence[str], public_url: str, days: float = 7) -> None:
        """Links signed with the first of the keys and verified with all of them.

        Args:
            keys: at least one, of at least 32 bytes in UTF-8 each.
            public_url: where users reach the download function, without its path; only ``make`` needs it.
            days: how long a link holds.

        Raises:
            BadSetting: there is no key, or one is too short.
        """
        if not keys or any(len(key.encode()) < _LEAST_KEY for key in keys):
            raise BadSetting(
                f"LINK_KEY must hold a random text of at least {_LEAST_KEY} bytes, such as "
                "`openssl rand -hex 32` prints, or several, separated by commas."
            )
        self._keys = tuple(keys)
        self._public_url = public_url.rstrip("/")
        self.days = days

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Links as the environment says.

        Args:
            environ: ``LINK_KEY``, several separated by commas while keys are changed; ``LINK_DAYS``, 7 by
                default; ``PUBLIC_URL``, which download need not have.

        Raises:
            BadSetting: LINK_KEY is missing or too short, or LINK_DAYS is no number.
        """
        keys = required(environ, "LINK_KEY", "the key that download links are signed with")
        return cls(
            [key.strip() for key in keys.split(",") if key.strip()],
            environ.get("PUBLIC_URL", ""),
            number(environ, "LINK_DAYS", 7, least=0.01),
        )

    def make(self, owner: str, fid: str) -> str:
        """The URL that downloads the owner's MP3 without a login, from now on for ``days`` days.

        Args:
            owner: the owner's user id.
            fid: the MP3's blob id.

        Raises:
            BadSetting: there is no PUBLIC_URL.
        """
        import jwt

        if not self._public_url:
            raise BadSetting("PUBLIC_URL is not set: it must hold the URL under which users reach mp3burst.")
        claims = {
            "aud": _AUDIENCE,
            "iss": _ISSUER,
            "sub": owner,
            "fid": fid,
            "exp": int(time.time() + self.days * _DAY),
        }
        token = jwt.encode(claims, self._keys[0], algorithm="HS256")
        return f"{self._public_url}/download?{urlencode({'fid': fid, 'token': token})}"

    def verify(self, token: str, fid: str) -> str:
        """The user id of the owner in whose name the link downloads this MP3.

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
                raise BadLink(
                    "This download link has expired: log in and download the file with your token instead."
                ) from error
            except (jwt.InvalidTokenError, UnicodeError) as error:
                raise _not_ours() from error
            if claims["fid"] != fid:
                break
            return str(claims["sub"])
        raise _not_ours()


def _not_ours() -> BadLink:
    return BadLink(
        "This download link is not valid: open the whole link from the mail, or log in and download the file "
        "with your token."
    )
