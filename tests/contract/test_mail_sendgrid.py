"""Mails through SendGrid's own client: the request it sends, and the meaning of each response."""

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from functions.notify.transports import Mail, MailNotSent, MailRefused, SendGrid, mailer, message_id_of
from tests.support.servers import free_port

MAIL = Mail(
    to="ada@example.org",
    subject="Grüße 日本語 🎬",
    text="Hello Ada",
    html="<p>Hello Ada</p>",
    message_id=message_id_of("0123.mp3.ready"),
    unsubscribe="https://mp3.example/unsubscribe?token=a.b.c",
)
KEY = "SG.a-key-that-must-not-be-logged"


class Api(BaseHTTPRequestHandler):
    """Stands in for SendGrid's server."""

    requests: ClassVar[list[tuple[str, Message, dict[str, Any]]]] = []
    status: ClassVar[int] = 202
    headers_sent: ClassVar[dict[str, str]] = {}
    silent: ClassVar[threading.Event | None] = None

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Api.requests.append((self.path, self.headers, body))
        if Api.silent:
            Api.silent.wait(10)
        answer = b"" if Api.status == 202 else b'{"errors":[{"message":"the reason","field":null}]}'
        self.send_response(Api.status)
        for name, value in Api.headers_sent.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Api.requests = []
    Api.status = 202
    Api.headers_sent = {}
    Api.silent = None
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def transport(url: str, timeout: float = 10) -> SendGrid:
    made = mailer({"SENDGRID_API_KEY": KEY, "SENDGRID_URL": url, "MAIL_FROM": "mp3burst <mp3burst@example.org>"})
    assert isinstance(made, SendGrid)
    return dataclasses.replace(made, timeout=timeout)


def test_request_contains_the_mail(url: str) -> None:
    transport(url)(MAIL)

    [(path, headers, body)] = Api.requests
    assert path == "/v3/mail/send"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body["from"] == {"email": "mp3burst@example.org", "name": "mp3burst"}
    assert body["personalizations"] == [{"to": [{"email": "ada@example.org"}]}]
    assert body["subject"] == MAIL.subject
    assert body["content"] == [
        {"type": "text/plain", "value": MAIL.text},
        {"type": "text/html", "value": MAIL.html},
    ]
    assert body["headers"] == {
        "Message-ID": MAIL.message_id,
        "Auto-Submitted": "auto-generated",
        "List-Unsubscribe": "<https://mp3.example/unsubscribe?token=a.b.c>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    assert body["custom_args"] == {"message_id": MAIL.message_id}


def test_link_tracking_is_disabled(url: str) -> None:
    transport(url)(MAIL)

    tracking = Api.requests[0][2]["tracking_settings"]
    assert tracking["click_tracking"] == {"enable": False, "enable_text": False}
    assert tracking["open_tracking"] == {"enable": False}


@pytest.mark.parametrize("status", [400, 413])
def test_bad_request_is_a_permanent_rejection(url: str, status: int) -> None:
    Api.status = status

    with pytest.raises(MailRefused, match="check the address"):
        transport(url)(MAIL)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_server_error_is_retried(url: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
    Api.status = status

    with pytest.raises(MailNotSent) as caught:
        transport(url)(MAIL)

    assert caught.value.retry_after is None
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_invalid_settings_are_logged_for_the_operator(url: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Api.status = status
    sending = transport(url)

    with pytest.raises(MailNotSent) as caught:
        sending(MAIL)

    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert f"{status}" in caplog.text
    assert "the reason" in caplog.text
    assert KEY not in f"{caplog.text}{caught.value!r}{caught.value.__cause__!r}{sending!r}"


def test_rate_limit_waits_until_the_reset(url: str) -> None:
    Api.status = 429
    Api.headers_sent = {"X-RateLimit-Reset": str(int(time.time()) + 120)}

    with pytest.raises(MailNotSent) as caught:
        transport(url)(MAIL)

    assert caught.value.retry_after == pytest.approx(120, abs=5)


@pytest.mark.parametrize(("reset", "wait"), [("1392815263", 0), ("soon", None), ("nan", None), (None, None)])
def test_past_or_invalid_reset_is_ignored(url: str, reset: str | None, wait: float | None) -> None:
    Api.status = 429
    Api.headers_sent = {"X-RateLimit-Reset": reset} if reset else {}

    with pytest.raises(MailNotSent) as caught:
        transport(url)(MAIL)

    assert caught.value.retry_after == wait


def test_timeout_is_retried(url: str) -> None:
    Api.silent = threading.Event()

    with pytest.raises(MailNotSent):
        transport(url, timeout=0.3)(MAIL)
    Api.silent.set()


def test_refused_connection_is_retried() -> None:
    with pytest.raises(MailNotSent):
        transport(f"http://127.0.0.1:{free_port()}")(MAIL)


def test_invalid_address_sends_no_request(url: str) -> None:
    with pytest.raises(MailRefused):
        transport(url)(dataclasses.replace(MAIL, to="ada@example.org, eve@example.org"))

    assert Api.requests == []
