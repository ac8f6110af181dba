"""From an HTTP request to a plain function and back: routes, and errors as problem+json (RFC 9457).

What a refused request still sends is dealt with by the server, infra/serve.py, so that no handler reads it.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from flask import Request, Response
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.routing import Map, RequestRedirect, Rule

from events.errors import Mp3burstError

Handler = Callable[..., Response]

#: Bytes of a JSON request.
JSON_LIMIT: Final = 64 << 10
log = logging.getLogger(__name__)


class BadRequest(Mp3burstError):
    """The request is not what this call takes."""

    status = 400


class Unprocessable(Mp3burstError):
    """The request is well formed and asks for what cannot be; ``fields`` says why, field by field."""

    status = 422

    def __init__(self, sentence: str, fields: Mapping[str, str]) -> None:
        super().__init__(sentence)
        self.fields = dict(fields)


class Routes:
    """The calls that one HTTP function answers."""

    def __init__(self, calls: Mapping[str, Handler]) -> None:
        """Routes from ``"METHOD /path/<argument>"`` to handlers, which get the request and the path's arguments."""
        rules = []
        for number, call in enumerate(calls):
            method, path = call.split(" ")
            rules.append(Rule(path, methods=[method], endpoint=str(number)))
        self._map = Map(rules, strict_slashes=False, merge_slashes=False)
        self._handlers = list(calls.values())

    def answer(self, request: Request) -> Response:
        """The handler's response, or the problem that came up."""
        try:
            endpoint, arguments = self._map.bind_to_environ(request.environ).match()
            response = self._handlers[int(endpoint)](request, **arguments)
        except RequestRedirect:
            response = problem(404, "There is nothing at this address.")
        except HTTPException as error:
            response = _http_problem(error)
        except Mp3burstError as error:
            response = _problem(request, error)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = problem(500, "Something went wrong on our side: try again later.")
        return response


def problem(status: int, sentence: str, **members: object) -> Response:
    """An error as application/problem+json (RFC 9457)."""
    title = HTTP_STATUS_CODES.get(status, "Error")
    body = {"type": "about:blank", "title": title, "status": status, "detail": sentence, **members}
    return Response(json.dumps(body), status, content_type="application/problem+json")


def as_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    response = Response(json.dumps(value, ensure_ascii=False), status, headers, content_type="application/json")
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def json_object(request: Request) -> dict[str, Any]:
    """The request's body as a JSON object.

    Raises:
        BadRequest: it is none, or over 64 KiB.
    """
    request.max_content_length = JSON_LIMIT
    try:
        value = json.loads(request.get_data(cache=False))
    except RequestEntityTooLarge as error:
        raise BadRequest("The request is too large: send a JSON object of less than 64 KiB.") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest("Send a JSON object.") from error
    if not isinstance(value, dict):
        raise BadRequest("Send a JSON object.")
    return value


def _problem(request: Request, error: Mp3burstError) -> Response:
    if error.status >= 500:
        # The sentence of a fault of ours may speak of settings; the user can do nothing about them.
        log.error("%s %s: %s", request.method, request.path, error, exc_info=error)
        sentence = str(error) if error.status == 503 else "Something went wrong on our side: try again later."
        response = problem(error.status, sentence)
    else:
        fields = getattr(error, "fields", None)
        response = problem(error.status, str(error), **({"errors": fields} if fields else {}))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="mp3burst"'
    retry_after = getattr(error, "retry_after", 5 if error.status == 503 else None)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def _http_problem(error: HTTPException) -> Response:
    sentences = {404: "There is nothing at this address.", 405: "This address does not take that method: see Allow."}
    status = error.code or 500
    response = problem(status, sentences.get(status) or error.description or "The request was refused.")
    if methods := getattr(error, "valid_methods", None):
        response.headers["Allow"] = ", ".join(sorted(methods))
    return response
