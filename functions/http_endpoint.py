"""What every HTTP function needs: routes, JSON, errors as problem+json (RFC 9457), and the client's address.

The server, infra/serve.py, drains the unread body of a refused request, so no handler has to.
"""

import functools
import ipaddress
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeVar

import msgspec
from flask import Request, Response
from werkzeug.exceptions import (
    HTTPException,
    RequestEntityTooLarge,
    RequestHeaderFieldsTooLarge,
    RequestURITooLarge,
)
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.routing import Map, RequestRedirect, Rule

from events.errors import Mp3burstError
from functions import rate_limits, security_log
from functions.auth.tokens import Identity
from functions.operation import JSON, PROBLEM, Checked, Operation, Problem, check
from functions.rate_limits import RateLimit
from functions.settings import BadSetting
from functions.shares import Shares

#: Gets the request and the path's arguments.
Handler = Callable[..., Response]
T = TypeVar("T", bound=msgspec.Struct)

#: The largest JSON request, in bytes.
JSON_LIMIT: Final = 64 << 10
#: Brackets and commas in a JSON request, those in texts included: shorter requests cannot have as many. Each may stand
#: for a value that takes 60 bytes or more of memory.
_MAX_VALUES: Final = JSON_LIMIT
#: The longest header field and the longest path with its query, in bytes. gunicorn has the same limit per line, but
#: joins up to 100 lines of the same field.
_FIELD_LIMIT: Final = 8 << 10
#: Proxies that a request may have passed; addresses before them are ignored.
_MAX_HOPS: Final = 16
#: Below it, every whole number has a float of its own.
_EXACT: Final = 1 << 53
#: Trusted as proxies by default: loopback, the private networks of RFC 1918, carrier-grade NAT (RFC 6598), link-local,
#: and the IPv6 counterparts.
PRIVATE_NETWORKS: Final = (
    "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,169.254.0.0/16,::1/128,fc00::/7"
)
#: Statuses from 500 on whose messages are for the user.
_USER_FACING: Final = (503, 507)
#: The key of a request's environ that has the username, once it is authenticated.
_USER: Final = "mp3burst.user"
#: The key that has the limits to tell the client of, by name.
_LIMITS: Final = "mp3burst.limits"
#: The key that has the scope of the request's operation.
_SCOPE: Final = "mp3burst.scope"
#: Of every response that does not set them itself: browsers neither cache, sniff, embed nor run anything, and tell no
#: other site the URL, which may have a link's token in it.
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_INTERNAL_ERROR: Final = "Something went wrong on our side: try again later."
_NOT_FOUND: Final = "There is nothing at this address: check the path."
#: Seconds after which a client may retry, if the error does not say.
_RETRY_AFTER: Final = 5
log = logging.getLogger(__name__)


class BadRequest(Mp3burstError):
    """The request is malformed."""

    status = 400


class RequestTooSlow(Mp3burstError):
    """The client sent the request's body too slowly and was disconnected."""

    status = 408

    def __init__(self) -> None:
        """Uses the one message there is for it."""
        super().__init__("The request arrived too slowly: try again on a faster connection.")


class Unprocessable(Mp3burstError):
    """The request is well-formed, but its values are invalid; ``fields`` maps each invalid field to the reason."""

    status = 422

    def __init__(self, message: str, fields: Mapping[str, str]) -> None:
        super().__init__(message)
        self.fields = dict(fields)

    @classmethod
    def naming(cls, faults: Mapping[str, str]) -> Self:
        """Returns the error whose message names all fields with what is wrong with them."""
        message = "; ".join(f"{field} {fault}" for field, fault in faults.items())
        return cls(f"Correct the following and try again: {message}.", faults)


class Routes:
    """The operations of one HTTP function."""

    def __init__(self, handlers: Mapping[Operation, Handler]) -> None:
        """Creates routes from operations to their handlers, which get the parameters of the path by name."""
        rules = []
        for index, operation in enumerate(handlers):
            path = operation.path.replace("{", "<").replace("}", ">")
            rules.append(Rule(path, methods=[operation.method], endpoint=str(index)))
        self._map = Map(rules, strict_slashes=False, merge_slashes=False)
        self._handlers = list(handlers.values())
        self.operations = tuple(handlers)

    def answer(self, request: Request) -> Response:
        """Returns the handler's response, or a problem response for any error."""
        try:
            _check_size(request.environ)
            endpoint, arguments = self._map.bind_to_environ(request.environ).match()
            request.environ[_SCOPE] = self.operations[int(endpoint)].scope
            response = self._handlers[int(endpoint)](request, **arguments)
        except RequestRedirect:
            response = problem(404, _NOT_FOUND)
        except HTTPException as error:
            response = _http_problem(error)
        except Mp3burstError as error:
            _log_refusal(request, error)
            response = _problem(request, error)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = problem(500, _INTERNAL_ERROR)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.update(rate_limits.headers(request.environ.get(_LIMITS, {}).values()))
        return response


def problem(status: int, message: str, errors: Mapping[str, str] | None = None) -> Response:
    """Returns an error as application/problem+json (RFC 9457); ``errors`` has what is wrong with each invalid field."""
    title = HTTP_STATUS_CODES.get(status, "Error")
    body = Problem("about:blank", title, status, message, dict(errors) if errors else None)
    response = Response(msgspec.json.encode(body), status, content_type=PROBLEM)
    if status == 503:
        # By it the gateway tells this answer from Knative's own, which it replaces.
        response.headers["X-Problem"] = json.dumps(msgspec.to_builtins(body))
    return response


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Returns the value, such as a struct, as a JSON response with further headers."""
    return Response(msgspec.json.encode(value), status, headers, content_type=JSON)


def read_query(request: Request, type_: type[T]) -> T:
    """Returns the request's query; of a parameter that is repeated, the first.

    Raises:
        Unprocessable: parameters are missing or invalid; the error names all of them.
    """
    return _valid(type_, check(type_, request.args.to_dict(), strict=False))


def read_json(request: Request, type_: type[T], limit: int = JSON_LIMIT) -> T:
    """Returns the request's body, a JSON object of at most ``limit`` bytes.

    Raises:
        BadRequest: as in ``json_object``.
        Unprocessable: fields are missing or invalid; the error names all of them.
    """
    return _valid(type_, check(type_, json_object(request, limit)))


def _valid(type_: type[T], checked: Checked) -> T:
    if checked.faults:
        raise Unprocessable.naming(checked.faults)
    return type_(**checked.values)


def iso_time(milliseconds: int | None) -> str | None:
    """Returns milliseconds since 1970 as a time of ISO 8601, such as 2026-11-26T16:10:00.123Z; None for None."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_object(request: Request, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """Returns the request's body, a JSON object.

    Raises:
        BadRequest: it is not a JSON object, is larger than ``limit`` bytes, or has too many values.
    """
    request.max_content_length = limit
    try:
        data = request.get_data(cache=False)
        if sum(map(data.count, (b"[", b"{", b","))) > _MAX_VALUES:
            raise BadRequest("The request has too many values: send fewer.")
        value = json.loads(data, parse_float=_number)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # fails for half a surrogate pair, which is no text
    except RequestEntityTooLarge as error:
        raise BadRequest(f"The request is too large: send a JSON object of at most {limit >> 10} KiB.") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest("The request is not valid JSON: send a JSON object.") from error
    if not isinstance(value, dict):
        raise BadRequest("The request is not a JSON object: send one.")
    return value


def _number(text: str) -> float:
    """Returns a number with a point or an exponent, as an integer if it is whole: 60.0 is one for JSON Schema."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def identify(request: Request, environ: Mapping[str, str], *, is_cached: bool = True) -> Identity:
    """Returns the identity in the request's token, API key or cookie, and notes it for the security log.

    Args:
        request: the request; an API key must have the scope of its operation.
        environ: the environment.
        is_cached: whether an answer of the database that is a few seconds old will do.

    Raises:
        NotAuthenticated, TooManyUnknownKeys, DatabaseUnavailable: as in ``Identification.identify``.
        ScopeMissing: the key does not have the scope.
        ForeignOrigin: the request has the cookie of a session and comes from another site.
        BadSetting: as in ``identification``.
    """
    # Imported here because it needs the database, which would slow down every start of validate.
    from functions.auth.identification import MAX_AGE, identification
    from functions.auth.sessions import cookie_name, require_own_origin

    authorization = request.headers.get("Authorization")
    if authorization is None and (token := request.cookies.get(cookie_name(environ))):
        sent = request.headers
        wsgi = request.environ
        # Not request.method, which ignores that a function has applied X-HTTP-Method-Override.
        require_own_origin(wsgi["REQUEST_METHOD"], sent.get("Origin"), sent.get("Sec-Fetch-Site"), environ)
        authorization = f"Bearer {token}"
    max_age = MAX_AGE if is_cached else 0
    address = client_address(request, environ)
    identity = identification(environ).identify(authorization, address, max_age)
    request.environ[_USER] = identity.username
    identity.require(request.environ.get(_SCOPE))
    return identity


def prepare_to_identify() -> None:
    """Does what the first ``identify`` would wait for. Functions that call it have this done before."""
    import jwt  # noqa: F401 - verifying a token imports it

    from functions.auth.identification import identification
    from functions.state.database import shared

    shared(os.environ).connect()
    identification(os.environ)


def client_address(request: Request, environ: Mapping[str, str]) -> str:
    """Returns the address closest to us that is not one of our proxies.

    Every proxy appends the address that called it, so the right end of X-Forwarded-For is trustworthy and the left
    end is whatever the client sent. If every address is a proxy's, the client is on our own network, and the farthest
    hop is returned.

    Args:
        request: the request as it arrived.
        environ: ``TRUSTED_PROXIES``, networks separated by commas; PRIVATE_NETWORKS by default.
    """
    return nearest_client(request.remote_addr or "", request.headers.get("X-Forwarded-For", ""), environ)


def nearest_client(remote: str, forwarded: str, environ: Mapping[str, str]) -> str:
    """Returns what ``client_address`` does, for a connection from ``remote`` with this ``X-Forwarded-For``."""
    trusted = parse_networks(environ.get("TRUSTED_PROXIES") or PRIVATE_NETWORKS, "TRUSTED_PROXIES")
    nearest = remote
    for hop in _hops(remote, forwarded):
        nearest = hop
        if not _is_in(hop, trusted):
            break
    return nearest


def came_through(request: Request, networks: str, environ: Mapping[str, str]) -> bool:
    """Returns whether a proxy in one of these networks has passed the request on to ours.

    Args:
        request: the request as it arrived. What has called us directly is our own gateway and not the proxy.
        networks: separated by commas.
        environ: ``TRUSTED_PROXIES``; if it is not set, no address is trusted.
    """
    proxies = parse_networks(networks, "PROXY_LOGIN_NETWORKS")
    gateway, *others = _hops(request.remote_addr or "", request.headers.get("X-Forwarded-For", "")) or [""]
    if not is_trusted_proxy(gateway, environ):
        return False
    for hop in others:
        if _is_in(hop, proxies):
            return True
        if not is_trusted_proxy(hop, environ):
            break
    return False


def _hops(remote: str, forwarded: str) -> list[str]:
    """Returns the addresses that a request has passed, nearest first, up to the first that is no address."""
    found = []
    for hop in [remote, *reversed(forwarded[-_FIELD_LIMIT:].split(",")[-_MAX_HOPS:])]:
        try:
            ipaddress.ip_address(hop.strip())
        except ValueError:
            break
        found.append(hop.strip())
    return found


def is_trusted_proxy(address: str, environ: Mapping[str, str]) -> bool:
    """Returns whether ``TRUSTED_PROXIES`` contains the address; if it is not set, no address is trusted."""
    text = environ.get("TRUSTED_PROXIES", "")
    return bool(text) and bool(address) and _is_in(address, parse_networks(text, "TRUSTED_PROXIES"))


@functools.cache
def parse_networks(text: str, setting: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Returns the networks in a setting of this name.

    Raises:
        BadSetting: it is not networks, separated by commas.
    """
    try:
        return tuple(ipaddress.ip_network(network.strip()) for network in text.split(","))
    except ValueError as error:
        raise BadSetting(f"{setting} must be networks such as 10.0.0.0/8, separated by commas.") from error


def _is_in(address: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in networks)


def _check_size(wsgi: Mapping[str, Any]) -> None:
    """Raises 431 or 414 for a header field, or a path with its query, that is too long. Nothing has parsed it yet."""
    for name, value in wsgi.items():
        if name.startswith(("HTTP_", "CONTENT_")) and len(value) > _FIELD_LIMIT:
            raise RequestHeaderFieldsTooLarge("A header field is too long: send shorter ones.")
    if len(wsgi.get("PATH_INFO", "")) + len(wsgi.get("QUERY_STRING", "")) > _FIELD_LIMIT:
        raise RequestURITooLarge("The address is too long: send a shorter path or query.")


def tell_limit(request: Request, limit: RateLimit) -> None:
    """Tells the client of a limit, whatever the response will be."""
    request.environ.setdefault(_LIMITS, {})[limit.name] = limit


def take_share(request: Request, user: str, shares: Shares) -> Callable[[], None]:
    """Counts a transfer of the user and tells the client of the limit; returns what ends it, as ``Shares.take``.

    Raises:
        TooManyRequests: the user or the client's network has its share.
    """
    address = client_address(request, os.environ)
    end = shares.take(user, address)
    tell_limit(request, shares.limit(user, address))
    return end


def _log_refusal(request: Request, error: Mp3burstError) -> None:
    """Writes a line to the security log if the error's class has a ``security_event``."""
    if event := getattr(error, "security_event", None):
        reason = getattr(error, "reason", None)
        details = {"reason": reason} if reason else {}
        user = request.environ.get(_USER)
        security_log.record(event, user=user, address=client_address(request, os.environ), **details)


def _problem(request: Request, error: Mp3burstError) -> Response:
    if error.status >= 500:
        # An internal error's message may describe settings, which the user cannot change.
        log.error("%s %s: %s", request.method, request.path, error, exc_info=error)
        response = problem(error.status, str(error) if error.status in _USER_FACING else _INTERNAL_ERROR)
    else:
        response = problem(error.status, str(error), getattr(error, "fields", None))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="mp3burst"'
    tell_wait(request, response, error)
    return response


def tell_wait(request: Request, response: Response, error: Mp3burstError) -> None:
    """Tells the client of the limits that an error is about, and after how many seconds to try again."""
    for limit in getattr(error, "limits", ()):
        tell_limit(request, limit)
    retry_after = getattr(error, "retry_after", _RETRY_AFTER if error.status == 503 else None)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)


def _http_problem(error: HTTPException) -> Response:
    messages = {404: _NOT_FOUND, 405: "This address does not support the method: use one that the Allow header lists."}
    status = error.code or 500
    response = problem(status, messages.get(status) or error.description or "The request was rejected.")
    if methods := getattr(error, "valid_methods", None):
        response.headers["Allow"] = ", ".join(sorted(methods))
    return response
