"""Says whether a token holds, for services that cannot check it themselves."""

import os

import functions_framework
from flask import Request, Response

from functions.auth.tokens import Verifier, verifier
from functions.http_endpoint import Routes, as_json


@functions_framework.http
def validate(request: Request) -> Response:
    """POST /validate."""
    return _ROUTES.answer(request)


def _validate(request: Request) -> Response:
    return as_json(claims(request.headers.get("Authorization"), verifier(os.environ)))


def claims(authorization: str | None, verifier: Verifier) -> dict[str, object]:
    """The claims of the token in an Authorization header.

    Raises:
        NotAuthenticated: there is no token, or it does not hold.
    """
    return dict(verifier.bearer(authorization).claims)


_ROUTES = Routes({"POST /validate": _validate})
