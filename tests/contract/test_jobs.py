"""What every SQL database must do with jobs, mails and blobs: state.md's moves and their races."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from sqlalchemy import func, select

from events.schema import ConversionFailed, JobId, Mp3Ready, VideoUploaded
from functions.auth.accounts import UserId
from functions.media import BlobId, BlobNotFound, Description, Media, MediaUnavailable
from functions.options import Options
from functions.state.blobs import BlobExpired, Blobs
from functions.state.database import Database, DatabaseUnavailable
from functions.state.jobs import Job, JobNotFound, Jobs, NewJob, Outcome, new_job_id
from functions.state.leases import ATTEMPTS_EXHAUSTED, MAX_ATTEMPTS, LeaseLost, LeaseTerms
from functions.state.mails import Mails
from functions.state.outbox import Outbox
from functions.state.overdue import Overdue
from functions.state.schema import jobs, metadata, now
from tests.support.databases import SHORT, make_past
from tests.support.fakes import memory_media

T = TypeVar("T")
OWNER = UserId("a" * 32)
STRANGER = UserId("b" * 32)


class House:
    """Everything that stands on one database."""

    def __init__(self, database: Database, terms: LeaseTerms) -> None:
        self.database = database
        self.media: Media = memory_media()
        self.jobs, self.mails = Jobs(database, terms), Mails(database, terms)
        self.blobs, self.overdue = Blobs(database), Overdue(database)

    def blob(self, store: str = "videos", job: str = "c" * 32) -> BlobId:
        with self.blobs.writing(self.media, store, Description(OWNER, job, "a.mp4", "video/mp4")) as writer:
            writer.write(b"bytes")
        return writer.blob

    def job(self, key: str | None = None, owner: UserId = OWNER) -> Job:
        job = new_job_id()
        return self.jobs.add(NewJob(job, owner, self.blob(job=job), "a.mp4", Options(), key))

    def count(self, table: str, **values: object) -> int:
        target = metadata.tables[table]
        where = [target.c[name] == value for name, value in values.items()]
        query = select(func.count()).select_from(target).where(*where)
        return int(self.database.run(lambda connection: connection.scalar(query)) or 0)

    def row(self, table: str) -> Any:
        query = select(metadata.tables[table])
        return self.database.run(lambda connection: connection.execute(query).one())


@pytest.fixture
def house(database: Database) -> House:
    return House(database, LeaseTerms())


@pytest.fixture
def brisk(database: Database) -> House:
    """A house whose leases end within the test."""
    return House(database, SHORT)


def at_once(number: int, work: Callable[[int], T]) -> list[T]:
    """Run ``work(0)``, ``work(1)``, ... in as many threads, all let go at the same moment."""
    gate = threading.Barrier(number)

    def run(n: int) -> T:
        gate.wait(30)
        return work(n)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(run, range(number)))


def exists(media: Media, store: str, blob: str) -> bool:
    try:
        with media[store].open(blob):
            return True
    except BlobNotFound:
        return False


def test_the_database_clock_is_in_milliseconds(house: House) -> None:
    told = house.database.run(lambda connection: connection.scalar(select(now())))
    assert told is not None
    assert abs(told - time.time() * 1000) < 5000


def test_a_new_job_waits_to_be_converted_and_keeps_its_video(house: House) -> None:
    job = house.job()
    assert (job.state, job.filename, job.mp3) == ("uploaded", "a.mp4", None)
    assert house.count("blobs", expires_at=None) == 1
    assert [due.event for due in house.overdue.due(10)] == [VideoUploaded(job.id)]


def test_the_same_key_at_the_same_moment_makes_one_job(house: House) -> None:
    answers = at_once(8, lambda _: house.job(key="once"))
    assert len({job.id for job in answers}) == 1
    assert house.count("jobs") == 1
    assert house.job(key="once", owner=STRANGER).id != answers[0].id


def test_a_video_that_was_swept_makes_no_job(house: House) -> None:
    blob = house.blob()
    make_past(house.database, "blobs", "expires_at")
    with pytest.raises(BlobExpired):
        house.jobs.add(NewJob(new_job_id(), OWNER, blob, "a.mp4", Options()))
    assert house.count("jobs") == 0


def test_of_many_workers_one_gets_the_job(brisk: House) -> None:
    job = brisk.job()

    def work(_: int) -> bool:
        lease = brisk.jobs.claim(job.id)
        if lease is None:
            return False
        with brisk.jobs.renewing(lease) as renewer:
            renewer.report(0.5)
            # Until every other has looked and gone: longer than a lease that is not renewed.
            threading.Event().wait(SHORT.due * 2 / 1000)
            renewer.check()
        return brisk.jobs.finish(lease, Outcome(brisk.blob("mp3s"), 1.0, None)) is not None

    assert sum(at_once(8, work)) == 1
    assert brisk.count("mails") == 1


def test_a_worker_that_dies_is_replaced_by_one_who_waits(brisk: House) -> None:
    job = brisk.job()
    dead = brisk.jobs.claim(job.id)
    assert dead is not None
    heir = brisk.jobs.claim(job.id)
    assert heir is not None
    assert heir.attempts == 2
    assert heir.token != dead.token


def test_a_worker_that_was_fenced_off_changes_nothing(brisk: House) -> None:
    job = brisk.job()
    slow = brisk.jobs.claim(job.id)
    assert slow is not None
    heir = brisk.jobs.claim(job.id)
    assert heir is not None
    stale, mp3 = brisk.blob("mp3s"), brisk.blob("mp3s")
    assert brisk.jobs.finish(heir, Outcome(mp3, 2.0, None)) == Mp3Ready(job.id)
    assert brisk.jobs.finish(slow, Outcome(stale, 1.0, None)) is None
    assert brisk.jobs.fail(slow, "no") is None
    brisk.jobs.release(slow)
    with brisk.jobs.renewing(slow) as renewer, pytest.raises(LeaseLost):
        for _ in range(200):
            threading.Event().wait(0.05)
            renewer.check()
    brisk.blobs.discard(brisk.media, "mp3s", stale)
    finished = brisk.jobs.get(job.id, OWNER)
    assert (finished.state, finished.mp3, finished.duration) == ("done", mp3, 2.0)
    assert brisk.row("jobs").due_at is None
    assert brisk.row("mails").kind == Mp3Ready.type
    assert not exists(brisk.media, "mp3s", stale)
    assert exists(brisk.media, "mp3s", mp3)


def test_a_commit_whose_answer_was_lost_is_recognised(house: House) -> None:
    job = house.job()
    lease = house.jobs.claim(job.id)
    assert lease is not None
    outcome = Outcome(house.blob("mp3s"), 1.0, None)
    assert house.jobs.finish(lease, outcome) == Mp3Ready(job.id)
    assert house.jobs.finish(lease, outcome) == Mp3Ready(job.id)
    assert house.count("mails") == 1
    again = house.jobs.add(NewJob(job.id, OWNER, job.video, "a.mp4", Options()))
    assert (again.id, again.state) == (job.id, "done")


def test_a_kept_blob_survives_the_discard_of_a_worker_in_doubt(house: House) -> None:
    job = house.job()
    lease = house.jobs.claim(job.id)
    assert lease is not None
    mp3 = house.blob("mp3s")
    house.jobs.finish(lease, Outcome(mp3, 1.0, None))
    house.blobs.discard(house.media, "mp3s", mp3)
    assert exists(house.media, "mp3s", mp3)
    assert house.count("blobs", id=mp3) == 1


def test_a_renewal_after_the_end_does_not_wake_the_job(brisk: House) -> None:
    lease = brisk.jobs.claim(brisk.job().id)
    assert lease is not None
    with brisk.jobs.renewing(lease):
        brisk.jobs.finish(lease, Outcome(brisk.blob("mp3s"), 1.0, None))
        threading.Event().wait(SHORT.renewal * 3 / 1000)
    row = brisk.row("jobs")
    assert (row.state, row.due_at, row.lease_until) == ("done", None, None)


def test_a_failure_that_may_pass_gives_the_job_back(house: House) -> None:
    job = house.job()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        lease = house.jobs.claim(job.id)
        assert lease is not None
        assert lease.attempts == attempt
        assert not lease.exhausted
        house.jobs.release(lease)
        assert house.overdue.due(10) == []
    last = house.jobs.claim(job.id)
    assert last is not None
    assert last.exhausted


@pytest.mark.parametrize("away", [MediaUnavailable("away"), DatabaseUnavailable("away")])
def test_an_attempt_without_a_service_does_not_count(house: House, away: Exception) -> None:
    job = house.job()
    for _ in range(2 * MAX_ATTEMPTS):
        lease = house.jobs.claim(job.id)
        assert lease is not None
        assert not lease.exhausted
        house.jobs.release(lease, away)
    assert house.overdue.due(10) == []
    make_past(house.database, "jobs", "due_at")
    assert house.overdue.fail_exhausted() == []
    assert [due.event for due in house.overdue.due(10)] == [VideoUploaded(job.id)]


def test_a_service_that_stays_away_for_a_day_ends_the_job(house: House) -> None:
    job = house.job()
    make_past(house.database, "jobs", "created_at", 86_400_000)
    for _ in range(MAX_ATTEMPTS):
        assert house.overdue.fail_exhausted() == []
        lease = house.jobs.claim(job.id)
        assert lease is not None
        house.jobs.release(lease, MediaUnavailable("full"))
        wait_out(house, "jobs")
    assert house.overdue.fail_exhausted() == [ConversionFailed(job.id)]


def test_a_store_that_takes_a_minute_to_start_spends_two_attempts_of_an_old_job(house: House) -> None:
    """The broker's tries come after 1, 2, 4 ... seconds; dead letters and sweep come in between."""
    job = house.job()
    make_past(house.database, "jobs", "created_at", 86_400_000)
    for _ in range(60):
        if (lease := house.jobs.claim(job.id)) is not None:
            house.jobs.release(lease, MediaUnavailable("starting"))
        house.overdue.wake(VideoUploaded(job.id))
        for column in ("due_at", "lease_until"):
            make_past(house.database, "jobs", column, 1000)  # a second goes by
    assert house.row("jobs").attempts == 2
    wait_out(house, "jobs")
    assert [due.event for due in house.overdue.due(10)] == [VideoUploaded(job.id)]
    lease = house.jobs.claim(job.id)
    assert lease is not None
    assert house.jobs.finish(lease, Outcome(house.blob("mp3s"), 1.0, None)) is not None


def wait_out(house: House, table: str) -> None:
    """As if what was put off were due."""
    for column in ("due_at", "lease_until"):
        make_past(house.database, table, column)


def test_sweep_fails_a_job_whose_attempts_are_spent_once(house: House) -> None:
    job = house.job()
    for _ in range(MAX_ATTEMPTS):
        lease = house.jobs.claim(job.id)
        assert lease is not None
        house.jobs.release(lease)
    assert house.overdue.fail_exhausted() == []
    make_past(house.database, "jobs", "due_at")
    failed = at_once(4, lambda _: house.overdue.fail_exhausted())
    assert [event for events in failed for event in events] == [ConversionFailed(job.id)]
    assert house.jobs.get(job.id, OWNER).error == ATTEMPTS_EXHAUSTED
    assert house.row("mails").kind == ConversionFailed.type


def test_sweep_leaves_alone_what_somebody_works_on(house: House) -> None:
    lease = house.jobs.claim(house.job().id)
    assert lease is not None
    make_past(house.database, "jobs", "due_at")
    assert house.overdue.due(10) == []
    assert not house.overdue.wake(VideoUploaded(lease.row.id))
    house.jobs.release(lease)
    assert house.overdue.due(10) == []
    assert house.overdue.wake(VideoUploaded(lease.row.id))
    assert [due.event for due in house.overdue.due(10)] == [VideoUploaded(lease.row.id)]


def test_a_dead_letter_of_a_finished_job_wakes_nothing(house: House) -> None:
    job = house.job()
    lease = house.jobs.claim(job.id)
    assert lease is not None
    house.jobs.fail(lease, "no audio")
    assert not house.overdue.wake(VideoUploaded(job.id))
    assert not house.overdue.wake(VideoUploaded(JobId("f" * 32)))
    assert house.overdue.wake(ConversionFailed(job.id))


def test_an_event_that_the_broker_has_is_not_due_again_at_once(house: House) -> None:
    job = house.job()
    said: list[object] = []
    outbox = Outbox(house.database, lambda event, _: said.append(event))
    assert outbox.emit(VideoUploaded(job.id))
    assert said == [VideoUploaded(job.id)]
    assert house.overdue.due(10) == []
    make_past(house.database, "jobs", "due_at", 700_000)
    assert [due.event for due in house.overdue.due(10)] == [VideoUploaded(job.id)]


def test_confirming_an_event_does_not_touch_a_row_that_somebody_took(house: House) -> None:
    job = house.job()

    def slow_broker(_: object, __: float) -> None:
        lease = house.jobs.claim(job.id)
        assert lease is not None
        house.jobs.release(lease)

    Outbox(house.database, slow_broker).emit(VideoUploaded(job.id))
    make_past(house.database, "jobs", "due_at", 60_000)
    assert [due.event for due in house.overdue.due(10)] == [VideoUploaded(job.id)]


def test_a_job_deleted_under_way_leaves_nothing(house: House) -> None:
    job = house.job()
    lease = house.jobs.claim(job.id)
    assert lease is not None
    mp3 = house.blob("mp3s", job.id)
    with pytest.raises(JobNotFound):
        house.jobs.delete(job.id, STRANGER)
    house.jobs.delete(job.id, OWNER)
    with pytest.raises(JobNotFound):
        house.jobs.delete(job.id, OWNER)
    assert house.jobs.finish(lease, Outcome(mp3, 1.0, None)) is None
    assert house.jobs.claim(job.id) is None
    for blob, store in house.blobs.expired(10):
        house.blobs.delete(house.media, store, blob)
    assert not exists(house.media, "mp3s", mp3)
    assert not exists(house.media, "videos", job.video)
    assert [house.count(table) for table in ("jobs", "pieces", "mails", "blobs")] == [0, 0, 0, 0]


def test_a_deletion_whose_answer_was_lost_is_recognised(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job, run = house.job(), house.database.run
    monkeypatch.setattr(house.database, "run", lambda work: [run(work), run(work)][1])
    house.jobs.delete(job.id, OWNER)
    with pytest.raises(JobNotFound):
        house.jobs.delete(job.id, OWNER)


def test_a_mail_is_claimed_once_and_closed(house: House) -> None:
    lease = house.jobs.claim(house.job().id)
    assert lease is not None
    event = house.jobs.fail(lease, "no audio")
    assert event is not None
    first = house.mails.claim(event.id)
    assert first is not None
    house.mails.sent(first)
    assert at_once(4, lambda _: house.mails.claim(event.id)) == [None] * 4
    assert house.row("mails").state == "sent"
    assert house.overdue.due(10) == []


def test_a_mail_that_nobody_takes_for_a_day_is_given_up(house: House) -> None:
    lease = house.jobs.claim(house.job().id)
    assert lease is not None
    told = house.jobs.fail(lease, "no audio")
    assert told is not None
    for _ in range(MAX_ATTEMPTS):
        mail = house.mails.claim(told.id)
        assert mail is not None
        house.mails.release(mail)
    assert house.overdue.abandon_mails() == 0
    make_past(house.database, "mails", "created_at", 86_400_001)
    assert house.overdue.abandon_mails() == 1
    assert house.overdue.due(10) == []


def test_a_mail_is_not_given_up_because_the_whole_installation_was_off_for_a_day(house: House) -> None:
    lease = house.jobs.claim(house.job().id)
    assert lease is not None
    told = house.jobs.fail(lease, "no audio")
    make_past(house.database, "mails", "created_at", 86_400_001)
    assert house.overdue.abandon_mails() == 0
    assert [due.event for due in house.overdue.due(10)] == [told]


def test_jobs_are_listed_newest_first_page_by_page_and_only_to_their_owner(house: House) -> None:
    made = [house.job().id for _ in range(5)]
    house.job(owner=STRANGER)
    pages: list[list[str]] = []
    after = None
    while page := house.jobs.page(OWNER, 2, after):
        pages.append([job.id for job in page])
        after = page[-1].id
    assert [len(page) for page in pages] == [2, 2, 1]
    listed = [job for page in pages for job in page]
    assert sorted(listed) == sorted(made)
    created = {job.id: (job.created_at, job.id) for job in house.jobs.page(OWNER, 10)}
    assert listed == sorted(made, key=created.__getitem__, reverse=True)
    with pytest.raises(JobNotFound):
        house.jobs.page(STRANGER, 2, made[0])


def test_old_jobs_are_retired_with_all_they_have(house: House) -> None:
    done, waiting = house.job(), house.job()
    lease = house.jobs.claim(done.id)
    assert lease is not None
    house.jobs.finish(lease, Outcome(house.blob("mp3s", done.id), 1.0, None))
    assert house.overdue.retire(1, 10) == 0
    make_past(house.database, "jobs", "finished_at", 86_500_000)
    assert house.overdue.retire(1, 10) == 1
    assert [job.id for job in house.jobs.page(OWNER, 10)] == [waiting.id]
    assert len(house.blobs.expired(10)) == 2


def test_a_writer_that_raises_leaves_neither_bytes_nor_row(house: House) -> None:
    about = Description(OWNER, "c" * 32, "a.mp4", "video/mp4")
    with pytest.raises(RuntimeError), house.blobs.writing(house.media, "videos", about) as writer:
        writer.write(b"half")
        raise RuntimeError
    assert not exists(house.media, "videos", writer.blob)
    assert house.count("blobs") == 0


def test_an_expired_blob_cannot_be_brought_back(house: House) -> None:
    blob = house.blob()
    house.blobs.renew(blob)
    assert house.blobs.expired(10) == []
    make_past(house.database, "blobs", "expires_at")
    with pytest.raises(BlobExpired):
        house.blobs.renew(blob)
    assert house.blobs.expired(10) == [(blob, "videos")]


def test_a_blob_that_cannot_be_deleted_waits_behind_the_others(house: House) -> None:
    first, second = house.blob(), house.blob()
    make_past(house.database, "blobs", "expires_at")
    assert {blob for blob, _ in house.blobs.expired(10)} == {first, second}
    (stuck, _), *_ = house.blobs.expired(10)
    house.blobs.postpone(stuck)
    assert [blob for blob, _ in house.blobs.expired(10)][-1] == stuck


def test_concurrent_increments_are_all_kept(house: House) -> None:
    """The trap: read-then-update under a lazily begun transaction loses updates without a word."""
    job = house.job()
    mine = jobs.c.id == job.id

    def count(connection: Any) -> None:
        done = connection.scalar(select(jobs.c.done).where(mine).with_for_update())
        connection.execute(jobs.update().where(mine).values(done=done + 1))

    at_once(4, lambda _: [house.database.run(count) for _ in range(50)])
    assert house.row("jobs").done == 200


def test_tables_are_what_the_migrations_make(house: House) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with house.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
