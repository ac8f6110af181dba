"""The operations of ``login``, and their types."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from functions.operation import Answer, Operation


class Token(Struct, frozen=True):
    """An access token."""

    token: Annotated[str, Meta(description="A JWT: send it as `Authorization: Bearer TOKEN`.")]
    expires_in: Annotated[int, Meta(ge=1, description="Seconds for which it is valid.")]


class PublicKey(Struct, frozen=True):
    """A public key (RFC 8037)."""

    crv: Literal["Ed25519"]
    kty: Literal["OKP"]
    x: str
    kid: Annotated[str, Meta(description="Its thumbprint (RFC 7638), which a token's header names.")]
    alg: Literal["EdDSA"]
    use: Literal["sig"]


class KeySet(Struct, frozen=True):
    """Public keys (RFC 7517)."""

    keys: list[PublicKey]


LOGIN: Final = Operation(
    "POST",
    "/login",
    "Log in",
    (Answer(200, "A token.", Token),),
    access="password",
    problems={
        401: "The username or the password is wrong or missing: the same response for all.",
        429: "Too many logins failed: wait for the seconds in `Retry-After`.",
    },
)
KEYS: Final = Operation(
    "GET",
    "/.well-known/jwks.json",
    "Get the public keys that verify tokens",
    (Answer(200, "The keys, which may be cached.", KeySet),),
    access="anyone",
)
