"""Registers new users."""

import functools
import os
from dataclasses import dataclass
from typing import Any, Final

import functions_framework
from flask import Request, Response

from events.publish import publisher
from functions import security_log
from functions.auth.accounts import Accounts, User, UsernameTaken, normalize_username
from functions.auth.allowance import AllowanceUsedUp, RegistrationLimit
from functions.auth.limits import CONTROLS, MAX_USERNAME
from functions.auth.passwords import password_fault
from functions.email_address import is_public
from functions.http_endpoint import Routes, Unprocessable, client_address, json_object, json_response, tell_limit
from functions.operation import check
from functions.rate_limits import Tell
from functions.register import api
from functions.settings import number, switch
from functions.state.database import shared
from functions.state.outbox import REQUEST_BUDGET, Outbox
from functions.warm_up import before_first_request

#: Registrations from one network, unless REGISTRATIONS_PER_HOUR says otherwise: a class or an office at once, not a
#: list of addresses.
REGISTRATIONS_PER_HOUR: Final = 10


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a registration needs.

    Attributes:
        accounts: the users.
        limit: limits the registrations from a network.
        outbox: emits the event of the mail that asks to confirm the address; None if addresses count as confirmed.
    """

    accounts: Accounts
    limit: RegistrationLimit
    outbox: Outbox | None


@functions_framework.http
def register(request: Request) -> Response:
    """Handles POST /register."""
    return _ROUTES.answer(request)


def _register(request: Request) -> Response:
    address = client_address(request, os.environ)
    record = functools.partial(security_log.record, "registration.refused", address=address)
    try:
        user = add_user(json_object(request), address, dependencies(), functools.partial(tell_limit, request))
    except UsernameTaken:
        record(reason="taken")
        raise
    except Unprocessable as error:
        record(reason="invalid", fields=",".join(error.fields))
        raise
    except AllowanceUsedUp as error:
        record(reason="throttled", seconds=error.retry_after)
        raise
    security_log.record("registration.succeeded", user=user.username, address=address)
    return json_response(api.NewUser(user.id, user.username), 201)


def add_user(form: dict[str, Any], address: str, deps: Dependencies, tell: Tell | None = None) -> User:
    """Adds the user in the form, an ``api.Registration``, and asks to confirm the address.

    The username doubles as the email address if ``email`` is missing or empty.

    Args:
        form: what the client has sent.
        address: the client's, for which the registration is counted. Invalid ones are not counted, so that people may
            correct them; those whose username is taken are.
        deps: the dependencies.
        tell: is told how many more registrations the client's network has.

    Raises:
        Unprocessable: fields are missing or invalid; the error names all of them.
        AllowanceUsedUp: there were too many registrations from the client's network.
        UsernameTaken: the username already belongs to a user.
    """
    new = _validated(form)
    limit = deps.limit.use(address)
    if limit is not None and tell is not None:
        tell(limit)
    email = _email(new)
    if deps.outbox is None:
        return deps.accounts.add(new.name, new.username, new.password, email)
    user, event = deps.accounts.register(new.name, new.username, new.password, email)
    if event is not None:
        deps.outbox.emit(event, REQUEST_BUDGET)
    else:
        security_log.record("confirmation.refused", user=user.username, address=address)
    return user


def _validated(form: dict[str, Any]) -> api.Registration:
    """Returns the registration in the form.

    Raises:
        Unprocessable: fields are missing or invalid; the error names all of them.
    """
    checked = check(api.Registration, form)
    empty = dict.fromkeys(checked.faults, "")
    new = api.Registration(**checked.values, **empty)
    faults = _faults(new) | checked.faults
    if faults:
        raise Unprocessable.naming({field: faults[field] for field in new.__struct_fields__ if field in faults})
    return new


def _faults(new: api.Registration) -> dict[str, str]:
    """Returns what is wrong with each field beyond its type; of several faults, the last in the list."""
    username = normalize_username(new.username)
    password = password_fault(new.password, (username, new.name, new.email or ""))
    checks = [
        ("name", not new.name.strip(), "must have 1 to 200 characters"),
        ("username", not username, f"must have 1 to {MAX_USERNAME} characters"),
        ("password", password is not None, password or ""),
        ("email", not is_public(_email(new)), "must be an email address"),
        *(
            (field, bool(CONTROLS.search(getattr(new, field) or "")), "must not contain control characters")
            for field in ("name", "username", "email")
        ),
        ("username", ":" in username, "must not contain a colon: HTTP Basic authentication ends the username there"),
    ]
    return {field: fault for field, invalid, fault in checks if invalid}


def _email(new: api.Registration) -> str:
    return (new.email or "").strip() or new.username.strip()


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process.

    Raises:
        BadSetting: CONFIRM_EMAIL is neither on nor off, or REGISTRATIONS_PER_HOUR is not a number.
    """
    database = shared(os.environ)
    per_hour = number(os.environ, "REGISTRATIONS_PER_HOUR", REGISTRATIONS_PER_HOUR)
    outbox = None
    if switch(os.environ, "CONFIRM_EMAIL", default=True):
        outbox = Outbox(database, publisher(os.environ, "/mp3burst/register"))
    return Dependencies(Accounts(database), RegistrationLimit(database, per_hour), outbox)


@before_first_request
def _connect() -> None:
    shared(os.environ).connect()


_ROUTES = Routes({api.REGISTER: _register})
