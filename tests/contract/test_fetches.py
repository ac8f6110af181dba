"""What every SQL database must do with jobs whose videos are fetched."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from events.schema import ConversionFailed, FetchDue, VideoUploaded
from functions.auth.tokens import Identity
from functions.media import Checkpoint, MediaUnavailable, new_blob_id
from functions.options import Options
from functions.state.blobs import BlobExpired
from functions.state.database import Database
from functions.state.fetches import Fetch, Fetches, Source
from functions.state.jobs import Job, NewJob, new_job_id
from functions.state.leases import Lease, LeaseLost, LeaseTerms
from functions.state.outbox import Outbox
from functions.state.quota import Quota, QuotaFull, TooManyJobs, usage
from functions.state.schema import blobs, jobs
from tests.contract.test_fairness import Fair
from tests.contract.test_jobs import OTHER_USER, OWNER, at_once
from tests.support.databases import SHORT, make_past

SOURCE = Source("https://example.org/a.mp4")
DAY = 86_400_000


class Fetching(Fair):
    """Records of upload and fetch."""

    def __init__(self, database: Database, terms: LeaseTerms | None = None, places: int = 0) -> None:
        super().__init__(database, places)
        self.fetches = Fetches(database, terms, places)

    def begin(self, key: str | None = None, owner: str = OWNER, quota: Quota | None = None) -> Job:
        job = NewJob(new_job_id(), owner, new_blob_id(), "a.mp4", Options(), key)  # type: ignore[arg-type]  # a user
        grant = (quota or Quota()).begin(Identity(job.owner, "ada", "user", {}), None)
        return self.fetches.add(job, SOURCE, grant)

    def claimed(self, job: Job) -> Lease[Fetch]:
        lease = self.fetches.claim(job.id)
        assert lease is not None
        return lease


@pytest.fixture
def fetching(database: Database) -> Fetching:
    return Fetching(database)


@pytest.fixture
def short(database: Database) -> Fetching:
    return Fetching(database, SHORT)


def test_job_is_fetched_and_goes_on_as_if_it_had_been_uploaded(fetching: Fetching) -> None:
    job = fetching.begin()
    assert (job.state, job.is_leased, job.record.size) == ("fetching", False, None)
    assert [due.event for due in fetching.overdue.due(10)] == [FetchDue(job.id)]
    assert fetching.jobs.claim(job.id) is None
    lease = fetching.claimed(job)
    half = replace(SOURCE.at(Checkpoint(50, "12345678")), length=100, validator='"1"')
    fetching.fetches.save(lease, half, "b.mp4")
    found = fetching.jobs.get(job.id, OWNER)
    assert (found.done, found.total, found.filename) == (500, 1000, "b.mp4")
    assert fetching.fetches.hand_on(lease) == [FetchDue(job.id)]
    lease = fetching.claimed(job)
    assert (lease.row.source, lease.attempts) == (half, 2)
    assert fetching.fetches.finish(lease, 100) == [VideoUploaded(job.id)]
    found = fetching.jobs.get(job.id, OWNER)
    assert (found.state, found.done, found.total, found.record.size) == ("uploaded", 0, 0, 100)
    assert found.record.fetched_at is not None
    assert (fetching.row("blobs").size, fetching.row("blobs").expires_at) == (100, None)
    assert fetching.fetches.claim(job.id) is None
    converting = fetching.jobs.claim(job.id)
    assert converting is not None
    assert converting.attempts == 1


def test_concurrent_requests_with_one_key_make_one_job(fetching: Fetching) -> None:
    found = at_once(6, lambda _: fetching.begin("once"))
    assert len({job.id for job in found}) == 1
    assert (fetching.count("jobs"), fetching.count("blobs")) == (1, 1)


def test_concurrent_requests_cannot_exceed_the_quota(fetching: Fetching) -> None:
    def begin(_: int) -> int:
        try:
            fetching.begin(quota=Quota(jobs=2))
        except TooManyJobs:
            return 0
        return 1

    assert sum(at_once(6, begin)) == 2
    assert usage(fetching.database, OWNER).jobs == 2
    with pytest.raises(QuotaFull):
        fetching.begin(quota=Quota(size=1))
    assert (fetching.count("jobs"), fetching.count("blobs")) == (2, 2)


def test_worker_that_lost_its_lease_saves_nothing(short: Fetching) -> None:
    job = short.begin()
    slow = short.claimed(job)
    successor = short.claimed(job)  # waits until the lease has expired
    with pytest.raises(LeaseLost):
        short.fetches.save(slow, SOURCE.at(Checkpoint(9, "00000000")), "wrong.mp4")
    assert short.fetches.finish(slow, 9) is None
    assert short.fetches.hand_on(slow) is None
    assert short.fetches.postpone(slow, 1000) is None
    assert short.fetches.fail(slow, "It failed.", "timed-out") == []
    short.fetches.release(slow)
    short.fetches.save(successor, SOURCE, "a.mp4")
    assert short.fetches.finish(successor, 5) == [VideoUploaded(job.id)]


def test_job_that_is_left_alone_cannot_be_claimed_or_woken_before_it_is_due(fetching: Fetching) -> None:
    job = fetching.begin()
    assert fetching.fetches.postpone(fetching.claimed(job), 60_000) == []
    assert fetching.fetches.claim(job.id) is None
    assert not fetching.overdue.wake(FetchDue(job.id))
    assert fetching.overdue.due(10) == []
    for column in ("due_at", "lease_until"):
        make_past(fetching.database, "jobs", column, 60_000)
    [due] = fetching.overdue.due(10)
    assert (due.event, due.is_retry) == (FetchDue(job.id), True)
    assert fetching.claimed(job).attempts == 2


def test_failure_lets_the_file_expire_and_tells_the_owner(fetching: Fetching) -> None:
    job = fetching.begin()
    lease = fetching.claimed(job)
    for _ in range(2):  # the answer to the first commit may be lost
        assert fetching.fetches.fail(lease, "It is no media.", "not-media")[0] == ConversionFailed(job.id)
    found = fetching.jobs.get(job.id, OWNER)
    assert (found.state, found.error, found.error_code) == ("failed", "It is no media.", "not-media")
    assert [blob for blob, _ in fetching.blobs.expired(10)] == [job.video]
    assert fetching.count("mails") == 1
    assert usage(fetching.database, OWNER).size == 0


def test_attempts_without_a_store_do_not_count(fetching: Fetching) -> None:
    job = fetching.begin()
    for n, error in enumerate((MediaUnavailable("full"), None, ValueError("a mistake")), 1):
        lease = fetching.claimed(job)
        assert lease.attempts == n
        fetching.fetches.release(lease, error)
    assert fetching.fetches.claim(job.id) is None  # the second one that counts is not repeated at once
    make_past(fetching.database, "jobs", "lease_until", DAY)
    lease = fetching.claimed(job)
    assert lease.attempts - lease.row.source.counted_from == 3


def test_many_attempts_are_not_failed_by_sweep(fetching: Fetching) -> None:
    job = fetching.begin()
    for _ in range(7):
        fetching.fetches.hand_on(fetching.claimed(job))
    make_past(fetching.database, "jobs", "due_at", DAY)
    assert fetching.overdue.fail_exhausted() == []
    assert fetching.claimed(job).attempts == 8


def test_swept_file_makes_no_video(fetching: Fetching) -> None:
    lease = fetching.claimed(fetching.begin())
    make_past(fetching.database, "blobs", "expires_at", DAY)
    with pytest.raises(BlobExpired):
        fetching.fetches.finish(lease, 5)
    assert fetching.row("jobs").state == "fetching"


def test_deleted_job_is_noticed_and_leaves_nothing(fetching: Fetching) -> None:
    job = fetching.begin()
    lease = fetching.claimed(job)
    fetching.jobs.delete(job.id, OWNER)
    with pytest.raises(LeaseLost):
        fetching.fetches.save(lease, SOURCE, "a.mp4")
    assert fetching.fetches.owner(job.id) is None
    assert fetching.count("jobs") == 0
    assert [blob for blob, _ in fetching.blobs.expired(10)] == [job.video]


def test_one_owner_leaves_places_to_others(database: Database) -> None:
    fetching = Fetching(database, places=4)
    own = [fetching.begin() for _ in range(4)]
    leases = [fetching.fetches.claim(job.id) for job in own]
    assert [lease is not None for lease in leases] == [True, True, False, False]
    assert fetching.fetches.claim(fetching.begin(owner=OTHER_USER).id) is not None
    assert leases[0] is not None
    assert fetching.fetches.finish(leases[0], 5) == [VideoUploaded(own[0].id)]
    assert fetching.fetches.admit(OWNER) == [FetchDue(own[2].id)]
    with database.engine.begin() as connection:
        connection.execute(update(jobs).values(lease=None, lease_until=None))
    assert fetching.overdue.admit_stalled() == [FetchDue(own[3].id)]


def test_confirmed_event_is_not_repeated_for_ten_minutes(fetching: Fetching) -> None:
    job = fetching.begin()
    outbox = Outbox(fetching.database, lambda _event, _budget: None)
    assert outbox.emit(FetchDue(job.id))
    assert fetching.overdue.due(10) == []
    make_past(fetching.database, "jobs", "due_at", 600_000)
    assert [due.event for due in fetching.overdue.due(10)] == [FetchDue(job.id)]


def test_reserved_bytes_count_while_it_is_fetched(fetching: Fetching) -> None:
    fetching.begin(quota=Quota(size=1_000_000))
    assert usage(fetching.database, OWNER).size == 1_000_000
    with fetching.database.engine.begin() as connection:
        connection.execute(update(blobs).values(size=400_000))
    assert usage(fetching.database, OWNER).size == 400_000
