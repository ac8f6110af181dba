"""The text of the mails that users get."""

import dataclasses
import re
import unicodedata
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from functions.notify import message
from functions.notify.message import Link, Mp3, Recipient
from functions.notify.transports import Mail, message_id_of

ID = message_id_of("0123.mp3.ready")
LINK = "https://mp3.example/download?fid=0123&token=a.b.c"
UNSUBSCRIBE = "https://mp3.example/unsubscribe?token=a.b.c"


ADA = Recipient("Ada", "ada@example.org", UNSUBSCRIBE)
MP3 = Mp3("0123", "holiday.mp4", 580.2, None)


def ready(to: Recipient = ADA, days: float = 7, **changes: Any) -> Mail:
    return message.ready(to, dataclasses.replace(MP3, **changes), Link(LINK, days), ID)


class ReadMail(HTMLParser):
    """The text that a person sees of an HTML mail, and its links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str | None] = []
        self.tags: set[str] = set()
        self.feed(html)
        self.close()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name == "href"]


def test_mail_contains_everything_the_user_needs() -> None:
    mail = ready()
    html = ReadMail(mail.html)

    assert (mail.to, mail.message_id) == ("ada@example.org", ID)
    assert mail.subject == "Your MP3 is ready"
    assert LINK in mail.text.splitlines(), "the link must be alone on its line to be easy to copy"
    assert html.links == [LINK, UNSUBSCRIBE]
    for text in (mail.text, html.text):
        for expected in ("Hello Ada", "“holiday”", "09:40", "7 days", "0123"):
            assert expected in text
        assert "Please note" not in text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "00:00"), (59.6, "01:00"), (3599.7, "1:00:00"), (3661, "1:01:01"), (36000, "10:00:00")],
)
def test_duration_is_shown_in_clock_format(seconds: float, shown: str) -> None:
    assert f"is ready ({shown})." in ready(duration=seconds).text


def test_unknown_duration_is_left_out() -> None:
    assert "“holiday” is ready." in ready(duration=None).text


def test_one_day_is_singular() -> None:
    assert "valid for 1 day and" in ready(days=1).text
    assert "valid for 0.5 days and" in ready(days=0.5).text


def test_warning_is_included() -> None:
    mail = ready(warning="The file ends early: the MP3 has the part that could be read.")

    for text in (mail.text, ReadMail(mail.html).text):
        assert "Please note: The file ends early: the MP3 has the part that could be read." in text


def test_failure_mail_says_why_and_what_to_do() -> None:
    mail = message.failed(ADA, "notes.txt", "It has no audio track.", ID)

    assert mail.subject == "Your video could not be converted"
    for text in (mail.text, ReadMail(mail.html).text):
        assert "“notes”" in text
        assert "Reason: It has no audio track." in text
        assert "upload the file again" in text


@pytest.mark.parametrize("mail", [ready(), message.failed(ADA, "notes.txt", "It has no audio track.", ID)])
def test_mail_about_a_job_says_how_to_unsubscribe(mail: Mail) -> None:
    assert UNSUBSCRIBE in mail.text.splitlines()
    assert UNSUBSCRIBE in ReadMail(mail.html).links
    assert mail.headers["List-Unsubscribe"] == f"<{UNSUBSCRIBE}>"
    assert mail.headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_one_click_needs_https() -> None:
    """RFC 8058, section 3.1."""
    headers = dataclasses.replace(ready(), unsubscribe=UNSUBSCRIBE.replace("https", "http")).headers
    assert "List-Unsubscribe" in headers
    assert "List-Unsubscribe-Post" not in headers


def test_confirmation_contains_nothing_that_a_user_has_entered() -> None:
    mail = message.confirm("ada@example.org", "https://mp3.example", Link(LINK, 7), ID)

    assert (mail.to, mail.subject) == ("ada@example.org", "Confirm your address")
    assert LINK in mail.text.splitlines()
    assert ReadMail(mail.html).links == [LINK]
    for text in (mail.text, ReadMail(mail.html).text):
        assert "ada" not in text.lower()
        assert "https://mp3.example" in text
        assert "7 days" in text
    assert mail.headers == {"Auto-Submitted": "auto-generated"}


def test_mail_that_resets_a_password_contains_nothing_that_a_user_has_entered() -> None:
    mail = message.reset("ada@example.org", "https://mp3.example", LINK, ID)

    assert (mail.to, mail.subject) == ("ada@example.org", "Reset your password")
    assert LINK in mail.text.splitlines()
    assert ReadMail(mail.html).links == [LINK]
    for text in (mail.text, ReadMail(mail.html).text):
        assert "ada" not in text.lower()
        assert "30 minutes" in text


def shown(name: str) -> str:
    """Returns what a mail shows of a file's name."""
    found = re.search("Your MP3 of (.*) is ready", ready(filename=name, duration=None).text)
    assert found
    return found[1].removeprefix("“").removesuffix("”")


#: What no link can do without: what separates the labels of a domain (RFC 3490, section 3.1), the end of a scheme, the
#: beginning of a path, and the middle of an address.
LINKING = set(".\u3002\uff0e\uff61:/\\@")


@settings(max_examples=40)
@given(st.text(max_size=255))
@example('<img src="x" onerror=alert(1)>.mp4')
@example("</title><script>alert(1)</script>")
@example('" href="https://elsewhere.example')
@example("\u2488\u2100\u2105")  # NFKC makes "1.", "a/c" and "c/o" of these
def test_file_name_never_becomes_markup_or_a_link(name: str) -> None:
    user = Recipient(name, "ada@example.org", UNSUBSCRIBE)
    for mail in (ready(filename=name), ready(to=user), message.failed(user, name, "", ID)):
        html = ReadMail(mail.html)
        assert html.tags <= {"html", "head", "meta", "title", "body", "p", "a"}
        assert html.links in ([LINK, UNSUBSCRIBE], [UNSUBSCRIBE])
        (mail.text + mail.html + mail.subject).encode()
    assert not LINKING & set(unicodedata.normalize("NFKC", shown(name)))


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("holiday.mp4", "holiday"),
        ("Ümläut & 日本, “x” (live) - 3rd_take!.webm", "Ümläut & 日本, x (live) - 3rd_take!"),
        ("pay-now.mov", "pay-now"),  # both .mov and .zip are top-level domains
        ("www.evil.example.com pay at https://evil.example/x.mp4", "x"),
        ("Your invoice is overdue, see evil.example.com now.mp4", "Your invoice is overdue, see evil example com now"),
        ("write to eve@evil.example.mp4", "write to eve evil example"),
        ("a\r\nBcc: eve@example.org\u2028b\0\u202e3pm.exe", "a Bcc eve example org b\ufffd3pm"),
        ("evil\u2024example\uff0ecom\u3002", "evil example com"),
        ("x" * 255, "x" * 59 + "…"),
        ("", "your video"),
        ("...", "your video"),
        (".mp4", "mp4"),
    ],
)
def test_file_name_is_recognizable(name: str, seen: str) -> None:
    assert shown(name) == seen


def test_name_of_a_user_cannot_become_a_link() -> None:
    for name in ("https://evil.example/", "www.evil.example", "evil.example"):
        text = ready(to=Recipient(name, "ada@example.org", UNSUBSCRIBE)).text
        assert text.splitlines()[0] in ("Hello https evil example,", "Hello www evil example,", "Hello evil example,")
    assert ready(to=Recipient("://", "ada@example.org", UNSUBSCRIBE)).text.startswith("Hello,\n")
