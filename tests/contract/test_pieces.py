"""What every SQL database must do with the pieces of a job: split once, encoded by many workers, joined once."""

import functools
import threading
from dataclasses import replace

import pytest

from events.errors import NotPublished
from events.schema import ConversionFailed, Event, JobId, Mp3Ready, PieceCut, PiecesEncoded, VideoUploaded
from functions.state.blobs import BlobExpired
from functions.state.database import Database
from functions.state.jobs import FELL_BACK, Job, JobNotFound, Jobs, Outcome, Usage
from functions.state.leases import ATTEMPTS_EXHAUSTED, MAX_ATTEMPTS, Lease, LeaseTerms
from functions.state.outbox import Outbox
from functions.state.pieces import PieceOutput, Pieces, SplitRecord
from functions.status import stages
from tests.contract.test_jobs import OWNER, Records, at_once, make_due
from tests.support.databases import SHORT, make_past


class PieceRecords(Records):
    """Records with pieces."""

    def __init__(self, database: Database, terms: LeaseTerms) -> None:
        super().__init__(database, terms)
        self.pieces = Pieces(database, terms)
        self.joins = Jobs(database, terms, stage="joining")

    def split_job(self, number: int, *, is_track: bool = True) -> JobId:
        """Creates a job and splits it into so many pieces; returns its id."""
        lease = self.jobs.claim(self.job().id)
        assert lease is not None
        events = self.pieces.split(lease, replace(self.split_record(lease, number), is_track=is_track))
        assert events == [PieceCut(lease.row.id, 0)]
        return lease.row.id

    def split_record(self, lease: Lease[Job], number: int) -> SplitRecord:
        audio = self.blob("pieces", lease.row.id)
        head = self.blob("pieces", lease.row.id)
        return SplitRecord(audio, head, "{}", tuple(f'{{"n": {n}}}' for n in range(number)))

    def encode(self, job: JobId, n: int) -> list[object] | None:
        """Encodes a piece as a worker does; None if there is nothing to do."""
        lease = self.pieces.claim(job, n)
        if lease is None:
            return None
        blob = self.blob("pieces", job)
        events = self.pieces.encoded(lease, PieceOutput(blob, f'{{"sum": {n}}}'))
        if events is None:
            self.blobs.discard(self.media, "pieces", blob)
        return None if events is None else [*events]


@pytest.fixture
def records(database: Database) -> PieceRecords:
    return PieceRecords(database, LeaseTerms())


@pytest.fixture
def short_leases(database: Database) -> PieceRecords:
    return PieceRecords(database, SHORT)


def test_last_of_many_encoders_completes_the_set(records: PieceRecords) -> None:
    """The trap: two workers that each mark their piece and then count both see the other's as unfinished."""
    for _ in range(5):
        job = records.split_job(6)
        encode = functools.partial(records.encode, job)
        assert sorted(events or [] for events in at_once(6, encode)) == [[], [], [], [], [], [PiecesEncoded(job)]]
        assert records.count("jobs", id=job, state="joining", done=6) == 1


def test_the_events_of_many_pieces_are_published_several_at_a_time(records: PieceRecords) -> None:
    """The trap: 255 workers wait for the first, which publishes and records their events one after the other."""
    job = records.split_job(257)
    assert records.pieces.claim(job, 0) is not None
    events = records.pieces.admit(OWNER)
    published: list[Event] = []
    two = threading.Barrier(2, timeout=10)

    def publish(event: Event, _: float) -> None:
        two.wait()
        published.append(event)

    Outbox(records.database, publish).emit_all(events)
    assert len(published) == 256
    assert set(published) == {PieceCut(job, n) for n in range(1, 257)}
    make_past(records.database, "pieces", "due_at", 60_000)
    assert records.overdue.due(500) == []


def test_pieces_whose_events_the_broker_refuses_stay_due(records: PieceRecords) -> None:
    job = records.split_job(101)
    assert records.pieces.claim(job, 0) is not None
    events = records.pieces.admit(OWNER)
    tried: list[Event] = []

    def publish(event: Event, _: float) -> None:
        tried.append(event)
        if event not in events[:20]:
            raise NotPublished

    Outbox(records.database, publish).emit_all(events)
    assert len(tried) < 40
    make_past(records.database, "pieces", "due_at", 60_000)
    due = {due.event for due in records.overdue.due(500)}
    assert due == set(events[20:])


def test_progress_counts_pieces(records: PieceRecords) -> None:
    job = records.split_job(4)
    records.encode(job, 2)
    seen = records.jobs.get(job, OWNER)
    assert (seen.state, seen.done, seen.total) == ("encoding", 1, 4)


@pytest.mark.parametrize("is_track", [True, False], ids=["track", "index"])
def test_owner_sees_how_many_pieces_are_encoded(records: PieceRecords, is_track: bool) -> None:
    def shown() -> tuple[int, int] | None:
        pieces = stages.pieces(records.jobs.get(job, OWNER))
        return (pieces.done, pieces.total) if pieces else None

    assert stages.pieces(records.job()) is None
    job = records.split_job(2, is_track=is_track)
    assert shown() == (0, 2)
    records.encode(job, 0)
    assert shown() == (1, 2)
    records.encode(job, 1)
    joining = records.joins.claim(job)
    assert joining is not None
    assert shown() == (2, 2)
    records.joins.finish(joining, Outcome(records.blob("mp3s", job), 9.0, None, 700, Usage(50, "b/1")))
    assert shown() == (2, 2)


def test_piece_delivered_again_is_not_encoded_again(records: PieceRecords) -> None:
    job = records.split_job(2)
    assert records.encode(job, 0) == []
    assert records.encode(job, 0) is None
    assert records.jobs.get(job, OWNER).done == 1


def test_two_workers_on_one_piece_count_it_once(short_leases: PieceRecords) -> None:
    job = short_leases.split_job(2)
    slow = short_leases.pieces.claim(job, 0)
    assert slow is not None
    successor = short_leases.pieces.claim(job, 0)
    assert successor is not None
    assert short_leases.pieces.encoded(successor, PieceOutput(short_leases.blob("pieces", job), "{}")) == []
    assert short_leases.pieces.encoded(slow, PieceOutput(short_leases.blob("pieces", job), "{}")) is None
    assert short_leases.jobs.get(job, OWNER).done == 1


def test_worker_that_lost_a_piece_does_not_fail_the_job(short_leases: PieceRecords) -> None:
    job = short_leases.split_job(2)
    slow = short_leases.pieces.claim(job, 0)
    assert slow is not None
    successor = short_leases.pieces.claim(job, 0)
    assert successor is not None
    assert short_leases.pieces.fail(slow, "connection lost") == []
    assert short_leases.jobs.get(job, OWNER).state == "encoding"
    assert short_leases.pieces.encoded(successor, PieceOutput(short_leases.blob("pieces", job), "{}")) == []
    assert short_leases.pieces.fail(slow, "connection lost") == []
    assert short_leases.encode(job, 1) == [PiecesEncoded(job)]
    assert short_leases.count("mails") == 0


def test_job_falls_back_once(records: PieceRecords) -> None:
    """Whatever its pieces have made is expired, and other workers on them change nothing anymore."""
    job = records.split_job(3, is_track=False)
    assert records.count("pieces", state="planned") == 3
    assert records.encode(job, 0) == []
    one = records.pieces.claim(job, 1)
    two = records.pieces.claim(job, 2)
    assert one is not None
    assert two is not None
    assert records.pieces.fall_back(one) == [VideoUploaded(job)]
    seen = records.jobs.get(job, OWNER)
    assert (seen.state, seen.audio, seen.done) == ("uploaded", None, 0)
    assert records.count("jobs", plan=FELL_BACK) == 1
    assert len(records.blobs.expired(10)) == 3
    assert records.count("pieces") == 0
    assert records.pieces.encoded(two, PieceOutput(records.blob("pieces", job), "{}")) is None
    assert records.pieces.fail(two, "The file is lost.") == []
    # As with a commit whose answer was lost; the event changes nothing.
    assert records.pieces.fall_back(one) == [VideoUploaded(job)]
    lease = records.jobs.claim(job)
    assert lease is not None
    assert lease.attempts == 1
    assert lease.row.plan == FELL_BACK
    assert records.pieces.fall_back(two) is None
    assert records.pieces.split(lease, records.split_record(lease, 2)) == [PieceCut(job, 0)]
    assert records.pieces.fall_back(one) is None
    assert records.jobs.get(job, OWNER).state == "encoding"


def test_job_whose_pieces_do_not_fit_falls_back(records: PieceRecords) -> None:
    job = records.split_job(1, is_track=False)
    assert records.encode(job, 0) == [PiecesEncoded(job)]
    lease = records.joins.claim(job)
    assert lease is not None
    assert records.joins.fall_back(lease) == [VideoUploaded(job)]
    assert records.joins.fall_back(lease) == [VideoUploaded(job)]
    assert records.joins.claim(job) is None
    assert records.count("jobs", plan=FELL_BACK) == 1
    assert len(records.blobs.expired(10)) == 3
    assert records.jobs.claim(job) is not None
    assert records.joins.fall_back(lease) is None


def test_encoded_pieces_do_not_expire_before_the_join(records: PieceRecords) -> None:
    job = records.split_job(2)
    assert records.encode(job, 0) == []
    make_past(records.database, "blobs", "expires_at")
    assert records.blobs.expired(10) == []


def test_swept_piece_is_not_counted(records: PieceRecords) -> None:
    job = records.split_job(1)
    lease = records.pieces.claim(job, 0)
    blob = records.blob("pieces", job)
    assert lease is not None
    make_past(records.database, "blobs", "expires_at")
    with pytest.raises(BlobExpired):
        records.pieces.encoded(lease, PieceOutput(blob, "{}"))
    assert records.jobs.get(job, OWNER).done == 0
    records.pieces.release(lease)
    assert records.encode(job, 0) == [PiecesEncoded(job)]


def test_commit_with_lost_answer_is_recognized(records: PieceRecords) -> None:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    job = lease.row.id
    plan = records.split_record(lease, 2)
    assert records.pieces.split(lease, plan) == records.pieces.split(lease, plan)
    assert records.count("pieces") == 2
    records.encode(job, 0)
    last = records.pieces.claim(job, 1)
    assert last is not None
    blob = records.blob("pieces", job)
    assert records.pieces.encoded(last, PieceOutput(blob, "{}")) == [PiecesEncoded(job)]
    assert records.pieces.encoded(last, PieceOutput(blob, "{}")) == [PiecesEncoded(job)]
    assert records.jobs.get(job, OWNER).done == 2


def test_converter_that_lost_its_lease_splits_nothing(short_leases: PieceRecords) -> None:
    job = short_leases.job()
    slow = short_leases.jobs.claim(job.id)
    assert slow is not None
    successor = short_leases.jobs.claim(job.id)
    assert successor is not None
    assert short_leases.pieces.split(slow, short_leases.split_record(slow, 3)) is None
    assert short_leases.count("pieces") == 0
    assert short_leases.pieces.split(successor, short_leases.split_record(successor, 2)) == [PieceCut(job.id, 0)]


def test_sweep_emits_the_events_of_each_stage(records: PieceRecords) -> None:
    job = records.split_job(2)
    assert [due.event for due in records.overdue.due(10)] == [PieceCut(job, 0)]
    records.encode(job, 0)
    assert records.overdue.admit_stalled() == [PieceCut(job, 1)]
    make_past(records.database, "pieces", "due_at")
    assert [due.event for due in records.overdue.due(10)] == [PieceCut(job, 1)]
    records.encode(job, 1)
    assert [due.event for due in records.overdue.due(10)] == [PiecesEncoded(job)]
    lease = records.joins.claim(job)
    assert lease is not None
    assert records.overdue.due(10) == []


def test_joined_job_retains_only_its_mp3_and_video(records: PieceRecords) -> None:
    job = records.split_job(3)
    at_once(3, lambda n: records.encode(job, n))
    assert [output.plan for output in records.pieces.outputs(job)] == ['{"sum": 0}', '{"sum": 1}', '{"sum": 2}']
    assert records.jobs.claim(job) is None
    lease = records.joins.claim(job)
    assert lease is not None
    assert lease.attempts == 1
    with records.joins.renewing(lease):
        assert records.joins.finish(lease, Outcome(records.blob("mp3s", job), 9.0, None)) == [Mp3Ready(job)]
    assert records.joins.claim(job) is None
    assert records.count("pieces") == 0
    assert {store for _, store in records.blobs.expired(10)} == {"pieces"}
    assert len(records.blobs.expired(10)) == 5
    assert records.count("blobs", expires_at=None) == 2


def test_receipt_of_a_split_job_counts_each_piece_once_and_its_processes(records: PieceRecords) -> None:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    job = lease.row.id
    records.pieces.split(lease, replace(records.split_record(lease, 3), usage=Usage(1000, "a/1")))
    for n, pod in enumerate(("a/1", "b/1", "c/1")):
        piece = records.pieces.claim(job, n)
        assert piece is not None
        output = PieceOutput(records.blob("pieces", job), "{}", usage=Usage(200, pod))
        records.pieces.encoded(piece, output)
        records.pieces.encoded(piece, output)  # the answer to the first commit was lost
    joining = records.joins.claim(job)
    assert joining is not None
    outcome = Outcome(records.blob("mp3s", job), 9.0, None, 700, Usage(50, "b/1"))
    records.joins.finish(joining, outcome)
    found = records.jobs.get(job, OWNER)
    record = found.record
    assert (record.cpu_ms, record.pods, record.mp3_size) == (1650, 3, 700)
    times = (found.created_at, record.started_at, record.read_at, record.encoded_at, found.finished_at)
    assert [*times] == sorted(time for time in times if time is not None)


def test_piece_that_cannot_be_encoded_fails_its_job_once(records: PieceRecords) -> None:
    job = records.split_job(3)
    first = records.pieces.claim(job, 0)
    second = records.pieces.claim(job, 1)
    assert first is not None
    assert second is not None
    assert records.pieces.fail(first, "broken") == [ConversionFailed(job)]
    assert records.pieces.fail(second, "broken too") == []
    assert records.pieces.encoded(second, PieceOutput(records.blob("pieces", job), "{}")) is None
    assert records.pieces.job(second) is None
    assert records.jobs.get(job, OWNER).error == "broken"
    assert records.count("mails") == 1
    assert [due.event for due in records.overdue.due(10)] == [ConversionFailed(job)]


def test_exhausted_piece_fails_its_job(records: PieceRecords) -> None:
    job = records.split_job(2)
    for _ in range(MAX_ATTEMPTS):
        lease = records.pieces.claim(job, 1)
        assert lease is not None
        records.pieces.release(lease)
        make_due(records, "pieces")
    failed = [event for events in at_once(4, lambda _: records.overdue.fail_exhausted()) for event in events]
    assert failed == [ConversionFailed(job)]
    assert records.jobs.get(job, OWNER).error == ATTEMPTS_EXHAUSTED


def test_job_deleted_while_its_pieces_are_encoded_leaves_nothing(records: PieceRecords) -> None:
    job = records.split_job(2)
    lease = records.pieces.claim(job, 0)
    assert lease is not None
    records.jobs.delete(job, OWNER)
    assert records.pieces.encoded(lease, PieceOutput(records.blob("pieces", job), "{}")) is None
    assert records.pieces.claim(job, 1) is None
    with pytest.raises(JobNotFound):
        records.jobs.get(job, OWNER)
    assert records.count("pieces") == 0
