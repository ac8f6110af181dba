"""The operations of ``login``, and their types."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from functions.operation import Answer, Operation


class Token(Struct, frozen=True):
    """An access token."""

    token: Annotated[
        str | None, Meta(description="A JWT: send it as `Authorization: Bearer TOKEN`. Null if it is in the cookie.")
    ]
    expires_in: Annotated[int, Meta(ge=1, description="Seconds for which it is valid.")]


class LoginQuery(Struct, frozen=True):
    """The query of POST /login."""

    cookie: Annotated[
        bool,
        Meta(
            description="Whether the token is sent as a cookie that no script can read, for pages in a browser, and "
            "not in the body. Requests with the cookie that change something must come from the origin of the "
            "installation."
        ),
    ] = False


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
    (Answer(200, "A token.", Token, headers={"Set-Cookie": "The cookie, if `cookie` is true."}),),
    access="password",
    query=LoginQuery,
    problems={
        403: "The cookie was asked for from another site.",
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
    section="Tokens",
)
