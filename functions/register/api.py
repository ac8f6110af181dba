"""The operation of ``register``, and its types."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from functions.auth.limits import MAX_NAME, MAX_PASSWORD, MAX_TYPED_USERNAME, MAX_USERNAME, MIN_PASSWORD
from functions.operation import JSON, LIMITS, Answer, Body, Id, Operation


class Registration(Struct, frozen=True, kw_only=True):
    """A new user."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME, description="The name in mails.")]
    username: Annotated[str, Meta(min_length=1, max_length=MAX_USERNAME, description="An address, or any name.")]
    password: Annotated[
        str,
        Meta(
            min_length=MIN_PASSWORD,
            max_length=MAX_PASSWORD,
            description="Neither one of the most used ones, nor with a name in it.",
            extra_json_schema={"format": "password"},
        ),
    ]
    email: Annotated[
        Annotated[str, Meta(max_length=MAX_TYPED_USERNAME)] | None,
        Meta(description="Where mails are sent to; needed unless the username is an address."),
    ] = None


class NewUser(Struct, frozen=True):
    """A registered user."""

    id: Id
    username: Annotated[str, Meta(description="In the form in which it is stored.")]


REGISTER: Final = Operation(
    "POST",
    "/register",
    "Register a user",
    (Answer(201, "The user may log in. A mail asks to confirm the address.", NewUser, headers=LIMITS),),
    access="anyone",
    body=Body({JSON: Registration}),
    problems={
        400: "The request is not a JSON object of at most 64 KiB.",
        409: "A user has this username: also after the same request whose answer was lost; then log in.",
        429: "Too many registrations from this network: wait for the seconds in `Retry-After`.",
    },
)
