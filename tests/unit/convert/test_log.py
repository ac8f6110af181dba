"""The log line for a file that cannot be converted: the user's message, and the cause if there is one."""

import logging
import re
from pathlib import Path

import pytest

from functions.convert import handlers
from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.e2e.client import wave_bytes
from tests.support.kill_points import ADA, System, new_system

SOUND = wave_bytes(0.5)


@pytest.mark.parametrize(
    ("content", "options", "line"),
    [
        (SOUND, {"start": "9"}, r"The sound ends at 0.5 seconds: choose a start before that, not 9\."),
        (SOUND[:12] + bytes(2000), {}, r"This is not a video .* check that it plays\. \(.*Invalid data.*\)"),
    ],
    ids=["no cause", "a cause"],
)
def test_log_line_has_the_message_and_any_cause(
    content: bytes, options: dict[str, str], line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    system = System(new_system(tmp_path / "system"))
    job = create_job(Form("a.wav", options, iter([content])), ADA, None, system.for_upload())
    handlers.convert(job.id, system.for_convert())
    system.close()
    [logged] = [record.getMessage() for record in caplog.records if record.name == "functions.state.leases"]
    assert re.fullmatch(f"job {job.id}: {line}", logged)
