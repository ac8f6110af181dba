"""Takes on new users."""

import functools
import os
import re
from typing import Any, Final

import functions_framework
from flask import Request, Response

from functions.auth.accounts import Accounts, User, fold
from functions.email_address import BadAddress, parse
from functions.http_endpoint import Routes, Unprocessable, as_json, json_object
from functions.state.database import Database, url

#: Deliberately coarse: whether an address exists, only a mail to it can tell.
_EMAIL: Final = re.compile(r"[^\s@<>\"(),;:\\]+@[^\s@<>\"(),;:\\]+\.[^\s@<>\"(),;:\\.]+")


@functions_framework.http
def register(request: Request) -> Response:
    """POST /register."""
    return _ROUTES.answer(request)


def _register(request: Request) -> Response:
    user = add_user(json_object(request), _accounts())
    return as_json({"id": user.id, "username": user.username}, 201)


def add_user(form: dict[str, Any], accounts: Accounts) -> User:
    """Add the user of the form ``{"name", "username", "password", "email"}``.

    Raises:
        Unprocessable: a field is missing or wrong; every one is named.
        UsernameTaken: somebody has this username.
    """
    text = {field: form.get(field) for field in ("name", "username", "password", "email")}
    wrong = {field: "must be text" for field, value in text.items() if value is not None and not isinstance(value, str)}
    name, username, password, email = ("" if field in wrong else str(value or "") for field, value in text.items())
    email = email.strip() or username.strip()
    faults = {
        "name": "must have 1 to 200 characters" if not 1 <= len(name.strip()) <= 200 else "",
        "username": "must have 1 to 254 characters" if not 1 <= len(fold(username)) <= 254 else "",
        "password": "must have 8 to 128 characters" if not 8 <= len(password) <= 128 else "",
        "email": "must be an e-mail address" if not _is_address(email) else "",
    }
    for field in ("name", "username", "email"):
        if any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in str(text[field] or "")):
            faults[field] = "must not have control characters"
    if any(0xD800 <= ord(character) < 0xE000 for character in password):
        wrong |= {"password": "must be text"}  # Halves of characters: JSON can hold them, no encoding has them.
    if ":" in fold(username):
        faults["username"] = "must not have a colon, which ends the name in HTTP Basic authentication"
    faults = {field: fault for field, fault in (faults | wrong).items() if fault}
    if faults:
        sentence = "; ".join(f"{field} {fault}" for field, fault in faults.items())
        raise Unprocessable(f"Correct this and send it again: {sentence}.", faults)
    return accounts.add(name, username, password, email)


def _is_address(text: str) -> bool:
    if len(text) > 254 or not _EMAIL.fullmatch(text):
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
