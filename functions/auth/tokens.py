"""Access tokens: JWTs signed with Ed25519 (RFC 8037), checked by every function for itself.

login alone has the private key. Everybody has the public keys, several at once while keys are being changed: add the
new public key everywhere, then give login the new private key, then, when the last old token has expired, remove the
old one. A key's id is its thumbprint (RFC 7638), so nobody has to name keys.
"""

import base64
import functools
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from events.errors import Mp3burstError
from functions.settings import BadSetting, number, required

ISSUER: Final = "mp3burst"
AUDIENCE: Final = "mp3burst"
#: The compact form (RFC 7515, 7.1). Decoders of base64 pass over what is not of its alphabet, which 5.2 forbids.
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
#: Seconds that login's clock may be ahead of ours: a token holds from the start.
_AHEAD: Final = 60
_DOES_NOT_HOLD: Final = "This token does not hold: log in to get one."
_PEM: Final = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


class NotAuthenticated(Mp3burstError):
    """No token, or none that holds."""

    status = 401


class NotAllowed(Mp3burstError):
    """The token holds, but its user may not do this."""

    status = 403


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token speaks for."""

    user: str
    username: str
    role: str
    claims: Mapping[str, Any]


class Signer:
    """Makes tokens."""

    def __init__(self, private_key: str, hours: float = 24) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(private_key.encode(), None)
        except (ValueError, TypeError) as error:
            raise BadSetting("TOKEN_PRIVATE_KEY is no PEM private key.") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise BadSetting("TOKEN_PRIVATE_KEY is no Ed25519 key.")
        self._key = key
        self._kid = _jwk(key.public_key())["kid"]
        self.seconds = int(hours * 3600)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """The signer of TOKEN_PRIVATE_KEY, a PEM, for TOKEN_HOURS (24)."""
        key = required(environ, "TOKEN_PRIVATE_KEY", "the PEM of the Ed25519 key that signs tokens")
        return cls(key, number(environ, "TOKEN_HOURS", 24, 0.01))

    def sign(self, user: str, username: str, role: str) -> str:
        """A token for the user, from now on for as long as tokens hold."""
        import jwt

        issued = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user,
            "username": username,
            "role": role,
            "iat": issued,
            "exp": issued + self.seconds,
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._kid})


class Verifier:
    """Checks tokens against public keys."""

    def __init__(self, public_keys: str) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        self._keys: dict[str, Ed25519PublicKey] = {}
        self.jwks: list[dict[str, str]] = []
        for pem in _PEM.findall(public_keys):
            key = load_pem_public_key(pem.encode())
            if not isinstance(key, Ed25519PublicKey):
                raise BadSetting("TOKEN_PUBLIC_KEYS holds a key that is not Ed25519.")
            self.jwks.append(_jwk(key))
            self._keys[self.jwks[-1]["kid"]] = key
        if not self._keys:
            raise BadSetting("TOKEN_PUBLIC_KEYS holds no PEM public key.")

    def verify(self, token: str) -> Identity:
        """Whom the token speaks for.

        Raises:
            NotAuthenticated: it is none of ours, changed, or too old.
        """
        import jwt

        if not _COMPACT.fullmatch(token):
            raise NotAuthenticated(_DOES_NOT_HOLD)
        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": ["exp", "iat", "sub", "aud", "iss"], "verify_iat": False},
            )
            if claims["iat"] > time.time() + _AHEAD:
                raise jwt.ImmatureSignatureError
        except jwt.ExpiredSignatureError as error:
            raise NotAuthenticated("This token has expired: log in again.") from error
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError) as error:
            raise NotAuthenticated(_DOES_NOT_HOLD) from error
        return Identity(claims["sub"], str(claims.get("username", "")), str(claims.get("role", "user")), claims)

    def bearer(self, authorization: str | None) -> Identity:
        """Whom the Authorization header speaks for (RFC 6750).

        Raises:
            NotAuthenticated: there is none, it is not of the Bearer scheme, or its token does not hold.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise NotAuthenticated("Log in and send the token as Authorization: Bearer TOKEN.")
        return self.verify(token.strip())


def verifier(environ: Mapping[str, str]) -> Verifier:
    """The verifier of TOKEN_PUBLIC_KEYS, one or more PEMs one after the other; made once for a process."""
    return _verifier(required(environ, "TOKEN_PUBLIC_KEYS", "the PEMs of the public keys that tokens are checked with"))


@functools.lru_cache(maxsize=1)
def _verifier(public_keys: str) -> Verifier:
    return Verifier(public_keys)


def _jwk(key: Any) -> dict[str, str]:
    """The key as a JWK (RFC 8037), its thumbprint (RFC 7638) as ``kid``."""
    x = _base64(key.public_bytes_raw())
    # The thumbprint's input: the required members only, sorted, without blanks.
    needed = {"crv": "Ed25519", "kty": "OKP", "x": x}
    kid = _base64(hashlib.sha256(json.dumps(needed, separators=(",", ":")).encode()).digest())
    return {**needed, "kid": kid, "alg": "EdDSA", "use": "sig"}


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
