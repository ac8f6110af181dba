"""The operations of ``account``, and their types."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from functions.auth.limits import MAX_KEY_NAME
from functions.operation import JSON, Answer, Body, Id, Operation, Scope, Timestamp

_KEY: Final = {"key": "The id of the key, from GET /keys."}


class NewKey(Struct, frozen=True):
    """An API key to create."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_KEY_NAME, description="What the user calls it.")]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=4, description="What it may be used for.")]
    expires_in: Annotated[
        Annotated[int, Meta(ge=60, le=316_224_000)] | None,
        Meta(description="Seconds after which it expires; never without it."),
    ] = None


class ApiKey(Struct, frozen=True, kw_only=True):
    """An API key, without the key itself."""

    id: Annotated[Id, Meta(description="Names the key in DELETE /keys/KEY.")]
    name: str
    scopes: list[Scope]
    created: Timestamp
    expires: Annotated[Timestamp | None, Meta(description="Null if it does not expire.")]
    last_used: Annotated[
        Annotated[str, Meta(extra_json_schema={"format": "date"})] | None,
        Meta(description="The day of its last use (UTC); null if it was never used."),
    ]


class CreatedKey(ApiKey, frozen=True, kw_only=True):
    """A new API key."""

    key: Annotated[str, Meta(description="The key itself: no other response has it. `mp3b_` and 36 characters.")]


class KeyList(Struct, frozen=True):
    """The API keys of a user."""

    keys: list[ApiKey]


CREATE_KEY: Final = Operation(
    "POST",
    "/keys",
    "Create an API key",
    (Answer(201, "The key.", CreatedKey, headers={"Location": "The path of the key."}),),
    description="A key works wherever a token does, in the same header, for what its scopes say: `upload` sends "
    "videos, `read` lists jobs and downloads MP3s, `delete` deletes jobs, `account` manages the account. A key "
    "cannot create another one.",
    scope="account",
    body=Body({JSON: NewKey}),
    problems={
        403: "The request was made with an API key.",
        409: "The user has as many keys as allowed.",
    },
)
LIST_KEYS: Final = Operation(
    "GET",
    "/keys",
    "List API keys",
    (Answer(200, "The keys, newest first.", KeyList),),
    scope="account",
)
DELETE_KEY: Final = Operation(
    "DELETE",
    "/keys/{key}",
    "Delete an API key",
    (Answer(204, "The key is deleted. It is refused everywhere within 60 seconds."),),
    scope="account",
    parameters=_KEY,
    problems={404: "There is no such key, or it is another user's."},
)
