"""Sends one mail: by SendGrid, by SMTP, or as an .eml file in a directory. The environment chooses which.

A transport has three outcomes. It returns: the mail was accepted. It raises MailNotSent: try again later. It raises
MailRefused: this mail will never be accepted. A misconfigured transport never counts against the mail: the error is
logged for the operator, and the mail waits.

    Mp3burstError
    ├── TryAgain
    │   └── MailNotSent
    └── PermanentFailure
        └── MailRefused
"""

import contextlib
import http.client
import logging
import os
import re
import smtplib
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Final

from events.errors import PermanentFailure, TryAgain
from functions.email_address import BadAddress, parse
from functions.settings import BadSetting, number, required

#: Not allowed in a header: control characters, which include every line break, and lone surrogates.
CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MESSAGE_ID: Final = re.compile(r"<([A-Za-z0-9][A-Za-z0-9._-]*)@mp3burst>")
#: Seconds to wait for each reply. If the wait for the last one is too short, the mail is sent twice (RFC 5321,
#: 4.5.3.2.6).
_TIMEOUT: Final = 30
#: RFC 3463: X.4 is routing and quotas, X.7 is permission. Neither says anything about the mail or its recipient.
_UNRELATED_TO_MAIL: Final = re.compile(rb"5\.[47]\.")
#: A line may have 998 bytes (RFC 5322, 2.1.1). A body within that limit stays readable; a longer one is encoded. With
#: shorter lines, the email package encodes the URL of List-Unsubscribe, which no program would understand.
_POLICY: Final = SMTP.clone(max_line_length=998)
_MISCONFIGURED: Final = (smtplib.SMTPNotSupportedError, ssl.SSLCertVerificationError)
_log = logging.getLogger(__name__)


class MailNotSent(TryAgain):
    """The mail was not accepted but may be later, in ``retry_after`` seconds if the service says when."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("The mail could not be sent; it will be retried.")
        self.retry_after = retry_after


class MailRefused(PermanentFailure):
    """The mail will never be accepted: its address does not exist, or its content is rejected."""


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to one address.

    Attributes:
        to: the address.
        subject: without anything that a user has entered.
        text: the body as plain text.
        html: the same as HTML.
        message_id: from ``message_id_of``: the same event has the same id.
        unsubscribe: the URL that unsubscribes; empty for a mail that is not about a job.
    """

    to: str
    subject: str
    text: str
    html: str
    message_id: str
    unsubscribe: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that every transport passes on as they are, except for those that it sets itself."""
        headers = {"Auto-Submitted": "auto-generated"}
        if self.unsubscribe:
            headers["List-Unsubscribe"] = f"<{self.unsubscribe}>"  # RFC 2369, section 3.2
        if self.unsubscribe.startswith("https://"):
            headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058, section 3.1: only with HTTPS
        return headers

    def __post_init__(self) -> None:
        if CONTROLS.search(self.to + self.subject + self.unsubscribe):
            raise MailRefused("The mail's address or subject contains a line break or another control character.")
        if not _MESSAGE_ID.fullmatch(self.message_id):
            raise ValueError(f"{self.message_id!r} is not made from an event's id")


#: Sends a mail, or raises MailNotSent or MailRefused.
Send = Callable[[Mail], None]


def message_id_of(event: str) -> str:
    """Returns the Message-ID of an event's mail. Every copy of the mail has the same one."""
    return f"<{event}@mp3burst>"


def recipient_of(mail: Mail) -> Address:
    """Returns the mail's recipient, with the domain in ASCII.

    Raises:
        MailRefused: the address is invalid, or its local part is not ASCII.
    """
    try:
        return parse(mail.to)
    except BadAddress as error:
        raise MailRefused("The mail's recipient is not a valid email address.") from error


def compose(mail: Mail, sender: Address) -> EmailMessage:
    """Returns the mail as a multipart/alternative message with plain text and HTML.

    Raises:
        MailRefused: the recipient's address is invalid.
    """
    message = EmailMessage(policy=_POLICY)
    message["From"] = sender
    message["To"] = recipient_of(mail)
    # The email package decodes "=?...?=" in its input and writes out any line break that was encoded in it.
    message["Subject"] = mail.subject.replace("=?", "=\N{WORD JOINER}?")
    message["Date"] = datetime.now(UTC)
    message["Message-ID"] = mail.message_id
    for name, value in mail.headers.items():
        message[name] = value
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message


@dataclass(frozen=True, slots=True)
class MailDir:
    """Writes mails as .eml files named after their events, so that a second copy replaces the first."""

    directory: Path
    sender: Address

    def __call__(self, mail: Mail) -> None:
        """Writes the mail to a temporary file in the same directory, then renames it.

        Raises:
            MailNotSent: the file cannot be written.
            MailRefused: the recipient's address is invalid.
        """
        data = compose(mail, self.sender).as_bytes()
        name = mail.message_id[1:].partition("@")[0]
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=self.directory, prefix=f".{name}.", suffix=".tmp", delete=False
            ) as temporary:
                try:
                    temporary.write(data)
                    temporary.flush()
                    os.fsync(temporary.fileno())
                    Path(temporary.name).replace(self.directory / f"{name}.eml")
                except BaseException:
                    Path(temporary.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise MailNotSent from error


@dataclass(frozen=True, slots=True)
class Smtp:
    """Sends mails to an SMTP server. ``security`` is starttls, tls or none; without a ``user`` there is no login."""

    host: str
    port: int
    security: str
    user: str
    password: str = field(repr=False)
    sender: Address
    timeout: float = _TIMEOUT

    def __call__(self, mail: Mail) -> None:
        """Connects, logs in and sends the mail.

        Raises:
            MailNotSent: the server is unreachable, misconfigured, or asks to try again.
            MailRefused: the server rejects this mail permanently, or the recipient's address is invalid.
        """
        message = compose(mail, self.sender).as_bytes(policy=_POLICY.clone(cte_type="7bit"))
        try:
            server = self._connect()
            try:
                if self.user:
                    server.login(self.user, self.password)
                server.sendmail(self.sender.addr_spec, recipient_of(mail).addr_spec, message)
                # The server has accepted the mail: an error while closing the session must not send it again.
                with contextlib.suppress(OSError):
                    server.quit()
            finally:
                server.close()
        except OSError as error:  # the base class of smtplib's exceptions
            raise self._classify(error) from error

    def _connect(self) -> smtplib.SMTP:
        if self.security == "tls":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout, context=context)
        server = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        if self.security == "starttls":
            try:
                server.starttls(context=ssl.create_default_context())
            except BaseException:
                server.close()
                raise
        return server

    def _classify(self, error: OSError) -> MailNotSent | MailRefused:
        code, reason = _smtp_reply(error)
        about_mail = isinstance(error, smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError)
        if about_mail and code >= 500 and not _UNRELATED_TO_MAIL.match(reason):
            return MailRefused("The mail server permanently rejected the mail: check the address.")
        if code >= 500 or isinstance(error, _MISCONFIGURED):
            _log.error("mails are waiting: the settings for %s:%s do not work: %s", self.host, self.port, error)
        return MailNotSent()


@dataclass(frozen=True, slots=True)
class SendGrid:
    """Sends mails through SendGrid's Web API v3."""

    key: str = field(repr=False)
    sender: Address
    url: str
    timeout: float = _TIMEOUT

    def __call__(self, mail: Mail) -> None:
        """Sends the mail by POST /v3/mail/send.

        Raises:
            MailNotSent: SendGrid is unreachable, misconfigured, or asks to try again.
            MailRefused: SendGrid rejects this mail permanently, or the recipient's address is invalid.
        """
        # Neither package ships types.
        from python_http_client.exceptions import HTTPError  # type: ignore[import-untyped]
        from sendgrid import SendGridAPIClient  # type: ignore[import-untyped]

        # At DEBUG the client logs its headers, which include the key.
        logging.getLogger("python_http_client").setLevel(logging.INFO)
        client = SendGridAPIClient(self.key, self.url)
        client.client.timeout = self.timeout
        try:
            client.send(self._request(mail))
        except HTTPError as error:
            raise self._classify(error.status_code, error.headers, error.body) from error
        except (OSError, http.client.HTTPException) as error:
            raise MailNotSent from error

    def _request(self, mail: Mail) -> dict[str, Any]:
        sender = {"email": self.sender.addr_spec, "name": self.sender.display_name or "mp3burst"}
        return {
            "from": sender,
            "personalizations": [{"to": [{"email": recipient_of(mail).addr_spec}]}],
            "subject": mail.subject,
            "content": [
                {"type": "text/plain", "value": mail.text},
                {"type": "text/html", "value": mail.html},
            ],
            "headers": {"Message-ID": mail.message_id, **mail.headers},
            "custom_args": {"message_id": mail.message_id},
            # Anyone with the link can download the MP3, so it must not pass through a third party's log.
            "tracking_settings": {
                "click_tracking": {"enable": False, "enable_text": False},
                "open_tracking": {"enable": False},
            },
        }

    def _classify(self, status: int, headers: Mapping[str, str], body: bytes) -> MailNotSent | MailRefused:
        if status in (400, 413):
            return MailRefused("SendGrid permanently rejected the mail: check the address.")
        if status == 429:
            # Epoch seconds, according to SendGrid's page on rate limits.
            with contextlib.suppress(ValueError):
                wait = int(headers.get("X-RateLimit-Reset") or "") - time.time()
                return MailNotSent(retry_after=max(0.0, wait))
        elif status < 500:
            _log.error("mails are waiting: the SendGrid settings do not work: %s %.500s", status, body)
        return MailNotSent()


def mailer(environ: Mapping[str, str]) -> Send:
    """Returns the transport that the environment asks for.

    Args:
        environ: the first of these that is set decides: ``SENDGRID_API_KEY`` (with ``SENDGRID_URL``); ``SMTP_HOST``
            (with ``SMTP_PORT``, ``SMTP_USER``, ``SMTP_PASSWORD``, ``SMTP_SECURITY``); ``GMAIL_ADDRESS`` (with
            ``GMAIL_PASSWORD``); ``MAIL_DIR``. ``MAIL_FROM`` is the sender.

    Raises:
        BadSetting: none is set, or one is invalid.
    """
    if environ.get("SENDGRID_API_KEY"):
        url = environ.get("SENDGRID_URL") or "https://api.sendgrid.com"
        return SendGrid(_secret(environ, "SENDGRID_API_KEY"), _sender(environ, ""), url.rstrip("/"))
    if host := environ.get("SMTP_HOST"):
        port = int(number(environ, "SMTP_PORT", 587, minimum=1))
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
        "No mail transport is configured: set SMTP_HOST, SENDGRID_API_KEY or GMAIL_ADDRESS, or set MAIL_DIR to a "
        "directory in which mails are written as .eml files."
    )


def _smtp_reply(error: OSError) -> tuple[int, bytes]:
    """Returns the server's reply code and text; the code is 0 if it sent none."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, reason = next(iter(error.recipients.values()))
        return code, reason
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        return error.smtp_code, text if isinstance(text, bytes) else text.encode()
    return 0, b""


def _sender(environ: Mapping[str, str], default: str) -> Address:
    text = environ.get("MAIL_FROM") or default
    if not text:
        raise BadSetting("MAIL_FROM is not set: it must be the address that mails are sent from.")
    name, address = parseaddr(text)
    try:
        if CONTROLS.search(text):
            raise BadAddress("The address contains a control character.")
        return parse(address, name)
    except BadAddress as error:
        raise BadSetting(
            f"MAIL_FROM is {text!r}: it must be an address, or a name with an address: mp3burst <me@example.org>."
        ) from error


def _secret(environ: Mapping[str, str], name: str) -> str:
    # Other characters make http.client or smtplib fail with the secret in the error's message.
    value = required(environ, name, "the secret that authorizes sending mails")
    if not (value.isascii() and value.isprintable()):
        raise BadSetting(f"{name} contains a line break or a character outside ASCII.")
    return value
