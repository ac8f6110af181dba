"""Mails as messages and files, and the choice of the transport from the environment."""

import dataclasses
from email import message_from_bytes, policy
from email.headerregistry import Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.notify.transports import (
    CONTROLS,
    Mail,
    MailDir,
    MailNotSent,
    MailRefused,
    SendGrid,
    Smtp,
    compose,
    mailer,
    message_id_of,
)
from functions.settings import BadSetting

MAIL = Mail("ada@example.org", "Ready", "text\n", "<p>html</p>\n", message_id_of("0123.mp3.ready"))
SENDER = Address(addr_spec="mp3burst@localhost")
HEADERS = {
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
}


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=300))
def test_any_subject_survives_and_adds_no_header(subject: str) -> None:
    data = compose(dataclasses.replace(MAIL, subject=subject), SENDER).as_bytes(policy=policy.SMTP)

    parsed = message_from_bytes(data, policy=policy.default)
    assert set(parsed.keys()) == HEADERS
    assert parsed["Subject"].strip() == subject.replace("=?", "=\N{WORD JOINER}?").strip()


def test_encoded_line_break_in_the_subject_adds_no_header() -> None:
    subject = "=?utf-8?q?x=0D=0ABcc:_eve@example.org?="
    data = compose(dataclasses.replace(MAIL, subject=subject), SENDER).as_bytes(policy=policy.SMTP)

    parsed = message_from_bytes(data, policy=policy.default)
    assert set(parsed.keys()) == HEADERS
    assert parsed["Subject"].replace("\N{WORD JOINER}", "") == subject


@pytest.mark.parametrize("control", ["\r\nBcc: eve@example.org", "\n", "\r", "\0", "\x85", "\u2028", "\udcff"])
def test_control_character_in_a_header_is_rejected(control: str) -> None:
    with pytest.raises(MailRefused):
        dataclasses.replace(MAIL, subject=f"Ready{control}")
    with pytest.raises(MailRefused):
        dataclasses.replace(MAIL, to=f"ada@example.org{control}")
    assert CONTROLS.search(control)


@pytest.mark.parametrize(
    "address",
    ["", "ada", "@example.org", "ada@", "ada@example.org, eve@example.org", "ada lovelace@example.org", "ädä@x.org"],
)
def test_invalid_address_is_rejected_permanently(address: str) -> None:
    with pytest.raises(MailRefused):
        compose(dataclasses.replace(MAIL, to=address), SENDER)


@pytest.mark.parametrize("message_id", ["", "0123", "<0123@elsewhere>", "<../0123@mp3burst>", "<.@mp3burst>"])
def test_message_id_must_come_from_an_event(message_id: str) -> None:
    with pytest.raises(ValueError, match="event's id"):
        dataclasses.replace(MAIL, message_id=message_id)


def test_sending_twice_writes_one_file(tmp_path: Path) -> None:
    send = mailer({"MAIL_DIR": str(tmp_path / "new" / "mail")})

    send(MAIL)
    send(MAIL)

    [file] = (tmp_path / "new" / "mail").iterdir()
    assert file.name == "0123.mp3.ready.eml"
    parsed = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert (parsed["To"], parsed["From"]) == ("ada@example.org", "mp3burst@localhost")
    assert parsed["Message-ID"] == "<0123.mp3.ready@mp3burst>"


def test_long_link_stays_readable_in_the_file(tmp_path: Path) -> None:
    line = f"Grüße https://mp3.example/download?fid=1&token={'x' * 400}"

    mailer({"MAIL_DIR": str(tmp_path)})(dataclasses.replace(MAIL, text=line))

    assert line in (tmp_path / "0123.mp3.ready.eml").read_text("utf-8")


def test_unwritable_directory_is_retried(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(MailNotSent):
        mailer({"MAIL_DIR": str(tmp_path / "file")})(MAIL)


def test_failed_rename_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "0123.mp3.ready.eml").mkdir()

    with pytest.raises(MailNotSent):
        mailer({"MAIL_DIR": str(tmp_path)})(MAIL)

    assert [path.name for path in tmp_path.iterdir()] == ["0123.mp3.ready.eml"]


def test_environment_chooses_the_transport() -> None:
    everything = {
        "SENDGRID_API_KEY": "key",
        "SMTP_HOST": "smtp.example.org",
        "GMAIL_ADDRESS": "ada@gmail.com",
        "GMAIL_PASSWORD": "word",
        "MAIL_DIR": "mail",
        "MAIL_FROM": "mp3burst <m@example.org>",
    }
    sender = Address("mp3burst", "m", "example.org")

    assert mailer(everything) == SendGrid("key", sender, "https://api.sendgrid.com")
    del everything["SENDGRID_API_KEY"]
    assert mailer(everything) == Smtp("smtp.example.org", 587, "starttls", "", "", sender)
    del everything["SMTP_HOST"]
    assert mailer(everything) == Smtp("smtp.gmail.com", 587, "starttls", "ada@gmail.com", "word", sender)
    del everything["GMAIL_ADDRESS"]
    assert mailer(everything) == MailDir(Path("mail"), sender)


def test_sender_defaults_to_the_user_who_logs_in() -> None:
    login = {"SMTP_HOST": "x", "SMTP_USER": "ada@example.org", "SMTP_PASSWORD": "word"}
    gmail = {"GMAIL_ADDRESS": "ada@gmail.com", "GMAIL_PASSWORD": "word"}

    assert mailer(login) == Smtp("x", 587, "starttls", "ada@example.org", "word", Address(addr_spec="ada@example.org"))
    assert mailer(gmail) == Smtp(
        "smtp.gmail.com", 587, "starttls", "ada@gmail.com", "word", Address(addr_spec="ada@gmail.com")
    )


@pytest.mark.parametrize(
    ("port", "setting", "security"),
    [
        ("465", "", "tls"),
        ("587", "", "starttls"),
        ("25", "", "starttls"),
        ("25", "none", "none"),
        ("465", "starttls", "starttls"),
    ],
)
def test_port_decides_the_encryption_by_default(port: str, setting: str, security: str) -> None:
    made = mailer({"SMTP_HOST": "x", "SMTP_PORT": port, "SMTP_SECURITY": setting, "MAIL_FROM": "a@b.org"})

    assert isinstance(made, Smtp)
    assert (made.port, made.security) == (int(port), security)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "SMTP_HOST, SENDGRID_API_KEY or GMAIL_ADDRESS, or set MAIL_DIR"),
        ({"SENDGRID_API_KEY": "key"}, "MAIL_FROM"),
        ({"SENDGRID_API_KEY": "key\n", "MAIL_FROM": "a@b.org"}, "SENDGRID_API_KEY"),
        ({"SMTP_HOST": "x"}, "MAIL_FROM"),
        ({"SMTP_HOST": "x", "SMTP_PORT": "smtp"}, "SMTP_PORT"),
        ({"SMTP_HOST": "x", "SMTP_SECURITY": "ssl"}, "SMTP_SECURITY"),
        ({"SMTP_HOST": "x", "SMTP_USER": "a@b.org"}, "SMTP_PASSWORD"),
        ({"SMTP_HOST": "x", "SMTP_USER": "a@b.org", "SMTP_PASSWORD": "wörd"}, "SMTP_PASSWORD"),
        ({"SMTP_HOST": "x", "SMTP_USER": "apikey", "SMTP_PASSWORD": "word"}, "MAIL_FROM"),
        ({"GMAIL_ADDRESS": "a@b.org"}, "GMAIL_PASSWORD"),
        ({"MAIL_DIR": "mail", "MAIL_FROM": "nobody"}, "MAIL_FROM"),
        ({"MAIL_DIR": "mail", "MAIL_FROM": "a@b.org\r\nBcc: eve@example.org"}, "MAIL_FROM"),
    ],
    ids=str,
)
def test_error_names_the_invalid_setting(environ: dict[str, str], named: str) -> None:
    with pytest.raises(BadSetting, match=named) as caught:
        mailer(environ)
    for name in ("SENDGRID_API_KEY", "SMTP_PASSWORD"):
        assert environ.get(name, "a secret") not in str(caught.value)
