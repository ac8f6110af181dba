"""What the log says of a file that cannot be converted: the user's sentence, and the cause where there is one."""

import logging
import re
from pathlib import Path

import pytest

from functions.convert import handlers
from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.e2e.client import wave_bytes
from tests.support.kill_points import ADA, House, found

SOUND = wave_bytes(0.5)


@pytest.mark.parametrize(
    ("content", "options", "line"),
    [
        (SOUND, {"start": "9"}, r"The sound ends at 0.5 seconds: choose a start before that, not 9\."),
        (SOUND[:12] + bytes(2000), {}, r"This is not a video .* is damaged\. \(.*Invalid data.*\)"),
    ],
    ids=["no cause", "a cause"],
)
def test_a_cause_is_named_where_there_is_one(
    content: bytes, options: dict[str, str], line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    house = House(found(tmp_path / "house"))
    job = create_job(Form("a.wav", options, iter([content])), ADA, None, house.for_upload())
    handlers.convert(job.id, house.for_convert())
    house.close()
    (said,) = [one.getMessage() for one in caplog.records if one.name == "functions.state.leases"]
    assert re.fullmatch(f"job {job.id}: {line}", said)
