"""The operation of ``validate``, and its types."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from functions.operation import Answer, Id, Operation


class Claims(Struct, frozen=True):
    """The claims of a token (RFC 7519)."""

    iss: Literal["mp3burst"]
    aud: Literal["mp3burst"]
    sub: Annotated[Id, Meta(description="The user's id.")]
    username: str
    role: str
    iat: Annotated[int, Meta(description="When it was issued, in seconds since 1970.")]
    exp: Annotated[int, Meta(description="When it expires, in seconds since 1970.")]


VALIDATE: Final = Operation(
    "POST",
    "/validate",
    "Validate a token",
    (Answer(200, "The token is valid; its claims.", Claims),),
    description="For services that cannot verify tokens themselves with the public keys.",
)
