"""Real servers that become unavailable during thirty conversions, processes that are killed, and a full disk.

Whatever happens, every accepted job is done in the end, with one MP3 and one mail, and nothing is left behind.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from sqlalchemy import Select, func, select

from events.http import HttpSink
from events.publish import post, publisher
from events.schema import DeliveryDue, FetchDue, JobId, Mp3Ready
from functions.media import connect
from functions.state.blobs import Blobs
from functions.state.database import Database
from functions.state.disks import Disks
from functions.state.outbox import Outbox
from functions.state.overdue import Overdue
from functions.state.schema import blobs, jobs, mails
from functions.sweep.main import Dependencies as SweepDependencies
from functions.sweep.main import sweep_up
from tests.e2e.client import Client, wave_bytes
from tests.e2e.faults import CLIP, JOBS, LONG, THREADS, Rig, accepted_job, build, upload
from tests.support.databases import make_past
from tests.support.platform import start
from tests.support.processes import wait_for
from tests.support.servers.mariadb import MariaDB
from tests.support.servers.mongodb import MongoDB
from tests.support.servers.postgresql import PostgreSQL
from tests.support.servers.smtp import DROP
from tests.support.servers.sql import SqlServer

Measured = Callable[[str], None]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with build(tmp_path_factory.mktemp("faults"), MariaDB) as made:
        yield made


@contextmanager
def fault(rig: Rig, name: str, measured: Measured, doubled: int = 0, long: int = 0) -> Iterator[list[str]]:
    """Starts thirty conversions, ``long`` of them split; the block is the fault.

    After the block and one sweep, every promise must be kept.
    """
    began = time.monotonic()
    accepted = [accepted_job(answer) for answer in rig.upload(long, LONG) + rig.upload(JOBS - long)]
    under_way = rig.unfinished()
    assert under_way > JOBS // 2
    yield accepted
    rig.sweep()
    done, failed, mail_count = rig.check(accepted, doubled)
    figures = f"{len(accepted)} jobs ({under_way} under way), {done} done, {failed} failed, {mail_count} mails"
    measured(f"fault: {name:<38} {figures}, {time.monotonic() - began:.1f} s")
    assert done == len(accepted)


def some_done(rig: Rig, count: int = 5) -> None:
    """Waits until ``count`` more jobs have ended."""
    left = rig.unfinished() - count
    wait_for(lambda: rig.unfinished() <= max(left, 0), f"{count} more jobs to end", 120)


def test_rabbitmq_is_killed_and_restarted(rig: Rig, measured: Measured) -> None:
    with fault(rig, "RabbitMQ killed, restarted", measured):
        some_done(rig)
        rig.installation.rabbitmq.kill()
        rig.installation.rabbitmq.start()


@pytest.mark.parametrize("hangs", [False, True], ids=["stopped", "hanging"])
def test_users_upload_while_rabbitmq_is_unavailable(rig: Rig, measured: Measured, hangs: bool) -> None:
    rabbitmq = rig.installation.rabbitmq
    with fault(rig, f"RabbitMQ {'hanging' if hangs else 'stopped'}, uploads go on", measured) as accepted:
        (rabbitmq.suspend if hangs else rabbitmq.stop)()
        began = time.monotonic()
        accepted += [accepted_job(answer) for answer in rig.upload(2 * THREADS)]
        seconds = (time.monotonic() - began) / 2
        (rabbitmq.resume if hangs else rabbitmq.start)()
    measured(f"       an upload meanwhile: {seconds:.2f} s, {THREADS} at a time")


def test_connections_to_rabbitmq_are_lost(rig: Rig, measured: Measured) -> None:
    with fault(rig, "RabbitMQ's connections lost 5 times", measured) as accepted:
        for _ in range(5):
            assert rig.proxy.disconnect()
            accepted += [accepted_job(answer) for answer in rig.upload(2)]
            some_done(rig)


def test_mariadb_is_killed_and_restarted(rig: Rig, measured: Measured) -> None:
    with fault(rig, "MariaDB killed, restarted", measured):
        some_done(rig)
        without_a_server(rig, rig.installation.sql)


def test_postgresql_is_killed_and_restarted(tmp_path_factory: pytest.TempPathFactory, measured: Measured) -> None:
    with (
        build(tmp_path_factory.mktemp("postgresql"), PostgreSQL) as other,
        fault(other, "PostgreSQL killed, restarted", measured),
    ):
        some_done(other)
        without_a_server(other, other.installation.sql)


def test_mongodb_is_restarted(rig: Rig, measured: Measured) -> None:
    with fault(rig, "MongoDB restarted", measured):
        some_done(rig)
        without_a_server(rig, rig.installation.mongodb)


def without_a_server(rig: Rig, server: SqlServer | MongoDB) -> None:
    """Stops the server until a user gets the response that it is unavailable."""
    server.kill() if isinstance(server, SqlServer) else server.stop()
    rig.me.try_upload(BytesIO(CLIP), "refused.wav").problem(503)
    server.start()


def test_smtp_server_is_unavailable_for_a_while(rig: Rig, measured: Measured) -> None:
    smtp = rig.installation.smtp
    with fault(rig, "SMTP down", measured):
        smtp.answers["MAIL"] = DROP
        tried = select(func.count()).select_from(mails).where(mails.c.attempts > 0, mails.c.state == "due")
        try:
            wait_for(
                lambda: (rig.installation.database.run(lambda c: c.scalar(tried)) or 0) >= 10,
                "ten failed attempts",
                120,
            )
        finally:
            del smtp.answers["MAIL"]


def kill_at_work(rig: Rig, name: str) -> None:
    """Kills a function with SIGKILL while it is busy."""

    def working() -> bool:
        return any(one["inflight"] for one in rig.installation.platform.instances(name))

    wait_for(working, f"{name} to work", seconds=120)
    rig.kill(name)


def test_bridge_and_busy_functions_are_killed(rig: Rig, measured: Measured) -> None:
    # At most ten mails are being sent when notify is killed, because its Trigger delivers ten events at a time.
    with fault(rig, "kill -9: bridge, busy functions twice", measured, doubled=20, long=8):
        bridge = rig.bridge()
        assert bridge is not None
        os.kill(bridge, signal.SIGKILL)
        wait_for(lambda: rig.bridge() not in (None, bridge), "another bridge")
        for name in ("convert", "encode", "notify") * 2:
            kill_at_work(rig, name)
        kill_at_work(rig, "join")
        assert rig.installation.rows("pieces") > 0


def test_upload_is_killed_while_users_upload(rig: Rig, measured: Measured) -> None:
    def upload_until_accepted(number: int) -> str:
        key = f"insist-{number}"
        answer = None
        while answer is None or answer.status != 202:
            try:
                answer = rig.me.try_upload(BytesIO(CLIP), "insist.wav", key=key)
            except OSError:
                continue
            assert answer.status in (202, 502, 503), answer.body
        return accepted_job(answer)

    with fault(rig, "kill -9: upload, while it receives", measured) as accepted, ThreadPoolExecutor(4) as threads:
        uploads = threads.map(upload_until_accepted, range(40))
        rig.kill("upload")
        again = list(uploads)
        assert len({*again}) == 40
        accepted += again


def test_other_functions_are_killed(rig: Rig, measured: Measured) -> None:
    me = rig.me
    platform = rig.installation.platform
    no_delivery = DeliveryDue("0" * 32)
    with fault(rig, "kill -9: every other function", measured) as accepted:
        calls: dict[str, Callable[[], object]] = {
            "register": me.sign_up,
            "confirm": lambda: me.call("POST", "/confirm/again", b"").status == 200 or pytest.fail("confirm"),
            "login": me.log_in,
            "validate": lambda: me.call("POST", "/validate", b"").status == 200 or pytest.fail("validate"),
            "status": me.jobs,
            "download": lambda: me.download(me.wait(accepted[0])["mp3"]).status == 200 or pytest.fail("download"),
            "sweep": rig.sweep,
            "account": lambda: me.call("GET", "/me").status == 200 or pytest.fail("account"),
            "edit": lambda: me.call("GET", f"/jobs/{accepted[0]}/tags").status == 200 or pytest.fail("edit"),
            "admin": lambda: me.call("GET", "/admin/users").status == 403 or pytest.fail("admin"),
            "metrics": lambda: me.call("GET", "/metrics").status == 403 or pytest.fail("metrics"),
            "webhooks": lambda: me.call("GET", "/webhooks").status == 200 or pytest.fail("webhooks"),
            "hook": lambda: post(HttpSink(platform.page_url("/_functions/hook")), "/mp3burst/test", no_delivery, 60),
            "fetch": lambda: post(
                HttpSink(platform.page_url("/_functions/fetch")), "/mp3burst/test", FetchDue(JobId(accepted[0])), 60
            ),
            "bury": lambda: post(
                HttpSink(platform.page_url("/_functions/bury")), "/mp3burst/test", Mp3Ready(JobId(accepted[0])), 60
            ),
        }
        others = platform.status()["functions"].keys() - {
            "convert",
            "encode",
            "join",
            "notify",
            "upload",
        }
        assert calls.keys() == others
        for name, call in calls.items():
            call()
            rig.kill(name)
            call()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk requires root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(path: Path) -> None:
    """Fills the disk."""
    with path.open("ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def test_disk_of_the_media_store_is_full(small_disk: Path, tmp_path: Path, measured: Measured) -> None:
    """On the embedded platform, whose media store is a directory."""
    env = {"MEDIA_DIR": str(small_disk / "media"), "MIN_FREE_BYTES": "2000000"}
    began = time.monotonic()
    in_vain = select(func.count()).select_from(jobs).where(jobs.c.state == "converting", jobs.c.lease.is_(None))
    unfinished = select(func.count()).select_from(jobs).where(jobs.c.finished_at.is_(None))
    with start(tmp_path / "data", env=env) as platform:
        me = Client(platform.url).sign_up()
        database = Database(f"sqlite:///{tmp_path / 'data' / 'mp3burst.db'}")

        def count(query: Select[int]) -> int:
            return database.run(lambda connection: connection.scalar(query)) or 0

        def tried() -> bool:
            fill(small_disk / "ballast")  # including what failed attempts have freed
            return count(in_vain) >= 3

        accepted = [accepted_job(answer) for answer in upload(me, JOBS)]
        under_way = count(unfinished)
        wait_for(tried, "three jobs to be tried in vain", 120)
        refusal = me.try_upload(BytesIO(wave_bytes(30)), "refused.wav").problem(507)
        assert "no space" in refusal["detail"]
        (small_disk / "ballast").unlink()

        ended = [me.wait(job, 200) for job in accepted]
        mail_directory = tmp_path / "data" / "mail"
        wait_for(lambda: len([*mail_directory.glob("*.eml")]) >= len(accepted), "the mails", 60)
        wait_for(lambda: not any(queue_busy(queue) for queue in platform.status()["queues"].values()), "the queues", 60)
        make_past(database, "blobs", "expires_at")
        publish = publisher({"K_SINK": platform.sink}, "/mp3burst/sweep")
        outbox = Outbox(database, publish)
        sweep_up(SweepDependencies(Overdue(database), Blobs(database), connect(env), outbox, Disks(database), 0))
        kept = database.run(lambda connection: sorted(connection.scalars(select(blobs.c.id))))
        assert sorted(path.name for path in small_disk.glob("media/*/*/*")) == kept
        assert len(kept) == 2 * len(accepted)
        assert {path.name for path in mail_directory.glob("*.eml")} == {f"{job}.mp3.ready.eml" for job in accepted}
        assert platform.status()["dead_letters"] == []
        database.close()
    states = [job["status"] for job in ended]
    figures = (
        f"{len(accepted)} jobs ({under_way} under way), {states.count('done')} done, {states.count('failed')} failed"
    )
    measured(f"fault: {'media disk full':<38} {figures}, {len(accepted)} mails, {time.monotonic() - began:.1f} s")
    assert {*states} == {"done"}


def queue_busy(queue: dict[str, int]) -> bool:
    return any(queue.values())
