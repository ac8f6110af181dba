"""Gives a token for a username and a password, and publishes the keys that tokens are checked with."""

import functools
import os
from dataclasses import dataclass
from typing import Any

import functions_framework
from flask import Request, Response

from functions.auth.accounts import Accounts, WrongCredentials
from functions.auth.throttle import Throttle, subjects
from functions.auth.tokens import Signer, verifier
from functions.clients import client_address
from functions.http_endpoint import Routes, as_json
from functions.state.database import Database, url


@functions_framework.http
def login(request: Request) -> Response:
    """POST /login and GET /.well-known/jwks.json."""
    return _ROUTES.answer(request)


@dataclass(frozen=True, slots=True)
class Desk:
    """What a login takes."""

    accounts: Accounts
    throttle: Throttle
    signer: Signer


def _login(request: Request) -> Response:
    given = request.authorization
    if given is None or given.type != "basic" or not given.username or given.password is None:
        raise WrongCredentials("Send the username and the password by HTTP Basic authentication.")
    return as_json(sign_in(given.username, given.password, client_address(request, os.environ), _desk()))


def sign_in(username: str, password: str, address: str, desk: Desk) -> dict[str, Any]:
    """A token for the user of these credentials.

    Raises:
        WrongCredentials: no such user, or not their password.
        TooManyFailures: this account or this address has failed too often just now.
    """
    here, account, from_where = subjects(username, address)
    desk.throttle.check(here, account, from_where)
    try:
        user = desk.accounts.check(username, password)
    except WrongCredentials:
        desk.throttle.failed(here, account, from_where)
        raise
    # Once more: of many who guess at once, no more may learn that they are right than could have tried in turn.
    if desk.throttle.check(here, account, from_where):
        desk.throttle.succeeded(here, account)
    return {"token": desk.signer.sign(user.id, user.username, user.role), "expires_in": desk.signer.seconds}


def _keys(_: Request) -> Response:
    jwks = verifier(os.environ).jwks
    return as_json({"keys": jwks}, headers={"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=300"})


@functools.cache
def _desk() -> Desk:
    database = Database(url(os.environ))
    return Desk(Accounts(database), Throttle(database), Signer.from_environ(os.environ))


_ROUTES = Routes({"POST /login": _login, "GET /.well-known/jwks.json": _keys})
