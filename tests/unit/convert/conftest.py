"""What the tests of the converter share."""

import pytest


@pytest.fixture
def unconfined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns the sandbox off for a test in which a shell script stands in for ffmpeg: it could not start programs."""
    monkeypatch.setenv("SANDBOX", "off")
