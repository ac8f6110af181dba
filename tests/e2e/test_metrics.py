"""The metrics of the embedded platform, as a real Prometheus scrapes and queries them."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest

from functions.metrics.readings import read_totals
from functions.state.database import Database
from tests.e2e.client import PASSWORD, Client, wave_bytes
from tests.e2e.test_account import key_of
from tests.e2e.test_client import Terminal
from tests.support.databases import make_past, set_role
from tests.support.paths import ROOT
from tests.support.platform import Platform, start
from tests.support.processes import wait_for
from tests.support.servers import free_port
from tests.support.servers.prometheus import Prometheus
from tests.unit.metrics.test_metrics import samples

SOUND = wave_bytes(0.5)
#: Noise whose first bytes pass for sound when upload sniffs them.
NOISE = SOUND[:12] + os.urandom(2000)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of its own, whose mail server does not answer."""
    env = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(free_port()), "MAIL_FROM": "mp3@example.org"}
    with start(tmp_path_factory.mktemp("metrics") / "data", env=env) as running:
        yield running


@pytest.fixture(scope="module")
def database(site: Platform) -> Iterator[Database]:
    found = Database(f"sqlite:///{site.data}/mp3burst.db")
    yield found
    found.close()


@pytest.fixture(scope="module")
def admin(site: Platform, database: Database) -> Client:
    user = Client(site.url).sign_up()
    set_role(database, user.username, "admin")
    return user


@pytest.fixture(scope="module")
def reader(admin: Client, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A program with a key that reads the metrics, made by the command of docs/metrics.md."""
    terminal = Terminal(tmp_path_factory.mktemp("home"), admin.url)
    terminal.mp3burst("login", admin.url, "--username", admin.username, typed=f"{PASSWORD}\n")
    options = "--username", admin.username
    key, _ = terminal.mp3burst("keys", *options, "create", "prometheus", "--scope", "metrics", typed=f"{PASSWORD}\n")
    return Client(admin.url, key.split()[-1], admin.username, admin.user)


def sweep(site: Platform) -> None:
    """Runs a sweep that deletes jobs after a day, as a CronJob does."""
    where = {"DATABASE_URL": f"sqlite:///{site.data}/mp3burst.db", "MEDIA_DIR": str(site.data / "media")}
    environ = {**os.environ, **where, "K_SINK": site.sink, "KEEP_DAYS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "functions.sweep"], env=environ, cwd=ROOT, check=True, capture_output=True)


def metrics(client: Client) -> dict[str, float]:
    answer = client.call("GET", "/metrics")
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(answer.body.decode())


def test_nothing_is_read_until_somebody_asks(site: Platform, reader: Client) -> None:
    assert site.instances("metrics") == []
    assert metrics(reader)["mp3burst_users"] == 1
    assert len(site.instances("metrics")) == 1


def test_nobody_else_reads_them(site: Platform, admin: Client, reader: Client) -> None:
    Client(site.url).call("GET", "/metrics").problem(401)
    Client(site.url).sign_up().call("GET", "/metrics").problem(403)
    others, _ = key_of(admin, "upload", "read", "delete", "account", "admin")
    others.call("GET", "/metrics").problem(403)
    for path in ("/jobs", "/me", "/admin/users", "/keys"):
        reader.call("GET", path).problem(403)
    asked = Client(site.url).sign_up().post_json("/keys", {"name": "mine", "scopes": ["metrics"]})
    assert asked.problem(403)["detail"].startswith("Only administrators may create a key with the scope metrics")
    assert admin.call("GET", "/metrics").status == 200


def test_prometheus_has_what_has_happened(site: Platform, database: Database, reader: Client) -> None:
    user = Client(site.url).sign_up()
    with Prometheus(site.port, reader.token) as prometheus:

        def reaches(query: str, value: float) -> None:
            wait_for(
                lambda: prometheus.value(query) == value, f"{query} to be {value}, not {prometheus.value(query)}", 60
            )

        reaches('up{job="mp3burst"}', 1)
        reaches("sum(mp3burst_jobs_finished_total)", 0)
        done = [user.convert(BytesIO(SOUND), f"{n}.wav") for n in range(3)]
        failed = user.convert(BytesIO(NOISE), "noise.wav")
        assert [job["status"] for job in (*done, failed)] == ["done"] * 3 + ["failed"]
        reaches('mp3burst_jobs_finished_total{outcome="done", source="upload"}', 3)
        reaches('mp3burst_jobs_finished_total{outcome="failed", source="upload", reason="refused"}', 1)
        reaches("mp3burst_audio_seconds_total", 1.5)
        reaches("mp3burst_job_conversion_seconds_count", 3)
        reaches('mp3burst_job_wait_seconds_bucket{le="+Inf"}', 3)
        reaches("sum(mp3burst_mp3_bytes_total)", sum(job["receipt"]["mp3_bytes"] for job in done))
        assert read_totals(database).stores["mp3s"].blobs == 3  # metrics keeps what it has read for 5 minutes
        assert prometheus.value('mp3burst_queue_rows{queue="notify", phase="waiting"}') == 0
        # Nobody takes the mails: each event is tried six times and becomes a dead letter.
        # The platform's own sweep may come meanwhile and repeat them.
        wait_for(lambda: len(re.findall(r"dead letter ", site.output())) >= 4, "dead letters", 90)
        wait_for(
            lambda: (
                prometheus.value("sum(mp3burst_dead_letters_total)") == len(re.findall(r"dead letter ", site.output()))
            ),
            "the dead letters to be counted",
        )
        assert (prometheus.value('mp3burst_attempts_failed_total{queue="notify"}') or 0) >= 4 * 5
        reaches('mp3burst_queue_rows{queue="notify", phase="retrying"}', 4)
        wait_for(lambda: {"Mp3burstDeadLetters", "Mp3burstMailsFail"} <= prometheus.alerts(), "the alerts")

        before = prometheus.query('{__name__=~"mp3burst_.*_total|mp3burst_.*_(bucket|sum|count)"}')
        make_past(database, "jobs", "finished_at")
        sweep(site)
        wait_for(lambda: user.jobs()["jobs"] == [], "the jobs to be deleted")
        wait_for(lambda: (prometheus.value("mp3burst_sweeps_total") or 0) > 0, "the sweep")
        wait_for(lambda: "mp3s" not in read_totals(database).stores, "the files to be deleted")
        assert abs(time.time() - (prometheus.value("mp3burst_sweep_last_success_timestamp_seconds") or 0)) < 60
        after = prometheus.query('{__name__=~"mp3burst_.*_total|mp3burst_.*_(bucket|sum|count)"}')
        assert {labels for labels, value in before.items() if after[labels] < value} == set()
        reaches('mp3burst_jobs_finished_total{outcome="done", source="upload"}', 3)
        assert prometheus.value("sum(resets(mp3burst_jobs_finished_total[10m]))") == 0
        assert "Mp3burstNoSweep" not in prometheus.alerts()


def test_scrapes_at_once_get_the_same(reader: Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: reader.call("GET", "/metrics"), range(24)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) <= 2  # a reading may grow too old meanwhile


def test_text_has_no_data_of_users(admin: Client, reader: Client) -> None:
    text = reader.call("GET", "/metrics").body.decode()
    assert admin.username not in text
    assert not re.search(r"[0-9a-f]{24}|noise|@", text)


def test_administrator_who_is_none_any_more_reads_nothing(database: Database, admin: Client, reader: Client) -> None:
    set_role(database, admin.username, "user")
    wait_for(lambda: reader.call("GET", "/metrics").status == 403, "the key to be refused", 60)
