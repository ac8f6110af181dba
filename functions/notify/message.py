"""The mails that users get, as plain text and HTML that say the same.

Nothing that a user has entered is in a subject, or in a mail to an address that nobody has confirmed: anybody could
write to strangers in our name. In the other mails, what a user has entered contains nothing that a mail program turns
into a link.
"""

import re
import unicodedata
from dataclasses import dataclass
from html import escape
from pathlib import PurePosixPath
from typing import Final

from functions.notify.transports import CONTROLS, Mail

#: Characters that change the direction of the text after them (Unicode, UAX #9, section 2). A name does not need them,
#: and they can disguise a file's extension.
_DIRECTION_CONTROLS: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
#: What names may contain besides letters, digits and symbols such as an emoji. No dot, slash, colon or at sign: every
#: link that mail programs recognize in plain text has one of them.
_PUNCTUATION: Final = frozenset(" -_()[]&+,!'\N{RIGHT SINGLE QUOTATION MARK}\N{EN DASH}\N{REPLACEMENT CHARACTER}")
_MAX_NAME: Final = 60  # characters of a user's or a file's name


@dataclass(frozen=True, slots=True)
class Recipient:
    """The user who gets the mail, and the URL that unsubscribes them."""

    name: str
    address: str
    unsubscribe: str


@dataclass(frozen=True, slots=True)
class Link:
    """A signed URL that does something without a login for a number of days."""

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


def confirm(address: str, site: str, link: Link, message_id: str) -> Mail:
    """Returns the mail that asks to confirm an address. Anybody may have entered it, so it contains nothing else of it.

    Args:
        address: the address.
        site: the URL at which users reach mp3burst.
        link: confirms the address.
        message_id: from ``functions.notify.transports.message_id_of``.
    """
    paragraphs = [
        "Hello,",
        f"Somebody has registered this address at {site}, which converts videos to MP3s. If it was you, confirm that "
        "you want to get an email when an MP3 is ready:",
        link.url,
        f"The link is valid for {_days(link.days)}. If it was not you, ignore this email: no emails about "
        "conversions will be sent to this address.",
        "mp3burst",
    ]
    return _mail(address, "Confirm your address", paragraphs, {link.url: "Confirm the address"}, message_id)


def reset(address: str, site: str, url: str, message_id: str) -> Mail:
    """Returns the mail with the link that resets a password.

    Args:
        address: the user's, which is confirmed.
        site: the URL at which users reach mp3burst.
        url: the link.
        message_id: from ``functions.notify.transports.message_id_of``.
    """
    paragraphs = [
        "Hello,",
        f"Somebody has asked to reset the password of your account at {site}. If it was you, choose a new one here:",
        url,
        "The link works once, for 30 minutes. If it was not you, ignore this email: your password stays as it is.",
        "mp3burst",
    ]
    return _mail(address, "Reset your password", paragraphs, {url: "Choose a new password"}, message_id)


def ready(to: Recipient, mp3: Mp3, link: Link, message_id: str) -> Mail:
    """Returns the mail that delivers the link to an MP3.

    Args:
        to: the user.
        mp3: the MP3.
        link: downloads the MP3.
        message_id: from ``functions.notify.transports.message_id_of``.
    """
    duration = f" ({_clock(mp3.duration)})" if mp3.duration is not None else ""
    paragraphs = [
        f"Your MP3 of {_file(mp3.filename)} is ready{duration}.",
        *([f"Please note: {_one_line(mp3.warning)}"] if mp3.warning else []),
        "Download it here:",
        link.url,
        f"The link is valid for {_days(link.days)} and works for anyone who has it, so share it with care. After that, "
        f"log in and download the MP3 by its id: {mp3.fid}",
    ]
    return _about_job(to, "Your MP3 is ready", paragraphs, {link.url: "Download the MP3"}, message_id)


def failed(to: Recipient, filename: str, error: str, message_id: str) -> Mail:
    """Returns the mail that says why a conversion failed and what to do.

    Args:
        to: the user.
        filename: the video's file name.
        error: the reason, a message for users.
        message_id: from ``functions.notify.transports.message_id_of``.
    """
    paragraphs = [
        f"We could not convert {_file(filename)} to MP3.",
        f"Reason: {_one_line(error)}",
        "Once this is resolved, upload the file again.",
    ]
    return _about_job(to, "Your video could not be converted", paragraphs, {}, message_id)


def _about_job(to: Recipient, subject: str, paragraphs: list[str], links: dict[str, str], message_id: str) -> Mail:
    name = _unlinked(to.name)
    lines = [
        f"Hello {name}," if name else "Hello,",
        *paragraphs,
        "mp3burst",
        "To stop emails about your conversions:",
        to.unsubscribe,
    ]
    return _mail(to.address, subject, lines, {**links, to.unsubscribe: "Unsubscribe"}, message_id, to.unsubscribe)


def _mail(
    address: str, subject: str, lines: list[str], links: dict[str, str], message_id: str, unsubscribe: str = ""
) -> Mail:
    """Returns the mail with these paragraphs; those that are one of the ``links`` are shown as links with a text."""
    body = "\n".join(f"<p>{_html(line, links)}</p>" for line in lines)
    return Mail(
        to=address,
        subject=subject,
        text="\n\n".join(lines) + "\n",
        html=f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(subject)}</title></head>\n'
        f"<body>\n{body}\n</body>\n</html>\n",
        message_id=message_id,
        unsubscribe=unsubscribe,
    )


def _html(line: str, links: dict[str, str]) -> str:
    return f'<a href="{escape(line)}">{escape(links[line])}</a>' if line in links else escape(line)


def _file(filename: str) -> str:
    """Returns the file's name in quotation marks, without its extension: .mov and .zip are top-level domains."""
    name = _unlinked(PurePosixPath(filename.rpartition("/")[2].rpartition("\\")[2]).stem)
    return f"“{name}”" if name else "your video"


def _unlinked(text: str) -> str:
    """Returns the text on one line, shortened, with a space for each character that a link needs.

    NFKC comes first: it turns characters that look like a dot, or contain one, into a dot.
    """
    normalized = unicodedata.normalize("NFKC", _one_line(text))
    kept = (each if _is_harmless(each) else " " for each in normalized)
    words = " ".join("".join(kept).split())
    return words if len(words) <= _MAX_NAME else words[: _MAX_NAME - 1].rstrip() + "…"


def _is_harmless(character: str) -> bool:
    return character in _PUNCTUATION or unicodedata.category(character)[0] in "LMNS"


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
