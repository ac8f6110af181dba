"""Limits what clients make a log say."""

import logging
import time

import pytest

from infra.once_a_second import OnceASecond


def test_one_line_a_second_says_how_many_were_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limited = OnceASecond(logging.getLogger("test"))
    for now in (100.0, 100.5, 100.999, 101.0, 101.1, 103.0, 104.5):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        limited.warning("%s was refused", now)
    assert caplog.messages == [
        "100.0 was refused",
        "101.0 was refused (2 more in the meantime)",
        "103.0 was refused (1 more in the meantime)",
        "104.5 was refused",
    ]
