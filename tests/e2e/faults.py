"""An installation on real servers with thirty conversions under way, and what must be true of it after a fault.

To save time, leases that are no longer renewed and the expiry of unretained blobs are moved into the past.
"""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pika  # type: ignore[import-untyped]  # pika carries no types
from pymongo import MongoClient
from sqlalchemy import Connection, Row, Select, select, update

from events.rabbitmq.topology import Queue, Topology
from functions.state.database import Database
from functions.state.schema import jobs, mails, pieces
from infra.ping import ping
from tests.e2e.client import Answer, Client, wave_bytes
from tests.support.databases import make_past
from tests.support.installation import Installation, addresses
from tests.support.platform import start
from tests.support.processes import descendants, is_alive, wait_for
from tests.support.servers.mongodb import MongoDB
from tests.support.servers.proxy import Proxy
from tests.support.servers.rabbitmq import RabbitMQ
from tests.support.servers.smtp import running
from tests.support.servers.sql import SqlServer

JOBS = 30
THREADS = 10
CLIP = wave_bytes(0.5)
#: Long enough for two pieces, since jobs of FANOUT seconds or more are split.
LONG = wave_bytes(40)
FANOUT = 10
#: Seconds after which the worker of a lease that is not renewed must be dead; the lease itself lasts 20.
UNRENEWED = 8.0
#: Seconds between sweeps while jobs are waited for: an event that was lost waits for the next one.
SWEEP_EVERY = 30.0
#: Milliseconds that the bridge delays a message before each retry, by default.
DELAYS = [1000 << n for n in range(7)]


class Rig:
    """A test rig: an installation with one user, and a proxy in front of RabbitMQ."""

    def __init__(self, installation: Installation, proxy: Proxy) -> None:
        self.installation = installation
        self.proxy = proxy
        self.me = Client(installation.platform.url).sign_up()
        self.me.convert(BytesIO(CLIP), "warm.wav")
        self._leases: dict[tuple[object, ...], float] = {}
        self._checked: set[str] = set()
        self._swept = time.monotonic()

    def upload(self, count: int, clip: bytes = CLIP) -> list[Answer]:
        """Uploads so many clips, THREADS at a time."""
        return upload(self.me, count, clip)

    def sweep(self) -> None:
        """Runs a sweep, as a PingSource does every five minutes."""
        ping(self.installation.platform.page_url("/_functions/sweep"))

    def unfinished(self) -> int:
        return self.installation.rows("jobs", finished_at=None)

    def bridge(self) -> int | None:
        """The pid of the bridge, if it runs."""
        for pid in descendants(self.installation.platform.process.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"events.bridge" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None

    def kill(self, name: str) -> int:
        """Waits for processes of a function and kills them with SIGKILL; returns how many."""
        pids = wait_for(lambda: [one["pid"] for one in self.installation.platform.instances(name)], f"{name} to run")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it was idle and has just been stopped
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, pids)), f"{name} to be gone")
        alive = self.installation.platform.instances
        wait_for(lambda: not {one["pid"] for one in alive(name)} & {*pids}, "the platform to notice")
        return len(pids)

    def settle(self) -> None:
        """Waits until every job has ended, every mail is sent and no message is queued."""
        wait_for(lambda: self._settled(), "every job to end and every mail to be sent", 180)
        wait_for(lambda: not self.messages() and not self._busy(), "the queues to be empty", 120)

    def _settled(self) -> bool:
        self._expire_dead_leases()
        if time.monotonic() > self._swept + SWEEP_EVERY:
            self._swept = time.monotonic()
            self.sweep()
        return not self.unfinished() and not self.installation.rows("mails", state="due")

    def _expire_dead_leases(self) -> None:
        """Expires the leases that are no longer renewed: their workers are dead."""
        run = self.installation.database.run
        for table in (jobs, pieces, mails):
            columns = [*table.primary_key, table.c.lease, table.c.lease_until]
            for row in run(partial(all_rows, query=select(*columns).where(table.c.lease_until.is_not(None)))):
                if time.monotonic() - self._leases.setdefault(tuple(row), time.monotonic()) > UNRENEWED:
                    same = [column == value for column, value in zip(columns, row, strict=True)]
                    run(partial(Connection.execute, statement=update(table).where(*same).values(lease_until=1)))

    def _busy(self) -> bool:
        functions = self.installation.platform.status()["functions"]
        return any(one["inflight"] for pool in functions.values() for one in pool["instances"])

    def messages(self) -> dict[str, int]:
        """The number of messages in each queue that has any, including delay queues and dead letters."""
        names = [one.name for one in Topology.from_environ({}).declarations(DELAYS) if isinstance(one, Queue)]
        connection = pika.BlockingConnection(pika.URLParameters(self.installation.rabbitmq.url))
        try:
            channel = connection.channel()
            counts = {name: channel.queue_declare(name, passive=True).method.message_count for name in names}
        finally:
            connection.close()
        return {name: count for name, count in counts.items() if count}

    def check(self, accepted: list[str], doubled: int) -> tuple[int, int, int]:
        """Asserts that the installation keeps its promises.

        Args:
            accepted: the jobs whose upload was answered with 202.
            doubled: how many mails may have been sent twice, because notify was killed after the mail server had
                accepted them and before that was recorded.

        Returns:
            Of the accepted jobs, how many are done, how many failed, and how many mails were sent for them.
        """
        self.settle()
        make_past(self.installation.database, "blobs", "expires_at")
        self.sweep()
        found = self.installation.database.run(partial(all_rows, query=select(jobs)))
        rows = {row.id: row for row in found}
        assert {row.state for row in found} <= {"done", "failed"}
        assert all(row.mp3 if row.state == "done" else row.error.endswith(".") for row in found)
        with MongoClient[dict[str, object]](self.installation.mongodb.url) as client:
            assert {str(name) for name in client["mp3s"]["fs.files"].distinct("_id")} == {
                row.mp3 for row in found if row.mp3
            }
        sent = Counter(str(mail["Message-ID"]) for mail in self.installation.smtp.mails)
        assert sent.keys() == {message_id(row.id, row.state) for row in found if row.id not in self._checked}
        assert sorted(sent.values())[-1] <= (2 if doubled else 1)
        assert sum(sent.values()) - len(sent) <= doubled
        assert self.installation.orphaned_files() == 0
        assert self.installation.rows("blobs") == self.installation.rows("blobs", expires_at=None)
        assert self.messages() == {}
        self._checked |= rows.keys()
        self.installation.smtp.mails.clear()
        states = Counter(rows[job].state for job in accepted)
        return states["done"], states["failed"], sum(sent[message_id(job, rows[job].state)] for job in accepted)


def upload(user: Client, count: int, clip: bytes = CLIP) -> list[Answer]:
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(lambda n: user.try_upload(BytesIO(clip), f"{n}.wav"), range(count)))


def all_rows(connection: Connection, query: Select[Any]) -> list[Row[Any]]:
    return list(connection.execute(query))


def message_id(job: str, state: str) -> str:
    return f"<{job}.{'mp3.ready' if state == 'done' else 'conversion.failed'}@mp3burst>"


@contextmanager
def build(directory: Path, kind: type[SqlServer]) -> Iterator[Rig]:
    """Starts everything, with a proxy between the platform and RabbitMQ."""
    with ExitStack() as stack:
        rabbitmq = stack.enter_context(RabbitMQ())
        mongodb = stack.enter_context(MongoDB())
        sql = stack.enter_context(kind())
        smtp = stack.enter_context(running())
        proxy = stack.enter_context(Proxy(rabbitmq.port))
        amqp_url = rabbitmq.url.replace(f":{rabbitmq.port}/", f":{proxy.port}/")
        env = {**addresses(amqp_url, sql, mongodb, smtp), "FANOUT_SECONDS": str(FANOUT)}
        platform = stack.enter_context(start(directory / "data", env=env))
        database = Database(sql.url)
        stack.callback(database.close)
        yield Rig(Installation(platform, rabbitmq, mongodb, sql, smtp, database), proxy)


def accepted_job(answer: Answer) -> str:
    assert answer.status == 202, answer.body
    return str(answer.json()["job"])
