"""Mails through a real SMTP server: what arrives, and the meaning of each kind of rejection."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from functions.notify.transports import Mail, MailNotSent, MailRefused, Smtp, mailer, message_id_of
from tests.support.servers import free_port, smtp
from tests.support.servers.smtp import DROP, HANG, SmtpServer

MAIL = Mail(
    to="ada@example.org",
    subject="Grüße 日本語 🎬",
    text="Hello Ada,\n\nGrüße\n",
    html="<p>Grüße</p>\n",
    message_id=message_id_of("0123.mp3.ready"),
)
USER = "mp3burst"
PASSWORD = "a secret that must not be logged"


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = smtp.make_certificate(tmp_path / "smtp.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


@pytest.fixture
def server() -> Iterator[SmtpServer]:
    with smtp.running() as server:
        yield server


def transport(server: SmtpServer, environ: Mapping[str, str] | None = None, timeout: float = 10) -> Smtp:
    made = mailer(
        {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(server.port),
            "SMTP_SECURITY": "none",
            "MAIL_FROM": "mp3burst <mp3burst@example.org>",
            **(environ or {}),
        }
    )
    assert isinstance(made, Smtp)
    return dataclasses.replace(made, timeout=timeout)


@pytest.mark.parametrize("url", ["https://mp3.example/unsubscribe?token=" + "a.B-c_9" * 60, "http://localhost/u"])
def test_link_to_unsubscribe_arrives_unchanged(server: SmtpServer, url: str) -> None:
    """A long one too: shorter lines would make the email package encode it."""
    transport(server)(dataclasses.replace(MAIL, unsubscribe=url))

    [mail] = server.mails
    assert f"\r\nList-Unsubscribe: <{url}>\r\n".encode() in server.raw[0]
    assert mail["List-Unsubscribe-Post"] == ("List-Unsubscribe=One-Click" if url.startswith("https") else None)


def test_mail_that_is_not_about_a_job_has_no_link_to_unsubscribe(server: SmtpServer) -> None:
    transport(server)(MAIL)

    assert {"List-Unsubscribe", "List-Unsubscribe-Post"}.isdisjoint(server.mails[0].keys())


def test_mail_arrives_unchanged(server: SmtpServer) -> None:
    transport(server)(MAIL)

    [mail] = server.mails
    assert server.recipients == [["ada@example.org"]]
    assert mail["From"] == "mp3burst <mp3burst@example.org>"
    assert mail["To"] == "ada@example.org"
    assert mail["Subject"] == MAIL.subject
    assert mail["Message-ID"] == "<0123.mp3.ready@mp3burst>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"].datetime.tzinfo is not None
    text, html = mail.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert text.get_content().replace("\r\n", "\n") == MAIL.text
    assert html.get_content().replace("\r\n", "\n") == MAIL.html
    assert server.raw[0].isascii(), "a server need not support 8-bit data"


def test_long_lines_are_encoded(server: SmtpServer) -> None:
    long = "&" * 3000

    transport(server)(dataclasses.replace(MAIL, text=long, html=long))

    assert max(map(len, server.raw[0].split(b"\r\n"))) <= 998
    text, _ = server.mails[0].iter_parts()
    assert text.get_content().strip() == long


def test_line_with_a_single_dot_arrives(server: SmtpServer) -> None:
    transport(server)(dataclasses.replace(MAIL, text="a\n.\nb\n"))

    text, _ = server.mails[0].iter_parts()
    assert text.get_content().split() == ["a", ".", "b"]


def test_international_domain_is_supported(server: SmtpServer) -> None:
    transport(server)(dataclasses.replace(MAIL, to="ada@exämple.org"))

    assert server.recipients == [["ada@xn--exmple-cua.org"]]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_is_sent_over_tls_with_login(certificate: Path, security: str) -> None:
    with smtp.running(certificate, tls=security == "tls", login=(USER, PASSWORD)) as server:
        transport(server, {"SMTP_SECURITY": security, "SMTP_USER": USER, "SMTP_PASSWORD": PASSWORD})(MAIL)

        assert len(server.mails) == 1
        assert server.logins == [USER]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_untrusted_certificate_stops_the_mail(tmp_path: Path, security: str, caplog: pytest.LogCaptureFixture) -> None:
    untrusted = smtp.make_certificate(tmp_path / "smtp.pem")
    with smtp.running(untrusted, tls=security == "tls") as server:
        with pytest.raises(MailNotSent):
            transport(server, {"SMTP_SECURITY": security})(MAIL)

        assert server.mails == []
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


def test_nothing_is_sent_in_plain_text_without_starttls(server: SmtpServer, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MailNotSent):
        transport(server, {"SMTP_SECURITY": "starttls", "SMTP_USER": USER, "SMTP_PASSWORD": PASSWORD})(MAIL)

    assert server.mails == []
    assert "STARTTLS" in caplog.text


def test_wrong_password_is_logged_for_the_operator(certificate: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with smtp.running(certificate, login=(USER, "another")) as server:
        sending = transport(server, {"SMTP_SECURITY": "starttls", "SMTP_USER": USER, "SMTP_PASSWORD": PASSWORD})
        with pytest.raises(MailNotSent) as caught:
            sending(MAIL)

    assert [record.levelname for record in caplog.records if record.name.startswith("functions")] == ["ERROR"]
    assert "535" in caplog.text
    assert PASSWORD not in f"{caplog.text}{caught.value!r}{caught.value.__cause__!r}{sending!r}"


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        ("RCPT", "550 5.1.1 no such user"),
        ("RCPT", "550 no such user"),
        ("DATA", "554 5.6.0 not wanted"),
        ("DATA", "552 too big"),
    ],
)
def test_permanent_rejection_is_not_retried(server: SmtpServer, verb: str, answer: str) -> None:
    server.answers[verb] = answer

    with pytest.raises(MailRefused, match="check the address"):
        transport(server)(MAIL)


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        ("MAIL", "451 4.3.0 try again"),
        ("RCPT", "451 4.7.1 greylisted"),
        ("RCPT", "421 4.3.2 shutting down"),
        ("DATA", "452 4.3.1 disk full"),
        ("MAIL", DROP),
        ("RCPT", DROP),
        ("DATA", DROP),
    ],
)
def test_temporary_failure_is_retried_without_an_error_log(
    server: SmtpServer, verb: str, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers[verb] = answer

    with pytest.raises(MailNotSent):
        transport(server)(MAIL)

    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    server.answers.clear()
    transport(server)(MAIL)
    assert len(server.mails) == 1


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        ("MAIL", "550 5.1.8 this sender is not yours"),
        ("RCPT", "554 5.7.1 relay access denied"),
        ("DATA", "550 5.4.5 daily sending limit exceeded"),
    ],
)
def test_rejection_unrelated_to_the_mail_is_retried(
    server: SmtpServer, verb: str, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers[verb] = answer

    with pytest.raises(MailNotSent):
        transport(server)(MAIL)

    assert answer[4:9] in caplog.text


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
def test_timeout_is_retried(server: SmtpServer, verb: str) -> None:
    server.answers[verb] = HANG

    with pytest.raises(MailNotSent):
        transport(server, timeout=0.3)(MAIL)


def test_refused_connection_is_retried() -> None:
    server = SmtpServer()
    server.port = free_port()

    with pytest.raises(MailNotSent):
        transport(server)(MAIL)


@pytest.mark.parametrize("quit_reply", ["421 4.3.2 shutting down", DROP, HANG])
def test_accepted_mail_counts_as_sent_whatever_the_reply_to_quit(server: SmtpServer, quit_reply: str) -> None:
    server.answers["QUIT"] = quit_reply

    transport(server, timeout=0.5)(MAIL)

    assert len(server.mails) == 1
