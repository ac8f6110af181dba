"""Logs browsers in by the identity provider (OpenID Connect), or by a proxy in front that has authenticated the user.

Between two requests of a login, the browser has a signed ticket in a cookie, so any instance can end what another
began. It is valid for ten minutes and for this browser only.
"""

import contextlib
import hmac
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlencode

from flask import Request, Response

from events.errors import Mp3burstError, TryAgain
from functions import security_log
from functions.auth.accounts import Accounts, User, WrongCredentials
from functions.auth.authentication import authenticate
from functions.auth.external_logins import AccountExists, ExternalLogins, OtherAddress, Person
from functions.auth.sessions import (
    ForeignOrigin,
    Sessions,
    cookie,
    login_cookie,
    login_cookie_name,
    require_own_origin,
)
from functions.auth.throttle import Throttle, TooManyFailures
from functions.auth.tokens import AccountLocked, NotAuthenticated, Signer, Verifier
from functions.http_endpoint import JSON_LIMIT, client_address, json_response, read_query, tell_wait
from functions.login import api
from functions.login.provider import Begun, LoginExpired, LoginRefused, Provider, Providers
from functions.login.proxy import PROVIDER, NoProxyLogin, ProxyLogin
from functions.pages import CREDENTIALS, choice_page, page
from functions.shares import Shares, TooManyRequests
from functions.state.database import Conflict

#: Seconds that a user may stay at the identity provider, or take to type a password.
_SECONDS: Final = 600
#: What tickets are for.
_BEGUN: Final = "sso-begun"
_PERSON: Final = "sso-person"
#: Paths of our own, where a browser may go on after a login.
_PATH: Final = re.compile(r"/(?:[\w.~%-][\w./~%?=&-]*)?", re.ASCII)
_DEFAULT_PATH: Final = "/docs"
#: What a person reads as a page; anything else is an internal error.
_FOR_PEOPLE: Final = (
    AccountLocked,
    Conflict,
    ForeignOrigin,
    LoginRefused,
    OtherAddress,
    TooManyFailures,
    TooManyRequests,
    TryAgain,
)
_NO_PROVIDER: Final = "There is no such identity provider here: log in with a username and a password."
log = logging.getLogger(__name__)


class NoProvider(Mp3burstError):
    """The installation has no such identity provider."""

    status = 404


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What logins by an identity provider or a proxy use.

    Attributes:
        providers: the identity providers.
        proxy: the proxy that logs users in; None without one.
        logins: who logs in as whom.
        accounts: the users with their passwords.
        throttle: limits guesses of passwords.
        signer: signs tokens and tickets.
        sessions: the logins of users.
        verifier: verifies tickets.
        shares: limits how many requests call a provider at once, and how many of one network, so that a provider that
            does not respond leaves threads to all other logins.
    """

    providers: Providers
    proxy: ProxyLogin | None
    logins: ExternalLogins
    accounts: Accounts
    throttle: Throttle
    signer: Signer
    sessions: Sessions
    verifier: Verifier
    shares: Shares


def begin(request: Request, deps: Dependencies, provider: str = "") -> Response:
    """Sends the browser to the identity provider with this name, or asks for one of several."""
    to = read_query(request, api.SsoQuery).to
    found = deps.providers.find(provider)
    if found is None and not provider and (several := deps.providers.choice()):
        query = f"?{urlencode({'to': to})}" if to else ""
        return choice_page("Log in", "Choose with what:", {f"{each.path}{query}": each.title for each in several})
    found = _required(found)
    begun = Begun.new()
    with _share(request, found, deps):
        headers = {"Location": found.address_for(begun)}
    content = {**asdict(begun), "path": found.path, "to": to}
    return _with_ticket(Response(status=302, headers=headers), deps, _BEGUN, content)


def offered(_: Request, deps: Dependencies) -> Response:
    """Lists how users can log in without a password; no provider is called."""
    found = [
        api.OfferedProvider(name, each.title or None, each.path) for name, each in deps.providers.by_name().items()
    ]
    headers = {"Cache-Control": "public, max-age=60"}
    return json_response(api.OfferedLogins(found, deps.proxy is not None), headers=headers)


def end(request: Request, deps: Dependencies, provider: str = "") -> Response:
    """Logs in whom the identity provider with this name has sent back, or asks for the password of an account to link.

    A response counts only for the provider that the browser was sent to (RFC 9700, 4.4).
    """
    found = _required(deps.providers.find(provider))
    answer = read_query(request, api.SsoAnswer)
    ticket = _ticket(request, deps, _BEGUN)
    to = ticket.pop("to")
    path = ticket.pop("path", "/sso")  # the version before had only this one
    begun = Begun(**ticket)
    if path != found.path or not hmac.compare_digest(answer.state.encode(), begun.state.encode()):
        raise LoginExpired
    if answer.error or (answer.iss and answer.iss != found.issuer):
        raise LoginRefused("The identity provider has refused the login: begin again, or ask who runs it.", "provider")
    with _share(request, found, deps):
        person = found.person(answer.code, begun)
    return _log_in(request, person, to, deps, creates=found.creates)


def by_proxy(request: Request, deps: Dependencies) -> Response:
    """Logs in whom the proxy in front has authenticated, or asks for the password of an account to link."""
    if deps.proxy is None:
        raise NoProxyLogin("No proxy logs users in here: log in with a username and a password.")
    to = read_query(request, api.SsoQuery).to
    person = deps.proxy.person(request)
    # A page of another site could load this address as an image or a frame, again and again. Old browsers do not tell.
    if request.headers.get("Sec-Fetch-Dest", "document") != "document":
        raise LoginRefused("A page has asked for this login, and not you: open this address yourself.", "embedded")
    return _log_in(request, person, to, deps, creates=deps.proxy.creates)


def _log_in(request: Request, person: Person, to: str, deps: Dependencies, *, creates: bool) -> Response:
    """Returns a page with the cookie of a session, or one that asks for the password of an account to link."""
    try:
        user = user_of(person, deps.logins, creates=creates)
    except AccountExists as error:
        return _with_ticket(_link_form(error), deps, _PERSON, {**person.as_dict(), "to": to})
    return _logged_in(request, person, user, to, deps)


def user_of(person: Person, logins: ExternalLogins, *, creates: bool) -> User:
    """Returns the user whom this person logs in as, whom the first login creates.

    Raises:
        AccountExists: a user has confirmed the person's address.
        LoginRefused: there is no account, and none is created.
    """
    user = logins.find(person)
    if user is not None:
        return user
    if not creates:
        raise LoginRefused("You have no account here: ask who runs this installation for one.", "unknown")
    return logins.create(person)


def link(request: Request, deps: Dependencies) -> Response:
    """Links the user whose password the form has to the account at the provider, and logs the user in."""
    if deps.proxy is None and not deps.providers:
        raise NoProvider(_NO_PROVIDER)
    sent = request.headers
    require_own_origin(request.method, sent.get("Origin"), sent.get("Sec-Fetch-Site"), os.environ)
    ticket = _ticket(request, deps, _PERSON)
    to = ticket.pop("to")
    request.max_content_length = JSON_LIMIT
    username = request.form.get("username", "")
    password = request.form.get("password", "")
    try:
        user = authenticate(username, password, client_address(request, os.environ), deps.accounts, deps.throttle)
    except WrongCredentials as error:
        return _link_form(error)
    person = Person(**ticket)
    deps.logins.link(person, user)
    _record(request, person, user, "login.linked")
    return _logged_in(request, person, user, to, deps)


def _link_form(reason: Mp3burstError) -> Response:
    """Returns the page that asks for the password of the account to link."""
    form = page("Link your account", str(reason), "/sso/link", "Link", fields=CREDENTIALS, status=reason.status)
    # The link needs the Origin of the form, which browsers withhold from pages without a referrer.
    form.headers["Referrer-Policy"] = "same-origin"
    return form


def for_people(handler: Callable[..., Response]) -> Callable[..., Response]:
    """Wraps a handler for browsers: what prevents the login gets a page, not JSON."""

    def answer(request: Request, **path: str) -> Response:
        try:
            return handler(request, **path)
        except _FOR_PEOPLE as error:
            event = getattr(error, "security_event", "login.failed")
            reason = getattr(error, "reason", "unavailable")
            security_log.record(event, address=client_address(request, os.environ), reason=reason)
            if error.status >= 500:
                log.error("%s %s: %s", request.method, request.path, error, exc_info=error)
            response = page("You are not logged in", str(error), status=error.status)
            tell_wait(request, response, error)
            return response

    return answer


def _required(provider: Provider | None) -> Provider:
    if provider is None:
        raise NoProvider(_NO_PROVIDER)
    return provider


@contextlib.contextmanager
def _share(request: Request, provider: Provider, deps: Dependencies) -> Iterator[None]:
    """Counts a call to the provider.

    Raises:
        TooManyRequests: too many are in progress.
    """
    end = deps.shares.take(provider.path, client_address(request, os.environ))
    try:
        yield
    finally:
        end()


def _with_ticket(response: Response, deps: Dependencies, purpose: str, content: dict[str, Any]) -> Response:
    ticket = deps.signer.sign_ticket(purpose, content, _SECONDS)
    response.headers["Set-Cookie"] = login_cookie(ticket, _SECONDS, os.environ)
    return response


def _ticket(request: Request, deps: Dependencies, purpose: str) -> dict[str, Any]:
    """Returns the content of the browser's ticket.

    Raises:
        LoginExpired: there is none, or none that is valid for this purpose.
    """
    try:
        return deps.verifier.verify_ticket(purpose, request.cookies.get(login_cookie_name(os.environ), ""))
    except NotAuthenticated as error:
        raise LoginExpired from error


def _logged_in(request: Request, person: Person, user: User, to: str, deps: Dependencies) -> Response:
    """Returns a page with the cookie of a session. Browsers send it from this page on, but not with a redirect.

    The browser has come from another site, and the cookie is for requests from our own (SameSite=Strict).
    """
    agent = request.headers.get("User-Agent", "")
    token = deps.sessions.begin(user, deps.signer, agent, client_address(request, os.environ))
    _record(request, person, user, "login.succeeded")
    response = page("You are logged in", "", to=to if _PATH.fullmatch(to) else _DEFAULT_PATH)
    response.headers.add("Set-Cookie", cookie(token, deps.signer.seconds, os.environ))
    response.headers.add("Set-Cookie", login_cookie("", 0, os.environ))
    return response


def _record(request: Request, person: Person, user: User, event: str) -> None:
    method = "proxy" if person.provider == PROVIDER else "sso"
    security_log.record(event, user=user.username, address=client_address(request, os.environ), method=method)
