"""Routing of requests to handlers, and mapping of errors to problem+json."""

import json
from collections.abc import Callable

import pytest
from flask import Request, Response
from werkzeug.test import EnvironBuilder

from events.errors import Mp3burstError, TryAgain
from functions.http_endpoint import JSON_LIMIT, BadRequest, Routes, Unprocessable, json_object, json_response
from functions.operation import Operation


class LoggedOut(Mp3burstError):
    status = 401


class Throttled(Mp3burstError):
    status = 429
    retry_after = 7


def fail(error: Exception) -> Callable[..., Response]:
    def handler(_: Request) -> Response:
        raise error

    return handler


def op(method: str, path: str) -> Operation:
    return Operation(method, path, "", ())


ROUTES = Routes(
    {
        op("GET", "/things"): lambda _: json_response({"name": "Größe"}),
        op("POST", "/large"): lambda request: json_response(json_object(request, 1 << 20), 201),
        op("POST", "/things"): lambda request: json_response(json_object(request), 201, {"Location": "/things/1"}),
        op("GET", "/things/{thing}"): lambda _, thing: json_response(thing),
        op("DELETE", "/things/{thing}"): lambda _, thing: Response(status=204),  # noqa: ARG005 - the router's names
        op("GET", "/crash"): fail(RuntimeError("the secret is 42")),
        op("GET", "/ours"): fail(Mp3burstError("DATABASE_URL is wrong: postgres://me:secret@host")),
        op("GET", "/later"): fail(TryAgain("The store does not respond: try again later.")),
        op("GET", "/unauthorized"): fail(LoggedOut("Log in first.")),
        op("GET", "/throttled"): fail(Throttled("Too many of them: wait 7 s.")),
        op("GET", "/fields"): fail(Unprocessable("Two fields are invalid.", {"a": "is missing", "b": "is too long"})),
    }
)


def ask(method: str, path: str, body: bytes | None = None) -> Response:
    return ROUTES.answer(Request(EnvironBuilder(path, method=method, data=body).get_environ()))


def problem(response: Response, status: int) -> dict[str, object]:
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    body: dict[str, object] = json.loads(response.get_data())
    assert body["type"] == "about:blank"
    assert body["status"] == status
    assert body["title"]
    assert str(body["detail"]).endswith(".")
    return body


def test_routes() -> None:
    found = ask("GET", "/things")
    assert (found.status_code, found.content_type, found.headers["Cache-Control"]) == (
        200,
        "application/json",
        "no-store",
    )
    assert json.loads(found.get_data()) == {"name": "Größe"}
    assert json.loads(ask("GET", "/things/a%20b").get_data()) == "a b"
    assert ask("DELETE", "/things/1").status_code == 204
    made = ask("POST", "/things", b'{"a": 1}')
    assert (made.status_code, made.headers["Location"], json.loads(made.get_data())) == (201, "/things/1", {"a": 1})
    assert ask("HEAD", "/things").status_code == 200


@pytest.mark.parametrize("path", ["/", "/thing", "/things/1/2", "//things", "/things//1", "/THINGS"])
def test_unknown_paths_are_not_found(path: str) -> None:
    for method in ("GET", "POST", "BREW"):
        problem(ask(method, path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/things", "GET, HEAD, POST"),
        ("POST", "/things/1", "DELETE, GET, HEAD"),
        ("BREW", "/throttled", "GET, HEAD"),
        ("TRACE", "/throttled", "GET, HEAD"),
        ("OPTIONS", "/things", "GET, HEAD, POST"),
    ],
)
def test_other_methods_are_not_allowed(method: str, path: str, allow: str) -> None:
    response = ask(method, path)
    problem(response, 405)
    assert response.headers["Allow"] == allow


@pytest.mark.parametrize("path", ["/things", "/nowhere", "/crash", "/unauthorized"])
def test_browsers_may_do_nothing_with_a_response(path: str) -> None:
    headers = ask("GET", path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_user_errors_show_their_message() -> None:
    unauthorized = ask("GET", "/unauthorized")
    assert problem(unauthorized, 401)["detail"] == "Log in first."
    assert unauthorized.headers["WWW-Authenticate"] == 'Bearer realm="mp3burst"'
    throttled = ask("GET", "/throttled")
    problem(throttled, 429)
    assert throttled.headers["Retry-After"] == "7"
    assert problem(ask("GET", "/fields"), 422)["errors"] == {"a": "is missing", "b": "is too long"}


def test_internal_errors_are_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/crash", "/ours"):
        caplog.clear()
        assert "secret" not in str(problem(ask("GET", path), 500))
        assert "secret" in caplog.text
    later = ask("GET", "/later")
    assert problem(later, 503)["detail"] == "The store does not respond: try again later."
    assert int(later.headers["Retry-After"]) > 0


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"1", b"null", b'"a"', b"\xff", b"[" * 60_000, b"NaN"])
def test_body_that_is_not_a_json_object(body: bytes) -> None:
    problem(ask("POST", "/things", body), 400)


def test_body_size_limit() -> None:
    fits = b'{"a":"' + b"x" * (JSON_LIMIT - 8) + b'"}'
    assert ask("POST", "/things", fits).status_code == 201
    assert "64 KiB" in str(problem(ask("POST", "/things", fits + b" "), 400)["detail"])


def test_body_of_many_values_is_refused() -> None:
    """In a few megabytes there are enough empty lists to fill the memory of an instance."""
    many = b'{"a":[' + b"[]," * 70_000 + b"[]]}"
    assert "too many values" in str(problem(ask("POST", "/large", many), 400)["detail"])
    assert ask("POST", "/large", b'{"a":"' + b"x" * 200_000 + b'"}').status_code == 201


def test_unread_body_is_left_to_the_server() -> None:
    """A handler that rejects a request does not read its body, however long it is."""
    environ = EnvironBuilder("/unauthorized", method="GET", data=b"x" * 1000).get_environ()
    ROUTES.answer(Request(environ))
    assert len(environ["wsgi.input"].read()) == 1000


def test_bad_request_has_status_400() -> None:
    assert BadRequest.status == 400
