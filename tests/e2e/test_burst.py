"""Tests scripts/burst against a running platform, with a few videos."""

from pathlib import Path

from scripts.loadtest.__main__ import main
from scripts.loadtest.accounting import usage_of
from scripts.loadtest.recording import Recording
from tests.support.clips import clip
from tests.support.platform import Platform


def test_a_burst_is_sent_recorded_and_drawn(platform: Platform, tmp_path: Path) -> None:
    video = clip(tmp_path / "clip.mp4", seconds=5, video=True)
    how = ["--clips", "3", "--clients", "3", "--every", "0.1", "--tail", "0", "--out", str(tmp_path / "burst")]
    assert main(["--url", platform.url, "--data", str(platform.data), "--video", str(video), *how]) == 0

    recording = Recording.read(tmp_path / "burst.json")
    assert recording.samples[-1].jobs == {"done": 3}
    assert recording.began < recording.accepted <= recording.finished
    assert {"upload", "convert", "status"} <= set(recording.functions())
    assert max(sample.queues["convert"] for sample in recording.samples) >= 1
    used = {line.name: line for line in usage_of(recording).functions}
    assert used["convert"].cpu > 0
    assert used["convert"].pods > 0
    assert (tmp_path / "burst.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "burst.html").read_text()
