"""The operations of ``confirm``, and their types."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from functions.operation import HTML, Answer, Operation

_BAD_LINK: Final = Answer(401, "A page that says why the link does not work.", content_type=HTML)


class Link(Struct, frozen=True):
    """The query of a link in a mail."""

    token: Annotated[str, Meta(description="The token of the link.")] = ""


class Confirmed(Struct, frozen=True):
    """Whether a user's address is confirmed."""

    confirmed: bool


def _page(method: str, path: str, summary: str, meaning: str) -> Operation:
    """Declares an operation that answers with a page."""
    answers = (Answer(200, meaning, content_type=HTML), _BAD_LINK)
    return Operation(method, path, summary, answers, access="link", query=Link)


SHOW_CONFIRMATION: Final = _page("GET", "/confirm", "Ask whether to confirm an address", "A page with a button.")
CONFIRM: Final = _page("POST", "/confirm", "Confirm an address", "A page: the address is confirmed.")
SHOW_UNSUBSCRIPTION: Final = _page("GET", "/unsubscribe", "Ask whether to unsubscribe", "A page with a button.")
UNSUBSCRIBE: Final = _page("POST", "/unsubscribe", "Stop emails about jobs", "A page with a button that undoes it.")
RESUBSCRIBE: Final = _page("POST", "/unsubscribe/undo", "Send emails about jobs again", "A page: they are sent again.")
ASK_AGAIN: Final = Operation(
    "POST",
    "/confirm/again",
    "Send the mail that asks to confirm the address again",
    (
        Answer(200, "The address is confirmed already.", Confirmed),
        Answer(202, "Another mail is on its way.", Confirmed),
    ),
    scope="account",
    problems={429: "The address got too many of these mails: wait for the seconds in `Retry-After`."},
)
