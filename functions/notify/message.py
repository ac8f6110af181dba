"""The two mails that users get: the MP3 is ready, or the conversion failed. Plain text and HTML say the same."""

import re
from dataclasses import dataclass
from html import escape
from typing import Final

from functions.notify.transports import CONTROLS, Mail

#: Characters that change the direction of the text after them (Unicode, UAX #9, section 2). A name does not need them,
#: and they can disguise a file's extension.
_DIRECTION_CONTROLS: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_MAX_NAME: Final = 60  # characters of a user's name in the greeting


@dataclass(frozen=True, slots=True)
class Recipient:
    """The user who gets the mail."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class DownloadLink:
    """A signed URL that downloads the MP3 without a login for a number of days."""

    url: str
    days: float


@dataclass(frozen=True, slots=True)
class Mp3:
    """A finished MP3.

    Attributes:
        fid: its blob id.
        filename: the video's file name.
        duration: in seconds, if it is known.
        warning: what the user should know about it, if anything.
    """

    fid: str
    filename: str
    duration: float | None
    warning: str | None


def ready(to: Recipient, mp3: Mp3, link: DownloadLink, message_id: str) -> Mail:
    """Returns the mail that delivers the link to an MP3.

    Args:
        to: the user.
        mp3: the MP3.
        link: downloads the MP3.
        message_id: from ``functions.notify.transports.message_id_of``.
    """
    filename = _one_line(mp3.filename)
    duration = f" ({_clock(mp3.duration)})" if mp3.duration is not None else ""
    paragraphs = [
        f"Your MP3 of “{filename}” is ready{duration}.",
        *([f"Please note: {_one_line(mp3.warning)}"] if mp3.warning else []),
        "Download it here:",
        link.url,
        f"The link is valid for {_days(link.days)} and works for anyone who has it, so share it with care. After that, "
        f"log in and download the MP3 by its id: {mp3.fid}",
    ]
    return _mail(to, f"Your MP3 is ready: {filename}", paragraphs, link.url, message_id)


def failed(to: Recipient, filename: str, error: str, message_id: str) -> Mail:
    """Returns the mail that says why a conversion failed and what to do.

    Args:
        to: the user.
        filename: the video's file name.
        error: the reason, a message for users.
        message_id: from ``functions.notify.transports.message_id_of``.
    """
    filename = _one_line(filename)
    paragraphs = [
        f"We could not convert “{filename}” to MP3.",
        f"Reason: {_one_line(error)}",
        "Once this is resolved, upload the file again.",
    ]
    return _mail(to, f"Conversion failed: {filename}", paragraphs, None, message_id)


def _mail(to: Recipient, subject: str, paragraphs: list[str], link: str | None, message_id: str) -> Mail:
    # Nobody has verified the address: a name that contains a link would make us deliver somebody's spam.
    has_link = re.search(r"://|www\.", to.name, re.IGNORECASE)
    greeting = "Hello," if has_link else f"Hello {_one_line(to.name)[:_MAX_NAME]},"
    lines = [greeting, *paragraphs, "mp3burst"]
    body = "\n".join(f"<p>{_html(line, link)}</p>" for line in lines)
    return Mail(
        to=to.address,
        subject=subject,
        text="\n\n".join(lines) + "\n",
        html=f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(subject)}</title></head>\n'
        f"<body>\n{body}\n</body>\n</html>\n",
        message_id=message_id,
    )


def _html(line: str, link: str | None) -> str:
    return f'<a href="{escape(line)}">Download the MP3</a>' if line == link else escape(line)


def _one_line(text: str) -> str:
    """Returns the text on one line, in one direction, and encodable in UTF-8."""
    encodable = CONTROLS.sub("\N{REPLACEMENT CHARACTER}", re.sub(r"\s+", " ", text))
    return _DIRECTION_CONTROLS.sub("", encodable).strip()


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"


def _days(days: float) -> str:
    return "1 day" if days == 1 else f"{days:g} days"
