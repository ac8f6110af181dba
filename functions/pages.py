"""Pages for people who open a link of a mail: a text, and a form at most. No page contains what a user has entered."""

import os
from collections.abc import Callable, Mapping
from html import escape
from typing import Final

from flask import Request, Response

from functions import security_log
from functions.auth.limits import MAX_PASSWORD, MIN_PASSWORD
from functions.auth.links import BadLink
from functions.http_endpoint import client_address

#: The pages are text and buttons; beyond what all responses refuse, their buttons may send a form.
_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'"}
#: The fields of a form to log in.
CREDENTIALS: Final = (
    '<p><label>Username <input name="username" autocomplete="username" required></label></p>\n'
    '<p><label>Password <input type="password" name="password" autocomplete="current-password" required></label></p>\n'
)
#: The field of a form for a new password.
PASSWORD_FIELD: Final = (
    '<p><label>New password <input type="password" name="password" autocomplete="new-password" required '
    f'minlength="{MIN_PASSWORD}" maxlength="{MAX_PASSWORD}"></label></p>\n'
)
#: That of a form which decides what else stays with which the account can be used.
KEYS_FIELD: Final = (
    '<p><label><input type="checkbox" name="keep_keys" value="true"> Keep my API keys, webhooks, feed, shared '
    "links and logins with an identity provider</label></p>\n"
)


def for_people(handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Wraps a handler whose link a person opens: an invalid link gets a page, not JSON."""

    def answer(request: Request) -> Response:
        try:
            return handler(request)
        except BadLink as error:
            security_log.record(error.security_event, address=client_address(request, os.environ))
            return page("This link does not work", str(error), status=error.status)

    return answer


def page(
    title: str, text: str, action: str = "", button: str = "", *, fields: str = "", to: str = "", status: int = 200
) -> Response:
    """Returns a page with a text and, if ``button`` is given, a form that sends a POST to ``action``.

    Args:
        title: the heading.
        text: the paragraph below it.
        action: the path of the POST; empty for that of the page, with its query.
        button: the button's text.
        fields: the HTML of the form's fields.
        to: the path of the page to go on to.
        status: the response's status.
    """
    target = f' action="{escape(action)}"' if action else ""
    form = f'<form method="post"{target}>{fields}<button>{escape(button)}</button></form>\n' if button else ""
    refresh = f'<meta http-equiv="refresh" content="0; url={escape(to)}">\n' if to else ""
    go_on = f'<p><a href="{escape(to)}">Go on</a></p>\n' if to else ""
    return _response(title, text, go_on + form, refresh, status)


def choice_page(title: str, text: str, links: Mapping[str, str]) -> Response:
    """Returns a page with a text and links: paths of our own with what they are called."""
    items = "".join(f'<li><a href="{escape(path)}">{escape(name)}</a></li>\n' for path, name in links.items())
    return _response(title, text, f"<ul>\n{items}</ul>\n")


def _response(title: str, text: str, rest: str, head: str = "", status: int = 200) -> Response:
    html = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width">\n<meta name="robots" content="noindex">\n'
        f"{head}</head>\n<body>\n<h1>{escape(title)}</h1>\n<p>{escape(text)}</p>\n{rest}</body>\n</html>\n"
    )
    return Response(html, status, _HEADERS, content_type="text/html; charset=utf-8")
