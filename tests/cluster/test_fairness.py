"""One user's long jobs do not keep pods from another user's."""

from io import BytesIO
from pathlib import Path

from tests.cluster.cluster import Cluster, User
from tests.e2e.client import wave_bytes
from tests.support import clips

#: More than convert has pods in any environment.
LONG_JOBS = 50


def test_another_users_clip_is_done_while_long_jobs_wait(cluster: Cluster, tmp_path: Path) -> None:
    long = clips.half_a_day(tmp_path / "long.flac").read_bytes()
    greedy = User.of(cluster)
    other = User.of(cluster)
    options = {"normalize": "true", "bitrate": "64k"}
    waiting = [greedy.upload(BytesIO(long), "long.flac", options)["job"] for _ in range(LONG_JOBS)]
    assert other.convert(BytesIO(wave_bytes(2)), "clip.wav")["status"] == "done"
    assert not {"done", "failed"} & {greedy.job(job)["status"] for job in waiting}
    for job in waiting:
        assert greedy.call("DELETE", f"/jobs/{job}").status == 204
