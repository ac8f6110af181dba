"""The two letters that a user gets: the MP3 is ready, or the conversion failed. Plain text and HTML say the same."""

import re
from html import escape

from functions.notify.transports import CONTROLS, Mail

#: Characters that turn the direction of what follows them (Unicode, UAX #9, section 2): a name has no need of them
#: and can hide its ending behind them.
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def ready(
    name: str,
    to: str,
    filename: str,
    duration: float | None,
    link: str,
    days: float,
    fid: str,
    warning: str | None,
    message_id: str,
) -> Mail:
    """The letter that brings the link.

    Args:
        name: what the user is called.
        to: the user's address.
        filename: the video's.
        duration: of the MP3, in seconds, if it is known.
        link: the signed URL of the download.
        days: how long the link holds.
        fid: the MP3's blob id.
        warning: what the user should know about the MP3, if there is anything.
        message_id: as ``functions.notify.transports.message_id_of`` makes it.
    """
    file = _shown(filename)
    length = f" It is {_clock(duration)} long." if duration is not None else ""
    paragraphs = [
        f"the MP3 of “{file}” is ready.{length}",
        *([f"Please note: {_shown(warning)}"] if warning else []),
        "Download it here:",
        link,
        f"The link works for {_days(days)}, for everybody who has it. After that, log in and download the file by its "
        f"id: {fid}",
    ]
    return _letter(name, to, f"Your MP3 is ready: {file}", paragraphs, link, message_id)


def failed(name: str, to: str, filename: str, error: str, message_id: str) -> Mail:
    """The letter that says why there is no MP3, and what to do.

    Args:
        name: what the user is called.
        to: the user's address.
        filename: the video's.
        error: why, one plain sentence.
        message_id: as ``functions.notify.transports.message_id_of`` makes it.
    """
    file = _shown(filename)
    paragraphs = [
        f"“{file}” could not be converted to MP3.",
        f"The reason: {_shown(error)}",
        "Check that the file plays on your machine and has sound, and that the options suit it, then upload it again.",
    ]
    return _letter(name, to, f"No MP3 could be made: {file}", paragraphs, None, message_id)


def _letter(name: str, to: str, subject: str, paragraphs: list[str], link: str | None, message_id: str) -> Mail:
    # Nobody has proved that the address is theirs: a name that is a link would make us its messenger.
    greeting = "Hello," if re.search(r"://|www\.", name, re.IGNORECASE) else f"Hello {_shown(name)[:60]},"
    lines = [greeting, *paragraphs, "mp3burst"]
    body = "\n".join(f"<p>{_html(line, link)}</p>" for line in lines)
    return Mail(
        to=to,
        subject=subject,
        text="\n\n".join(lines) + "\n",
        html=f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(subject)}</title></head>\n'
        f"<body>\n{body}\n</body>\n</html>\n",
        message_id=message_id,
    )


def _html(line: str, link: str | None) -> str:
    return f'<a href="{escape(line)}">Download the MP3</a>' if line == link else escape(line)


def _shown(text: str) -> str:
    # On one line, in one direction, and possible to encode.
    return _TURNS.sub("", CONTROLS.sub("\N{REPLACEMENT CHARACTER}", re.sub(r"\s+", " ", text))).strip()


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"


def _days(days: float) -> str:
    return "1 day" if days == 1 else f"{days:g} days"
