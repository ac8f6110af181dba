"""What the user reads in the two letters."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from functions.notify import message
from functions.notify.transports import Mail, message_id_of

ID = message_id_of("0123.mp3.ready")
LINK = "https://mp3.example/download?fid=0123&token=a.b.c"


def ready(**changes: Any) -> Mail:
    values: dict[str, Any] = {
        "name": "Ada",
        "to": "ada@example.org",
        "filename": "holiday.mp4",
        "duration": 580.2,
        "link": LINK,
        "days": 7,
        "fid": "0123",
        "warning": None,
        "message_id": ID,
    }
    return message.ready(**{**values, **changes})


class Reader(HTMLParser):
    """What a person sees of an HTML mail, and where its links lead."""

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


def test_the_letter_has_all_that_the_user_needs() -> None:
    mail = ready()
    html = Reader(mail.html)

    assert (mail.to, mail.message_id) == ("ada@example.org", ID)
    assert mail.subject == "Your MP3 is ready: holiday.mp4"
    assert LINK in mail.text.splitlines(), "a link with other text on its line is hard to copy"
    assert html.links == [LINK]
    for text in (mail.text, html.text):
        for expected in ("Hello Ada", "holiday.mp4", "09:40", "7 days", "0123"):
            assert expected in text
        assert "Please note" not in text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "00:00"), (59.6, "01:00"), (3599.7, "1:00:00"), (3661, "1:01:01"), (36000, "10:00:00")],
)
def test_the_length_is_shown_as_a_clock_does(seconds: float, shown: str) -> None:
    assert f"It is {shown} long." in ready(duration=seconds).text


def test_an_unknown_length_is_not_spoken_of() -> None:
    assert "long" not in ready(duration=None).text


def test_one_day_is_no_days() -> None:
    assert "works for 1 day," in ready(days=1).text
    assert "works for 0.5 days," in ready(days=0.5).text


def test_a_warning_is_passed_on() -> None:
    mail = ready(warning="The file ends early: what could be read was kept.")

    for text in (mail.text, Reader(mail.html).text):
        assert "Please note: The file ends early: what could be read was kept." in text


def test_the_failure_says_why_and_what_to_do() -> None:
    mail = message.failed("Ada", "ada@example.org", "notes.txt", "It has no audio track.", ID)

    assert mail.subject == "No MP3 could be made: notes.txt"
    for text in (mail.text, Reader(mail.html).text):
        assert "notes.txt" in text
        assert "The reason: It has no audio track." in text
        assert "upload it again" in text


@settings(max_examples=40)
@given(st.text(max_size=255))
@example('<img src="x" onerror=alert(1)>.mp4')
@example("</title><script>alert(1)</script>")
@example('" href="https://elsewhere.example')
def test_any_file_name_is_shown_and_none_can_act(name: str) -> None:
    for mail in (ready(filename=name), message.failed(name, "ada@example.org", name, name, ID)):
        html = Reader(mail.html)
        assert html.tags <= {"html", "head", "meta", "title", "body", "p", "a"}
        assert html.links in ([LINK], [])
        (mail.text + mail.html + mail.subject).encode()
        visible = re.sub(r"[^\w<>&\"']", "", name)
        for text in (mail.subject, mail.text, html.text):
            assert visible in re.sub(r"[^\w<>&\"']", "", text)


def test_a_name_cannot_start_a_line_or_turn_the_text_round() -> None:
    mail = ready(filename="a\r\nBcc: eve@example.org\u2028b\0\u202e3pm.exe")

    assert mail.subject == "Your MP3 is ready: a Bcc: eve@example.org b\ufffd3pm.exe"
