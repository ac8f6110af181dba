"""The operations of ``account``, and their types."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from functions.auth.limits import MAX_KEY_NAME, MAX_NAME, MAX_PASSWORD, MAX_TYPED_USERNAME, MIN_PASSWORD
from functions.email_address import MAX_LENGTH as MAX_ADDRESS
from functions.operation import FORM, HTML, JSON, Answer, Body, Id, Operation, Scope, Timestamp

_KEY: Final = {"key": "The id of the key, from GET /keys."}


class NewKey(Struct, frozen=True):
    """An API key to create."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_KEY_NAME, description="What the user calls it.")]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=5, description="What it may be used for.")]
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
    "videos, `read` lists jobs and downloads MP3s, `delete` deletes jobs, `account` manages the account, `admin` "
    "the installation, and `metrics` reads its metrics; the last two as long as the key's owner is an administrator. "
    "A key cannot create another one.",
    scope="account",
    body=Body({JSON: NewKey}),
    problems={
        403: "The request was made with an API key, or a user who is no administrator asks for the scope `admin` or "
        "`metrics`.",
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


class Usage(Struct, frozen=True, kw_only=True):
    """What a user has of the quota."""

    bytes: Annotated[int, Meta(ge=0, description="Of videos and MP3s, with what is reserved for those in progress.")]
    bytes_limit: Annotated[int | None, Meta(description="The most of it; null without a limit.")]
    bytes_left: Annotated[int | None, Meta(description="Null without a limit.")]
    jobs: Annotated[int, Meta(ge=0, description="Uploads and conversions in progress.")]
    jobs_limit: Annotated[int | None, Meta(description="The most of them; null without a limit.")]
    jobs_left: Annotated[int | None, Meta(description="Null without a limit.")]


class Account(Struct, frozen=True, kw_only=True):
    """A user's account."""

    id: Id
    username: Annotated[str, Meta(description="What the user logs in with.")]
    name: Annotated[str, Meta(description="The name in mails.")]
    email: Annotated[str, Meta(description="Where mails are sent to.")]
    confirmed: Annotated[bool, Meta(description="Whether the address is confirmed.")]
    role: Literal["user", "admin"]
    created: Timestamp
    usage: Usage


class AccountChange(Struct, frozen=True, kw_only=True):
    """What to change of an account. What is left out stays as it is."""

    name: Annotated[Annotated[str, Meta(min_length=1, max_length=MAX_NAME)] | None, Meta(description="In mails.")] = (
        None
    )
    email: Annotated[
        Annotated[str, Meta(min_length=3, max_length=MAX_ADDRESS)] | None,
        Meta(description="Another address; it has to be confirmed."),
    ] = None
    password: Annotated[
        Annotated[str, Meta(max_length=MAX_PASSWORD)] | None,
        Meta(description="The user's password: needed with `email`.", extra_json_schema={"format": "password"}),
    ] = None


class PasswordChange(Struct, frozen=True, kw_only=True):
    """A new password in place of the old one."""

    old: Annotated[str, Meta(max_length=MAX_PASSWORD, extra_json_schema={"format": "password"})]
    new: Annotated[
        str, Meta(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD, extra_json_schema={"format": "password"})
    ]


class Deletion(Struct, frozen=True, kw_only=True):
    """The password, which shows that the user wants the account deleted."""

    password: Annotated[str, Meta(max_length=MAX_PASSWORD, extra_json_schema={"format": "password"})]


_AFTER_PASSWORD: Final = {
    403: "The password is wrong.",
    409: "The account was changed at the same time.",
    429: "Too many wrong passwords: wait for the seconds in `Retry-After`.",
}

SHOW_ACCOUNT: Final = Operation(
    "GET",
    "/me",
    "Show the account",
    (Answer(200, "The account, and what is used and left of its quota.", Account),),
    scope="account",
)
CHANGE_ACCOUNT: Final = Operation(
    "PATCH",
    "/me",
    "Change the name or the address",
    (Answer(200, "The account. A mail asks to confirm another address.", Account),),
    scope="account",
    body=Body({JSON: AccountChange}),
    problems=_AFTER_PASSWORD,
)
CHANGE_PASSWORD: Final = Operation(
    "POST",
    "/me/password",
    "Change the password",
    (Answer(204, "The password is changed. All tokens are withdrawn: log in again. API keys stay."),),
    scope="account",
    body=Body({JSON: PasswordChange}),
    problems=_AFTER_PASSWORD,
)


class Session(Struct, frozen=True, kw_only=True):
    """A login whose token is valid."""

    id: Annotated[Id, Meta(description="Names the session in DELETE /sessions/SESSION.")]
    created: Timestamp
    expires: Timestamp
    last_used: Annotated[
        Annotated[str, Meta(extra_json_schema={"format": "date"})], Meta(description="The day of its last use (UTC).")
    ]
    agent: Annotated[
        str | None, Meta(description="What the client that logged in said it is, shortened; null if it said nothing.")
    ]
    network: Annotated[
        str | None, Meta(description="From which it logged in: an IPv4 address, or the /64 of an IPv6 address.")
    ]
    current: Annotated[bool, Meta(description="Whether the request was made with its token.")]


class SessionList(Struct, frozen=True):
    """The sessions of a user."""

    sessions: list[Session]


LIST_SESSIONS: Final = Operation(
    "GET",
    "/sessions",
    "List sessions",
    (Answer(200, "The logins whose tokens are valid, newest first, at most 100.", SessionList),),
    scope="account",
)
DELETE_SESSION: Final = Operation(
    "DELETE",
    "/sessions/{session}",
    "End a session",
    (Answer(204, "The session has ended. Its token is refused everywhere within 60 seconds."),),
    scope="account",
    parameters={"session": "The id of the session, from GET /sessions."},
    problems={404: "There is no such session, or it is another user's."},
)
WITHDRAW_TOKENS: Final = Operation(
    "DELETE",
    "/sessions",
    "Log out everywhere",
    (Answer(204, "All tokens are withdrawn, and refused everywhere within 60 seconds. API keys stay."),),
    scope="account",
)
END_SESSION: Final = Operation(
    "DELETE",
    "/session",
    "Log out",
    (
        Answer(
            204,
            "The token, or the one in the cookie, is refused everywhere within 60 seconds.",
            headers={"Set-Cookie": "Deletes the cookie."},
        ),
    ),
    scope="account",
    problems={403: "The request was made with an API key."},
)


class ExternalLogin(Struct, frozen=True, kw_only=True):
    """An account at an identity provider, or an address that a proxy sends, that logs the user in."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="Names the external login in DELETE /logins/LOGIN.")]
    provider: Annotated[str, Meta(description="The issuer of the provider's tokens, or `proxy`.")]
    created: Timestamp


class LoginList(Struct, frozen=True):
    """The ways in which a user logs in."""

    logins: list[ExternalLogin]
    password: Annotated[bool, Meta(description="Whether the user has a password.")]


LIST_LOGINS: Final = Operation(
    "GET",
    "/logins",
    "List external logins",
    (Answer(200, "The external logins, oldest first, and whether there is a password.", LoginList),),
    scope="account",
)
DELETE_LOGIN: Final = Operation(
    "DELETE",
    "/logins/{login}",
    "Remove an external login",
    (Answer(204, "It logs nobody in any more. Sessions that began with it go on until they end."),),
    description="The next login with the same account at the provider asks for the user's password, to link it again.",
    scope="account",
    parameters={"login": "The id of the external login, from GET /logins."},
    problems={
        404: "There is no such external login, or it is another user's.",
        409: "The user has no password and no other external login.",
    },
)
DELETE_ACCOUNT: Final = Operation(
    "POST",
    "/me/deletion",
    "Delete the account",
    (Answer(204, "The account is deleted, with its jobs, videos, MP3s, mails and keys. This cannot be undone."),),
    scope="account",
    body=Body({JSON: Deletion}),
    problems=_AFTER_PASSWORD,
)


class ResetRequest(Struct, frozen=True, kw_only=True):
    """Who has forgotten the password."""

    username: Annotated[str, Meta(min_length=1, max_length=MAX_TYPED_USERNAME)]


class ResetLink(Struct, frozen=True):
    """The query of a link that resets a password."""

    token: Annotated[str, Meta(description="The token of the link.")] = ""


class ResetForm(Struct, frozen=True):
    """The form of the page that resets a password."""

    password: Annotated[
        str, Meta(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD, extra_json_schema={"format": "password"})
    ]
    keep_keys: Annotated[
        bool,
        Meta(description="Whether what else gives access to the account stays; otherwise it is deleted."),
    ] = False


_BAD_LINK: Final = Answer(401, "A page that says why the link does not work.", content_type=HTML)

OFFER_RESET: Final = Operation(
    "POST",
    "/password-reset",
    "Ask to reset a forgotten password",
    (Answer(202, "If the user exists and has confirmed the address, a mail with a link is on its way."),),
    description="The response is the same whether or not there is such a user.",
    access="anyone",
    body=Body({JSON: ResetRequest}),
    problems={429: "Too many requests from this network: wait for the seconds in `Retry-After`."},
)
SHOW_RESET: Final = Operation(
    "GET",
    "/password-reset/new",
    "Ask for a new password",
    (Answer(200, "A page with a form.", content_type=HTML), _BAD_LINK),
    description="The link in the mail. It works once, for 30 minutes.",
    access="link",
    query=ResetLink,
)
RESET: Final = Operation(
    "POST",
    "/password-reset/new",
    "Reset the password",
    (
        Answer(
            200,
            "A page: the password is changed, and all tokens are withdrawn; API keys, webhooks, the "
            "feed, shared links and links to identity providers are deleted unless `keep_keys`.",
            content_type=HTML,
        ),
        _BAD_LINK,
        Answer(422, "A page that says what is wrong with the password.", content_type=HTML),
    ),
    access="link",
    query=ResetLink,
    body=Body({FORM: ResetForm}),
)

_Options = Annotated[
    dict[str, str],
    Meta(
        max_length=50,
        description="As in the form of POST /upload.",
        examples=[{"bitrate": "96k", "mono": "true"}],
    ),
]
_PRESET: Final = {"preset": "The name of the preset, percent-encoded."}
_UNKNOWN: Final = {404: "There is no such preset."}


class PresetOptions(Struct, frozen=True):
    """The options of a preset."""

    options: _Options


class Preset(Struct, frozen=True, kw_only=True):
    """Options under one name."""

    name: Annotated[str, Meta(description="Names it in the field `preset` of an upload.")]
    options: _Options
    origin: Annotated[
        Literal["user", "server"], Meta(description="`user` if it is the user's own, `server` if everyone has it.")
    ]


class PresetList(Struct, frozen=True):
    """The presets that a user has."""

    presets: list[Preset]


LIST_PRESETS: Final = Operation(
    "GET",
    "/presets",
    "List presets",
    (Answer(200, "The user's own by name, then those that everyone has.", PresetList),),
    scope="read",
)
SHOW_PRESET: Final = Operation(
    "GET",
    "/presets/{preset}",
    "Show a preset",
    (Answer(200, "The preset.", Preset),),
    scope="read",
    parameters=_PRESET,
    problems=_UNKNOWN,
)
PUT_PRESET: Final = Operation(
    "PUT",
    "/presets/{preset}",
    "Create or replace a preset",
    (Answer(200, "The preset.", Preset),),
    description="A preset of the user's own comes before one of the same name that everyone has. Jobs keep the options "
    "that they were uploaded with.",
    scope="upload",
    parameters=_PRESET,
    body=Body({JSON: PresetOptions}),
    problems={409: "The user has as many presets as allowed.", 422: "The name or an option is invalid."},
)
DELETE_PRESET: Final = Operation(
    "DELETE",
    "/presets/{preset}",
    "Delete a preset",
    (Answer(204, "The preset is deleted; one of the same name that everyone has comes into its place."),),
    scope="upload",
    parameters=_PRESET,
    problems={404: "The user has no such preset."},
)
