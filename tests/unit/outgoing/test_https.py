"""Receivers with HTTPS: the connection goes to the address that was found, the certificate is the name's."""

import datetime
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from functions.outgoing.addresses import Policy
from functions.outgoing.client import Limits, NoReply, Response, call, opened
from tests.support.servers.receiver import Receiver
from tests.support.servers.source import FileServer, Served

POLICY = Policy.from_environ({"WEBHOOK_NETWORKS": "127.0.0.1/32"})
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        certificate = (
            self._builder(self._name, self._key, NOW + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, SHA256())
        )
        self.file = folder / "authority.pem"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, expires: datetime.datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(NOW - 2 * DAY)
            .not_valid_after(expires)
        )

    def context(self, host: str, expires: datetime.datetime = NOW + DAY) -> ssl.SSLContext:
        """Returns that of a server whose certificate is for this host."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(x509.Name([]), key, expires)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
            .sign(self._key, SHA256())
        )
        file = self._folder / "server.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that is trusted; every name stands for 127.0.0.1."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *args, **options: real("127.0.0.1", *args, **options))
    return made


def test_certificate_is_checked_for_the_name_while_the_address_is_pinned(authority: Authority) -> None:
    asked: list[str | None] = []
    context = authority.context("hooks.example")
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    with Receiver(context=context) as receiver:
        target = POLICY.parse(f"https://hooks.example:{receiver.port}/a")
        assert call("POST", target, POLICY, {}, b"body").status == 200
        [message] = receiver.messages
        assert (message.body, message.headers["host"]) == (b"body", f"hooks.example:{receiver.port}")
        assert asked == ["hooks.example"]
        other = POLICY.parse(f"https://other.example:{receiver.port}/a")
        with pytest.raises(NoReply, match="certificate is not valid: Hostname mismatch"):
            call("POST", other, POLICY, {}, b"body")
        assert len(receiver.messages) == 1


@pytest.mark.parametrize(
    ("has_length", "ends_tls", "is_complete"),
    [(True, True, True), (True, False, True), (False, True, True), (False, False, False)],
)
def test_file_without_length_ends_with_tls(
    authority: Authority, has_length: bool, ends_tls: bool, is_complete: bool
) -> None:
    """Anybody on the way can end the connection, but not TLS."""
    content = bytes(1_000_000)
    served = Served(content, has_length=has_length, ends_tls=ends_tls)
    with FileServer({"/a": served}, authority.context("files.example")) as server:
        target = POLICY.parse(f"https://files.example:{server.port}/a")
        with opened(target, POLICY, {}, Limits("server", 20)) as response:
            if is_complete:
                assert read(response) == content
            else:
                with pytest.raises(NoReply, match="broke the connection off"):
                    read(response)


def read(response: Response) -> bytes:
    parts = []
    while part := response.read(1 << 18):
        parts.append(part)
    return b"".join(parts)


def test_expired_certificate_is_refused(authority: Authority) -> None:
    refuse(authority.context("hooks.example", NOW - DAY), "expired")


def test_certificate_of_an_unknown_authority_is_refused(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = authority.context("hooks.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path).file))
    refuse(context, "signature failure|unable to get local issuer")


def refuse(context: ssl.SSLContext, message: str) -> None:
    with Receiver(context=context) as receiver:
        target = POLICY.parse(f"https://hooks.example:{receiver.port}/")
        with pytest.raises(NoReply, match=f"certificate is not valid: .*({message})"):
            call("POST", target, POLICY, {}, b"body")
        assert receiver.messages == []
