"""A mail that was sent is recorded as sent, even if the database becomes unavailable in between."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from events.schema import JobId, Mp3Ready
from functions.auth.links import Links
from functions.notify import main
from functions.notify.main import Dependencies, send_mail
from functions.notify.transports import Mail
from functions.state.database import DatabaseUnavailable

JOB = JobId("a" * 32)


class Mails:
    """One mail to send, in a database that is unavailable for the first calls of ``sent``."""

    def __init__(self, unavailable: int) -> None:
        self.unavailable = unavailable
        self.released = False

    def claim(self, event: str) -> Any:
        row = SimpleNamespace(id=event, kind=Mp3Ready.type, event=Mp3Ready(JOB))
        return SimpleNamespace(row=row, exhausted=False)

    def addressee(self, _: object) -> Any:
        job = SimpleNamespace(id=JOB, owner="u", filename="a.mp4", duration=1.0, mp3="b" * 24, warning=None)
        return SimpleNamespace(user="u", name="Ada", email="ada@example.org", job=job, why_not=lambda _: None)

    def renewing(self, _: object) -> Any:
        return nullcontext(SimpleNamespace(renew=lambda: None))

    def release(self, _: object, __: Exception) -> None:
        self.released = True

    def sent(self, _: object) -> None:
        self.unavailable -= 1
        if self.unavailable >= 0:
            raise DatabaseUnavailable("unavailable")


def dependencies(mails: Any, sent: list[Mail]) -> Dependencies:
    links = Links.from_environ({"LINK_KEY": "k" * 64, "PUBLIC_URL": "http://localhost"})
    return Dependencies(mails, links, sent.append)


def test_sent_mail_is_recorded_once_the_database_is_back() -> None:
    mails = Mails(unavailable=3)
    sent = list[Mail]()
    send_mail(Mp3Ready(JOB).id, dependencies(mails, sent))
    assert (len(sent), mails.unavailable, mails.released) == (1, -1, False)


def test_after_a_minute_the_event_is_retried_without_a_second_mail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(main, "_RECORDING_SECONDS", 0.0)
    mails = Mails(unavailable=2)
    sent = list[Mail]()
    deps = dependencies(mails, sent)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            send_mail(Mp3Ready(JOB).id, deps)
    send_mail(Mp3Ready(JOB).id, deps)
    assert (len(sent), mails.unavailable, mails.released) == (1, -1, False)
