"""What every SQL database must do with pieces of a job: cut once, encoded by many, completed by one, joined once."""

import functools

import pytest

from events.schema import ConversionFailed, JobId, Mp3Ready, PieceCut, PiecesEncoded
from functions.state.blobs import BlobExpired
from functions.state.database import Database
from functions.state.jobs import Job, JobNotFound, Jobs, Outcome
from functions.state.leases import ATTEMPTS_EXHAUSTED, MAX_ATTEMPTS, Lease, LeaseTerms
from functions.state.pieces import PieceOutput, Pieces, SplitRecord
from tests.contract.test_jobs import OWNER, House, at_once
from tests.support.databases import SHORT, make_past


class Workshop(House):
    """A house that works in pieces."""

    def __init__(self, database: Database, terms: LeaseTerms) -> None:
        super().__init__(database, terms)
        self.pieces, self.joins = Pieces(database, terms), Jobs(database, terms, stage="joining")

    def cut(self, number: int) -> JobId:
        """A job cut into so many pieces; its id."""
        lease = self.jobs.claim(self.job().id)
        assert lease is not None
        events = self.pieces.split(lease, self.plan(lease, number))
        assert events == [PieceCut(lease.row.id, n) for n in range(number)]
        return lease.row.id

    def plan(self, lease: Lease[Job], number: int) -> SplitRecord:
        audio, head = self.blob("pieces", lease.row.id), self.blob("pieces", lease.row.id)
        return SplitRecord(audio, head, "{}", tuple(f'{{"n": {n}}}' for n in range(number)))

    def encode(self, job: JobId, n: int) -> list[object] | None:
        """Encode a piece as a worker does; None where there was nothing to do."""
        lease = self.pieces.claim(job, n)
        if lease is None:
            return None
        blob = self.blob("pieces", job)
        events = self.pieces.encoded(lease, PieceOutput(blob, f'{{"sum": {n}}}'))
        if events is None:
            self.blobs.discard(self.media, "pieces", blob)
        return None if events is None else [*events]


@pytest.fixture
def workshop(database: Database) -> Workshop:
    return Workshop(database, LeaseTerms())


@pytest.fixture
def brisk(database: Database) -> Workshop:
    return Workshop(database, SHORT)


def test_the_last_of_many_encoders_completes_the_set(workshop: Workshop) -> None:
    """The trap: two that each mark their piece and then count both see the other undone."""
    for _ in range(5):
        job = workshop.cut(6)
        encode = functools.partial(workshop.encode, job)
        assert sorted(events or [] for events in at_once(6, encode)) == [[], [], [], [], [], [PiecesEncoded(job)]]
        assert workshop.count("jobs", id=job, state="joining", done=6) == 1


def test_progress_counts_pieces(workshop: Workshop) -> None:
    job = workshop.cut(4)
    workshop.encode(job, 2)
    seen = workshop.jobs.get(job, OWNER)
    assert (seen.state, seen.done, seen.total) == ("encoding", 1, 4)


def test_a_piece_delivered_again_costs_a_look(workshop: Workshop) -> None:
    job = workshop.cut(2)
    assert workshop.encode(job, 0) == []
    assert workshop.encode(job, 0) is None
    assert workshop.jobs.get(job, OWNER).done == 1


def test_two_workers_on_one_piece_count_once(brisk: Workshop) -> None:
    job = brisk.cut(2)
    slow = brisk.pieces.claim(job, 0)
    assert slow is not None
    heir = brisk.pieces.claim(job, 0)
    assert heir is not None
    assert brisk.pieces.encoded(heir, PieceOutput(brisk.blob("pieces", job), "{}")) == []
    assert brisk.pieces.encoded(slow, PieceOutput(brisk.blob("pieces", job), "{}")) is None
    assert brisk.jobs.get(job, OWNER).done == 1


def test_a_worker_that_was_fenced_off_does_not_fail_the_job_of_its_heir(brisk: Workshop) -> None:
    job = brisk.cut(2)
    slow = brisk.pieces.claim(job, 0)
    assert slow is not None
    heir = brisk.pieces.claim(job, 0)
    assert heir is not None
    assert brisk.pieces.fail(slow, "the line was cut") is None
    assert brisk.jobs.get(job, OWNER).state == "encoding"
    assert brisk.pieces.encoded(heir, PieceOutput(brisk.blob("pieces", job), "{}")) == []
    assert brisk.pieces.fail(slow, "the line was cut") is None
    assert brisk.encode(job, 1) == [PiecesEncoded(job)]
    assert brisk.count("mails") == 0


def test_what_is_encoded_waits_for_the_join_however_long_that_takes(workshop: Workshop) -> None:
    job = workshop.cut(2)
    assert workshop.encode(job, 0) == []
    make_past(workshop.database, "blobs", "expires_at")
    assert workshop.blobs.expired(10) == []


def test_a_piece_that_was_swept_is_not_counted(workshop: Workshop) -> None:
    job = workshop.cut(1)
    lease, blob = workshop.pieces.claim(job, 0), workshop.blob("pieces", job)
    assert lease is not None
    make_past(workshop.database, "blobs", "expires_at")
    with pytest.raises(BlobExpired):
        workshop.pieces.encoded(lease, PieceOutput(blob, "{}"))
    assert workshop.jobs.get(job, OWNER).done == 0
    workshop.pieces.release(lease)
    assert workshop.encode(job, 0) == [PiecesEncoded(job)]


def test_a_commit_whose_answer_was_lost_is_recognised(workshop: Workshop) -> None:
    lease = workshop.jobs.claim(workshop.job().id)
    assert lease is not None
    job, plan = lease.row.id, workshop.plan(lease, 2)
    assert workshop.pieces.split(lease, plan) == workshop.pieces.split(lease, plan)
    assert workshop.count("pieces") == 2
    workshop.encode(job, 0)
    last = workshop.pieces.claim(job, 1)
    assert last is not None
    blob = workshop.blob("pieces", job)
    assert workshop.pieces.encoded(last, PieceOutput(blob, "{}")) == [PiecesEncoded(job)]
    assert workshop.pieces.encoded(last, PieceOutput(blob, "{}")) == [PiecesEncoded(job)]
    assert workshop.jobs.get(job, OWNER).done == 2


def test_a_converter_that_was_fenced_off_cuts_nothing(brisk: Workshop) -> None:
    job = brisk.job()
    slow = brisk.jobs.claim(job.id)
    assert slow is not None
    heir = brisk.jobs.claim(job.id)
    assert heir is not None
    assert brisk.pieces.split(slow, brisk.plan(slow, 3)) is None
    assert brisk.count("pieces") == 0
    assert len(brisk.pieces.split(heir, brisk.plan(heir, 2)) or []) == 2


def test_sweep_emits_what_waits_at_each_stage(workshop: Workshop) -> None:
    job = workshop.cut(2)
    assert [due.event for due in workshop.overdue.due(10)] == [PieceCut(job, 0), PieceCut(job, 1)]
    workshop.encode(job, 0)
    assert [due.event for due in workshop.overdue.due(10)] == [PieceCut(job, 1)]
    workshop.encode(job, 1)
    assert [due.event for due in workshop.overdue.due(10)] == [PiecesEncoded(job)]
    lease = workshop.joins.claim(job)
    assert lease is not None
    assert workshop.overdue.due(10) == []


def test_a_joined_job_leaves_its_mp3_and_its_video_alone(workshop: Workshop) -> None:
    job = workshop.cut(3)
    at_once(3, lambda n: workshop.encode(job, n))
    assert [output.plan for output in workshop.pieces.outputs(job)] == ['{"sum": 0}', '{"sum": 1}', '{"sum": 2}']
    assert workshop.jobs.claim(job) is None
    lease = workshop.joins.claim(job)
    assert lease is not None
    assert lease.attempts == 1
    with workshop.joins.renewing(lease):
        assert workshop.joins.finish(lease, Outcome(workshop.blob("mp3s", job), 9.0, None)) == Mp3Ready(job)
    assert workshop.joins.claim(job) is None
    assert workshop.count("pieces") == 0
    assert {store for _, store in workshop.blobs.expired(10)} == {"pieces"}
    assert len(workshop.blobs.expired(10)) == 5
    assert workshop.count("blobs", expires_at=None) == 2


def test_a_piece_that_cannot_be_encoded_fails_its_job_once(workshop: Workshop) -> None:
    job = workshop.cut(3)
    first, second = workshop.pieces.claim(job, 0), workshop.pieces.claim(job, 1)
    assert first is not None
    assert second is not None
    assert workshop.pieces.fail(first, "broken") == ConversionFailed(job)
    assert workshop.pieces.fail(second, "broken too") is None
    assert workshop.pieces.encoded(second, PieceOutput(workshop.blob("pieces", job), "{}")) is None
    assert workshop.pieces.job(second) is None
    assert workshop.jobs.get(job, OWNER).error == "broken"
    assert workshop.count("mails") == 1
    assert [due.event for due in workshop.overdue.due(10)] == [ConversionFailed(job)]


def test_a_piece_whose_attempts_are_spent_fails_its_job(workshop: Workshop) -> None:
    job = workshop.cut(2)
    for _ in range(MAX_ATTEMPTS):
        lease = workshop.pieces.claim(job, 1)
        assert lease is not None
        workshop.pieces.release(lease)
    make_past(workshop.database, "pieces", "due_at")
    failed = [event for events in at_once(4, lambda _: workshop.overdue.fail_exhausted()) for event in events]
    assert failed == [ConversionFailed(job)]
    assert workshop.jobs.get(job, OWNER).error == ATTEMPTS_EXHAUSTED


def test_a_job_deleted_while_its_pieces_are_encoded_leaves_nothing(workshop: Workshop) -> None:
    job = workshop.cut(2)
    lease = workshop.pieces.claim(job, 0)
    assert lease is not None
    workshop.jobs.delete(job, OWNER)
    assert workshop.pieces.encoded(lease, PieceOutput(workshop.blob("pieces", job), "{}")) is None
    assert workshop.pieces.claim(job, 1) is None
    with pytest.raises(JobNotFound):
        workshop.jobs.get(job, OWNER)
    assert workshop.count("pieces") == 0
