"""What a process does before its first request."""

import pytest

from functions import warm_up
from functions.settings import BadSetting


@pytest.mark.parametrize(("error", "level"), [(BadSetting("LINK_KEY is short."), "INFO"), (RuntimeError(), "ERROR")])
def test_step_that_fails_is_logged_and_ends_no_other(
    error: Exception, level: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(warm_up, "_STEPS", [])
    taken: list[str] = []

    @warm_up.before_first_request
    def fail() -> None:
        raise error

    @warm_up.before_first_request
    def succeed() -> None:
        taken.append("second")

    warm_up.warm_up()
    (record,) = caplog.records
    assert record.levelname == level
    assert taken == ["second"]
