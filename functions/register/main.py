"""Registers new users."""

import functools
import os
import re
from typing import Any, Final

import functions_framework
from flask import Request, Response

from functions import security_log
from functions.auth.accounts import (
    MAX_TYPED_USERNAME,
    MAX_USERNAME,
    Accounts,
    User,
    UsernameTaken,
    normalize_username,
)
from functions.auth.passwords import password_fault
from functions.email_address import MAX_LENGTH, BadAddress, parse
from functions.http_endpoint import Routes, Unprocessable, client_address, json_object, json_response
from functions.state.database import Database, url

#: Deliberately coarse: only sending a mail shows whether an address exists.
_EMAIL: Final = re.compile(r"[^\s@<>\"(),;:\\]+@[^\s@<>\"(),;:\\]+\.[^\s@<>\"(),;:\\.]+")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\ud800-\udfff]")
_FIELDS: Final = ("name", "username", "password", "email")


@functions_framework.http
def register(request: Request) -> Response:
    """Handles POST /register."""
    return _ROUTES.answer(request)


def _register(request: Request) -> Response:
    address = client_address(request, os.environ)
    try:
        user = add_user(json_object(request), _accounts())
    except UsernameTaken:
        security_log.record("registration.refused", address=address, reason="taken")
        raise
    except Unprocessable as error:
        security_log.record("registration.refused", address=address, reason="invalid", fields=",".join(error.fields))
        raise
    security_log.record("registration.succeeded", user=user.username, address=address)
    return json_response({"id": user.id, "username": user.username}, 201)


def add_user(form: dict[str, Any], accounts: Accounts) -> User:
    """Adds the user in the form ``{"name", "username", "password", "email"}``.

    The username doubles as the address if ``email`` is missing or empty.

    Raises:
        Unprocessable: fields are missing or invalid; the error names all of them.
        UsernameTaken: the username already belongs to a user.
    """
    text = {field: value if isinstance(value := form.get(field), str) else "" for field in _FIELDS}
    oversized = [field for field in _FIELDS if len(text[field]) > MAX_TYPED_USERNAME]
    text |= dict.fromkeys(oversized, "")
    address = text["email"].strip() or text["username"].strip()
    faults = _faults(text, address) | dict.fromkeys(oversized, "is too long")
    for field in _FIELDS:
        if not isinstance(form.get(field), str | None):
            faults[field] = "must be text"
    if faults:
        faults = {field: faults[field] for field in _FIELDS if field in faults}
        message = "; ".join(f"{field} {fault}" for field, fault in faults.items())
        raise Unprocessable(f"Correct the following and try again: {message}.", faults)
    return accounts.add(text["name"], text["username"], text["password"], address)


def _faults(text: dict[str, str], address: str) -> dict[str, str]:
    """Returns what is wrong with each invalid field; of several faults, the last in the list."""
    username = normalize_username(text["username"])
    password = password_fault(text["password"], (username, text["name"], text["email"]))
    checks = [
        ("name", not 1 <= len(text["name"].strip()) <= 200, "must have 1 to 200 characters"),
        ("username", not username, f"must have 1 to {MAX_USERNAME} characters"),
        ("password", password is not None, password or ""),
        ("email", not _is_address(address), "must be an email address"),
        *(
            (field, bool(_CONTROLS.search(text[field])), "must not contain control characters")
            for field in ("name", "username", "email")
        ),
        ("username", ":" in username, "must not contain a colon: HTTP Basic authentication ends the username there"),
    ]
    return {field: fault for field, invalid, fault in checks if invalid}


def _is_address(text: str) -> bool:
    if len(text) > MAX_LENGTH or not _EMAIL.fullmatch(text):
        return False
    try:
        parse(text)
    except BadAddress:
        return False
    return True


@functools.cache
def _accounts() -> Accounts:
    return Accounts(Database(url(os.environ)))


_ROUTES = Routes({"POST /register": _register})
