"""The log line for an event that will be retried."""

import logging

import pytest
from werkzeug.exceptions import ServiceUnavailable

from events.errors import TryAgain
from events.schema import JobId, VideoUploaded
from functions.event_endpoint import handling

EVENT = VideoUploaded(JobId("a" * 32))


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (None, "Wait."),
        (OSError("connection reset"), "Wait. (connection reset)"),
        (TimeoutError(), "Wait. (TimeoutError)"),
    ],
)
def test_log_line_has_the_message_and_any_cause(
    cause: Exception | None, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ServiceUnavailable), handling(EVENT):
        raise TryAgain("Wait.") from cause
    assert caplog.messages == [f"job {EVENT.job}: {EVENT.type} will be retried: {message}"]
