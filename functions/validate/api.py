"""The operation of ``validate``, and its types."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from functions.operation import Answer, Id, Operation


class Claims(Struct, frozen=True, omit_defaults=True):
    """The claims of a token (RFC 7519), or what an API key stands for."""

    iss: Literal["mp3burst"]
    aud: Literal["mp3burst"]
    sub: Annotated[Id, Meta(description="The user's id.")]
    username: str
    role: str
    ver: Annotated[int | None, Meta(description="Of a token: the version of the user's tokens.")] = None
    jti: Annotated[Id | None, Meta(description="Of a token: its id.")] = None
    iat: Annotated[int | None, Meta(description="Of a token: when it was issued, in seconds since 1970.")] = None
    exp: Annotated[int | None, Meta(description="Of a token: when it expires, in seconds since 1970.")] = None
    scope: Annotated[str | None, Meta(description="Of a key: what it may be used for, separated by spaces.")] = None
    key: Annotated[Id | None, Meta(description="Of a key: its id.")] = None


VALIDATE: Final = Operation(
    "POST",
    "/validate",
    "Validate a token or an API key",
    (Answer(200, "The token or the key is valid; its claims.", Claims),),
    description="For services that cannot verify tokens themselves with the public keys.",
)
