"""Mails go to strangers only to ask whether they want any; unsubscribing works with one click."""

import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.client import PASSWORD, Client, wave_bytes
from tests.support.platform import Platform, start
from tests.support.processes import wait_for

WAV = wave_bytes(0.5)
#: What an attacker wants a stranger to read and to click on.
HOSTILE = (
    "Your invoice is overdue, pay at evil.example.com.wav",
    "https:evil.example.com?pay.wav",
    "Bcc eve@evil.example.com.wav",
    "invoice.mov",
)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with the defaults of an operator who has set nothing."""
    env = {"CONFIRM_EMAIL": "", "REGISTRATIONS_PER_HOUR": "", "PUBLIC_URL": "https://mp3.example"}
    with start(tmp_path_factory.mktemp("confirm") / "data", env=env) as running:
        yield running


def mails_to(platform: Platform, address: str) -> list[EmailMessage]:
    """Returns the mails to an address, oldest first."""
    paths = sorted(Path(platform.data / "mail").glob("*.eml"), key=lambda path: path.stat().st_mtime_ns)
    mails = [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in paths]
    return [mail for mail in mails if mail["To"] == address]


def await_mail(platform: Platform, address: str, number: int) -> EmailMessage:
    """Waits for a mail to an address, from 1, and asserts that there is none after it."""
    wait_for(lambda: len(mails_to(platform, address)) >= number, f"mail {number} to {address}", 60)
    settle(platform)
    mails = mails_to(platform, address)
    assert len(mails) == number
    return mails[-1]


def settle(platform: Platform) -> None:
    """Waits until every event is handled."""
    wait_for(lambda: not any(sum(queue.values()) for queue in platform.status()["queues"].values()), "empty queues", 60)


def link_of(mail: EmailMessage, path: str) -> str:
    """Returns the path and the query of the mail's link to this path."""
    body = mail.get_body(("plain",))
    assert body is not None
    (link,) = re.findall(rf"^https://mp3\.example({path}\?\S+)", body.get_content(), re.MULTILINE)
    return str(link)


def test_a_stranger_gets_one_mail_and_no_other(platform: Platform) -> None:
    stranger = "stranger@example.org"
    client = Client(platform.url)
    form = {"name": "Pay at evil.example.com", "username": "Your invoice", "password": PASSWORD, "email": stranger}
    registered = client.register(**form)
    assert registered.status == 201
    attacker = Client(platform.url, "", "your invoice", registered.json()["id"]).log_in()
    mail = await_mail(platform, stranger, 1)
    for name in HOSTILE:
        assert attacker.convert(BytesIO(WAV), name)["status"] == "done"
    assert attacker.convert(BytesIO(b"ID3" + bytes(5000)), HOSTILE[0])["status"] == "failed"
    answer = attacker.call("POST", "/confirm/again", b"")
    assert int(answer.headers["Retry-After"]) > 500
    assert answer.headers["RateLimit-Policy"] == '"confirmations";q=1;w=600'
    answer.problem(429)
    assert await_mail(platform, stranger, 1)["Message-ID"] == mail["Message-ID"]

    assert mail["Subject"] == "Confirm your address"
    for part in mail.iter_parts():
        text = part.get_content()
        assert set(re.findall(r"\w+://([\w.]+)", text)) == {"mp3.example"}
        text = re.sub('token=[^\\s"]+', "", text)  # random letters
        assert not re.search("invoice|pay|evil", text, re.IGNORECASE)


def test_confirming_and_unsubscribing(platform: Platform) -> None:
    me = Client(platform.url).sign_up()
    link = link_of(await_mail(platform, me.username, 1), "/confirm")
    anonymous = Client(platform.url)

    # A scanner opens every link: nothing happens.
    page = anonymous.call("GET", link)
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'<form method="post"><button>Confirm</button>' in page.body
    me.convert(BytesIO(WAV), "before.wav")
    await_mail(platform, me.username, 1)

    for _ in range(2):
        assert anonymous.call("POST", link, b"").status == 200
    assert me.call("POST", "/confirm/again", b"").json() == {"confirmed": True}
    me.convert(BytesIO(WAV), "Holiday in Rome.wav")
    mail = await_mail(platform, me.username, 2)
    assert mail["Subject"] == "Your MP3 is ready"
    body = mail.get_body(("plain",))
    assert body is not None
    assert "“Holiday in Rome”" in body.get_content()

    # One click of a mail program (RFC 8058).
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    target = urlsplit(mail["List-Unsubscribe"].strip("<>"))
    unsubscribe = f"{target.path}?{target.query}"
    assert unsubscribe == link_of(mail, "/unsubscribe")
    assert anonymous.call("GET", unsubscribe).status == 200
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    page = anonymous.call("POST", unsubscribe, b"List-Unsubscribe=One-Click", form)
    assert page.status == 200
    me.convert(BytesIO(WAV), "after.wav")
    await_mail(platform, me.username, 2)

    (undo,) = re.findall(rb'action="(/unsubscribe/undo\?[^"]+)"', page.body)
    assert anonymous.call("POST", undo.decode(), b"").status == 200
    me.convert(BytesIO(WAV), "again.wav")
    await_mail(platform, me.username, 3)


def test_registrations_from_one_network_are_limited(platform: Platform) -> None:
    client = Client(platform.url)
    statuses = []
    left = []
    for n in range(12):
        form = {"name": "Eve", "username": f"eve{n}", "password": PASSWORD, "email": "eve@example.com"}
        answer = client.register(**form)
        statuses.append(answer.status)
        left += re.findall(r'"registrations";r=(\d+)', answer.headers["RateLimit"])
    assert statuses[0] == 201
    assert left == sorted(left, key=int, reverse=True)
    assert len(left) == 12
    assert statuses[-1] == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 360
    assert answer.headers["RateLimit-Policy"] == '"registrations";q=10;w=3600'
    assert answer.headers["RateLimit"] == f'"registrations";r=0;t={answer.headers["Retry-After"]}'
    assert answer.problem(429)["detail"].startswith("Too many registrations from your network: wait ")
    await_mail(platform, "eve@example.com", 1)
