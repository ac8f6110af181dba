"""Validates tokens and API keys for services that cannot do it themselves."""

import os

import functions_framework
import msgspec
from flask import Request, Response

from functions.http_endpoint import Routes, identify, json_response
from functions.validate import api


@functions_framework.http
def validate(request: Request) -> Response:
    """Handles POST /validate."""
    return _ROUTES.answer(request)


def _validate(request: Request) -> Response:
    claims = identify(request, os.environ).claims
    return json_response(msgspec.convert(claims, api.Claims))


_ROUTES = Routes({api.VALIDATE: _validate})
