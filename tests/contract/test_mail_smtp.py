"""Mails through a real SMTP server: what arrives, and what each kind of refusal means."""

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
    subject="Your MP3 is ready: Grüße 日本語 🎬.mp4",
    text="Hello Ada,\n\nGrüße\n",
    html="<p>Grüße</p>\n",
    message_id=message_id_of("0123.mp3.ready"),
)
USER, PASSWORD = "mp3burst", "a secret that no log may hold"


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = smtp.make_certificate(tmp_path / "smtp.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


@pytest.fixture
def server() -> Iterator[SmtpServer]:
    with smtp.running() as server:
        yield server


def carrier(server: SmtpServer, environ: Mapping[str, str] | None = None, timeout: float = 10) -> Smtp:
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


def test_the_mail_arrives_as_it_was_written(server: SmtpServer) -> None:
    carrier(server)(MAIL)

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
    assert server.raw[0].isascii(), "a server need not take 8-bit data"


def test_long_lines_are_wrapped_for_the_wire(server: SmtpServer) -> None:
    long = "&" * 3000

    carrier(server)(dataclasses.replace(MAIL, text=long, html=long))

    assert max(map(len, server.raw[0].split(b"\r\n"))) <= 998
    text, _ = server.mails[0].iter_parts()
    assert text.get_content().strip() == long


def test_a_line_with_a_single_dot_arrives(server: SmtpServer) -> None:
    carrier(server)(dataclasses.replace(MAIL, text="a\n.\nb\n"))

    text, _ = server.mails[0].iter_parts()
    assert text.get_content().split() == ["a", ".", "b"]


def test_an_international_domain_is_written_to(server: SmtpServer) -> None:
    carrier(server)(dataclasses.replace(MAIL, to="ada@exämple.org"))

    assert server.recipients == [["ada@xn--exmple-cua.org"]]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mails_go_through_tls_and_login(certificate: Path, security: str) -> None:
    with smtp.running(certificate, tls=security == "tls", login=(USER, PASSWORD)) as server:
        carrier(server, {"SMTP_SECURITY": security, "SMTP_USER": USER, "SMTP_PASSWORD": PASSWORD})(MAIL)

        assert len(server.mails) == 1
        assert server.logins == [USER]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_that_nobody_vouches_for_stops_the_mail(
    tmp_path: Path, security: str, caplog: pytest.LogCaptureFixture
) -> None:
    untrusted = smtp.make_certificate(tmp_path / "smtp.pem")
    with smtp.running(untrusted, tls=security == "tls") as server:
        with pytest.raises(MailNotSent):
            carrier(server, {"SMTP_SECURITY": security})(MAIL)

        assert server.mails == []
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


def test_without_starttls_nothing_is_said_in_the_clear(server: SmtpServer, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MailNotSent):
        carrier(server, {"SMTP_SECURITY": "starttls", "SMTP_USER": USER, "SMTP_PASSWORD": PASSWORD})(MAIL)

    assert server.mails == []
    assert "STARTTLS" in caplog.text


def test_a_wrong_password_is_the_operators_to_mend(certificate: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with smtp.running(certificate, login=(USER, "another")) as server:
        sending = carrier(server, {"SMTP_SECURITY": "starttls", "SMTP_USER": USER, "SMTP_PASSWORD": PASSWORD})
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
def test_a_mail_that_is_refused_for_good_is_not_tried_again(server: SmtpServer, verb: str, answer: str) -> None:
    server.answers[verb] = answer

    with pytest.raises(MailRefused, match="check the address"):
        carrier(server)(MAIL)


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
def test_what_may_pass_is_tried_again_without_an_alarm(
    server: SmtpServer, verb: str, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers[verb] = answer

    with pytest.raises(MailNotSent):
        carrier(server)(MAIL)

    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    server.answers.clear()
    carrier(server)(MAIL)
    assert len(server.mails) == 1


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        ("MAIL", "550 5.1.8 this sender is not yours"),
        ("RCPT", "554 5.7.1 relay access denied"),
        ("DATA", "550 5.4.5 daily sending limit exceeded"),
    ],
)
def test_a_refusal_that_is_not_about_the_mail_keeps_it(
    server: SmtpServer, verb: str, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers[verb] = answer

    with pytest.raises(MailNotSent):
        carrier(server)(MAIL)

    assert answer[4:9] in caplog.text


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
def test_a_server_that_hangs_is_given_up(server: SmtpServer, verb: str) -> None:
    server.answers[verb] = HANG

    with pytest.raises(MailNotSent):
        carrier(server, timeout=0.3)(MAIL)


def test_a_server_that_is_not_there_is_tried_again() -> None:
    server = SmtpServer()
    server.port = free_port()

    with pytest.raises(MailNotSent):
        carrier(server)(MAIL)


@pytest.mark.parametrize("good_bye", ["421 4.3.2 shutting down", DROP, HANG])
def test_a_taken_mail_is_sent_whatever_the_good_bye(server: SmtpServer, good_bye: str) -> None:
    server.answers["QUIT"] = good_bye

    carrier(server, timeout=0.5)(MAIL)

    assert len(server.mails) == 1
