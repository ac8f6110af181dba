"""Tests the calls of a user on a cluster, with each function's own host name and with the gateway's."""

import io
import re
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, User, follow, until
from tests.e2e.client import wave_bytes
from tests.support.clips import NOISE, run

MINUTES = 12


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of more than 300 MB, long enough for six pieces with FANOUT_SECONDS=20."""
    folder = tmp_path_factory.mktemp("film")
    minute = folder / "minute.mkv"
    path = folder / "film.mkv"
    pictures = ("-f", "lavfi", "-i", "testsrc=s=1280x720:r=1/3:d=60")
    sound = ("-f", "lavfi", "-i", NOISE.format(seconds=60, rate=48000))
    run(*pictures, *sound, "-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-c:a", "aac", minute)
    run("-stream_loop", MINUTES - 1, "-i", minute, "-c", "copy", path)
    assert path.stat().st_size > 300e6
    return path


def test_a_film_from_register_to_download_through_the_gateway(cluster: Cluster, film: Path) -> None:
    me = User.of(cluster)
    with film.open("rb") as file:
        chunks = iter(lambda: file.read(1 << 20), b"")
        answer = me.upload_raw(chunks, "video/x-matroska", filename="film.mkv", bitrate="128k")
    assert answer.status == 202, answer.body
    assert cluster.peak_rss("upload") < 150e6, "the film was not streamed"

    id_ = answer.json()["job"]
    encoders = 0

    def ended() -> bool:
        nonlocal encoders
        encoders = max(encoders, len(cluster.pods("encode")))
        return me.job(id_)["status"] in ("done", "failed")

    until(ended, "the conversion")
    job = me.job(id_)
    assert job["status"] == "done", job
    assert job["duration"] == pytest.approx(60 * MINUTES, abs=1)
    assert encoders > 1, "one pod encoded every piece"

    full = me.download(job["mp3"])
    part = me.download(job["mp3"], Range="bytes=1000000-1999999")
    assert (full.status, len(full.body)) == (200, int(full.headers["Content-Length"]))
    assert (part.status, part.body) == (206, full.body[1000000:2000000])
    assert follow(cluster, link_of_the_mail(cluster, me)) == (200, full.body)


def test_every_function_has_a_host_of_its_own(cluster: Cluster) -> None:
    me = User.of(cluster, gateway=False)
    assert me.call("POST", "/validate").json()["username"] == me.username
    job = me.convert(io.BytesIO(wave_bytes(2)), "a.wav")
    full = me.download(job["mp3"])
    assert full.status == 200
    assert follow(cluster, link_of_the_mail(cluster, me)) == (200, full.body)


def test_account_tags_links_and_webhooks_through_the_gateway(cluster: Cluster) -> None:
    me = User.of(cluster)
    job = me.convert(io.BytesIO(wave_bytes(2)), "a.wav")
    key = me.post_json("/keys", {"name": "cluster", "scopes": ["read"]}).json()["key"]
    program = type(me)(me.url, key, me.username, me.user)
    assert [each["job"] for each in program.jobs()["jobs"]] == [job["job"]]
    program.post_json("/webhooks", {"url": "https://example.org/"}).problem(403)
    me.post_json("/webhooks", {"url": "https://169.254.169.254/"}).problem(422)
    assert me.call("GET", "/presets").json()["presets"]
    assert me.call("GET", "/logins").json() == {"logins": [], "password": True}
    assert me.call("GET", "/sso/providers").json() == {"providers": [], "proxy": False}

    path = f"/jobs/{job['job']}/tags"
    assert me.call("PATCH", path, b'{"title": "Other"}', {"Content-Type": "application/json"}).status == 200
    assert me.call("GET", path).json()["title"] == "Other"
    link = me.post_json("/links", {"job": job["job"], "expires_in": 3600}).json()["url"]
    assert follow(cluster, link) == (200, me.download(job["mp3"]).body)

    assert len(me.call("GET", "/sessions").json()["sessions"]) == 1
    assert me.call("DELETE", "/sessions").status == 204
    me.call("GET", "/me").problem(401)


def link_of_the_mail(cluster: Cluster, user: User) -> str:
    """Returns the link to the MP3 in the only mail to a user."""
    until(lambda: cluster.mail_ids(user.username), "the mail")
    (mail,) = cluster.mails(user.username)
    body = mail.get_body(("plain",))
    assert body is not None
    links: set[str] = set(re.findall(r"https?://\S+/download\S+", body.get_content()))
    (link,) = links
    return link


def test_the_gateway_passes_on_the_rejection_of_a_file_that_is_not_a_video(cluster: Cluster) -> None:
    me = User.of(cluster)
    assert me.try_upload(io.BytesIO(b"no video"), "a.mp4").status == 415
    assert me.call("GET", "/jobs").json() == {"jobs": [], "next": None}
