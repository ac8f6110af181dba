"""The text of the two mails that users get."""

import dataclasses
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from functions.notify import message
from functions.notify.message import DownloadLink, Mp3, Recipient
from functions.notify.transports import Mail, message_id_of

ID = message_id_of("0123.mp3.ready")
LINK = "https://mp3.example/download?fid=0123&token=a.b.c"


ADA = Recipient("Ada", "ada@example.org")
MP3 = Mp3("0123", "holiday.mp4", 580.2, None)


def ready(to: Recipient = ADA, days: float = 7, **changes: Any) -> Mail:
    return message.ready(to, dataclasses.replace(MP3, **changes), DownloadLink(LINK, days), ID)


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
    assert mail.subject == "Your MP3 is ready: holiday.mp4"
    assert LINK in mail.text.splitlines(), "the link must be alone on its line to be easy to copy"
    assert html.links == [LINK]
    for text in (mail.text, html.text):
        for expected in ("Hello Ada", "holiday.mp4", "09:40", "7 days", "0123"):
            assert expected in text
        assert "Please note" not in text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "00:00"), (59.6, "01:00"), (3599.7, "1:00:00"), (3661, "1:01:01"), (36000, "10:00:00")],
)
def test_duration_is_shown_in_clock_format(seconds: float, shown: str) -> None:
    assert f"is ready ({shown})." in ready(duration=seconds).text


def test_unknown_duration_is_left_out() -> None:
    assert "“holiday.mp4” is ready." in ready(duration=None).text


def test_one_day_is_singular() -> None:
    assert "valid for 1 day and" in ready(days=1).text
    assert "valid for 0.5 days and" in ready(days=0.5).text


def test_warning_is_included() -> None:
    mail = ready(warning="The file ends early: the MP3 has the part that could be read.")

    for text in (mail.text, ReadMail(mail.html).text):
        assert "Please note: The file ends early: the MP3 has the part that could be read." in text


def test_failure_mail_says_why_and_what_to_do() -> None:
    mail = message.failed(ADA, "notes.txt", "It has no audio track.", ID)

    assert mail.subject == "Conversion failed: notes.txt"
    for text in (mail.text, ReadMail(mail.html).text):
        assert "notes.txt" in text
        assert "Reason: It has no audio track." in text
        assert "upload the file again" in text


@settings(max_examples=40)
@given(st.text(max_size=255))
@example('<img src="x" onerror=alert(1)>.mp4')
@example("</title><script>alert(1)</script>")
@example('" href="https://elsewhere.example')
def test_file_name_is_shown_and_never_becomes_markup(name: str) -> None:
    for mail in (ready(filename=name), message.failed(Recipient(name, "ada@example.org"), name, name, ID)):
        html = ReadMail(mail.html)
        assert html.tags <= {"html", "head", "meta", "title", "body", "p", "a"}
        assert html.links in ([LINK], [])
        (mail.text + mail.html + mail.subject).encode()
        visible = re.sub(r"[^\w<>&\"']", "", name)
        for text in (mail.subject, mail.text, html.text):
            assert visible in re.sub(r"[^\w<>&\"']", "", text)


def test_file_name_cannot_start_a_line_or_change_text_direction() -> None:
    mail = ready(filename="a\r\nBcc: eve@example.org\u2028b\0\u202e3pm.exe")

    assert mail.subject == "Your MP3 is ready: a Bcc: eve@example.org b\ufffd3pm.exe"
