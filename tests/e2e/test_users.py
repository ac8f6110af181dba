"""Thirty simultaneous users: each gets their own MP3 and mail, and no access to anyone else's."""

import email
import email.policy
import re
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.client import Client, wave_bytes
from tests.support.platform import Platform
from tests.support.processes import wait_for

USERS = 30


@pytest.fixture(scope="module")
def crowd(platform: Platform) -> list[tuple[Client, dict[str, Any]]]:
    """Thirty users with one job each, uploaded simultaneously; the videos differ in duration."""
    with ThreadPoolExecutor(USERS) as threads:
        users = list(threads.map(lambda _: Client(platform.url).sign_up(), range(USERS)))

        def upload(number: int) -> dict[str, str]:
            return users[number].upload(BytesIO(wave_bytes(1 + number / 10)), f"video {number}.wav")

        accepted = list(threads.map(upload, range(USERS)))
        jobs = threads.map(lambda user, upload: user.wait(upload["job"], 200), users, accepted)
        return list(zip(users, jobs, strict=True))


def test_each_user_gets_their_own_mp3(crowd: list[tuple[Client, dict[str, Any]]]) -> None:
    mp3s = set()
    for number, (user, job) in enumerate(crowd):
        assert job["status"] == "done", job
        assert job["filename"] == f"video {number}.wav"
        assert job["duration"] == pytest.approx(1 + number / 10, abs=0.1)
        listed = {key: value for key, value in job.items() if key != "tracks"}
        assert user.jobs() == {"jobs": [listed], "next": None}
        answer = user.download(job["mp3"])
        assert f"video%20{number}.mp3" in answer.headers["Content-Disposition"]
        mp3s.add(answer.body)
    assert len(mp3s) == USERS


def test_no_user_can_access_another_users_job(crowd: list[tuple[Client, dict[str, Any]]]) -> None:
    for number, (user, _) in enumerate(crowd):
        _, other = crowd[number - 1]
        user.call("GET", f"/jobs/{other['job']}").problem(404)
        user.call("DELETE", f"/jobs/{other['job']}").problem(404)
        user.download(other["mp3"]).problem(404)
        user.download(other["fid"]).problem(404)


def test_each_user_gets_one_mail(platform: Platform, crowd: list[tuple[Client, dict[str, Any]]]) -> None:
    def mails_by_address() -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {user.username: [] for user, _ in crowd}
        for path in Path(platform.data / "mail").glob("*.eml"):
            message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            if message["To"] in found:
                found[message["To"]].append(message)
        return found

    wait_for(lambda: all(mails_by_address().values()), "a mail for every user", 60)
    wait_for(lambda: not any(one["inflight"] for one in platform.instances("notify")), "notify to be idle")
    for number, (user, job) in enumerate(crowd):
        (mail,) = mails_by_address()[user.username]
        assert mail["Message-ID"] == f"<{job['job']}.mp3.ready@mp3burst>"
        text = mail.get_body(("plain",)).get_content()
        assert f"“video {number}”" in text
        assert job["mp3"] in text
        (link,) = re.findall(r"^http://\S+/download\S+", text, re.MULTILINE)
        parts = urlsplit(link)
        assert Client(platform.url).call("GET", f"{parts.path}?{parts.query}").body == user.download(job["mp3"]).body
