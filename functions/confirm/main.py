"""Confirms addresses and unsubscribes from mails, by the signed links in mails.

``GET`` shows a page with a button and changes nothing, because programs that look for malware open every link in a
mail. The button sends the ``POST`` that counts. No page contains anything that a user has entered.
"""

import functools
import os
from dataclasses import dataclass

import functions_framework
from flask import Request, Response

from events.publish import publisher
from functions import security_log
from functions.auth.allowance import AllowanceUsedUp
from functions.auth.confirmation import Confirmations
from functions.auth.links import Links
from functions.confirm import api
from functions.http_endpoint import Routes, client_address, identify, json_response, prepare_to_identify, read_query
from functions.pages import for_people, page
from functions.state.database import shared
from functions.state.outbox import REQUEST_BUDGET, Outbox
from functions.state.schema import UserId
from functions.warm_up import before_first_request


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What confirming and unsubscribing need.

    Attributes:
        confirmations: the users table.
        links: verifies links.
        outbox: emits the event of a mail that asks to confirm an address.
    """

    confirmations: Confirmations
    links: Links
    outbox: Outbox


@functions_framework.http
def confirm(request: Request) -> Response:
    """Handles GET and POST of /confirm and /unsubscribe, POST /confirm/again and POST /unsubscribe/undo."""
    return _ROUTES.answer(request)


def ask_again(user: UserId, deps: Dependencies) -> bool:
    """Sends another mail that asks the user to confirm the address; returns whether it is confirmed already.

    Raises:
        AllowanceUsedUp: the address got too many of these mails.
        NotAuthenticated: the user was deleted.
    """
    event = deps.confirmations.ask_again(user)
    if event is not None:
        deps.outbox.emit(event, REQUEST_BUDGET)
    return event is None


def _ask_again(request: Request) -> Response:
    identity = identify(request, os.environ)
    try:
        is_confirmed = ask_again(identity.user, dependencies())
    except AllowanceUsedUp as error:
        address = client_address(request, os.environ)
        security_log.record("confirmation.refused", user=identity.username, address=address, seconds=error.retry_after)
        raise
    return json_response(api.Confirmed(is_confirmed), 200 if is_confirmed else 202)


def _show_confirmation(request: Request) -> Response:
    dependencies().links.verify_confirmation(_token(request))
    return page("Confirm your address", "Do you want to get an email when an MP3 is ready?", button="Confirm")


def _confirm(request: Request) -> Response:
    deps = dependencies()
    username = deps.confirmations.confirm(deps.links.verify_confirmation(_token(request)))
    security_log.record("confirmation.succeeded", user=username, address=client_address(request, os.environ))
    return page("Your address is confirmed", "You will get an email when an MP3 is ready.")


def _show_unsubscription(request: Request) -> Response:
    dependencies().links.verify_unsubscription(_token(request))
    text = "Do you want to stop emails about your conversions? You can still log in and download MP3s."
    return page("Unsubscribe", text, button="Unsubscribe")


def _unsubscribe(request: Request) -> Response:
    _set_subscribed(request, False)
    text = "You will get no more emails about your conversions."
    return page("You are unsubscribed", text, _undo(_token(request)), "Send me emails again")


def _resubscribe(request: Request) -> Response:
    _set_subscribed(request, True)
    return page("You are subscribed again", "You will get an email when an MP3 is ready.")


def _set_subscribed(request: Request, is_subscribed: bool) -> None:
    deps = dependencies()
    user = deps.links.verify_unsubscription(_token(request))
    username = deps.confirmations.set_subscribed(user, is_subscribed)
    event = "subscription.succeeded" if is_subscribed else "unsubscription.succeeded"
    security_log.record(event, user=username, address=client_address(request, os.environ))


def _undo(token: str) -> str:
    return f"/unsubscribe/undo?token={token}"


def _token(request: Request) -> str:
    return read_query(request, api.Link).token


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process."""
    database = shared(os.environ)
    outbox = Outbox(database, publisher(os.environ, "/mp3burst/confirm"))
    return Dependencies(Confirmations(database), Links.from_environ(os.environ), outbox)


before_first_request(prepare_to_identify)
_ROUTES = Routes(
    {
        api.SHOW_CONFIRMATION: for_people(_show_confirmation),
        api.CONFIRM: for_people(_confirm),
        api.ASK_AGAIN: _ask_again,
        api.SHOW_UNSUBSCRIPTION: for_people(_show_unsubscription),
        api.UNSUBSCRIBE: for_people(_unsubscribe),
        api.RESUBSCRIBE: for_people(_resubscribe),
    }
)
