"""Quotas over HTTP, which are the same for /upload and for tus."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from functions.state.database import Database
from tests.e2e.client import Client, wave_bytes
from tests.e2e.tus import Tus
from tests.support.databases import set_role
from tests.support.platform import Platform, start
from tests.support.processes import wait_for

SOUND = wave_bytes(1.0)
QUOTA = 3 * len(SOUND)


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that allows a user two uploads in progress, and as many bytes as three sounds have."""
    with start(
        tmp_path_factory.mktemp("quota") / "data", env={"QUOTA_JOBS": "2", "QUOTA_BYTES": f"{QUOTA}"}
    ) as running:
        yield running


@pytest.fixture
def me(tight: Platform) -> Client:
    return Client(tight.url).sign_up()


def test_too_many_uploads_at_once_are_refused_until_one_ends(me: Client) -> None:
    uploads = [Tus(me).create(1000) for _ in range(2)]
    for refused in (Tus(me).post(Upload_Length="1000"), me.try_upload(BytesIO(SOUND), "a.wav")):
        assert "2 uploads and conversions in progress" in refused.problem(429)["detail"]
        assert int(refused.headers["Retry-After"]) > 0
        assert '"jobs";r=0;t=30' in refused.headers["RateLimit"]
    assert uploads[0].delete().status == 204
    job = me.upload(BytesIO(SOUND), "a.wav")["job"]
    uploads[1].delete()
    mp3 = me.wait(job)["mp3"]
    used = len(SOUND) + int(me.download(mp3, "HEAD").headers["Content-Length"])
    assert f"{QUOTA - used} are left" in Tus(me).post(Upload_Length=f"{QUOTA}").problem(413)["detail"]
    assert me.call("DELETE", f"/jobs/{job}").status == 204


def test_a_file_over_the_quota_is_refused_before_it_is_sent(me: Client) -> None:
    waiting = Tus(me).create(2 * len(SOUND))
    detail = f"{QUOTA} bytes of videos and MP3s, and {len(SOUND)} are left"
    assert detail in Tus(me).post(Upload_Length=f"{len(SOUND) + 1}").problem(413)["detail"]
    parts = urlsplit(me.url)
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)) as connection:
        connection.putrequest("POST", "/upload")
        for name, value in {"Authorization": f"Bearer {me.token}", "Content-Type": "audio/wav"}.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(SOUND) + 1))
        connection.endheaders(SOUND[:10])
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Type"]) == (413, "application/problem+json")
        assert detail in json.load(answer)["detail"]
    assert me.upload_raw(iter([SOUND, b"+"])).status == 413  # chunked, so the length was not known in advance
    assert waiting.delete().status == 204


def test_a_repeated_request_does_not_count(me: Client) -> None:
    first = me.try_upload(BytesIO(SOUND), "a.wav", key="one").json()
    [Tus(me).create(10) for _ in range(2 - (me.wait(first["job"])["status"] != "done"))]
    me.try_upload(BytesIO(SOUND), "a.wav", key="two").problem(429)
    assert me.try_upload(BytesIO(SOUND), "a.wav", key="one").json() == first


def test_administrators_have_no_quota(me: Client, tight: Platform) -> None:
    database = Database(f"sqlite:///{tight.data / 'mp3burst.db'}")
    set_role(database, me.username, "admin")
    database.close()
    me = me.log_in()
    for _ in range(3):
        Tus(me).create(QUOTA)


def test_an_invalid_setting_is_named_in_the_log(tmp_path: Path) -> None:
    # The platform accepts any number; only the function knows the minimum.
    with start(tmp_path / "data", env={"UPLOAD_HOURS": "0.1"}) as running:
        me = Client(running.url).sign_up()
        Tus(me).post(Upload_Length="10").problem(500)
        wait_for(lambda: "UPLOAD_HOURS is '0.1'" in running.log.read_text())
