"""One user's long jobs do not keep pods from another user's."""

from io import BytesIO
from pathlib import Path

from tests.cluster.cluster import Cluster, User
from tests.e2e.client import wave_bytes
from tests.support import clips


def test_another_users_clip_is_done_while_long_jobs_wait(cluster: Cluster, tmp_path: Path) -> None:
    long = clips.half_a_day(tmp_path / "long.flac").read_bytes()
    greedy = User.of(cluster)
    other = User.of(cluster)
    options = {"normalize": "true", "bitrate": "64k"}
    # Without turns, half of them would take every place, and the clip would come after the other half.
    for _ in range(2 * cluster.places("convert")):
        greedy.upload(BytesIO(long), "long.flac", options)
    assert other.convert(BytesIO(wave_bytes(2)), "clip.wav")["status"] == "done"
    assert [job for job in greedy.jobs()["jobs"] if job["status"] in ("done", "failed")] == []
