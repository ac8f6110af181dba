"""Access tokens: JWTs signed with Ed25519 (RFC 8037), which every function verifies itself.

A token has the version of its user's tokens; ``functions.auth.identification`` refuses those with another one. Only
login has the private key. Every function has the public keys. To rotate a key, add the new public key everywhere, then
give login the new private key, and remove the old public key once the last old token has expired. A key's id is its
thumbprint (RFC 7638), so keys need no names.
"""

import base64
import functools
import hashlib
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from events.errors import Mp3burstError
from functions.settings import BadSetting, number, required

if TYPE_CHECKING:
    from functions.state.schema import UserId  # at run time it would import SQLAlchemy, which validate does not need

ISSUER: Final = "mp3burst"
AUDIENCE: Final = "mp3burst"
#: The compact form (RFC 7515, 7.1). Base64 decoders skip characters outside their alphabet, which 5.2 forbids.
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
#: Seconds by which login's clock may be ahead of ours, so that a new token is valid at once.
_CLOCK_SKEW: Final = 60
_INVALID: Final = "Invalid token: log in again."
_PEM: Final = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


class NotAuthenticated(Mp3burstError):
    """No valid token or API key; ``reason`` is for the log: missing, expired, invalid, withdrawn or key."""

    status = 401
    security_event = "token.refused"

    def __init__(self, message: str, reason: str = "invalid") -> None:
        super().__init__(message)
        self.reason = reason


class NotAllowed(Mp3burstError):
    """The token is valid, but its user may not do this."""

    status = 403
    security_event = "role.refused"


class AccountLocked(NotAllowed):
    """An administrator keeps the user out."""

    security_event = "account.refused"
    reason = "locked"

    def __init__(self) -> None:
        """Uses the one message there is for it."""
        super().__init__("Your account is locked: ask an administrator of this installation to unlock it.")


class ScopeMissing(NotAllowed):
    """The API key is valid, but does not have the scope that the call needs."""

    security_event = "scope.refused"


@dataclass(frozen=True, slots=True)
class Identity:
    """The user whom a token or an API key identifies.

    Attributes:
        user: the user's id.
        username: in stored form.
        role: ``user`` or ``admin``.
        claims: all claims of the token; what they would be, of a key.
        scopes: what a key may be used for; None for a token, which may be used for everything.
        stored_key: the id of the key, if it is one in the database; None for a token, and for a key of API_KEYS.
    """

    user: "UserId"
    username: str
    role: str
    claims: Mapping[str, Any]
    scopes: frozenset[str] | None = None
    stored_key: str | None = None

    @property
    def token_version(self) -> int | None:
        """The version of the user's tokens when this one was issued; None for an API key."""
        # Tokens of the version before migration 0009 have none.
        return int(self.claims.get("ver", 0)) if self.scopes is None else None

    def require(self, scope: str | None) -> None:
        """Checks that the identity may be used for calls with this scope; None is that of calls that any key may make.

        Raises:
            ScopeMissing: it is a key without the scope.
        """
        if scope is not None and self.scopes is not None and scope not in self.scopes:
            raise ScopeMissing(f"This API key does not have the scope {scope}: use a key that has it, or log in.")


class Signer:
    """Creates tokens that are valid for ``seconds``."""

    def __init__(self, private_key: str, hours: float = 24) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(private_key.encode(), None)
        except (ValueError, TypeError) as error:
            raise BadSetting(
                "TOKEN_PRIVATE_KEY is not a private key in PEM format: set it to an Ed25519 key in PKCS 8."
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise BadSetting(
                "TOKEN_PRIVATE_KEY is not an Ed25519 key: create one with `openssl genpkey -algorithm ed25519`."
            )
        self._key = key
        self._kid = _jwk(key.public_key())["kid"]
        self.seconds = int(hours * 3600)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Creates the signer from TOKEN_PRIVATE_KEY, a PEM, and TOKEN_HOURS, 24 by default.

        Raises:
            BadSetting: TOKEN_PRIVATE_KEY is missing or invalid, or TOKEN_HOURS is not a number.
        """
        key = required(environ, "TOKEN_PRIVATE_KEY", "the Ed25519 private key that signs tokens, in PEM format")
        return cls(key, number(environ, "TOKEN_HOURS", 24, minimum=0.01))

    def sign(self, user: "UserId", username: str, role: str, version: int = 0, session: str = "") -> str:
        """Returns a token for the user, valid for ``seconds`` from now on, or until the user's version changes.

        Args:
            user: the user's id.
            username: in stored form.
            role: the user's.
            version: that of the user's tokens.
            session: the token's id; a random one if it is empty.
        """
        token = session or secrets.token_hex(16)
        claims = {"sub": user, "username": username, "role": role, "ver": version, "jti": token}
        return self._sign({"iss": ISSUER, "aud": AUDIENCE, **claims}, self.seconds)

    def sign_ticket(self, purpose: str, content: Mapping[str, Any], seconds: int) -> str:
        """Returns what ``Verifier.verify_ticket`` accepts for this purpose, and nothing accepts as a token.

        Args:
            purpose: a word.
            content: values for JSON, which are signed but not encrypted.
            seconds: for which it is valid.
        """
        return self._sign({"iss": ISSUER, "aud": _ticket_audience(purpose), "content": dict(content)}, seconds)

    def _sign(self, claims: Mapping[str, Any], seconds: int) -> str:
        import jwt

        issued = int(time.time())
        times = {"iat": issued, "exp": issued + seconds}
        return jwt.encode({**claims, **times}, self._key, algorithm="EdDSA", headers={"kid": self._kid})


class Verifier:
    """Verifies tokens with the public keys, which ``jwks`` has in JSON Web Key format (RFC 7517)."""

    def __init__(self, public_keys: str) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        self._keys: dict[str, Ed25519PublicKey] = {}
        self.jwks: list[dict[str, str]] = []
        for pem in _PEM.findall(public_keys):
            try:
                key = load_pem_public_key(pem.encode())
            except ValueError as error:
                raise BadSetting("TOKEN_PUBLIC_KEYS contains a public key that is damaged: copy it again.") from error
            if not isinstance(key, Ed25519PublicKey):
                raise BadSetting("TOKEN_PUBLIC_KEYS contains a key that is not an Ed25519 key: remove it.")
            self.jwks.append(_jwk(key))
            self._keys[self.jwks[-1]["kid"]] = key
        if not self._keys:
            raise BadSetting(
                "TOKEN_PUBLIC_KEYS contains no public key in PEM format: set it to that of TOKEN_PRIVATE_KEY."
            )

    def verify(self, token: str) -> Identity:
        """Returns the identity in the token.

        Raises:
            NotAuthenticated: the token was not signed by us, was changed, or has expired.
        """
        claims = self._verify(token, AUDIENCE, "sub")
        return Identity(claims["sub"], str(claims.get("username", "")), str(claims.get("role", "user")), claims)

    def verify_ticket(self, purpose: str, ticket: str) -> dict[str, Any]:
        """Returns the content of a ticket.

        Raises:
            NotAuthenticated: it was not signed by us for this purpose, was changed, or has expired.
        """
        content: dict[str, Any] = self._verify(ticket, _ticket_audience(purpose), "content")["content"]
        return content

    def _verify(self, token: str, audience: str, claim: str) -> dict[str, Any]:
        """Returns the claims of a token for this audience that has this claim."""
        import jwt

        if not _COMPACT.fullmatch(token):
            raise NotAuthenticated(_INVALID)
        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=audience,
                issuer=ISSUER,
                options={"require": ["exp", "iat", claim, "aud", "iss"], "verify_iat": False},
            )
            if claims["iat"] > time.time() + _CLOCK_SKEW:
                raise jwt.ImmatureSignatureError
        except jwt.ExpiredSignatureError as error:
            raise NotAuthenticated("This token has expired: log in again.", "expired") from error
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise NotAuthenticated(_INVALID) from error
        return claims


def _ticket_audience(purpose: str) -> str:
    return f"{AUDIENCE}:{purpose}"


def bearer(authorization: str | None) -> str:
    """Returns the token or the API key in an Authorization header (RFC 6750).

    Raises:
        NotAuthenticated: there is no header, or its scheme is not Bearer.
    """
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not credentials.strip():
        raise NotAuthenticated(
            "Not logged in: log in and send the token in the header Authorization: Bearer TOKEN.", "missing"
        )
    return credentials.strip()


def verifier(environ: Mapping[str, str]) -> Verifier:
    """Returns the verifier with the keys in TOKEN_PUBLIC_KEYS, one or more concatenated PEMs. Created once per process.

    Raises:
        BadSetting: TOKEN_PUBLIC_KEYS is missing or invalid.
    """
    return _verifier(required(environ, "TOKEN_PUBLIC_KEYS", "the public keys that verify tokens, in PEM format"))


@functools.lru_cache(maxsize=1)
def _verifier(public_keys: str) -> Verifier:
    return Verifier(public_keys)


def _jwk(key: Any) -> dict[str, str]:
    """Returns the key as a JWK (RFC 8037) with its thumbprint (RFC 7638) as ``kid``."""
    x = _base64(key.public_bytes_raw())
    # The thumbprint covers only the required members, sorted by name, without whitespace.
    required_members = {"crv": "Ed25519", "kty": "OKP", "x": x}
    kid = _base64(hashlib.sha256(json.dumps(required_members, separators=(",", ":")).encode()).digest())
    return {**required_members, "kid": kid, "alg": "EdDSA", "use": "sig"}


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
