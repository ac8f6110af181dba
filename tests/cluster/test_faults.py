"""Tests what happens to pods in daily operation while users work: nothing is rejected, lost or done twice."""

import os
import shlex
import subprocess
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from tests.cluster.cluster import TIMEOUT, Cluster, User, until
from tests.e2e.client import wave_bytes
from tests.support.clips import NOISE, run


class Load:
    """Users who upload short sounds and query their jobs, one call after the other; a context manager.

    Attributes:
        jobs: the accepted jobs and their users.
        errors: every unexpected answer and every broken connection.
    """

    def __init__(self, cluster: Cluster, users: int = 2) -> None:
        self._cluster = cluster
        self._users = [User.of(cluster) for _ in range(users)]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(user,), daemon=True) for user in self._users]
        self.jobs: list[tuple[User, str]] = []
        self.errors: list[object] = []

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _work(self, user: User) -> None:
        sound = wave_bytes(2)
        while not self._ended.wait(0.5):
            try:
                answer = user.try_upload(BytesIO(sound), "a.wav")
                if answer.status != 202:
                    self.errors.append(answer)
                    continue
                self.jobs.append((user, answer.json()["job"]))
                for path in ("/validate", "/jobs"):
                    answer = user.call("POST" if path == "/validate" else "GET", path)
                    if answer.status != 200:
                        self.errors.append(answer)
            except (OSError, ValueError) as error:
                self.errors.append(error)

    def check(self) -> None:
        """Waits until every accepted job has an MP3 and one mail."""
        assert self.errors == []
        assert self.jobs
        for user, job in self.jobs:
            until(lambda user=user, job=job: self._status(user, job) != "waiting", f"the end of {job}")  # type: ignore[misc]  # mypy takes no default in a lambda
            assert self._status(user, job) == "done"
        for user in self._users:
            mine = sum(one is user for one, _ in self.jobs)
            until(lambda user=user, mine=mine: len(self._cluster.mail_ids(user.username)) >= mine, "the mails")  # type: ignore[misc]  # mypy takes no default in a lambda
            assert len(self._cluster.mail_ids(user.username)) == mine

    def _status(self, user: User, job: str) -> str:
        status: str = user.job(job, wait=20)["status"]
        if status not in ("done", "failed"):
            self._cluster.sweep()
            return "waiting"
        return status


def under_load(cluster: Cluster, disturb: Callable[[], object]) -> None:
    with Load(cluster) as load:
        until(lambda: len(load.jobs) >= 2 or load.errors, "the first uploads")
        disturb()
        count = len(load.jobs)
        until(lambda: len(load.jobs) >= count + 3 or load.errors, "uploads after the disturbance")
    load.check()


def test_no_request_and_no_event_is_lost_from_zero(cluster: Cluster) -> None:
    me = User.of(cluster)
    cluster.await_zero()
    answers: list[int] = []

    def upload() -> None:
        answer = me.try_upload(BytesIO(wave_bytes(2)), "a.wav")
        answers.append(answer.status)
        answers.append(0 if me.wait(answer.json()["job"])["status"] == "done" else 1)

    threads = [threading.Thread(target=upload) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [0] * 4 + [202] * 4
    until(lambda: len(cluster.mail_ids(me.username)) >= 4, "the mails")
    assert len(cluster.mail_ids(me.username)) == 4


def test_no_request_and_no_event_is_lost_while_pods_terminate(cluster: Cluster) -> None:
    me = User.of(cluster)
    jobs: list[str] = []

    def convert() -> None:
        jobs.append(me.upload(BytesIO(wave_bytes(2)), "a.wav")["job"])
        assert me.wait(jobs[-1])["status"] == "done"

    for function in ("convert", "upload"):
        convert()
        cluster.await_termination(function)
        convert()
    until(lambda: len(cluster.mail_ids(me.username)) >= len(jobs), "the mails")
    assert len(cluster.mail_ids(me.username)) == len(jobs)


def test_a_new_revision_under_load(cluster: Cluster) -> None:
    def roll_out() -> None:
        for name in ("gateway", "validate", "upload", "convert"):
            change = (
                '{"spec": {"template": {"metadata": {"annotations": {"mp3burst.dev/test": "'
                + os.urandom(4).hex()
                + '"}}}}}'
            )
            cluster.kubectl("patch", "services.serving.knative.dev", name, "--type=merge", "-p", change)
        names = [f"services.serving.knative.dev/{name}" for name in ("gateway", "validate", "upload", "convert")]
        cluster.kubectl("wait", "--for=condition=Ready", f"--timeout={TIMEOUT:.0f}s", *names)

    under_load(cluster, roll_out)


def test_pods_that_are_evicted_under_load(cluster: Cluster) -> None:
    """Evicts every pod of a function, as draining a node does."""
    under_load(cluster, lambda: cluster.kubectl("delete", "pod", "-l", "serving.knative.dev/service", "--wait=false"))


def test_the_brokers_pods_and_rabbitmq_restart_under_load(cluster: Cluster) -> None:
    kill = os.environ.get("CLUSTER_RABBITMQ_KILL")

    def restart() -> None:
        cluster.kubectl("delete", "pod", "-l", "eventing.knative.dev/broker=mp3burst", "--wait=false")
        if kill:
            subprocess.run(shlex.split(kill), check=True)

    under_load(cluster, restart)


def test_conversion_of_a_killed_pod_is_finished_by_another(cluster: Cluster, tmp_path: Path) -> None:
    minute = tmp_path / "minute.m4a"
    long = tmp_path / "long.m4a"
    run("-f", "lavfi", "-i", NOISE.format(seconds=60, rate=48000), "-c:a", "aac", minute)
    run("-stream_loop", 11, "-i", minute, "-c", "copy", long)
    me = User.of(cluster)
    with long.open("rb") as file:
        job = me.upload(file, "long.m4a")["job"]
    until(lambda: me.job(job)["status"] != "uploaded" and cluster.pods("encode"), "pieces being encoded")
    victims = [f"pod/{name}" for name in cluster.pods("encode")]
    assert me.job(job)["status"] == "converting"
    cluster.kubectl("delete", *victims, "--grace-period=0", "--force", "--ignore-not-found")

    def ended() -> bool:
        cluster.sweep()
        return me.job(job, wait=10)["status"] in ("done", "failed")

    until(ended, "the job's end")
    ended_job = me.job(job)
    assert (ended_job["status"], ended_job["duration"]) == ("done", pytest.approx(720, abs=2))
    until(lambda: cluster.mail_ids(me.username), "the mail")
    assert len(cluster.mail_ids(me.username)) == 1
