"""Validates tokens for services that cannot do it themselves."""

import os

import functions_framework
from flask import Request, Response

from functions.auth.tokens import Verifier, verifier
from functions.http_endpoint import Routes, json_response
from functions.validate import api


@functions_framework.http
def validate(request: Request) -> Response:
    """Handles POST /validate."""
    return _ROUTES.answer(request)


def _validate(request: Request) -> Response:
    return json_response(claims(request.headers.get("Authorization"), verifier(os.environ)))


def claims(authorization: str | None, verifier: Verifier) -> dict[str, object]:
    """Returns the claims of the token in an Authorization header.

    Raises:
        NotAuthenticated: the token is missing or invalid.
    """
    return dict(verifier.authenticate(authorization).claims)


_ROUTES = Routes({api.VALIDATE: _validate})
