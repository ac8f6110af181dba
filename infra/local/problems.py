"""Error responses of the platform itself (RFC 9457)."""

import json
from http import HTTPStatus

from aiohttp import web

from infra import front


def problem(status: int, detail: str) -> web.Response:
    """Returns an error as application/problem+json."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    headers = {"Content-Type": "application/problem+json"}
    if status == 429:
        headers |= front.REFUSAL_HEADERS
    return web.Response(status=status, body=json.dumps(body).encode(), headers=headers)
