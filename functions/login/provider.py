"""Identity providers: OpenID Connect, by the authorization code flow with PKCE (RFC 7636), state and nonce.

Authlib speaks OAuth and checks the claims of ID tokens, joserfc verifies their signatures. They and requests are
imported at the first login of this kind: most starts of the function do not need them.
"""

import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from events.errors import Mp3burstError, TryAgain
from functions.auth.external_logins import Person
from functions.auth.limits import CONTROLS, MAX_NAME
from functions.email_address import is_public
from functions.settings import BadSetting, required, switch

#: The names that providers may have in paths, and those that are other paths.
_NAME: Final = re.compile("[a-z0-9][a-z0-9-]{0,31}")
_PATHS: Final = ("callback", "link", "providers", "proxy")
#: Seconds for one request to the provider, and for which its metadata and keys are used.
_TIMEOUT: Final = 10
_MAX_AGE: Final = 3600.0
#: Seconds by which the provider's clock and ours may differ.
_CLOCK_SKEW: Final = 60
#: Of ID tokens. With HS256 whoever knows the client's secret could make them, and "none" needs no key at all.
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
#: Addresses that a provider's metadata must have (OpenID Connect Discovery 1.0, 3).
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


class ProviderUnavailable(TryAgain):
    """The identity provider does not respond, or responds with something else than the protocol says."""

    def __init__(self) -> None:
        """Uses the one message there is for it; the reason belongs in ``__cause__``."""
        super().__init__("The identity provider did not respond as expected: try again in a few minutes.")


class LoginRefused(Mp3burstError):
    """The identity provider, or what it says of the account, does not allow the login; ``reason`` is for the log."""

    status = 403

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class LoginExpired(LoginRefused):
    """The login was not begun in this browser, took too long, or has ended already."""

    status = 401

    def __init__(self) -> None:
        """Uses the one message there is for it."""
        super().__init__("This login took too long, has ended or was begun in another browser: begin again.", "expired")


@dataclass(frozen=True, slots=True)
class Begun:
    """What a login has to remember until the provider sends the browser back."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> Self:
        """Returns random values: 256 bits each."""
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))


class NamedProvider(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider in OIDC_PROVIDERS."""

    issuer: str
    client_id: Annotated[str, Meta(min_length=1)]
    client_secret: str = ""
    title: str = ""
    create_users: bool = True


@dataclass(slots=True)
class Provider:
    """An OpenID Connect provider, as one client of it sees it.

    Attributes:
        issuer: its address, as its ID tokens have it.
        client_id: our name there.
        client_secret: our password there; empty for a public client.
        redirect_uri: where it sends browsers back to.
        path: where logins with it begin.
        title: what users call it.
        creates: whether the first login of somebody creates an account.
    """

    issuer: str
    client_id: str
    client_secret: str
    redirect_uri: str
    path: str = "/sso"
    title: str = ""
    creates: bool = True
    _known: dict[str, tuple[float, dict[str, Any]]] = field(default_factory=dict)

    def address_for(self, begun: Begun) -> str:
        """Returns the address at the provider that the browser is sent to.

        Raises:
            ProviderUnavailable: its metadata cannot be read.
        """
        with self._session() as session:
            endpoint = self._metadata(session)["authorization_endpoint"]
            address, _ = session.create_authorization_url(
                endpoint, state=begun.state, nonce=begun.nonce, code_verifier=begun.verifier
            )
        return str(address)

    def person(self, code: str, begun: Begun) -> Person:
        """Redeems the code that the provider has sent the browser back with.

        Raises:
            LoginExpired: the code is not valid, was used already, or is for another login.
            LoginRefused: the account has no verified address.
            ProviderUnavailable: the provider does not respond as it should.
        """
        from authlib.integrations.base_client import OAuthError  # type: ignore[import-untyped]
        from joserfc.errors import JoseError
        from requests import RequestException

        try:
            with self._session() as session:
                metadata = self._metadata(session)
                token = session.fetch_token(
                    metadata["token_endpoint"],
                    grant_type="authorization_code",
                    auth=session.client_auth(self._method(metadata)),
                    code=code,
                    code_verifier=begun.verifier,
                )
                claims = self._claims(session, token, begun.nonce)
                if "email" not in claims and "userinfo_endpoint" in metadata:
                    more = _json(session.get(metadata["userinfo_endpoint"]))
                    # A response for another account could be substituted (OpenID Connect Core 1.0, 5.3.2).
                    claims = claims | more if more.get("sub") == claims["sub"] else claims
        except OAuthError as error:
            if error.error == "invalid_grant":
                raise LoginExpired from error
            raise ProviderUnavailable from error
        except (RequestException, JoseError, LookupError, ValueError, TypeError) as error:
            raise ProviderUnavailable from error
        return _person(self.issuer, claims)

    def _session(self) -> Any:
        from authlib.integrations.requests_client import OAuth2Session  # type: ignore[import-untyped]

        return OAuth2Session(
            self.client_id,
            self.client_secret or None,
            scope="openid email profile",
            redirect_uri=self.redirect_uri,
            code_challenge_method="S256",
            default_timeout=_TIMEOUT,
        )

    def _metadata(self, session: Any) -> dict[str, Any]:
        """Returns the metadata (OpenID Connect Discovery 1.0).

        Raises:
            ProviderUnavailable: it cannot be read, is another issuer's, or lacks an address that logins need.
        """
        metadata = self._fetched(session, f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if metadata.get("issuer") != self.issuer:
            raise ProviderUnavailable from ValueError(
                f"the issuer in the settings is {self.issuer}, but the provider there says {metadata.get('issuer')}"
            )
        for endpoint in _ENDPOINTS:
            if not _text(metadata, endpoint):
                raise ProviderUnavailable from ValueError(f"the metadata of {self.issuer} has no {endpoint}")
        return metadata

    def _method(self, metadata: Mapping[str, Any]) -> str:
        """Returns how the client proves who it is (OpenID Connect Core 1.0, 9)."""
        if not self.client_secret:
            return "none"
        basic = "client_secret_basic"
        supported = metadata.get("token_endpoint_auth_methods_supported", [basic])
        return basic if basic in supported else "client_secret_post"

    def _fetched(self, session: Any, url: str, max_age: float = _MAX_AGE) -> dict[str, Any]:
        """Returns a JSON object of the provider, as it was at most ``max_age`` seconds ago."""
        from requests import RequestException

        fetched_at, value = self._known.get(url, (0.0, {}))
        if not value or time.monotonic() >= fetched_at + max_age:
            try:
                value = _json(session.get(url, withhold_token=True))
            except (RequestException, ValueError) as error:
                raise ProviderUnavailable from error
            self._known[url] = (time.monotonic(), value)
        return value

    def _claims(self, session: Any, token: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """Returns the claims of the ID token (OpenID Connect Core 1.0, 3.1.3.7)."""
        from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
        from joserfc.errors import InvalidKeyIdError

        url = self._metadata(session)["jwks_uri"]
        try:
            decoded = _decoded(token["id_token"], self._fetched(session, url))
        except InvalidKeyIdError:  # the provider has a new key
            decoded = _decoded(token["id_token"], self._fetched(session, url, max_age=0))
        expected = {
            "iss": {"essential": True, "value": self.issuer},
            "aud": {"essential": True, "value": self.client_id},
        }
        params = {"nonce": nonce, "client_id": self.client_id, "access_token": token["access_token"]}
        claims = CodeIDToken(decoded.claims, decoded.header, expected, params)
        claims.validate(leeway=_CLOCK_SKEW)
        return dict(claims)


class Providers:
    """The identity providers of an installation."""

    def __init__(self, default: Provider | None, named: Mapping[str, Provider]) -> None:
        """Sets the provider of OIDC_ISSUER, and those of OIDC_PROVIDERS by their names."""
        self._default = default
        self._named = named

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Creates them from the variables OIDC_* and PUBLIC_URL.

        Raises:
            BadSetting: a variable is missing or invalid, or an issuer's address is not https.
        """
        default = None
        if issuer := environ.get("OIDC_ISSUER", ""):
            _check_issuer(issuer, "OIDC_ISSUER")
            client_id = required(environ, "OIDC_CLIENT_ID", "the name of mp3burst at the identity provider")
            secret = environ.get("OIDC_CLIENT_SECRET", "")
            creates = switch(environ, "OIDC_CREATE_USERS", default=True)
            default = Provider(issuer, client_id, secret, _redirect_uri(environ, "/sso"), creates=creates)
        named = {}
        for name, given in _configured(environ.get("OIDC_PROVIDERS", "")).items():
            if not _NAME.fullmatch(name) or name in _PATHS:
                raise BadSetting(
                    f"OIDC_PROVIDERS has the name {name!r}: use up to 32 lower-case letters, digits and hyphens, but "
                    f"not {', '.join(_PATHS)}."
                )
            _check_issuer(given.issuer, f"OIDC_PROVIDERS: the issuer of {name}")
            named[name] = Provider(
                given.issuer,
                given.client_id,
                given.client_secret,
                _redirect_uri(environ, f"/sso/{name}"),
                f"/sso/{name}",
                given.title or name,
                given.create_users,
            )
        return cls(default, named)

    def __bool__(self) -> bool:
        """Returns whether there are any."""
        return self._default is not None or bool(self._named)

    def find(self, name: str) -> Provider | None:
        """Returns the provider with this name; for an empty one that of OIDC_ISSUER, or else the only one there is."""
        if name:
            return self._named.get(name)
        if self._default is None and len(self._named) == 1:
            return next(iter(self._named.values()))
        return self._default

    def choice(self) -> list[Provider]:
        """Returns those that users may choose from."""
        return list(self._named.values())

    def by_name(self) -> dict[str, Provider]:
        """Returns all providers by their names, that of OIDC_ISSUER first, under the empty name."""
        default = {} if self._default is None else {"": self._default}
        return {**default, **self._named}


def _configured(text: str) -> dict[str, NamedProvider]:
    if not text:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, NamedProvider])
    except msgspec.MsgspecError as error:
        raise BadSetting(f"OIDC_PROVIDERS must be JSON as docs/security.md describes it: {error}.") from error


def _check_issuer(issuer: str, setting: str) -> None:
    url = urlsplit(issuer)
    is_local = url.scheme == "http" and url.hostname in _LOCAL
    if not url.hostname or (url.scheme != "https" and not is_local):
        raise BadSetting(f"{setting} is {issuer!r}: it must be an address that begins with https://.")


def _redirect_uri(environ: Mapping[str, str], path: str) -> str:
    public = required(environ, "PUBLIC_URL", "the URL at which users reach mp3burst")
    return f"{public.rstrip('/')}{path}/callback"


def _decoded(id_token: str, jwks: Any) -> Any:
    from joserfc import jwt
    from joserfc.jwk import KeySet
    from joserfc.jws import JWSRegistry

    registry = JWSRegistry(algorithms=_ALGORITHMS, strict_check_header=False)
    return jwt.decode(id_token, KeySet.import_key_set(jwks), registry=registry)


def _json(response: Any) -> dict[str, Any]:
    """Returns the JSON object of a response.

    Raises:
        requests.RequestException: the status is that of an error.
        ValueError: it is something else.
    """
    response.raise_for_status()
    value = json.loads(response.content)
    if not isinstance(value, dict):
        raise ValueError(f"{response.url} has sent no JSON object")
    return value


def _person(issuer: str, claims: Mapping[str, Any]) -> Person:
    """Returns who has logged in.

    Raises:
        ProviderUnavailable: the provider does not say which account it is.
        LoginRefused: the account has no verified address.
    """
    subject = _text(claims, "sub")
    if not subject:
        raise ProviderUnavailable from ValueError(f"{issuer} has sent an account without an id")
    email = _text(claims, "email").strip()
    if claims.get("email_verified") is not True or not is_public(email):
        raise LoginRefused(
            "Your identity provider does not confirm an email address of yours: confirm it there, and log in again.",
            "unverified",
        )
    name = CONTROLS.sub("", _text(claims, "name") or _text(claims, "preferred_username")).strip()
    return Person(issuer, subject, email, (name or email.partition("@")[0])[:MAX_NAME])


def _text(values: Mapping[str, Any], name: str) -> str:
    """Returns a value that is text; an empty text if it is missing or something else."""
    value = values.get(name)
    return value if isinstance(value, str) else ""
