"""What the log says of an event that is put off."""

import logging

import pytest
from werkzeug.exceptions import ServiceUnavailable

from events.errors import TryAgain
from events.schema import JobId, VideoUploaded
from functions.event_endpoint import handling

EVENT = VideoUploaded(JobId("a" * 32))


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (None, "Wait."),
        (OSError("the line is dead"), "Wait. (the line is dead)"),
        (TimeoutError(), "Wait. (TimeoutError)"),
    ],
)
def test_the_log_has_the_cause_and_nothing_where_there_is_none(
    cause: Exception | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ServiceUnavailable), handling(EVENT):
        raise TryAgain("Wait.") from cause
    assert caplog.messages == [f"job {EVENT.job}: {EVENT.type} will be retried: {said}"]
