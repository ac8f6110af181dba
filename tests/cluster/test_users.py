"""The way of a user over a real cluster: by each function's own host name, and by the gateway's one."""

import io
import re
from pathlib import Path

import pytest

from tests.clips import clip
from tests.cluster.cluster import Cluster, User, follow, until

SECONDS = 61.0


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough for pieces: FANOUT_SECONDS is 20 in the lab."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return clip(path, "-c:a", "aac", "-c:v", "mpeg4", seconds=SECONDS, video=True)


@pytest.mark.parametrize("gateway", [False, True], ids=["own hosts", "gateway"])
def test_from_register_to_download(cluster: Cluster, film: Path, gateway: bool) -> None:
    me = User.of(cluster, gateway)
    assert me.call("POST", "/validate").json()["username"] == me.username
    with film.open("rb") as file:
        chunks = iter(lambda: file.read(1 << 16), b"")
        answer = me.upload_raw(chunks, "video/mp4", filename="film.mp4", bitrate="128k")
    assert answer.status == 202, answer.body
    job = me.wait(answer.json()["job"], 240)
    assert job["status"] == "done", job
    assert job["duration"] == pytest.approx(SECONDS, abs=0.2)

    whole = me.download(job["mp3"])
    part = me.download(job["mp3"], Range="bytes=1000-1999")
    assert (whole.status, len(whole.body)) == (200, int(whole.headers["Content-Length"]))
    assert (part.status, part.body) == (206, whole.body[1000:2000])

    until(lambda: cluster.mails(me.username), "the mail")
    (mail,) = cluster.mails(me.username)
    body = mail.get_body(("plain",))
    assert body is not None
    (link,) = set(re.findall(r"https?://\S+", body.get_content()))
    assert follow(cluster, link) == (200, whole.body)


def test_what_is_no_video_is_refused_through_the_gateway(cluster: Cluster) -> None:
    me = User.of(cluster)
    assert me.try_upload(io.BytesIO(b"no video"), "a.mp4").status == 415
    assert me.call("GET", "/jobs").json() == {"jobs": [], "next": None}
