"""A real SMTP server in this process, which answers as the test decides and keeps the mails it accepts."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.servers import free_port

#: Instead of an answer: hang, or drop the connection.
HANG = "hang"
DROP = "drop"


class SmtpServer:
    """The server's state and answers.

    Attributes:
        port: of 127.0.0.1.
        mails: the accepted mails, parsed, oldest first.
        raw: the same as bytes.
        recipients: the envelope recipients of each mail.
        logins: the user of each login.
        answers: overrides the answer to a verb (MAIL, RCPT, DATA, QUIT); may be HANG or DROP.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.mails: list[EmailMessage] = []
        self.raw: list[bytes] = []
        self.recipients: list[list[str]] = []
        self.logins: list[str] = []
        self.answers: dict[str, str] = {}

    async def _answer(self, verb: str, server: SMTP) -> str | None:
        answer = self.answers.get(verb)
        if answer == HANG:
            await asyncio.sleep(3600)
        if answer == DROP:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
            return "421 gone"
        return answer

    async def handle_MAIL(self, server: SMTP, _: Session, envelope: Envelope, sender: str, __: Any) -> str:
        if answer := await self._answer("MAIL", server):
            return answer
        envelope.mail_from = sender
        return "250 OK"

    async def handle_RCPT(self, server: SMTP, _: Session, envelope: Envelope, address: str, __: Any) -> str:
        if answer := await self._answer("RCPT", server):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _: Session, envelope: Envelope) -> str:
        if answer := await self._answer("DATA", server):
            return answer
        content = envelope.original_content or b""
        self.raw.append(content)
        self.mails.append(message_from_bytes(content, policy=policy.default))
        self.recipients.append([str(address) for address in envelope.rcpt_tos])
        return "250 OK"

    async def handle_QUIT(self, server: SMTP, _: Session, __: Envelope) -> str:
        return await self._answer("QUIT", server) or "221 Bye"


@contextmanager
def running(
    certificate: Path | None = None, *, tls: bool = False, login: tuple[str, str] | None = None
) -> Iterator[SmtpServer]:
    """Runs a server until the block ends.

    Args:
        certificate: the PEM file of ``make_certificate``; with it the server requires STARTTLS first.
        tls: use TLS from the first byte instead.
        login: the required user and password.
    """
    server = SmtpServer()
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

    def check(_: SMTP, __: Session, ___: Envelope, ____: str, given: LoginPassword) -> AuthResult:
        is_valid = (given.login.decode(), given.password.decode()) == login
        if is_valid:
            server.logins.append(given.login.decode())
        return AuthResult(success=is_valid, handled=False)

    controller = Controller(
        server,
        hostname="127.0.0.1",
        port=server.port,
        ssl_context=context if tls else None,
        tls_context=None if tls else context,
        require_starttls=bool(context and not tls),
        authenticator=check if login else None,
        auth_required=bool(login and not tls),  # with TLS from the first byte aiosmtpd warns of plain text
        auth_require_tls=bool(context and not tls),
    )
    controller.start()
    try:
        yield server
    finally:
        controller.stop()


def make_certificate(path: Path, *names: str) -> Path:
    """Writes a self-signed certificate for 127.0.0.1 and these names, with its key, to one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mp3burst test")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *(x509.DNSName(each) for each in names)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
