"""The functions on RabbitMQ, MongoDB, MariaDB or PostgreSQL, and SMTP, started with one command."""

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from urllib.parse import urlsplit

import pytest

from tests.e2e.client import Client, wave_bytes
from tests.support.installation import Installation, installation
from tests.support.processes import wait_for
from tests.support.servers.mariadb import MariaDB
from tests.support.servers.postgresql import PostgreSQL
from tests.support.servers.sql import SqlServer

USERS = 20
EACH = 5


@pytest.fixture(scope="module", params=[MariaDB, PostgreSQL], ids=["mariadb", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    server: type[SqlServer] = request.param
    with installation(tmp_path_factory.mktemp("real"), server) as running:
        yield running


def test_video_becomes_an_mp3_and_a_mail(place: Installation) -> None:
    me = Client(place.platform.url).sign_up()
    job = me.convert(BytesIO(wave_bytes(3.0)), "Täglich.wav")
    assert (job["status"], job["duration"]) == ("done", pytest.approx(3.0, abs=0.1))
    mp3 = me.download(job["mp3"])
    assert mp3.status == 200
    assert me.download(job["mp3"], Range="bytes=100-199").body == mp3.body[100:200]
    wait_for(lambda: any(mail["To"] == me.username for mail in place.smtp.mails), "the mail")
    (mail,) = (mail for mail in place.smtp.mails if mail["To"] == me.username)
    body = mail.get_body(("plain",))
    assert body is not None
    (link,) = re.findall(r"^http://\S+/download\S+", body.get_content(), re.MULTILINE)
    parts = urlsplit(link)
    assert Client(place.platform.url).call("GET", f"{parts.path}?{parts.query}").body == mp3.body


def test_invalid_audio_fails_with_a_message_and_a_mail(place: Installation) -> None:
    me = Client(place.platform.url).sign_up()
    job = me.convert(BytesIO(b"ID3" + bytes(5000)), "not.mp3")
    assert job["status"] == "failed"
    assert job["error"].endswith(".")
    wait_for(lambda: any(mail["To"] == me.username for mail in place.smtp.mails), "the mail")


def test_a_hundred_clips_of_twenty_users_all_succeed(place: Installation) -> None:
    with ThreadPoolExecutor(USERS) as threads:
        users = list(threads.map(lambda _: Client(place.platform.url).sign_up(), range(USERS)))

        def convert(number: int) -> tuple[int, str, str]:
            user = users[number % USERS]
            seconds = 0.5 + number / 100
            job = user.wait(user.upload(BytesIO(wave_bytes(seconds)), f"{number}.wav")["job"], 280)
            assert job["status"] == "done", job
            assert job["duration"] == pytest.approx(seconds, abs=0.1)
            assert user.download(job["mp3"]).status == 200
            return number, job["job"], job["mp3"]

        done = list(threads.map(convert, range(USERS * EACH)))
    assert len({mp3 for _, _, mp3 in done}) == USERS * EACH
    place.settled()
    sent = Counter(mail["Message-ID"] for mail in place.smtp.mails)
    assert {sent[f"<{job}.mp3.ready@mp3burst>"] for _, job, _ in done} == {1}
    assert place.orphaned_files() == 0
    assert place.rows("blobs") == place.rows("blobs", expires_at=None)
