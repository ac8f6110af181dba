"""What every SQL database must do with jobs, mails and blobs: the transitions and their races."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from sqlalchemy import event, func, select, update

from events.schema import ConversionFailed, JobId, Mp3Ready, VideoUploaded
from functions.convert import track_list
from functions.convert.errors import TemporaryStorageFull
from functions.convert.track_list import ListedTrack
from functions.media import BlobId, BlobNotFound, Description, Media, MediaUnavailable
from functions.options import Options
from functions.state.blobs import BlobExpired, Blobs
from functions.state.database import Database, DatabaseUnavailable
from functions.state.jobs import RECENT, Job, JobNotFound, Jobs, NewJob, Outcome, Usage, new_job_id
from functions.state.leases import ATTEMPTS_EXHAUSTED, MAX_ATTEMPTS, LeaseLost, LeaseTerms
from functions.state.mails import Mails
from functions.state.outbox import Outbox
from functions.state.overdue import Overdue
from functions.state.schema import UserId, jobs, metadata, now
from functions.waveform import Waveform
from tests.support.databases import SHORT, make_past
from tests.support.fakes import memory_media

T = TypeVar("T")
OWNER = UserId("a" * 32)
OTHER_USER = UserId("b" * 32)


class Records:
    """The tables of one database, and media stores in memory."""

    def __init__(self, database: Database, terms: LeaseTerms) -> None:
        self.database = database
        self.media: Media = memory_media()
        self.jobs = Jobs(database, terms)
        self.mails = Mails(database, terms)
        self.blobs = Blobs(database)
        self.overdue = Overdue(database)

    def blob(self, store: str = "videos", job: str = "c" * 32, owner: UserId = OWNER) -> BlobId:
        with self.blobs.writing(self.media, store, Description(owner, job, "a.mp4", "video/mp4")) as writer:
            writer.write(b"bytes")
        return writer.blob

    def job(self, key: str | None = None, owner: UserId = OWNER) -> Job:
        job = new_job_id()
        return self.jobs.add(NewJob(job, owner, self.blob(job=job, owner=owner), "a.mp4", Options(), key))

    def count(self, table: str, **values: object) -> int:
        target = metadata.tables[table]
        where = [target.c[name] == value for name, value in values.items()]
        query = select(func.count()).select_from(target).where(*where)
        return int(self.database.run(lambda connection: connection.scalar(query)) or 0)

    def row(self, table: str) -> Any:
        query = select(metadata.tables[table])
        return self.database.run(lambda connection: connection.execute(query).one())


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database, LeaseTerms())


@pytest.fixture
def short_leases(database: Database) -> Records:
    """Records whose leases expire within the test."""
    return Records(database, SHORT)


def at_once(number: int, work: Callable[[int], T]) -> list[T]:
    """Runs ``work(0)``, ``work(1)``, ... in threads that start together."""
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


def test_many_jobs_are_read_by_one_query(records: Records) -> None:
    first = records.job()
    second = records.job(owner=OTHER_USER)
    statements: list[str] = []
    event.listen(records.database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    found = records.jobs.with_ids([first.id, second.id, *(new_job_id() for _ in range(998))])
    assert found == {first.id: first, second.id: second}
    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 1
    assert records.jobs.with_ids([]) == {}


def test_recent_jobs_of_a_thousand_owners_are_read_by_one_query(records: Records) -> None:
    waiting = records.job()
    others = records.job(owner=OTHER_USER)
    done, gone = (records.job() for _ in range(2))
    for job in (done, gone):
        lease = records.jobs.claim(job.id)
        assert lease is not None
        records.jobs.finish(lease, Outcome(records.blob("mp3s", job.id), 1.0, None))
    statement = update(jobs).where(jobs.c.id == gone.id).values(finished_at=now() - 60_000)
    records.database.run(lambda connection: connection.execute(statement))
    at = records.jobs.recent([OWNER], None).at
    statements: list[str] = []
    event.listen(records.database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    owners = [OWNER, OTHER_USER, *(UserId(f"{n:032x}") for n in range(998))]
    found = records.jobs.recent(owners, at - 30_000)
    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 1
    assert {job.id for job in found.jobs} == {waiting.id, others.id, done.id}
    assert {job.id for job in records.jobs.recent([OWNER], at - 90_000).jobs} == {waiting.id, done.id, gone.id}
    assert {job.id for job in records.jobs.recent([OWNER], None).jobs} == {waiting.id}
    make_past(records.database, "jobs", "finished_at", RECENT)
    assert {job.id for job in records.jobs.recent([OWNER], 0).jobs} == {waiting.id}
    nobody = records.jobs.recent([UserId("f" * 32)], at - 90_000)
    assert nobody.jobs == []
    assert abs(nobody.at - time.time() * 1000) < 5000


def test_receipt_counts_from_the_first_claim_and_survives_a_repeated_attempt(short_leases: Records) -> None:
    job = short_leases.job().id
    first = short_leases.jobs.claim(job)
    successor = short_leases.jobs.claim(job)
    assert first is not None
    assert successor is not None
    usage = Usage(cpu_ms=700, pod="b/1", read_ago=100)
    outcome = Outcome(short_leases.blob("mp3s", job), 1.0, None, 5000, usage)
    assert short_leases.jobs.finish(first, outcome) is None
    assert short_leases.jobs.finish(successor, outcome) is not None
    record = short_leases.jobs.get(job, OWNER).record
    assert (record.mp3_size, record.cpu_ms, record.pods, record.encoded_at) == (5000, 700, 1, None)
    assert record.started_at is not None
    assert record.stage_at is not None
    assert record.read_at is not None
    assert record.started_at < record.stage_at - SHORT.lease / 2
    finished = short_leases.jobs.get(job, OWNER).finished_at
    assert finished is not None
    assert 100 <= finished - record.read_at < 5000


def test_waveform_is_read_only_when_it_is_asked_for(records: Records) -> None:
    job = records.job()
    assert records.jobs.waveform(job) is None
    waveform = Waveform(44100, 7056, bytes(range(256)) * 32)  # as large as they become
    lease = records.jobs.claim(job.id)
    assert lease is not None
    outcome = Outcome(records.blob("mp3s", job.id), 1.0, None, waveform=waveform)
    statements: list[str] = []
    event.listen(records.database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert records.jobs.finish(lease, outcome) is not None
    done = records.jobs.get(job.id, OWNER)
    assert records.jobs.page(OWNER, 10) == [done]
    assert not [each for each in statements if each.startswith("SELECT") and "waveform" in each]
    assert records.jobs.waveform(done) == waveform
    records.jobs.delete(job.id, OWNER)
    assert records.jobs.waveform(done) is None


def test_database_clock_is_in_milliseconds(records: Records) -> None:
    event = records.database.run(lambda connection: connection.scalar(select(now())))
    assert event is not None
    assert abs(event - time.time() * 1000) < 5000


def test_new_job_is_due_and_retains_its_video(records: Records) -> None:
    job = records.job()
    assert (job.state, job.filename, job.mp3) == ("uploaded", "a.mp4", None)
    assert records.count("blobs", expires_at=None) == 1
    assert [due.event for due in records.overdue.due(10)] == [VideoUploaded(job.id)]


def test_concurrent_uploads_with_one_key_make_one_job(records: Records) -> None:
    answers = at_once(8, lambda _: records.job(key="once"))
    assert len({job.id for job in answers}) == 1
    assert records.count("jobs") == 1
    assert records.job(key="once", owner=OTHER_USER).id != answers[0].id


def test_swept_video_makes_no_job(records: Records) -> None:
    blob = records.blob()
    make_past(records.database, "blobs", "expires_at")
    with pytest.raises(BlobExpired):
        records.jobs.add(NewJob(new_job_id(), OWNER, blob, "a.mp4", Options()))
    assert records.count("jobs") == 0


def test_only_one_of_many_workers_gets_the_job(short_leases: Records) -> None:
    job = short_leases.job()

    def work(_: int) -> bool:
        lease = short_leases.jobs.claim(job.id)
        if lease is None:
            return False
        with short_leases.jobs.renewing(lease) as renewer:
            renewer.report(0.5)
            # Works for longer than a lease that is not renewed, until every other worker has looked and returned.
            threading.Event().wait(SHORT.due * 2 / 1000)
            renewer.check()
        return short_leases.jobs.finish(lease, Outcome(short_leases.blob("mp3s"), 1.0, None)) is not None

    assert sum(at_once(8, work)) == 1
    assert short_leases.count("mails") == 1


def test_waiting_worker_replaces_a_dead_one(short_leases: Records) -> None:
    job = short_leases.job()
    dead = short_leases.jobs.claim(job.id)
    assert dead is not None
    successor = short_leases.jobs.claim(job.id)
    assert successor is not None
    assert successor.attempts == 2
    assert successor.token != dead.token


def test_worker_that_lost_its_lease_changes_nothing(short_leases: Records) -> None:
    job = short_leases.job()
    slow = short_leases.jobs.claim(job.id)
    assert slow is not None
    successor = short_leases.jobs.claim(job.id)
    assert successor is not None
    stale = short_leases.blob("mp3s")
    mp3 = short_leases.blob("mp3s")
    assert short_leases.jobs.finish(successor, Outcome(mp3, 2.0, None)) == [Mp3Ready(job.id)]
    assert short_leases.jobs.finish(slow, Outcome(stale, 1.0, None)) is None
    assert short_leases.jobs.fail(slow, "no") == []
    short_leases.jobs.release(slow)
    with short_leases.jobs.renewing(slow) as renewer, pytest.raises(LeaseLost):
        for _ in range(200):
            threading.Event().wait(0.05)
            renewer.check()
    short_leases.blobs.discard(short_leases.media, "mp3s", stale)
    finished = short_leases.jobs.get(job.id, OWNER)
    assert (finished.state, finished.mp3, finished.duration) == ("done", mp3, 2.0)
    assert short_leases.row("jobs").due_at is None
    assert short_leases.row("mails").kind == Mp3Ready.type
    assert not exists(short_leases.media, "mp3s", stale)
    assert exists(short_leases.media, "mp3s", mp3)


def test_commit_with_lost_answer_is_recognized(records: Records) -> None:
    job = records.job()
    lease = records.jobs.claim(job.id)
    assert lease is not None
    outcome = Outcome(records.blob("mp3s"), 1.0, None)
    assert records.jobs.finish(lease, outcome) == [Mp3Ready(job.id)]
    assert records.jobs.finish(lease, outcome) == [Mp3Ready(job.id)]
    assert records.count("mails") == 1
    again = records.jobs.add(NewJob(job.id, OWNER, job.video, "a.mp4", Options()))
    assert (again.id, again.state) == (job.id, "done")


def test_retained_blob_survives_the_discard_of_a_worker_in_doubt(records: Records) -> None:
    job = records.job()
    lease = records.jobs.claim(job.id)
    assert lease is not None
    mp3 = records.blob("mp3s")
    records.jobs.finish(lease, Outcome(mp3, 1.0, None))
    records.blobs.discard(records.media, "mp3s", mp3)
    assert exists(records.media, "mp3s", mp3)
    assert records.count("blobs", id=mp3) == 1


def test_renewal_after_the_end_does_not_wake_the_job(short_leases: Records) -> None:
    lease = short_leases.jobs.claim(short_leases.job().id)
    assert lease is not None
    with short_leases.jobs.renewing(lease):
        short_leases.jobs.finish(lease, Outcome(short_leases.blob("mp3s"), 1.0, None))
        threading.Event().wait(SHORT.renewal * 3 / 1000)
    row = short_leases.row("jobs")
    assert (row.state, row.due_at, row.lease_until) == ("done", None, None)


def test_temporary_failure_releases_the_job(records: Records) -> None:
    job = records.job()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        lease = records.jobs.claim(job.id)
        assert lease is not None
        assert lease.attempts == attempt
        assert not lease.exhausted
        records.jobs.release(lease)
        assert records.overdue.due(10) == []
        if attempt > 1:
            make_due(records, "jobs")
    last = records.jobs.claim(job.id)
    assert last is not None
    assert last.exhausted


@pytest.mark.parametrize("error", [MediaUnavailable("unavailable"), DatabaseUnavailable("unavailable")])
def test_attempt_without_a_service_does_not_count(records: Records, error: Exception) -> None:
    job = records.job()
    for _ in range(2 * MAX_ATTEMPTS):
        lease = records.jobs.claim(job.id)
        assert lease is not None
        assert not lease.exhausted
        records.jobs.release(lease, error)
    assert records.overdue.due(10) == []
    make_past(records.database, "jobs", "due_at")
    assert records.overdue.fail_exhausted() == []
    assert [due.event for due in records.overdue.due(10)] == [VideoUploaded(job.id)]


def test_service_that_is_unavailable_for_a_day_fails_the_job(records: Records) -> None:
    job = records.job()
    make_past(records.database, "jobs", "created_at", 86_400_000)
    for _ in range(MAX_ATTEMPTS):
        assert records.overdue.fail_exhausted() == []
        lease = records.jobs.claim(job.id)
        assert lease is not None
        records.jobs.release(lease, MediaUnavailable("full"))
        make_due(records, "jobs")
    assert records.overdue.fail_exhausted() == [ConversionFailed(job.id)]


def test_disk_that_is_full_for_a_minute_costs_two_attempts(records: Records) -> None:
    """The broker retries after 0.5, 1, 2, 4, 8 seconds."""
    job = records.job()
    for seconds in (0.5, 1, 2, 4, 8, 45):
        if (lease := records.jobs.claim(job.id)) is not None:
            records.jobs.release(lease, TemporaryStorageFull("Temporary storage is full."))
        records.overdue.wake(VideoUploaded(job.id))
        for column in ("due_at", "lease_until"):
            make_past(records.database, "jobs", column, round(seconds * 1000))
    assert records.row("jobs").attempts == 2
    assert [due.event for due in records.overdue.due(10)] == [VideoUploaded(job.id)]
    assert records.jobs.claim(job.id) is not None


def test_store_that_starts_for_a_minute_costs_an_old_job_two_attempts(records: Records) -> None:
    """The broker retries after 1, 2, 4 ... seconds; dead letters and sweep come in between."""
    job = records.job()
    make_past(records.database, "jobs", "created_at", 86_400_000)
    for _ in range(60):
        if (lease := records.jobs.claim(job.id)) is not None:
            records.jobs.release(lease, MediaUnavailable("starting"))
        records.overdue.wake(VideoUploaded(job.id))
        for column in ("due_at", "lease_until"):
            make_past(records.database, "jobs", column, 1000)  # a second passes
    assert records.row("jobs").attempts == 2
    make_due(records, "jobs")
    assert [due.event for due in records.overdue.due(10)] == [VideoUploaded(job.id)]
    lease = records.jobs.claim(job.id)
    assert lease is not None
    assert records.jobs.finish(lease, Outcome(records.blob("mp3s"), 1.0, None)) is not None


def make_due(records: Records, table: str) -> None:
    """Makes postponed rows due."""
    for column in ("due_at", "lease_until"):
        make_past(records.database, table, column)


def test_sweep_fails_an_exhausted_job_once(records: Records) -> None:
    job = records.job()
    for _ in range(MAX_ATTEMPTS):
        lease = records.jobs.claim(job.id)
        assert lease is not None
        records.jobs.release(lease)
        assert records.overdue.fail_exhausted() == []
        make_due(records, "jobs")
    failed = at_once(4, lambda _: records.overdue.fail_exhausted())
    assert [event for events in failed for event in events] == [ConversionFailed(job.id)]
    assert records.jobs.get(job.id, OWNER).error == ATTEMPTS_EXHAUSTED
    assert records.row("mails").kind == ConversionFailed.type


def test_sweep_ignores_a_leased_job(records: Records) -> None:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    make_past(records.database, "jobs", "due_at")
    assert records.overdue.due(10) == []
    assert not records.overdue.wake(VideoUploaded(lease.row.id))
    records.jobs.release(lease)
    assert records.overdue.due(10) == []
    assert records.overdue.wake(VideoUploaded(lease.row.id))
    assert [due.event for due in records.overdue.due(10)] == [VideoUploaded(lease.row.id)]


def test_dead_letter_of_a_finished_job_wakes_nothing(records: Records) -> None:
    job = records.job()
    lease = records.jobs.claim(job.id)
    assert lease is not None
    records.jobs.fail(lease, "no audio")
    assert not records.overdue.wake(VideoUploaded(job.id))
    assert not records.overdue.wake(VideoUploaded(JobId("f" * 32)))
    assert records.overdue.wake(ConversionFailed(job.id))


def test_confirmed_event_is_not_due_again_at_once(records: Records) -> None:
    job = records.job()
    published: list[object] = []
    outbox = Outbox(records.database, lambda event, _: published.append(event))
    assert outbox.emit(VideoUploaded(job.id))
    assert published == [VideoUploaded(job.id)]
    assert records.overdue.due(10) == []
    make_past(records.database, "jobs", "due_at", 700_000)
    assert [due.event for due in records.overdue.due(10)] == [VideoUploaded(job.id)]


def test_confirming_an_event_does_not_postpone_a_claimed_row(records: Records) -> None:
    job = records.job()

    def slow_broker(_: object, __: float) -> None:
        lease = records.jobs.claim(job.id)
        assert lease is not None
        records.jobs.release(lease)

    Outbox(records.database, slow_broker).emit(VideoUploaded(job.id))
    make_past(records.database, "jobs", "due_at", 60_000)
    assert [due.event for due in records.overdue.due(10)] == [VideoUploaded(job.id)]


def test_job_deleted_during_conversion_leaves_nothing(records: Records) -> None:
    job = records.job()
    lease = records.jobs.claim(job.id)
    assert lease is not None
    mp3 = records.blob("mp3s", job.id)
    with pytest.raises(JobNotFound):
        records.jobs.delete(job.id, OTHER_USER)
    records.jobs.delete(job.id, OWNER)
    with pytest.raises(JobNotFound):
        records.jobs.delete(job.id, OWNER)
    assert records.jobs.finish(lease, Outcome(mp3, 1.0, None)) is None
    assert records.jobs.claim(job.id) is None
    for blob, store in records.blobs.expired(10):
        records.blobs.delete(records.media, store, blob)
    assert not exists(records.media, "mp3s", mp3)
    assert not exists(records.media, "videos", job.video)
    assert [records.count(table) for table in ("jobs", "pieces", "mails", "blobs")] == [0, 0, 0, 0]


def test_deletion_with_lost_answer_is_recognized(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    job = records.job()
    run = records.database.run
    monkeypatch.setattr(records.database, "run", lambda work: [run(work), run(work)][1])
    records.jobs.delete(job.id, OWNER)
    with pytest.raises(JobNotFound):
        records.jobs.delete(job.id, OWNER)


def test_sent_mail_is_not_claimed_again(records: Records) -> None:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    [event] = records.jobs.fail(lease, "no audio")
    first = records.mails.claim(event.id)
    assert first is not None
    records.mails.sent(first)
    assert at_once(4, lambda _: records.mails.claim(event.id)) == [None] * 4
    assert records.row("mails").state == "sent"
    assert records.overdue.due(10) == []


def test_mail_that_fails_for_a_day_is_abandoned(records: Records) -> None:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    [event] = records.jobs.fail(lease, "no audio")
    for _ in range(MAX_ATTEMPTS):
        mail = records.mails.claim(event.id)
        assert mail is not None
        records.mails.release(mail)
    assert records.overdue.abandon_mails() == 0
    make_past(records.database, "mails", "created_at", 86_400_001)
    assert records.overdue.abandon_mails() == 1
    assert records.overdue.due(10) == []


def test_mail_is_not_abandoned_because_the_installation_was_off_for_a_day(records: Records) -> None:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    [event] = records.jobs.fail(lease, "no audio")
    make_past(records.database, "mails", "created_at", 86_400_001)
    assert records.overdue.abandon_mails() == 0
    assert [due.event for due in records.overdue.due(10)] == [event]


def test_jobs_are_listed_newest_first_in_pages_to_their_owner_only(records: Records) -> None:
    made = [records.job().id for _ in range(5)]
    records.job(owner=OTHER_USER)
    pages: list[list[str]] = []
    after = None
    while page := records.jobs.page(OWNER, 2, after):
        pages.append([job.id for job in page])
        after = page[-1].id
    assert [len(page) for page in pages] == [2, 2, 1]
    listed = [job for page in pages for job in page]
    assert sorted(listed) == sorted(made)
    created = {job.id: (job.created_at, job.id) for job in records.jobs.page(OWNER, 10)}
    assert listed == sorted(made, key=created.__getitem__, reverse=True)
    with pytest.raises(JobNotFound):
        records.jobs.page(OTHER_USER, 2, made[0])


def test_old_jobs_are_retired_with_their_blobs(records: Records) -> None:
    done = records.job()
    waiting = records.job()
    lease = records.jobs.claim(done.id)
    assert lease is not None
    records.jobs.finish(lease, Outcome(records.blob("mp3s", done.id), 1.0, None))
    assert records.overdue.retire(1, 10) == 0
    make_past(records.database, "jobs", "finished_at", 86_500_000)
    assert records.overdue.retire(1, 10) == 1
    assert [job.id for job in records.jobs.page(OWNER, 10)] == [waiting.id]
    assert len(records.blobs.expired(10)) == 2


def test_failed_writer_leaves_neither_bytes_nor_row(records: Records) -> None:
    about = Description(OWNER, "c" * 32, "a.mp4", "video/mp4")
    with pytest.raises(RuntimeError), records.blobs.writing(records.media, "videos", about) as writer:
        writer.write(b"half")
        raise RuntimeError
    assert not exists(records.media, "videos", writer.blob)
    assert records.count("blobs") == 0


def test_expired_blob_cannot_be_renewed(records: Records) -> None:
    blob = records.blob()
    records.blobs.renew(blob)
    assert records.blobs.expired(10) == []
    make_past(records.database, "blobs", "expires_at")
    with pytest.raises(BlobExpired):
        records.blobs.renew(blob)
    assert records.blobs.expired(10) == [(blob, "videos")]


def test_postponed_blob_comes_after_the_others(records: Records) -> None:
    first = records.blob()
    second = records.blob()
    make_past(records.database, "blobs", "expires_at")
    assert {blob for blob, _ in records.blobs.expired(10)} == {first, second}
    (stuck, _), *_ = records.blobs.expired(10)
    records.blobs.postpone(stuck)
    assert [blob for blob, _ in records.blobs.expired(10)][-1] == stuck


def test_concurrent_increments_all_count(records: Records) -> None:
    """The trap: in a transaction that begins lazily, read-then-update silently loses updates."""
    job = records.job()
    mine = jobs.c.id == job.id

    def count(connection: Any) -> None:
        done = connection.scalar(select(jobs.c.done).where(mine).with_for_update())
        connection.execute(jobs.update().where(mine).values(done=done + 1))

    at_once(4, lambda _: [records.database.run(count) for _ in range(50)])
    assert records.row("jobs").done == 200


def test_tracks_of_the_video_outlast_its_failure(short_leases: Records) -> None:
    job = short_leases.job()
    assert job.tracks is None
    first = short_leases.jobs.claim(job.id)
    assert first is not None
    make_past(short_leases.database, "jobs", "lease_until")
    second = short_leases.jobs.claim(job.id)
    assert second is not None
    longest = track_list.to_json(
        [ListedTrack("c" * 40, 10**12, "l" * 35, "\x01" * track_list.MAX_TITLE, False)] * track_list.MAX_TRACKS
    )
    assert not short_leases.jobs.record_tracks(first, "[]")
    assert short_leases.jobs.record_tracks(second, longest)
    short_leases.jobs.fail(second, "There is no audio track 5 in this file.")
    found = short_leases.jobs.get(job.id, OWNER)
    assert (found.state, found.tracks) == ("failed", longest)


def test_tables_equal_what_the_migrations_make(records: Records) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with records.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
