"""Logins by a header of a proxy in front, such as Authelia, that has authenticated the user.

Whoever can send the header to this function is whoever they say. So it counts only if the request has the secret that
the proxy adds, and came through the proxy by the addresses that each hop has appended to X-Forwarded-For. Addresses
alone prove little: Docker and Kubernetes may show strangers under one of their own. The gateway and the embedded
platform's ingress drop the header unless a proxy is in front.
"""

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Final, Self

from flask import Request

from events.errors import Mp3burstError
from functions.auth.external_logins import Person
from functions.auth.limits import CONTROLS, MAX_NAME
from functions.email_address import is_public
from functions.http_endpoint import came_through, parse_networks
from functions.login.provider import LoginRefused
from functions.settings import BadSetting, required, switch

#: The headers that have an address, and those with the name that belongs to it. A proxy that sets the first replaces
#: what the client has sent in it. functions/gateway/nginx.conf has the same list.
HEADERS: Final[Mapping[str, str]] = {
    "Remote-Email": "Remote-Name",
    "X-Authentik-Email": "X-Authentik-Name",
    "X-Forwarded-Email": "X-Forwarded-Preferred-Username",
    "X-Auth-Request-Email": "X-Auth-Request-Preferred-Username",
    "X-Pomerium-Claim-Email": "X-Pomerium-Claim-Name",
    "Tailscale-User-Login": "Tailscale-User-Name",
    "Cf-Access-Authenticated-User-Email": "",
}
#: The header in which the proxy sends the secret.
SECRET_HEADER: Final = "Proxy-Login-Secret"  # noqa: S105 - the name of a header
_MIN_SECRET_BYTES: Final = 32
#: What stands for the proxy in the rows of external logins. Another proxy, or another header, has the same users.
PROVIDER: Final = "proxy"


class NoProxyLogin(Mp3burstError):
    """The installation has no proxy that logs users in."""

    status = 404


@dataclass(frozen=True, slots=True)
class ProxyLogin:
    """How a proxy says who sends a request.

    Attributes:
        header: the header that has the address, one of HEADERS.
        secret: what SECRET_HEADER must have.
        networks: the proxy's addresses: networks, separated by commas.
        creates: whether the first login of somebody creates an account.
    """

    header: str
    secret: str = field(repr=False)
    networks: str
    creates: bool

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self | None:
        """Creates it from the variables PROXY_LOGIN_* and TRUSTED_PROXIES.

        Returns:
            None if PROXY_LOGIN_HEADER is not set.

        Raises:
            BadSetting: a variable is missing or invalid.
        """
        wanted = environ.get("PROXY_LOGIN_HEADER", "")
        if not wanted:
            return None
        header = next((each for each in HEADERS if each.lower() == wanted.lower()), None)
        if header is None:
            raise BadSetting(f"PROXY_LOGIN_HEADER is {wanted!r}: it must be one of {', '.join(HEADERS)}.")
        secret = required(environ, "PROXY_LOGIN_SECRET", f"what the proxy sends in the header {SECRET_HEADER}")
        if len(secret.encode()) < _MIN_SECRET_BYTES:
            raise BadSetting(
                f"PROXY_LOGIN_SECRET is too short: it must have {_MIN_SECRET_BYTES} bytes or more, "
                "such as those of `openssl rand -hex 32`."
            )
        networks = required(environ, "PROXY_LOGIN_NETWORKS", "the addresses of the proxy that logs users in")
        parse_networks(networks, "PROXY_LOGIN_NETWORKS")
        # By default all private networks are trusted, and a client there could pretend to be a proxy.
        trusted = required(environ, "TRUSTED_PROXIES", "the networks of the proxies in front, without those of clients")
        parse_networks(trusted, "TRUSTED_PROXIES")
        return cls(header, secret, networks, switch(environ, "PROXY_LOGIN_CREATE_USERS", default=True))

    def person(self, request: Request) -> Person:
        """Returns whom the proxy has authenticated.

        Raises:
            LoginRefused: the request did not come through the proxy, or the header has no address.
        """
        has_secret = hmac.compare_digest(_text(request.headers.get(SECRET_HEADER, "")).encode(), self.secret.encode())
        if not has_secret or not came_through(request, self.networks, os.environ):
            raise LoginRefused("This request did not come through the proxy that logs you in: use its address.", "path")
        email = _text(request.headers.get(self.header, "")).strip()
        if not is_public(email):
            raise LoginRefused("The proxy has sent no email address of yours: ask who runs it.", "address")
        name = CONTROLS.sub("", _decoded(_text(request.headers.get(HEADERS[self.header], "")))).strip()
        return Person(PROVIDER, email.lower(), email, (name or email.partition("@")[0])[:MAX_NAME])


def _text(value: str) -> str:
    """Returns the text of a header that is UTF-8; WSGI decodes headers as Latin-1 (PEP 3333)."""
    try:
        return value.encode("latin-1").decode()
    except ValueError:
        return value


def _decoded(text: str) -> str:
    """Returns a text without the encoded words that may stand for other characters (RFC 2047)."""
    try:
        return str(make_header(decode_header(text)))
    except (ValueError, LookupError, HeaderParseError):
        return text
