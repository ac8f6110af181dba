"""The embedded platform on a disk that becomes full."""

import time
from io import BytesIO
from pathlib import Path

from tests.e2e.client import Answer, Client, wave_bytes
from tests.e2e.tus import Tus
from tests.support.disks import disk, fill
from tests.support.platform import start
from tests.support.processes import wait_for

SOUND = wave_bytes(1.0)


def refusal(me: Client) -> Answer | None:
    """Uploads a file; returns the response if it was refused for the disk."""
    response = me.try_upload(BytesIO(SOUND), "b.wav")
    return response if response.status == 507 else None


def test_a_full_disk_takes_no_uploads_but_everything_else(tmp_path: Path) -> None:
    env = {"MIN_FREE_BYTES": "75000000"}
    with disk(tmp_path / "disk", 300) as place, start(place / "data", env=env) as running:
        me = Client(running.url).sign_up()
        done = me.wait(me.upload(BytesIO(SOUND), "a.wav")["job"])
        assert (place / "data/mp3burst.db.reserve").exists()
        waiting = Tus(me).create(len(SOUND))
        job = me.upload(BytesIO(wave_bytes(300)), "long.wav")["job"]
        filler = fill(place)
        # Every instance of upload uses what it has measured for a second, and each of these calls may reach another.
        wait_for(lambda: Tus(me).post(Upload_Length="1000").status == 507, "resumable uploads to be refused")
        wait_for(lambda: waiting.patch(SOUND, 0).status == 507, "their bytes to be refused")
        refused = wait_for(lambda: refusal(me), "uploads to be refused")
        assert refused is not None
        assert "try again later" in refused.problem(507)["detail"]
        assert int(refused.headers["Retry-After"]) > 0
        time.sleep(5)
        assert me.call("GET", f"/jobs/{job}").json()["status"] != "failed"
        again = me.log_in()
        assert again.download(done["mp3"]).status == 200
        assert again.call("DELETE", f"/jobs/{done['job']}").status == 204
        assert again.download(done["mp3"]).status == 404
        filler.unlink()
        assert me.wait(job)["status"] == "done"
        wait_for(lambda: waiting.patch(SOUND, 0).status == 204, "the bytes to be accepted")
