"""The races that state.md's guards decide, each arranged so that the guard is what decides it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event, update

from events.schema import ConversionFailed, VideoUploaded
from functions.media import Description
from functions.state.blobs import BlobExpired
from functions.state.database import Database, DatabaseUnavailable
from functions.state.jobs import Outcome
from functions.state.leases import MAX_ATTEMPTS, LeaseLost, LeaseRenewer, LeaseTerms
from functions.state.mails import MAX_AGE
from functions.state.outbox import Outbox
from functions.state.pieces import PieceOutput
from functions.state.schema import jobs
from tests.contract.test_jobs import OWNER, House, exists
from tests.contract.test_pieces import Workshop
from tests.support.databases import SHORT, make_past
from tests.support.processes import wait_for


@pytest.fixture
def house(database: Database) -> House:
    return House(database, LeaseTerms())


def test_a_worker_that_was_fenced_off_does_not_disturb_its_heir(house: House) -> None:
    job = house.job()
    slow = house.jobs.claim(job.id)
    make_past(house.database, "jobs", "lease_until")
    heir = house.jobs.claim(job.id)
    assert slow is not None
    assert heir is not None
    before = house.row("jobs")
    with house.jobs.renewing(slow) as renewer:
        assert not renewer._renew(0.0)  # What its thread does every five seconds.
    assert house.jobs.finish(slow, Outcome(house.blob("mp3s"), 1.0, None)) is None
    assert house.jobs.fail(slow, "no") is None
    house.jobs.release(slow)
    assert house.row("jobs") == before
    assert house.count("mails") == 0
    mp3 = house.blob("mp3s")
    assert house.jobs.finish(heir, Outcome(mp3, 2.0, None)) is not None
    assert house.row("jobs").mp3 == mp3


def test_a_mail_that_another_sends_is_left_to_them(house: House) -> None:
    lease = house.jobs.claim(house.job().id)
    assert lease is not None
    told = house.jobs.fail(lease, "no audio")
    assert told is not None
    slow = house.mails.claim(told.id)
    make_past(house.database, "mails", "lease_until")
    heir = house.mails.claim(told.id)
    assert slow is not None
    assert heir is not None
    before = house.row("mails")
    house.mails.release(slow)
    house.mails.fail(slow)
    house.mails.sent(slow)
    assert house.row("mails") == before
    house.mails.sent(heir)
    assert house.row("mails").state == "sent"


def test_a_second_worker_leaves_as_soon_as_it_sees_the_first_alive(database: Database) -> None:
    """It must not stay for the 25 s that it would wait for a dead one: a broker's delivery waits with it."""
    house = House(database, LeaseTerms(lease=20_000, renewal=200, due=25_000))
    lease = house.jobs.claim(house.job().id)
    assert lease is not None
    with house.jobs.renewing(lease):
        began = time.monotonic()
        assert house.jobs.claim(lease.row.id) is None
        assert time.monotonic() - began < 10
    assert house.row("jobs").attempts == 1


def test_an_mp3_that_was_swept_ends_no_job(house: House) -> None:
    lease = house.jobs.claim(house.job().id)
    assert lease is not None
    mp3 = house.blob("mp3s")
    make_past(house.database, "blobs", "expires_at")
    with pytest.raises(BlobExpired):
        house.jobs.finish(lease, Outcome(mp3, 1.0, None))
    assert house.row("jobs").state == "converting"
    assert house.count("mails") == 0


def test_each_attempt_writes_under_an_id_of_its_own(house: House) -> None:
    """The trap: with one id for both, the late one fails, and what it then deletes is the other's."""
    about = Description(OWNER, "c" * 32, "a.mp3", "audio/mpeg")
    with house.blobs.writing(house.media, "mp3s", about) as first:
        with pytest.raises(RuntimeError), house.blobs.writing(house.media, "mp3s", about) as late:
            late.write(b"late")
            raise RuntimeError
        first.write(b"first")
    with house.media.mp3s.open(first.blob) as mp3:
        assert mp3.read() == b"first"
    assert house.count("blobs", id=first.blob) == house.count("blobs") == 1


def test_a_row_that_is_found_and_not_changed_counts(house: House) -> None:
    """The trap: MySQL counts changed rows unless it is asked not to; a renewal in the same millisecond changes none."""
    job = house.job()
    statement = update(jobs).where(jobs.c.id == job.id).values(filename=job.filename)
    assert house.database.run(lambda connection: connection.execute(statement).rowcount) == 1


def test_confirming_a_swept_event_does_not_touch_a_row_that_somebody_took(house: House) -> None:
    job = house.job()
    make_past(house.database, "jobs", "due_at")
    [due] = house.overdue.due(10)

    def slow_broker(_: object, __: float) -> None:
        lease = house.jobs.claim(job.id)
        assert lease is not None
        house.jobs.release(lease)

    assert Outbox(house.database, slow_broker).emit(due.event, seen=due.seen)
    make_past(house.database, "jobs", "due_at", 60_000)
    assert [due.event for due in house.overdue.due(10)] == [VideoUploaded(job.id)]


def test_the_last_attempt_is_not_failed_while_it_lives(house: House) -> None:
    job = house.job()
    for _ in range(MAX_ATTEMPTS):
        make_past(house.database, "jobs", "lease_until")
        last = house.jobs.claim(job.id)
    assert last is not None
    make_past(house.database, "jobs", "due_at")
    assert house.overdue.fail_exhausted() == []
    make_past(house.database, "jobs", "lease_until")
    assert house.overdue.fail_exhausted() == [ConversionFailed(job.id)]
    assert house.jobs.finish(last, Outcome(house.blob("mp3s"), 1.0, None)) is None
    assert house.row("jobs").state == "failed"


def test_the_last_attempt_at_a_piece_is_not_failed_while_it_lives(database: Database) -> None:
    workshop = Workshop(database, LeaseTerms())
    job = workshop.cut(2)
    for _ in range(MAX_ATTEMPTS):
        make_past(database, "pieces", "lease_until")
        last = workshop.pieces.claim(job, 0)
    assert last is not None
    make_past(database, "pieces", "due_at")
    assert workshop.overdue.fail_exhausted() == []
    assert workshop.pieces.encoded(last, PieceOutput(workshop.blob("pieces", job), "{}")) == []


def test_a_dead_letter_of_a_sent_mail_wakes_nothing(house: House) -> None:
    lease = house.jobs.claim(house.job().id)
    assert lease is not None
    told = house.jobs.fail(lease, "no audio")
    assert told is not None
    mail = house.mails.claim(told.id)
    assert mail is not None
    house.mails.sent(mail)
    assert not house.overdue.wake(told)
    assert house.overdue.due(10) == []


def test_a_mail_under_way_is_not_given_up(house: House) -> None:
    lease = house.jobs.claim(house.job().id)
    assert lease is not None
    told = house.jobs.fail(lease, "no audio")
    assert told is not None
    for _ in range(MAX_ATTEMPTS):
        make_past(house.database, "mails", "lease_until")
        mail = house.mails.claim(told.id)
    assert mail is not None
    make_past(house.database, "mails", "created_at", MAX_AGE + 1)
    assert house.overdue.abandon_mails() == 0
    house.mails.sent(mail)
    assert house.row("mails").state == "sent"


def test_a_job_that_is_finished_while_it_is_deleted_leaves_nothing(house: House) -> None:
    """The deletion stands still just before the job's own row goes; the worker gets a second to slip its mail in."""
    job = house.job()
    lease = house.jobs.claim(job.id)
    assert lease is not None
    mp3 = house.blob("mp3s", job.id)
    finished, worker = threading.Event(), ThreadPoolExecutor(1)

    def finish() -> Any:
        try:
            return house.jobs.finish(lease, Outcome(mp3, 1.0, None))
        finally:
            finished.set()

    def before_execute(*arguments: Any) -> None:
        if arguments[2].startswith("DELETE FROM jobs"):
            results.append(worker.submit(finish))
            finished.wait(1)

    results: list[Any] = []
    event.listen(house.database.engine, "before_cursor_execute", before_execute)
    try:
        house.jobs.delete(job.id, OWNER)
        assert results[0].result(30) is None
    finally:
        event.remove(house.database.engine, "before_cursor_execute", before_execute)
        worker.shutdown()
    for blob, store in house.blobs.expired(10):
        house.blobs.delete(house.media, store, blob)
    assert [house.count(table) for table in ("jobs", "mails", "blobs")] == [0, 0, 0]
    assert not exists(house.media, "mp3s", mp3)


def is_fenced(renewer: LeaseRenewer) -> bool:
    try:
        renewer.check()
    except LeaseLost:
        return True
    return False


def test_a_worker_goes_on_without_a_database_for_as_long_as_its_lease_holds() -> None:
    asked: list[float] = []

    def renew(_: float) -> bool:
        asked.append(time.monotonic())
        raise DatabaseUnavailable("away")

    began = time.monotonic()
    with LeaseRenewer(renew, SHORT) as renewer:
        wait_for(lambda: len(asked) >= 2 or is_fenced(renewer), "two renewals in vain")
        wait_for(lambda: is_fenced(renewer), "the lease's end")
    assert asked[-1] - began >= SHORT.lease / 1000
    assert len(asked) >= 2


def test_a_database_that_comes_back_in_time_is_no_loss() -> None:
    asked: list[bool] = []

    def renew(_: float) -> bool:
        asked.append(True)
        if len(asked) % 2:
            raise DatabaseUnavailable("away")
        return True

    with LeaseRenewer(renew, SHORT) as renewer:
        wait_for(lambda: len(asked) >= 10, "twice the time of a lease")
        renewer.check()
