"""Kills processes of the real platform with SIGKILL while they work.

A test first stops an encoder with SIGSTOP, so that the conversion lasts as long as the test needs it, however fast the
machine is. A test that need not see how a killed worker is replaced within half a minute moves its lease into the past.
"""

import contextlib
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP
from sqlalchemy import select

from events.publish import publisher
from events.schema import Event, JobId, Mp3Ready, VideoUploaded
from functions.media import connect
from functions.state.blobs import Blobs
from functions.state.database import Database
from functions.state.disks import Disks
from functions.state.outbox import Outbox
from functions.state.overdue import Overdue
from functions.state.schema import metadata
from functions.sweep.main import Dependencies as SweepDependencies
from functions.sweep.main import sweep_up
from tests.e2e.client import Client
from tests.support.clips import NOISE, clip, samples
from tests.support.databases import make_past
from tests.support.platform import start
from tests.support.processes import descendants, is_alive, wait_for
from tests.support.servers import smtp

RATE = 44100
SECONDS = 60


def anything(_: int) -> bool:
    """Any process."""
    return True


def encoder(pid: int) -> bool:
    """An ffmpeg process; not its launcher, which has the same arguments but does not yet die with its parent."""
    command = command_of(pid)
    return b"libmp3lame" in command and b"ffmpeg" in command.partition(b"\0")[0]


def demux_child(pid: int) -> bool:
    """A demux child that has a user's file; not a spare one, which may still open files."""
    if b"functions.convert.demux.child.main" not in command_of(pid):
        return False
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        rows = Path(f"/proc/{pid}/limits").read_text().splitlines()
        return any(row.split()[:5] == ["Max", "open", "files", "0", "0"] for row in rows)
    return False


Kind = Callable[[int], bool]


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of noise, which takes an encoder some time."""
    return clip(tmp_path_factory.mktemp("kill") / "a.flac", sound=NOISE, seconds=SECONDS, rate=RATE)


class Installation:
    """A data directory, and the platforms that run on it one after another."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self.env = {"TMPDIR": str(self.temporary)}
        self.platform = start(self.data, env=self.env)
        self.me = Client(self.platform.url).sign_up()
        self.job = ""
        self.database = Database(f"sqlite:///{self.data / 'mp3burst.db'}")
        self._pids: set[int] = set()

    def start(self, **env: str) -> None:
        """Starts a platform on the data of the previous one."""
        self.env |= env
        self.platform = start(self.data, env=self.env)
        self.me = Client(self.platform.url, self.me.token, self.me.username, self.me.user)

    def kill(self) -> None:
        """Kills the platform with SIGKILL; everything that it started dies with it."""
        pids = self.processes()
        self.platform.kill()
        self.platform.__exit__(None, None, None)
        wait_for(lambda: not any(map(is_alive, pids)), "its functions, demux children and encoders to die with it")

    def close(self) -> None:
        self._pids |= set(self.processes())
        self.platform.__exit__(None, None, None)
        self.database.close()
        wait_for(lambda: not any(map(is_alive, self._pids)), "every process to end")

    def upload(self, sound: Path) -> None:
        with sound.open("rb") as file:
            self.job = self.me.upload(file, sound.name)["job"]

    def processes(self, kind: Kind = anything) -> list[int]:
        """The platform's descendants of this kind."""
        found = [pid for pid in descendants(self.platform.process.pid) if kind(pid)]
        self._pids |= set(found)
        return found

    def stopped(self, kind: Kind) -> list[int]:
        """Waits for processes of this kind and stops them with SIGSTOP; returns their pids."""

        def stop() -> list[int]:
            found = self.processes(kind)
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            return found

        return wait_for(stop, f"an {kind.__name__} to run")

    def worker(self, name: str) -> int:
        """The process of the function's busy instance."""
        [instance] = [one for one in self.platform.instances(name) if one["inflight"]]
        master: int = instance["pid"]
        return master

    def row(self) -> Any:
        jobs = metadata.tables["jobs"]
        return self.database.run(lambda connection: connection.execute(select(jobs)).one())

    def count(self, table: str) -> int:
        query = select(metadata.tables[table])
        return self.database.run(lambda connection: len(list(connection.execute(query))))

    def past(self, *columns: str) -> None:
        """Moves these columns (table.column) into the past by a day."""
        for table, _, column in (name.partition(".") for name in columns):
            make_past(self.database, table, column, 86_400_000)

    def sweep(self) -> None:
        """Runs a sweep now."""
        publish = publisher({"K_SINK": self.platform.sink}, "/mp3burst/sweep")
        media = connect({"MEDIA_DIR": str(self.data / "media")})
        database = self.database
        outbox = Outbox(database, publish)
        sweep_up(SweepDependencies(Overdue(database), Blobs(database), media, outbox, Disks(database), 0))

    def blobs(self) -> list[str]:
        """The store of each blob on disk, finished or not."""
        return sorted(path.parent.parent.name for path in (self.data / "media").glob("*/*/*"))

    def waiting(self) -> int:
        """The number of events that are not delivered yet."""
        with contextlib.closing(sqlite3.connect(self.data / "broker.db")) as broker:
            return int(broker.execute("SELECT count(*) FROM deliveries").fetchone()[0])

    def mails(self) -> list[str]:
        return [path.name for path in (self.data / "mail").glob("*.eml")]

    def assert_completes(self, tmp_path: Path, seconds: float = 120) -> None:
        """Asserts that the job gets done, with one MP3 and one mail, and that nothing else is left after an hour."""
        job = self.me.wait(self.job, seconds)
        assert (job["status"], job["error"], job["warning"]) == ("done", None, None)
        mp3 = tmp_path / "a.mp3"
        mp3.write_bytes(self.me.download(job["mp3"]).body)
        assert abs(samples(mp3, RATE, 2) - SECONDS * RATE) <= 1152
        wait_for(self.mails, "the mail")
        self.past("blobs.expires_at")
        self.sweep()
        assert self.mails() == [f"{self.job}.mp3.ready.eml"]
        assert self.blobs() == ["mp3s", "videos"]
        assert (self.count("jobs"), self.count("mails"), self.count("blobs")) == (1, 1, 2)
        assert self.processes(encoder) == self.processes(demux_child) == []
        assert not list(self.temporary.glob("*convert-*"))


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    yield made
    made.close()


def test_killed_converter_is_replaced_within_half_a_minute(
    installation: Installation, sound: Path, tmp_path: Path
) -> None:
    installation.upload(sound)
    encoders = installation.stopped(encoder)
    killed = time.monotonic()
    os.kill(installation.worker("convert"), signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, encoders)), "its encoders to die with it")
    successors = wait_for(lambda: installation.processes(encoder), "another converter", 45)
    assert not set(successors) & set(encoders)
    assert time.monotonic() - killed < 35
    installation.assert_completes(tmp_path)
    assert installation.row().attempts == 2


@pytest.mark.parametrize("victim", [encoder, demux_child])
def test_killed_child_of_the_converter_does_not_fail_the_file(
    installation: Installation, sound: Path, tmp_path: Path, victim: Kind
) -> None:
    installation.upload(sound)
    os.kill(installation.stopped(victim)[0], signal.SIGKILL)
    wait_for(lambda: installation.row().attempts == 2, "the next attempt")
    installation.assert_completes(tmp_path)


def test_converter_whose_children_always_die_exhausts_its_attempts(installation: Installation, sound: Path) -> None:
    installation.upload(sound)
    for attempts in range(1, 6):
        wait_for(lambda: installation.row().attempts == attempts, f"attempt {attempts}", 60)  # noqa: B023 - at once
        [victim] = installation.stopped(demux_child)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: not is_alive(victim), "it to be gone")  # noqa: B023 - at once
        if attempts > 1:  # the broker retries once; later attempts wait until they are due
            wait_for(lambda: installation.row().lease is None, "the job to be released")
            installation.past("jobs.lease_until", "jobs.due_at")
            installation.sweep()
    job = installation.me.wait(installation.job)
    assert job["status"] == "failed"
    assert "after several attempts" in job["error"]
    wait_for(installation.mails, "the mail")
    assert installation.mails() == [f"{installation.job}.conversion.failed.eml"]
    installation.past("blobs.expires_at")
    installation.sweep()
    assert installation.blobs() == ["videos"]


@pytest.mark.parametrize("verb", ["RCPT", "DATA"])
def test_notifier_killed_before_the_mail_is_accepted_sends_one_mail(
    installation: Installation, sound: Path, verb: str
) -> None:
    short = clip(sound.with_name("short.flac"), sound=NOISE, seconds=1, rate=RATE)
    installation.kill()
    with smtp.running() as server:
        asked = hanging_at(server, verb)
        installation.start(
            SMTP_HOST="127.0.0.1", SMTP_PORT=str(server.port), SMTP_SECURITY="none", MAIL_FROM="a@example.org"
        )
        installation.upload(short)
        assert installation.me.wait(installation.job)["status"] == "done"
        assert asked.wait(60)
        os.kill(installation.worker("notify"), signal.SIGKILL)
        del server.answers[verb]
        installation.past("mails.lease_until", "mails.due_at")
        wait_for(lambda: server.mails, "the mail", 60)
        state = select(metadata.tables["mails"].c.state)
        wait_for(lambda: installation.database.run(lambda connection: connection.scalar(state)) == "sent", "the record")
        assert [mail["Message-ID"] for mail in server.mails] == [f"<{installation.job}.mp3.ready@mp3burst>"]


def hanging_at(server: smtp.SmtpServer, verb: str) -> threading.Event:
    """Makes the server hang at a verb; returns an event that is set once a client waits for the answer."""
    asked = threading.Event()
    answer = server._answer
    server.answers[verb] = smtp.HANG

    async def answer_and_notify(received: str, connection: SMTP) -> str | None:
        if server.answers.get(received) == smtp.HANG:
            asked.set()
        return await answer(received, connection)

    server._answer = answer_and_notify  # type: ignore[method-assign,assignment]
    return asked


def when_answered(_: Installation) -> None:
    pass


def when_encoding(installation: Installation) -> None:
    installation.stopped(encoder)


def when_mp3_exists(installation: Installation) -> None:
    mp3s = installation.data / "media" / "mp3s"
    wait_for(lambda: [path for path in mp3s.glob("*/*") if not path.name.endswith(".part")], "the MP3", 60)


def when_done(installation: Installation) -> None:
    wait_for(lambda: installation.row().state == "done", "the job", 60)


@pytest.mark.parametrize("moment", [when_answered, when_encoding, when_mp3_exists, when_done])
def test_killed_platform_continues_where_it_was(
    installation: Installation, sound: Path, tmp_path: Path, moment: Callable[[Installation], None]
) -> None:
    installation.upload(sound)
    moment(installation)
    installation.kill()
    installation.past("jobs.lease_until", "mails.lease_until")
    installation.start()
    installation.assert_completes(tmp_path)


def test_events_delivered_three_times_at_once(installation: Installation, sound: Path, tmp_path: Path) -> None:
    installation.upload(sound)
    publish = publisher({"K_SINK": installation.platform.sink}, "/test")

    def publish_three_times(event: Event) -> None:
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(lambda _: publish(event, 10), range(3)))

    publish_three_times(VideoUploaded(JobId(installation.job)))
    wait_for(lambda: installation.row().state == "done", "the MP3", 60)
    publish_three_times(Mp3Ready(JobId(installation.job)))
    publish_three_times(VideoUploaded(JobId(installation.job)))
    installation.assert_completes(tmp_path)
    wait_for(lambda: not installation.waiting(), "every event to be delivered", 60)
    assert installation.row().attempts == 1
    installation.assert_completes(tmp_path)


def test_interrupted_upload_leaves_nothing(installation: Installation, sound: Path) -> None:
    sent = begin_upload(installation, sound)
    sent.close()
    wait_for(lambda: not installation.platform.instances("upload")[0]["inflight"], "upload to notice")
    assert installation.blobs() == []
    assert [installation.count(table) for table in ("jobs", "blobs")] == [0, 0]


def test_killed_upload_leaves_nothing_after_an_hour(installation: Installation, sound: Path) -> None:
    with begin_upload(installation, sound) as sent:
        wait_for(installation.blobs, "the first bytes to be stored")
        os.kill(installation.worker("upload"), signal.SIGKILL)
        with contextlib.suppress(ConnectionError):
            assert not sent.recv(100).startswith(b"HTTP/1.1 2")
    installation.sweep()
    assert installation.blobs() == ["videos"]  # a writer has an hour
    installation.past("blobs.expires_at")
    installation.sweep()
    assert installation.blobs() == []
    assert [installation.count(table) for table in ("jobs", "blobs")] == [0, 0]


def begin_upload(installation: Installation, sound: Path) -> socket.socket:
    """Sends the head and a part of an upload, and leaves the connection open."""
    size = sound.stat().st_size
    head = f"POST /upload?filename=a.flac HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n"
    head += f"Authorization: Bearer {installation.me.token}\r\nContent-Type: audio/flac\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", installation.platform.port), timeout=30)
    connection.sendall(head.encode() + sound.read_bytes()[: size // 2])
    wait_for(lambda: [one for one in installation.platform.instances("upload") if one["inflight"]], "upload to read")
    return connection


def test_deleting_a_job_stops_its_worker(installation: Installation, sound: Path) -> None:
    installation.upload(sound)
    encoders = installation.stopped(encoder)
    assert installation.me.call("DELETE", f"/jobs/{installation.job}").status == 204
    wait_for(lambda: not any(map(is_alive, encoders)), "the worker to stop its encoders")
    wait_for(lambda: not any(one["inflight"] for one in installation.platform.instances("convert")), "it to be idle")
    installation.sweep()
    assert installation.blobs() == []
    assert [installation.count(table) for table in ("jobs", "mails", "blobs")] == [0, 0, 0]
    assert installation.mails() == []
    assert installation.me.call("GET", f"/jobs/{installation.job}").status == 404
