"""Sends one mail, by SendGrid, by SMTP, or into a directory of .eml files, as the environment chooses.

Sending says one of three things: it returned, the mail was taken; MailNotSent, try again later; MailRefused, this
mail will never be taken. A fault that the operator can mend is never held against the mail: it is logged as an
error, and the mail waits.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from pathlib import Path

from events.errors import Mp3burstError, TryAgain
from functions.email_address import BadAddress, parse
from functions.settings import BadSetting, number, required

#: What no header may hold: controls, among them every line break, and halves of characters.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MESSAGE_ID = re.compile(r"<([A-Za-z0-9][A-Za-z0-9._-]*)@mp3burst>")


class MailNotSent(TryAgain):
    """Nobody took the mail; the same mail may be taken later, ``retry_after`` seconds from now if that is known."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("The mail could not be sent for now; it is sent later.")
        self.retry_after = retry_after


class MailRefused(Mp3burstError):
    """This mail will never be taken: its address does not exist, or its content is not wanted."""


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to one address. ``message_id`` is what ``message_id_of`` gives: the same for the same event."""

    to: str
    subject: str
    text: str
    html: str
    message_id: str

    def __post_init__(self) -> None:
        if CONTROLS.search(self.to) or CONTROLS.search(self.subject):
            raise MailRefused("The mail's address or subject holds a line break or another control character.")
        if not _MESSAGE_ID.fullmatch(self.message_id):
            raise ValueError(f"{self.message_id!r} is not made from an event's id")


#: Sends a mail, or raises MailNotSent or MailRefused.
Send = Callable[[Mail], None]


def message_id_of(event: str) -> str:
    """The Message-ID of the mail that tells of an event, so that every copy of it has the same."""
    return f"<{event}@mp3burst>"


def mailer(environ: Mapping[str, str]) -> Send:
    """The way to send mails that the environment asks for.

    Args:
        environ: the first of these that is set: ``SENDGRID_API_KEY`` (with ``SENDGRID_URL``); ``SMTP_HOST`` (with
            ``SMTP_PORT``, ``SMTP_USER``, ``SMTP_PASSWORD``, ``SMTP_SECURITY``); ``GMAIL_ADDRESS`` (with
            ``GMAIL_PASSWORD``); ``MAIL_DIR``. And ``MAIL_FROM``, the sender.

    Raises:
        BadSetting: none is set, or one is wrong.
    """
    from functions.notify.carriers import MailDir, SendGrid, Smtp

    if environ.get("SENDGRID_API_KEY"):
        url = environ.get("SENDGRID_URL") or "https://api.sendgrid.com"
        return SendGrid(_secret(environ, "SENDGRID_API_KEY"), _sender(environ, ""), url.rstrip("/"))
    if host := environ.get("SMTP_HOST"):
        port = int(number(environ, "SMTP_PORT", 587, least=1))
        security = environ.get("SMTP_SECURITY") or ("tls" if port == 465 else "starttls")
        if security not in ("starttls", "tls", "none"):
            raise BadSetting(f"SMTP_SECURITY is {security!r}: it must be starttls, tls or none.")
        user = environ.get("SMTP_USER", "")
        password = _secret(environ, "SMTP_PASSWORD") if user else ""
        return Smtp(host, port, security, user, password, _sender(environ, user))
    if user := environ.get("GMAIL_ADDRESS", ""):
        password = _secret(environ, "GMAIL_PASSWORD")
        return Smtp("smtp.gmail.com", 587, "starttls", user, password, _sender(environ, user))
    if directory := environ.get("MAIL_DIR"):
        return MailDir(Path(directory), _sender(environ, "mp3burst@localhost"))
    raise BadSetting(
        "There is no way to send mails: set SMTP_HOST, SENDGRID_API_KEY or GMAIL_ADDRESS, or set MAIL_DIR to a "
        "directory to find the mails in as .eml files."
    )


def compose(mail: Mail, sender: Address) -> EmailMessage:
    """The mail as a message of two alternatives, plain text and HTML.

    Raises:
        MailRefused: its address is none.
    """
    # A line may have 998 bytes (RFC 5322, 2.1.1): up to that the body stays readable, above it is encoded.
    message = EmailMessage(policy=SMTP.clone(max_line_length=998))
    message["From"] = sender
    message["To"] = addressee(mail)
    # The email package decodes "=?...?=" in what it is given, and writes out the line break it may find in there.
    message["Subject"] = mail.subject.replace("=?", "=\N{WORD JOINER}?")
    message["Date"] = datetime.now(UTC)
    message["Message-ID"] = mail.message_id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message


def addressee(mail: Mail) -> Address:
    """Whom the mail is for, with the domain in ASCII.

    Raises:
        MailRefused: the mail's address is none, or its local part is not ASCII.
    """
    try:
        return parse(mail.to)
    except BadAddress as error:
        raise MailRefused("The mail's address is no e-mail address.") from error


def _sender(environ: Mapping[str, str], default: str) -> Address:
    text = environ.get("MAIL_FROM") or default
    if not text:
        raise BadSetting("MAIL_FROM is not set: it must hold the address that mails come from.")
    name, address = parseaddr(text)
    try:
        if CONTROLS.search(text):
            raise BadAddress("This holds a control character.")
        return parse(address, name)
    except BadAddress as error:
        raise BadSetting(
            f"MAIL_FROM is {text!r}: it must be an address, or a name with an address: mp3burst <me@example.org>."
        ) from error


def _secret(environ: Mapping[str, str], name: str) -> str:
    # Anything else breaks off in http.client or smtplib, with the secret in the error.
    value = required(environ, name, "the secret to send mails with")
    if not (value.isascii() and value.isprintable()):
        raise BadSetting(f"{name} holds a line break or a character outside ASCII.")
    return value
