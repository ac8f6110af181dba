"""Issues tokens for passwords, or by an identity provider or a proxy, and publishes the keys that verify them."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

import functions_framework
import msgspec
from flask import Request, Response

from functions import security_log
from functions.auth.accounts import Accounts, WrongCredentials
from functions.auth.authentication import authenticate
from functions.auth.external_logins import ExternalLogins
from functions.auth.sessions import Sessions, cookie, require_own_origin
from functions.auth.throttle import Throttle
from functions.auth.tokens import Signer, verifier
from functions.http_endpoint import Routes, client_address, json_response, read_query
from functions.login import api, sso
from functions.login.provider import Providers
from functions.login.proxy import ProxyLogin
from functions.shares import Shares
from functions.state.database import shared
from functions.warm_up import before_first_request


@functions_framework.http
def login(request: Request) -> Response:
    """Handles POST /login, /sso and GET /.well-known/jwks.json."""
    return _ROUTES.answer(request)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The tables and keys that login uses."""

    accounts: Accounts
    throttle: Throttle
    signer: Signer
    sessions: Sessions


def _login(request: Request) -> Response:
    address = client_address(request, os.environ)
    credentials = request.authorization
    if credentials is None or credentials.type != "basic" or not credentials.username or credentials.password is None:
        security_log.record("login.failed", address=address, reason="missing")
        raise WrongCredentials("Send your username and password with HTTP Basic authentication.")
    wants_cookie = read_query(request, api.LoginQuery).cookie
    if wants_cookie:
        sent = request.headers
        require_own_origin(request.method, sent.get("Origin"), sent.get("Sec-Fetch-Site"), os.environ)
    agent = request.headers.get("User-Agent", "")
    issued = log_in(credentials.username, credentials.password, address, dependencies(), agent)
    if not wants_cookie:
        return json_response(issued)
    headers = {"Set-Cookie": cookie(issued.token or "", issued.expires_in, os.environ)}
    return json_response(api.Token(None, issued.expires_in), headers=headers)


def log_in(username: str, password: str, address: str, deps: Dependencies, agent: str = "") -> api.Token:
    """Returns a token for the user with these credentials.

    Args:
        username: as typed.
        password: as typed.
        address: the client's.
        deps: the dependencies.
        agent: what the client says it is.

    Raises:
        WrongCredentials: there is no such user, or the password is wrong.
        TooManyFailures: too many logins failed for this account or from this address.
        AccountLocked: an administrator keeps the user out.
    """
    user = authenticate(username, password, address, deps.accounts, deps.throttle)
    token = deps.sessions.begin(user, deps.signer, agent, address)
    security_log.record("login.succeeded", user=user.username, address=address, method="password")
    return api.Token(token, deps.signer.seconds)


def _keys(_: Request) -> Response:
    headers = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=300"}
    keys = msgspec.convert(verifier(os.environ).jwks, list[api.PublicKey])
    return json_response(api.KeySet(keys), headers=headers)


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process."""
    database = shared(os.environ)
    return Dependencies(Accounts(database), Throttle(database), Signer.from_environ(os.environ), Sessions(database))


@functools.cache
def sso_dependencies() -> sso.Dependencies:
    """Builds the dependencies of logins by the identity provider or a proxy from the environment, once per process."""
    deps = dependencies()
    return sso.Dependencies(
        providers=Providers.from_environ(os.environ),
        proxy=ProxyLogin.from_environ(os.environ),
        logins=ExternalLogins(shared(os.environ)),
        accounts=deps.accounts,
        throttle=deps.throttle,
        signer=deps.signer,
        sessions=deps.sessions,
        verifier=verifier(os.environ),
        shares=Shares.of_logins(os.environ),
    )


def _sso(handler: Callable[..., Response]) -> Callable[..., Response]:
    return sso.for_people(lambda request, **path: handler(request, sso_dependencies(), **path))


@before_first_request
def _connect() -> None:
    shared(os.environ).connect()


_ROUTES = Routes(
    {
        api.LOGIN: _login,
        api.KEYS: _keys,
        api.BEGIN_SSO: _sso(sso.begin),
        api.END_SSO: _sso(sso.end),
        api.LIST_PROVIDERS: lambda request: sso.offered(request, sso_dependencies()),
        api.BEGIN_NAMED_SSO: _sso(sso.begin),
        api.END_NAMED_SSO: _sso(sso.end),
        api.PROXY_SSO: _sso(sso.by_proxy),
        api.LINK_SSO: _sso(sso.link),
    }
)
