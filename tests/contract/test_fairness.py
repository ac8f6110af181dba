"""What every SQL database must do so that one owner's work leaves places to others: defer rows, and admit each once."""

from typing import Any

import pytest
from sqlalchemy import insert, select, update

from events.schema import Event, JobId, PieceCut, PiecesEncoded, VideoUploaded
from functions.media import Description
from functions.options import Options
from functions.state.database import Database
from functions.state.jobs import Job, Jobs, NewJob, Outcome, new_job_id
from functions.state.leases import Lease, LeaseTerms
from functions.state.outbox import Outbox
from functions.state.pieces import PieceOutput, Pieces
from functions.state.schema import UserId, jobs, now, users
from tests.contract.test_jobs import OTHER_USER, OWNER, at_once
from tests.contract.test_pieces import PieceRecords
from tests.support.databases import make_past


class Fair(PieceRecords):
    """Records of functions with a number of places."""

    def __init__(self, database: Database, places: int) -> None:
        super().__init__(database, LeaseTerms())
        self.jobs = Jobs(database, places=places)
        self.joins = Jobs(database, stage="joining", places=places)
        self.pieces = Pieces(database, places=places)
        for user in (OWNER, OTHER_USER):
            row = {"id": user, "username": user, "role": "user", "created_at": now()}
            row |= dict.fromkeys(("email", "name", "password_hash"), "-")
            with database.engine.begin() as connection:
                if connection.scalar(select(users.c.id).where(users.c.id == user)) is None:
                    connection.execute(insert(users).values(row))

    def add(self, owner: UserId = OWNER, size: int = 5) -> JobId:
        """Records a job whose video has so many bytes."""
        job = new_job_id()
        with self.blobs.writing(self.media, "videos", Description(owner, job, "a.mp4", "video/mp4")) as video:
            video.write(b"bytes")
        return self.jobs.add(NewJob(job, owner, video.blob, "a.mp4", Options(), size=size)).id

    def start(self, owner: UserId = OWNER) -> Lease[Job]:
        """Claims a new job, which must be allowed."""
        lease = self.jobs.claim(self.add(owner))
        assert lease is not None
        return lease

    def finish(self, lease: Lease[Job]) -> list[Event]:
        """Ends a job as its worker does; returns the events of the jobs that are admitted."""
        assert self.jobs.finish(lease, Outcome(self.blob("mp3s", lease.row.id), 1.0, None)) is not None
        return self.jobs.admit(lease.row.owner)

    def job_row(self, job: JobId) -> Any:
        return self.database.run(lambda connection: connection.execute(select(jobs).where(jobs.c.id == job)).one())


@pytest.fixture
def fair(database: Database) -> Fair:
    return Fair(database, places=4)


@pytest.fixture
def two_places(database: Database) -> Fair:
    return Fair(database, places=2)


def test_owner_alone_gets_half_of_the_places(fair: Fair) -> None:
    leases = [fair.jobs.claim(fair.add()) for _ in range(5)]
    assert [lease is not None for lease in leases] == [True, True, False, False, False]


def test_others_get_what_is_free(fair: Fair) -> None:
    """Of four places, two are the first owner's; the second gets one, and one stays free for a third."""
    for _ in range(3):
        fair.jobs.claim(fair.add())
    leases = [fair.jobs.claim(fair.add(OTHER_USER)) for _ in range(3)]
    assert [lease is not None for lease in leases] == [True, False, False]


def test_owner_with_nothing_at_work_is_never_deferred(two_places: Fair) -> None:
    """Whoever delivers the event has found a place for it, whatever PLACES says."""
    for user in (OWNER, OTHER_USER, UserId("c" * 32)):
        two_places.start(user)


def test_deferred_job_loses_nothing(two_places: Fair) -> None:
    two_places.start()
    job = two_places.add()
    assert two_places.jobs.claim(job) is None
    row = two_places.job_row(job)
    assert (row.state, row.attempts, row.lease, row.lease_until) == ("uploaded", 0, None, None)
    assert row.due_at > row.deferred_at
    make_past(two_places.database, "jobs", "due_at")
    assert VideoUploaded(job) not in [due.event for due in two_places.overdue.due(10)]


def test_nobody_is_deferred_without_places(database: Database) -> None:
    unlimited = Fair(database, places=0)
    for _ in range(5):
        unlimited.start()


def test_the_shortest_deferred_job_is_next(two_places: Fair) -> None:
    running = two_places.start()
    deferred = {size: two_places.add(size=size) for size in (300, 100, 200)}
    for job in deferred.values():
        assert two_places.jobs.claim(job) is None
    for size in (100, 200, 300):
        assert two_places.finish(running) == [VideoUploaded(deferred[size])]
        lease = two_places.jobs.claim(deferred[size])
        assert lease is not None
        assert lease.attempts == 1
        running = lease
    assert two_places.finish(running) == []


def test_admitted_job_is_not_deferred_any_more(two_places: Fair) -> None:
    running = two_places.start()
    job = two_places.add()
    two_places.jobs.claim(job)
    assert two_places.jobs.admit(OWNER) == []
    assert two_places.finish(running) == [VideoUploaded(job)]
    assert two_places.jobs.admit(OWNER) == []
    row = two_places.job_row(job)
    assert row.deferred_at is None
    # If its event is lost, sweep emits it.
    make_past(two_places.database, "jobs", "due_at")
    assert VideoUploaded(job) in [due.event for due in two_places.overdue.due(10)]


def test_repeated_event_of_a_deferred_job_starts_it_once_there_is_room(two_places: Fair) -> None:
    running = two_places.start()
    job = two_places.add()
    two_places.jobs.claim(job)
    two_places.jobs.release(running)
    lease = two_places.jobs.claim(job)
    assert lease is not None
    assert two_places.job_row(job).deferred_at is None


def test_dead_workers_do_not_count(two_places: Fair) -> None:
    two_places.start()
    make_past(two_places.database, "jobs", "lease_until")
    two_places.start()


def test_claims_at_once_do_not_exceed_the_share(fair: Fair) -> None:
    """The trap: claims that count before any of them commits all see free places."""
    for _ in range(5):
        added = [fair.add() for _ in range(6)]
        leases = [lease for lease in at_once(6, lambda n, added=added: fair.jobs.claim(added[n])) if lease]  # type: ignore[misc]
        assert len(leases) == 2
        for lease in leases:
            fair.finish(lease)
        clear(fair)


def test_no_job_is_forgotten_that_is_deferred_while_another_ends(two_places: Fair) -> None:
    """The trap: the job that ends still counts for the one, and the one is not yet deferred for the other."""
    for _ in range(10):
        running = two_places.start()
        job = two_places.add()

        def work(n: int, running: Lease[Job] = running, job: JobId = job) -> bool:
            return bool(two_places.finish(running) if n else two_places.jobs.claim(job))

        claimed, admitted = at_once(2, work)
        assert claimed != admitted
        clear(two_places)


def test_ends_at_once_admit_different_jobs(fair: Fair) -> None:
    for _ in range(5):
        running = [fair.start(), fair.start()]
        deferred = {VideoUploaded(fair.add()) for _ in range(3)}
        assert [fair.jobs.claim(event.job) for event in deferred] == [None] * 3
        admitted = at_once(2, lambda n, running=running: fair.finish(running[n]))  # type: ignore[misc]
        assert len({*admitted[0], *admitted[1]}) == len(admitted[0]) + len(admitted[1]) == 2
        assert {*admitted[0], *admitted[1]} <= deferred
        clear(fair)


def test_sweep_admits_one_job_of_a_stalled_owner(two_places: Fair) -> None:
    """A worker that is killed after the end of its job admits nothing."""
    running = two_places.start()
    deferred = [two_places.add(size=size) for size in (2, 1)]
    for job in deferred:
        two_places.jobs.claim(job)
    assert two_places.overdue.admit_stalled() == []
    two_places.jobs.finish(running, Outcome(two_places.blob("mp3s", running.row.id), 1.0, None))
    assert two_places.overdue.admit_stalled() == [VideoUploaded(deferred[1])]
    lease = two_places.jobs.claim(deferred[1])
    assert lease is not None
    assert two_places.overdue.admit_stalled() == []


def test_confirmed_event_does_not_make_a_deferred_job_due(two_places: Fair) -> None:
    two_places.start()
    job = two_places.add()

    def deliver_at_once(_: Event, __: float) -> None:
        assert two_places.jobs.claim(job) is None

    Outbox(two_places.database, deliver_at_once).emit(VideoUploaded(job))
    assert two_places.job_row(job).deferred_at is not None


@pytest.mark.parametrize(("is_confirmed", "seconds"), [(True, 600), (False, 25)])
def test_event_of_an_admitted_job_is_emitted_again(two_places: Fair, is_confirmed: bool, seconds: int) -> None:
    running = two_places.start()
    job = two_places.add()
    two_places.jobs.claim(job)
    [event] = two_places.finish(running)
    if is_confirmed:
        assert Outbox(two_places.database, lambda _, __: None).emit(event)
    make_past(two_places.database, "jobs", "lease_until", 30_000)
    make_past(two_places.database, "jobs", "due_at", (seconds - 5) * 1000)
    assert event not in {due.event for due in two_places.overdue.due(10)}
    make_past(two_places.database, "jobs", "due_at", 10_000)
    assert event in {due.event for due in two_places.overdue.due(10)}


def test_failed_job_is_no_longer_deferred(two_places: Fair) -> None:
    two_places.start()
    job = two_places.add()
    two_places.jobs.claim(job)
    two_places.database.run(lambda connection: connection.execute(update(jobs).values(attempts=9, due_at=1)))
    make_past(two_places.database, "jobs", "lease_until")
    assert len(two_places.overdue.fail_exhausted()) == 2
    assert two_places.job_row(job).deferred_at is None
    assert two_places.overdue.admit_stalled() == []


def test_pieces_leave_places_to_others(fair: Fair) -> None:
    """Of a job with many pieces, half as many are encoded as there are places; a shorter job goes first."""
    long = fair.split_job(8)
    leases = [fair.pieces.claim(long, n) for n in range(8)]
    assert [n for n, lease in enumerate(leases) if lease] == [0, 1]
    short = fair.split_job(2)
    assert fair.pieces.claim(short, 0) is None
    assert fair.pieces.claim(short, 1) is None
    for n, lease in enumerate(leases[:2]):
        assert lease is not None
        fair.pieces.encoded(lease, PieceOutput(fair.blob("pieces", long), "{}"))
        assert fair.pieces.admit(OWNER) == [PieceCut(short, n)]
        assert fair.pieces.claim(short, n) is not None
    assert fair.pieces.admit(OWNER) == []


def test_split_emits_one_event_and_its_claim_fills_the_share(fair: Fair) -> None:
    """The trap: of many long jobs, every piece's event would stand before the next user's in the broker's queue."""
    job = fair.split_job(8)
    assert [due.event for due in fair.overdue.due(10)] == [PieceCut(job, 0)]
    assert fair.pieces.claim(job, 0) is not None
    assert fair.pieces.admit(OWNER) == [PieceCut(job, 1)]
    assert fair.pieces.admit(OWNER) == []
    assert fair.pieces.claim(job, 1) is not None


def test_an_admitted_row_keeps_its_place(fair: Fair) -> None:
    """The trap: admitted rows whose events are under way, and rows that arrive meanwhile, start together."""
    running = [fair.start(), fair.start()]
    deferred = [fair.add() for _ in range(2)]
    for job in deferred:
        assert fair.jobs.claim(job) is None
    assert fair.finish(running[0]) == [VideoUploaded(deferred[0])]
    assert fair.jobs.claim(fair.add()) is None
    assert fair.jobs.claim(deferred[0]) is not None
    assert fair.jobs.claim(deferred[1]) is None


def test_the_place_of_an_admitted_row_whose_event_is_lost_is_given_away(two_places: Fair) -> None:
    running = two_places.start()
    first = two_places.add()
    two_places.jobs.claim(first)
    assert two_places.finish(running) == [VideoUploaded(first)]
    second = two_places.add()
    assert two_places.jobs.claim(second) is None
    make_past(two_places.database, "jobs", "lease_until")
    assert two_places.jobs.claim(second) is not None


def test_admit_returns_all_that_may_start(database: Database) -> None:
    unlimited = Fair(database, places=0)
    job = unlimited.split_job(5)
    assert unlimited.pieces.admit(OWNER) == [PieceCut(job, n) for n in range(1, 5)]


def test_joins_leave_places_to_others(two_places: Fair) -> None:
    split = [two_places.split_job(1) for _ in range(2)]
    for job in split:
        assert two_places.encode(job, 0) == [PiecesEncoded(job)]
    running = two_places.joins.claim(split[0])
    assert running is not None
    assert two_places.joins.claim(split[1]) is None
    assert two_places.job_row(split[1]).state == "joining"
    two_places.joins.finish(running, Outcome(two_places.blob("mp3s", split[0]), 1.0, None))
    assert two_places.joins.admit(OWNER) == [PiecesEncoded(split[1])]


def clear(fair: Fair) -> None:
    """Deletes every job."""
    for job in fair.jobs.page(OWNER, 100):
        fair.jobs.delete(job.id, OWNER)
