"""The account of the user who asks: API keys."""

import functools
import os
from dataclasses import dataclass
from typing import Any

import functions_framework
from flask import Request, Response

from functions import security_log
from functions.account import api
from functions.auth.keys import ApiKey, ApiKeys
from functions.auth.tokens import Identity, NotAllowed
from functions.http_endpoint import (
    Routes,
    Unprocessable,
    client_address,
    identify,
    iso_time,
    json_response,
    read_json,
)
from functions.state.database import shared


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The tables that account uses."""

    keys: ApiKeys


@functions_framework.http
def account(request: Request) -> Response:
    """Handles /keys."""
    return _ROUTES.answer(request)


def _identify(request: Request) -> Identity:
    """Returns who asks, by what the database says now: what was withdrawn can change no account."""
    return identify(request, os.environ, is_cached=False)


def _create_key(request: Request) -> Response:
    identity = _identify(request)
    if identity.scopes is not None:
        raise NotAllowed("An API key cannot create another one: log in.")
    created = create_key(read_json(request, api.NewKey), identity, dependencies())
    _record(request, identity, "key.created", key=created.id, scopes="+".join(created.scopes))
    return json_response(created, 201, {"Location": f"/keys/{created.id}"})


def _list_keys(request: Request) -> Response:
    identity = _identify(request)
    return json_response(api.KeyList([api.ApiKey(**_shown(key)) for key in dependencies().keys.of(identity.user)]))


def _delete_key(request: Request, key: str) -> Response:
    identity = _identify(request)
    dependencies().keys.delete(key, identity.user)
    _record(request, identity, "key.deleted", key=key)
    return Response(status=204)


def create_key(form: api.NewKey, identity: Identity, deps: Dependencies) -> api.CreatedKey:
    """Creates a key.

    Raises:
        Unprocessable: the name is blank, or has control characters.
        TooManyKeys: the user has as many as a user may have.
    """
    name = form.name.strip()
    if not name or not name.isprintable():
        raise Unprocessable.naming({"name": "must have a visible character, and no control characters"})
    key, row = deps.keys.create(identity.user, name, form.scopes, form.expires_in)
    return api.CreatedKey(**_shown(row), key=key)


def _shown(key: ApiKey) -> dict[str, Any]:
    """Returns the fields of ``api.ApiKey``."""
    used = iso_time(key.used_at)
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "created": iso_time(key.created_at),
        "expires": iso_time(key.expires_at),
        "last_used": used and used[:10],
    }


def _record(request: Request, identity: Identity, event: str, **details: object) -> None:
    security_log.record(event, user=identity.username, address=client_address(request, os.environ), **details)


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process."""
    return Dependencies(ApiKeys(shared(os.environ)))


_ROUTES = Routes({api.CREATE_KEY: _create_key, api.LIST_KEYS: _list_keys, api.DELETE_KEY: _delete_key})
