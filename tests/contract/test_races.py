"""The races of docs/state.md, each arranged so that only the condition in the statement decides it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event, update

from events.schema import ConversionFailed, VideoUploaded
from functions.auth.links import Links
from functions.media import Description
from functions.notify import main as notify
from functions.notify.transports import MailNotSent
from functions.state.blobs import BlobExpired
from functions.state.database import Database, DatabaseUnavailable
from functions.state.jobs import Outcome
from functions.state.leases import MAX_ATTEMPTS, Lease, LeaseLost, LeaseRenewer, LeaseTerms
from functions.state.mails import MAX_AGE, Addressee, MailRow, Mails
from functions.state.outbox import Outbox
from functions.state.pieces import PieceOutput
from functions.state.schema import jobs, users
from tests.contract.test_jobs import OWNER, Records, exists
from tests.contract.test_pieces import PieceRecords
from tests.support.databases import SHORT, make_past
from tests.support.processes import wait_for


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database, LeaseTerms())


def test_worker_that_lost_its_lease_does_not_disturb_its_successor(records: Records) -> None:
    job = records.job()
    slow = records.jobs.claim(job.id)
    make_past(records.database, "jobs", "lease_until")
    successor = records.jobs.claim(job.id)
    assert slow is not None
    assert successor is not None
    before = records.row("jobs")
    with records.jobs.renewing(slow) as renewer:
        assert not renewer._renew(0.0)  # what its thread does every five seconds
    assert records.jobs.finish(slow, Outcome(records.blob("mp3s"), 1.0, None)) is None
    assert records.jobs.fail(slow, "no") == []
    records.jobs.release(slow)
    assert records.row("jobs") == before
    assert records.count("mails") == 0
    mp3 = records.blob("mp3s")
    assert records.jobs.finish(successor, Outcome(mp3, 2.0, None)) is not None
    assert records.row("jobs").mp3 == mp3


def test_mail_whose_worker_stalls_before_it_calls_the_mail_server_goes_out_once(records: Records) -> None:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    [event] = records.jobs.fail(lease, "no audio")
    row = {
        "id": OWNER,
        "username": "ada",
        "email": "ada@example.org",
        "name": "Ada",
        "password_hash": "",
        "role": "user",
    }
    user = users.insert().values(**row, created_at=0, confirmed_at=1)
    records.database.run(lambda connection: connection.execute(user))
    links = Links.from_environ({"LINK_KEY": "k" * 64, "PUBLIC_URL": "http://localhost"})
    sent: list[str] = []
    successor = notify.Dependencies(records.mails, links, lambda _: sent.append("successor"))

    class Stalled(Mails):
        def addressee(self, lease: Lease[MailRow]) -> Addressee | None:
            make_past(records.database, "mails", "lease_until")
            notify.send_mail(event.id, successor)
            return super().addressee(lease)

    stalled = notify.Dependencies(Stalled(records.database), links, lambda _: sent.append("stalled"))
    with pytest.raises(LeaseLost):
        notify.send_mail(event.id, stalled)
    assert sent == ["successor"]
    assert records.row("mails").state == "sent"


@pytest.mark.parametrize(("asked", "waits"), [(0.0, 0), (120.0, 120), (86_400.0, 3_600)])
def test_mail_waits_for_as_long_as_the_service_asks_but_an_hour_at_most(
    records: Records, asked: float, waits: int
) -> None:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    [event] = records.jobs.fail(lease, "no audio")
    first = records.mails.claim(event.id)
    assert first is not None
    records.mails.release(first, MailNotSent(asked))
    second = records.mails.claim(event.id)  # the broker's next try
    assert (second is None) is (waits > 0)
    if waits:
        make_past(records.database, "mails", "lease_until", (waits - 10) * 1000)
        assert records.mails.claim(event.id) is None
        make_past(records.database, "mails", "lease_until", 11_000)
        assert records.mails.claim(event.id) is not None


def test_worker_that_lost_its_lease_does_not_close_the_mail(records: Records) -> None:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    [event] = records.jobs.fail(lease, "no audio")
    slow = records.mails.claim(event.id)
    make_past(records.database, "mails", "lease_until")
    successor = records.mails.claim(event.id)
    assert slow is not None
    assert successor is not None
    before = records.row("mails")
    records.mails.release(slow)
    records.mails.fail(slow)
    records.mails.sent(slow)
    assert records.row("mails") == before
    records.mails.sent(successor)
    assert records.row("mails").state == "sent"


def test_second_worker_returns_as_soon_as_the_first_renews(database: Database) -> None:
    """It must not wait the 25 s that it grants a dead worker, because the broker's delivery waits with it."""
    records = Records(database, LeaseTerms(lease=20_000, renewal=200, due=25_000))
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    with records.jobs.renewing(lease):
        began = time.monotonic()
        assert records.jobs.claim(lease.row.id) is None
        assert time.monotonic() - began < 10
    assert records.row("jobs").attempts == 1


def test_swept_mp3_ends_no_job(records: Records) -> None:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    mp3 = records.blob("mp3s")
    make_past(records.database, "blobs", "expires_at")
    with pytest.raises(BlobExpired):
        records.jobs.finish(lease, Outcome(mp3, 1.0, None))
    assert records.row("jobs").state == "converting"
    assert records.count("mails") == 0


def test_each_attempt_writes_under_its_own_id(records: Records) -> None:
    """The trap: with one id for both, the late attempt fails and then deletes the other's blob."""
    about = Description(OWNER, "c" * 32, "a.mp3", "audio/mpeg")
    with records.blobs.writing(records.media, "mp3s", about) as first:
        with pytest.raises(RuntimeError), records.blobs.writing(records.media, "mp3s", about) as late:
            late.write(b"late")
            raise RuntimeError
        first.write(b"first")
    with records.media.mp3s.open(first.blob) as mp3:
        assert mp3.read() == b"first"
    assert records.count("blobs", id=first.blob) == records.count("blobs") == 1


def test_matched_but_unchanged_row_counts(records: Records) -> None:
    """The trap: by default MySQL counts only changed rows, and a renewal in the same millisecond changes none."""
    job = records.job()
    statement = update(jobs).where(jobs.c.id == job.id).values(filename=job.filename)
    assert records.database.run(lambda connection: connection.execute(statement).rowcount) == 1


def test_confirming_a_swept_event_does_not_postpone_a_claimed_row(records: Records) -> None:
    job = records.job()
    make_past(records.database, "jobs", "due_at")
    [due] = records.overdue.due(10)

    def slow_broker(_: object, __: float) -> None:
        lease = records.jobs.claim(job.id)
        assert lease is not None
        records.jobs.release(lease)

    assert Outbox(records.database, slow_broker).emit(due.event, seen=due.seen)
    make_past(records.database, "jobs", "due_at", 60_000)
    assert [due.event for due in records.overdue.due(10)] == [VideoUploaded(job.id)]


def test_last_attempt_is_not_failed_while_it_runs(records: Records) -> None:
    job = records.job()
    for _ in range(MAX_ATTEMPTS):
        make_past(records.database, "jobs", "lease_until")
        last = records.jobs.claim(job.id)
    assert last is not None
    make_past(records.database, "jobs", "due_at")
    assert records.overdue.fail_exhausted() == []
    make_past(records.database, "jobs", "lease_until")
    assert records.overdue.fail_exhausted() == [ConversionFailed(job.id)]
    assert records.jobs.finish(last, Outcome(records.blob("mp3s"), 1.0, None)) is None
    assert records.row("jobs").state == "failed"


def test_last_attempt_at_a_piece_is_not_failed_while_it_runs(database: Database) -> None:
    records = PieceRecords(database, LeaseTerms())
    job = records.split_job(2)
    for _ in range(MAX_ATTEMPTS):
        make_past(database, "pieces", "lease_until")
        last = records.pieces.claim(job, 0)
    assert last is not None
    make_past(database, "pieces", "due_at")
    assert records.overdue.fail_exhausted() == []
    assert records.pieces.encoded(last, PieceOutput(records.blob("pieces", job), "{}")) == []


def test_dead_letter_of_a_sent_mail_wakes_nothing(records: Records) -> None:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    [event] = records.jobs.fail(lease, "no audio")
    mail = records.mails.claim(event.id)
    assert mail is not None
    records.mails.sent(mail)
    assert not records.overdue.wake(event)
    assert records.overdue.due(10) == []


def test_mail_that_is_being_sent_is_not_abandoned(records: Records) -> None:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    [event] = records.jobs.fail(lease, "no audio")
    for _ in range(MAX_ATTEMPTS):
        make_past(records.database, "mails", "lease_until")
        mail = records.mails.claim(event.id)
    assert mail is not None
    make_past(records.database, "mails", "created_at", MAX_AGE + 1)
    assert records.overdue.abandon_mails() == 0
    records.mails.sent(mail)
    assert records.row("mails").state == "sent"


def test_job_finished_during_its_deletion_leaves_nothing(records: Records) -> None:
    """Pauses the deletion just before it deletes the job's row, and gives the worker a second to insert its mail."""
    job = records.job()
    lease = records.jobs.claim(job.id)
    assert lease is not None
    mp3 = records.blob("mp3s", job.id)
    finished = threading.Event()
    worker = ThreadPoolExecutor(1)

    def finish() -> Any:
        try:
            return records.jobs.finish(lease, Outcome(mp3, 1.0, None))
        finally:
            finished.set()

    def before_execute(*arguments: Any) -> None:
        if arguments[2].startswith("DELETE FROM jobs"):
            results.append(worker.submit(finish))
            finished.wait(1)

    results: list[Any] = []
    event.listen(records.database.engine, "before_cursor_execute", before_execute)
    try:
        records.jobs.delete(job.id, OWNER)
        assert results[0].result(30) is None
    finally:
        event.remove(records.database.engine, "before_cursor_execute", before_execute)
        worker.shutdown()
    for blob, store in records.blobs.expired(10):
        records.blobs.delete(records.media, store, blob)
    assert [records.count(table) for table in ("jobs", "mails", "blobs")] == [0, 0, 0]
    assert not exists(records.media, "mp3s", mp3)


def is_lost(renewer: LeaseRenewer) -> bool:
    try:
        renewer.check()
    except LeaseLost:
        return True
    return False


def test_worker_continues_without_a_database_until_its_lease_expires() -> None:
    asked: list[float] = []

    def renew(_: float) -> bool:
        asked.append(time.monotonic())
        raise DatabaseUnavailable("unavailable")

    began = time.monotonic()
    with LeaseRenewer(renew, SHORT) as renewer:
        wait_for(lambda: len(asked) >= 2 or is_lost(renewer), "two failed renewals")
        wait_for(lambda: is_lost(renewer), "the lease to expire")
    assert asked[-1] - began >= SHORT.lease / 1000
    assert len(asked) >= 2


def test_database_that_returns_in_time_costs_no_lease() -> None:
    asked: list[bool] = []

    def renew(_: float) -> bool:
        asked.append(True)
        if len(asked) % 2:
            raise DatabaseUnavailable("unavailable")
        return True

    end = time.monotonic() + 2 * SHORT.lease / 1000
    with LeaseRenewer(renew, SHORT) as renewer:
        wait_for(lambda: time.monotonic() > end and len(asked) >= 10, "twice the time of a lease")
        renewer.check()
