"""Validates tokens and API keys for services that cannot do it themselves."""

import os

import functions_framework
import msgspec
from flask import Request, Response

from functions.http_endpoint import Routes, identify, json_response, prepare_to_identify
from functions.validate import api
from functions.warm_up import before_first_request


@functions_framework.http
def validate(request: Request) -> Response:
    """Handles POST /validate."""
    return _ROUTES.answer(request)


def _validate(request: Request) -> Response:
    claims = identify(request, os.environ).claims
    return json_response(msgspec.convert(claims, api.Claims))


before_first_request(prepare_to_identify)
_ROUTES = Routes({api.VALIDATE: _validate})
