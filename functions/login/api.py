"""The operations of ``login``, and their types."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from functions.auth.limits import MAX_PASSWORD, MAX_TYPED_USERNAME
from functions.operation import FORM, HTML, Answer, Body, Operation


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
        403: "The account is locked, or the cookie was asked for from another site.",
        401: "The username or the password is wrong or missing: the same response for all.",
        409: "The account was changed at the same time, such as by a new password: log in again.",
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


class OfferedProvider(Struct, frozen=True):
    """An identity provider that users can log in with."""

    name: Annotated[str, Meta(description="Its name in the installation's settings; empty for that of `OIDC_ISSUER`.")]
    title: Annotated[str | None, Meta(description="What users call it; null if the settings have no title.")]
    path: Annotated[str, Meta(description="Where a browser begins a login with it.", examples=["/sso/google"])]


class OfferedLogins(Struct, frozen=True):
    """How users can log in without a password."""

    providers: list[OfferedProvider]
    proxy: Annotated[bool, Meta(description="Whether a proxy in front logs users in, at `/sso/proxy`.")]


class SsoQuery(Struct, frozen=True):
    """The query of GET /sso."""

    to: Annotated[
        str,
        Meta(
            max_length=500,
            description="The path at which the browser is to go on, such as `/docs`. Any other address is ignored.",
        ),
    ] = ""


class SsoAnswer(Struct, frozen=True):
    """The query with which the identity provider sends the browser back (RFC 6749, 4.1.2, and RFC 9207)."""

    code: Annotated[str, Meta(description="What the token is redeemed with.")] = ""
    state: Annotated[str, Meta(description="What the login was begun with.")] = ""
    error: Annotated[str, Meta(description="Why there is no code.")] = ""
    iss: Annotated[str, Meta(description="The issuer of the response.")] = ""


class LinkForm(Struct, frozen=True):
    """The form that links a user to an account at the identity provider."""

    username: Annotated[str, Meta(min_length=1, max_length=MAX_TYPED_USERNAME)]
    password: Annotated[str, Meta(max_length=MAX_PASSWORD, extra_json_schema={"format": "password"})]


_LOGGED_IN: Final = Answer(
    200,
    "A page: you are logged in. It goes on by itself.",
    content_type=HTML,
    headers={"Set-Cookie": "The cookie of the session, as after `POST /login?cookie=true`."},
)
_PAGES: Final = (
    Answer(401, "A page: the login took too long, has ended, or was begun in another browser.", content_type=HTML),
    Answer(403, "A page that says why you cannot log in.", content_type=HTML),
    Answer(
        429, "A page: too many logins, or wrong passwords: wait for the seconds in `Retry-After`.", content_type=HTML
    ),
    Answer(503, "A page: the identity provider does not respond.", content_type=HTML),
)
_NO_PROVIDER: Final = {404: "This installation has no such identity provider."}
_TO_PROVIDER: Final = Answer(
    302,
    "To the identity provider.",
    headers={"Location": "Its address.", "Set-Cookie": "What the login needs when it ends; for ten minutes."},
)
_LINK: Final = Answer(409, "A page that asks for the password of the account to link.", content_type=HTML)
_PROVIDER: Final = {"provider": "The name of the provider in the installation's settings, such as `google`."}

BEGIN_SSO: Final = Operation(
    "GET",
    "/sso",
    "Log in with the identity provider",
    (
        Answer(200, "A page to choose from several providers.", content_type=HTML),
        _TO_PROVIDER,
        *_PAGES,
    ),
    description="For browsers: OpenID Connect. The first login creates an account, unless a user has confirmed the "
    "same address: then it asks once for the password of that account.",
    access="anyone",
    query=SsoQuery,
    problems=_NO_PROVIDER,
)
END_SSO: Final = Operation(
    "GET",
    "/sso/callback",
    "Come back from the identity provider",
    (_LOGGED_IN, _LINK, *_PAGES),
    access="anyone",
    query=SsoAnswer,
    problems=_NO_PROVIDER,
)
LIST_PROVIDERS: Final = Operation(
    "GET",
    "/sso/providers",
    "List the identity providers",
    (Answer(200, "Those that users can log in with; it may be cached for a minute.", OfferedLogins),),
    access="anyone",
)
BEGIN_NAMED_SSO: Final = Operation(
    "GET",
    "/sso/{provider}",
    "Log in with one of several identity providers",
    (_TO_PROVIDER, *_PAGES),
    description="As `GET /sso`.",
    access="anyone",
    parameters=_PROVIDER,
    query=SsoQuery,
    problems=_NO_PROVIDER,
)
END_NAMED_SSO: Final = Operation(
    "GET",
    "/sso/{provider}/callback",
    "Come back from one of several identity providers",
    (_LOGGED_IN, _LINK, *_PAGES),
    access="anyone",
    parameters=_PROVIDER,
    query=SsoAnswer,
    problems=_NO_PROVIDER,
)
PROXY_SSO: Final = Operation(
    "GET",
    "/sso/proxy",
    "Log in with the header of a proxy",
    (
        _LOGGED_IN,
        Answer(
            409,
            "A page that asks for the password of the account to link.",
            content_type=HTML,
            headers={"Set-Cookie": "What the form needs; for ten minutes."},
        ),
        Answer(403, "A page that says why you cannot log in.", content_type=HTML),
    ),
    description="For browsers, if a proxy in front has authenticated the user and sends the address in a header "
    "(`PROXY_LOGIN_HEADER`). The first login creates an account, as with `GET /sso`.",
    access="anyone",
    query=SsoQuery,
    problems={404: "No proxy logs users in here."},
)
LINK_SSO: Final = Operation(
    "POST",
    "/sso/link",
    "Link an account to the one at the identity provider or the proxy",
    (
        _LOGGED_IN,
        *_PAGES,
        Answer(409, "A page: the account was changed at the same time.", content_type=HTML),
    ),
    description="The form of the page that `GET /sso/callback` or `GET /sso/proxy` answers with.",
    access="anyone",
    body=Body({FORM: LinkForm}),
    problems={404: "This installation has neither an identity provider nor a proxy that logs users in."},
)
