"""Carries mails: a directory of .eml files, an SMTP server, or SendGrid; ``transports`` chooses."""

import contextlib
import http.client
import logging
import os
import re
import smtplib
import ssl
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.policy import SMTP
from pathlib import Path
from typing import Any

from functions.notify.transports import Mail, MailNotSent, MailRefused, addressee, compose

_log = logging.getLogger(__name__)

#: Seconds to wait for each answer. Too short a wait for the last one sends a mail twice (RFC 5321, 4.5.3.2.6).
_TIMEOUT = 30
#: RFC 3463: X.4 is routing and quotas, X.7 permission. Neither says anything about the mail or its addressee.
_NOT_THE_MAILS_FAULT = re.compile(rb"5\.[47]\.")
_CONFIGURATION = (smtplib.SMTPNotSupportedError, ssl.SSLCertVerificationError)


@dataclass(frozen=True, slots=True)
class MailDir:
    """Keeps mails as .eml files, named for their events: the same mail twice is one file."""

    directory: Path
    sender: Address

    def __call__(self, mail: Mail) -> None:
        """Write the mail beside its place, then rename it."""
        data = compose(mail, self.sender).as_bytes(policy=SMTP)
        name = mail.message_id[1:].partition("@")[0]
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=self.directory, prefix=f".{name}.", suffix=".tmp", delete=False
            ) as beside:
                try:
                    beside.write(data)
                    beside.flush()
                    os.fsync(beside.fileno())
                    Path(beside.name).replace(self.directory / f"{name}.eml")
                except BaseException:
                    Path(beside.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise MailNotSent from error


@dataclass(frozen=True, slots=True)
class Smtp:
    """Hands mails to an SMTP server. ``security`` is starttls, tls or none; without a user there is no login."""

    host: str
    port: int
    security: str
    user: str
    password: str = field(repr=False)
    sender: Address
    timeout: float = _TIMEOUT

    def __call__(self, mail: Mail) -> None:
        """Log in and send."""
        message = compose(mail, self.sender).as_bytes(policy=SMTP.clone(cte_type="7bit"))
        try:
            server = self._connect()
            try:
                if self.user:
                    server.login(self.user, self.password)
                server.sendmail(self.sender.addr_spec, addressee(mail).addr_spec, message)
                # The mail is taken: however badly the server says good-bye, it must not be sent again.
                with contextlib.suppress(OSError):
                    server.quit()
            finally:
                server.close()
        except OSError as error:  # of which smtplib's are children
            raise self._judge(error) from error

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

    def _judge(self, error: OSError) -> MailNotSent | MailRefused:
        code, reason = _answer(error)
        about_mail = isinstance(error, smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError)
        if about_mail and code >= 500 and not _NOT_THE_MAILS_FAULT.match(reason):
            return MailRefused("The mail server refused the mail for good: check the address.")
        if code >= 500 or isinstance(error, _CONFIGURATION):
            _log.error("Mails wait: %s:%s does not work as it is set up: %s", self.host, self.port, error)
        return MailNotSent()


@dataclass(frozen=True, slots=True)
class SendGrid:
    """Hands mails to SendGrid's Web API v3."""

    key: str = field(repr=False)
    sender: Address
    url: str
    timeout: float = _TIMEOUT

    def __call__(self, mail: Mail) -> None:
        """POST the mail to /v3/mail/send."""
        # Neither ships types.
        from python_http_client.exceptions import HTTPError  # type: ignore[import-untyped]
        from sendgrid import SendGridAPIClient  # type: ignore[import-untyped]

        # At DEBUG the client logs its headers, and with them the key.
        logging.getLogger("python_http_client").setLevel(logging.INFO)
        client = SendGridAPIClient(self.key, self.url)
        client.client.timeout = self.timeout
        try:
            client.send(self._request(mail))
        except HTTPError as error:
            raise self._judge(error.status_code, error.headers, error.body) from error
        except (OSError, http.client.HTTPException) as error:
            raise MailNotSent from error

    def _request(self, mail: Mail) -> dict[str, Any]:
        sender = {"email": self.sender.addr_spec, "name": self.sender.display_name or "mp3burst"}
        return {
            "from": sender,
            "personalizations": [{"to": [{"email": addressee(mail).addr_spec}]}],
            "subject": mail.subject,
            "content": [
                {"type": "text/plain", "value": mail.text},
                {"type": "text/html", "value": mail.html},
            ],
            "headers": {"Message-ID": mail.message_id, "Auto-Submitted": "auto-generated"},
            "custom_args": {"message_id": mail.message_id},
            # Whoever holds the link holds the MP3: it must not lead through a third party's log.
            "tracking_settings": {
                "click_tracking": {"enable": False, "enable_text": False},
                "open_tracking": {"enable": False},
            },
        }

    def _judge(self, status: int, headers: Mapping[str, str], body: bytes) -> MailNotSent | MailRefused:
        if status in (400, 413):
            return MailRefused("SendGrid refused the mail for good: check the address.")
        if status == 429:
            # Epoch seconds, by SendGrid's page on rate limits.
            with contextlib.suppress(ValueError):
                wait = int(headers.get("X-RateLimit-Reset") or "") - time.time()
                return MailNotSent(retry_after=max(0.0, wait))
        elif status < 500:
            _log.error("Mails wait: SendGrid does not work as it is set up: %s %.500s", status, body)
        return MailNotSent()


def _answer(error: OSError) -> tuple[int, bytes]:
    # The server's reply code and text, 0 where it gave none.
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, reason = next(iter(error.recipients.values()))
        return code, reason
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        return error.smtp_code, text if isinstance(text, bytes) else text.encode()
    return 0, b""
