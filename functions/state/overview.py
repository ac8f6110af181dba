"""What administrators see of all users' jobs, of what waits for a worker, and of what is stored.

No query here reads what a job is about: its file's name, its options, which may have a title, or its MP3. The database
user of the function admin has no right to these columns.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    case,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    update,
)

from events.schema import JobId
from functions.state.database import Database
from functions.state.disks import StoreName
from functions.state.fairness import ADMITTED, CONVERTING, ENCODING, FETCHING, JOINING
from functions.state.jobs import JobNotFound
from functions.state.leases import is_free
from functions.state.schema import UserId, blobs, deliveries, is_id, jobs, mails, now, pieces, users

#: The functions that work on rows.
QueueName = Literal["fetch", "convert", "encode", "join", "notify", "hook"]
JobState = Literal["fetching", "uploaded", "converting", "encoding", "joining", "done", "failed"]
#: Days in which jobs, mails and deliveries that were given up are counted.
GIVEN_UP_DAYS: Final = 7
#: Where an unfinished row may be: a worker has it; it waits for one, for its owner's turn, or for another attempt.
PHASES: Final = ("working", "waiting", "deferred", "retrying")
_DAY: Final = 86_400_000
#: Of each function the rows that it works on, while they are unfinished.
QUEUES: Final[dict[QueueName, tuple[Table, ColumnElement[bool]]]] = {
    "fetch": (jobs, jobs.c.state.in_(FETCHING.states)),
    "convert": (jobs, jobs.c.state.in_(CONVERTING.states)),
    "encode": (pieces, pieces.c.state.in_(ENCODING.states)),
    "join": (jobs, jobs.c.state.in_(JOINING.states)),
    "notify": (mails, true()),
    "hook": (deliveries, true()),
}
_JOB_COLUMNS: Final[tuple[Column[Any], ...]] = (
    jobs.c.id,
    jobs.c.owner,
    users.c.username,
    jobs.c.state,
    jobs.c.error,
    jobs.c.warning,
    jobs.c.attempts,
    jobs.c.deferred_at,
    jobs.c.duration,
    jobs.c.size,
    jobs.c.mp3_size,
    jobs.c.cpu_ms,
    jobs.c.pods,
    jobs.c.created_at,
    jobs.c.started_at,
    jobs.c.finished_at,
)


@dataclass(frozen=True, slots=True)
class ObservedJob:
    """A job, as administrators see it.

    Attributes:
        id: 32 hexadecimal digits.
        owner: the id of its user.
        username: of its user; None if the user was deleted.
        state: fetching, uploaded, converting, encoding, joining, done or failed.
        error: the message for the user, if it failed.
        warning: the message for the user, if something is missing from the MP3.
        attempts: at its stage.
        deferred_at: since when it waits for its owner's turn; None if it does not.
        duration: seconds of the MP3.
        size: bytes of the video.
        mp3_size: bytes of the MP3.
        cpu_ms: milliseconds of CPU of the attempts that succeeded.
        pods: how many processes made these attempts.
        created_at: milliseconds since 1970.
        started_at: when it was claimed first.
        finished_at: when it ended.
    """

    id: JobId
    owner: UserId
    username: str | None
    state: JobState
    error: str | None
    warning: str | None
    attempts: int
    deferred_at: int | None
    duration: float | None
    size: int | None
    mp3_size: int | None
    cpu_ms: int
    pods: int | None
    created_at: int
    started_at: int | None
    finished_at: int | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Returns the job of a row."""
        return cls(*(getattr(row, name) for name in cls.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class Queue:
    """The unfinished rows that one function works on. Each is counted once, but for ``overdue``.

    Attributes:
        name: the function.
        working: a worker has them.
        waiting: for a worker.
        deferred: for their owner's turn.
        retrying: for another attempt, after one that failed.
        overdue: of those that wait or are to be tried again: the next sweep emits their events again.
        oldest: when the oldest was created, in milliseconds since 1970; None if there is none.
    """

    name: QueueName
    working: int
    waiting: int
    deferred: int
    retrying: int
    overdue: int
    oldest: int | None


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What was given up in the last GIVEN_UP_DAYS.

    Attributes:
        jobs: that have failed.
        mails: that could not be sent.
        deliveries: to webhooks, that nobody has accepted.
    """

    jobs: int
    mails: int
    deliveries: int


@dataclass(frozen=True, slots=True)
class StoreUse:
    """What one media store has.

    Attributes:
        store: ``videos``, ``pieces`` or ``mp3s``.
        blobs: how many there are.
        size: bytes, with what is reserved for uploads and conversions in progress.
        expired: blobs that the next sweep deletes.
    """

    store: StoreName
    blobs: int
    size: int
    expired: int


@dataclass(frozen=True, slots=True)
class UserUse:
    """What one user has stored or reserved.

    Attributes:
        id: the user's id.
        username: in stored form; None if the user was deleted.
        size: bytes.
    """

    id: UserId
    username: str | None
    size: int


class Overview:
    """The queries of administrators. Each counts whole tables, but for the list of jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def jobs(
        self, limit: int, after: str | None = None, *, owner: str | None = None, state: str | None = None
    ) -> list[ObservedJob]:
        """Returns jobs of all users, newest first, starting after the job ``after``.

        Args:
            limit: how many at most.
            after: the id of a job.
            owner: only jobs of this user.
            state: only jobs in this state.

        Raises:
            JobNotFound: there is no job ``after``.
        """
        if owner is not None and not is_id(owner):
            return []
        where = [jobs.c.owner == owner] if owner is not None else []
        where += [jobs.c.state == state] if state is not None else []
        if after is not None:
            created_at = self._created_at(after)
            is_tied = and_(jobs.c.created_at == created_at, jobs.c.id < after)
            where.append(or_(jobs.c.created_at < created_at, is_tied))
        query = (
            select(*_JOB_COLUMNS)
            .select_from(jobs.outerjoin(users, and_(users.c.id == jobs.c.owner, users.c.deleted_at.is_(None))))
            .where(*where)
            .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
            .limit(limit)
        )
        return self._database.read(lambda connection: [ObservedJob.from_row(row) for row in connection.execute(query)])

    def _created_at(self, job: str) -> int:
        query = select(jobs.c.created_at).where(jobs.c.id == job)
        found = self._database.read(lambda connection: connection.scalar(query)) if is_id(job) else None
        if found is None:
            raise JobNotFound("There is no such job: GET /admin/jobs lists them.")
        return int(found)

    def queues(self) -> list[Queue]:
        """Returns what waits for each function that works on rows."""

        def read(connection: Connection) -> list[Queue]:
            return [_queue(connection, name) for name in get_args(QueueName)]

        return self._database.read(read)

    def given_up(self) -> GivenUp:
        """Returns what was given up lately."""
        begin = now() - GIVEN_UP_DAYS * _DAY
        queries = (
            select(func.count()).where(jobs.c.finished_at > begin, jobs.c.state == "failed"),
            select(func.count()).where(mails.c.created_at > begin, mails.c.state == "abandoned"),
            select(func.count()).where(deliveries.c.created_at > begin, deliveries.c.state == "failed"),
        )
        return self._database.read(lambda connection: GivenUp(*(connection.scalar(query) or 0 for query in queries)))

    def retry(self, name: QueueName) -> int:
        """Makes due at once what waits for a worker or for another attempt; the next sweep emits its events.

        Returns:
            How many rows that are. Rows that were due already, and those that are deferred, are not among them.
        """
        table, is_its = QUEUES[name]
        is_postponed = and_(table.c.lease.is_(None), table.c.lease_until.is_not(None))
        is_idle = or_(is_free(table), is_postponed)
        is_later = and_(is_its, table.c.due_at > now(), is_idle, not_(_is_deferred(table)))
        # Nobody can claim a postponed row before that time.
        lease_until = case((is_postponed, now() - 1), else_=table.c.lease_until)
        statement = update(table).where(is_later).values(due_at=now(), lease_until=lease_until)
        return self._database.run(lambda connection: connection.execute(statement).rowcount)

    def storage(self) -> list[StoreUse]:
        """Returns what the media stores have, as the records of blobs say."""
        is_expired = and_(blobs.c.expires_at.is_not(None), blobs.c.expires_at <= now())
        query = (
            select(blobs.c.store, func.count(), func.coalesce(func.sum(blobs.c.size), 0), _count(is_expired))
            .group_by(blobs.c.store)
            .order_by(blobs.c.store)
        )
        return self._database.read(
            lambda connection: [
                StoreUse(store, count, int(size), int(expired))
                for store, count, size, expired in connection.execute(query)
            ]
        )

    def largest_users(self, limit: int) -> list[UserUse]:
        """Returns the users who have stored or reserved most."""
        size = func.sum(blobs.c.size).label("size")
        is_alive = or_(blobs.c.expires_at.is_(None), blobs.c.expires_at > now())
        most = (
            select(blobs.c.owner, size)
            .where(is_alive)
            .group_by(blobs.c.owner)
            .having(size > 0)
            .order_by(size.desc(), blobs.c.owner)
            .limit(limit)
            .subquery()
        )
        query = (
            select(most.c.owner, users.c.username, most.c.size)
            .select_from(most.outerjoin(users, and_(users.c.id == most.c.owner, users.c.deleted_at.is_(None))))
            .order_by(most.c.size.desc(), most.c.owner)
        )
        return self._database.read(
            lambda connection: [UserUse(UserId(row[0]), row[1], int(row[2])) for row in connection.execute(query)]
        )


def _queue(connection: Connection, name: QueueName) -> Queue:
    table, is_its = QUEUES[name]
    is_overdue = and_(is_free(table), not_(_is_deferred(table)), table.c.due_at <= now())
    rows = select(phase_of(table).label("phase"), case((is_overdue, 1), else_=0).label("late"), table.c.created_at)
    rows_of_queue = rows.where(table.c.due_at.is_not(None), is_its).subquery()
    counted = select(
        rows_of_queue.c.phase,
        func.count(),
        func.sum(rows_of_queue.c.late),
        func.min(rows_of_queue.c.created_at),
    ).group_by(rows_of_queue.c.phase)
    found = {phase: (count, int(late), oldest) for phase, count, late, oldest in connection.execute(counted)}
    counts = {phase: found.get(phase, (0, 0, None))[0] for phase in PHASES}
    return Queue(
        name,
        **counts,
        overdue=sum(late for _, late, _ in found.values()),
        oldest=min((oldest for _, _, oldest in found.values()), default=None),
    )


def phase_of(table: Table) -> ColumnElement[str]:
    """Returns one of PHASES: where an unfinished row is."""
    # Not ``is_free``: for a while nobody may claim a row that is to be tried again.
    is_working = and_(table.c.lease.is_not(None), table.c.lease != ADMITTED, table.c.lease_until > now())
    return case(
        (is_working, literal("working")),
        (_is_deferred(table), literal("deferred")),
        (table.c.attempts > 0, literal("retrying")),
        else_=literal("waiting"),
    )


def _is_deferred(table: Table) -> ColumnElement[bool]:
    return table.c.deferred_at.is_not(None) if "deferred_at" in table.c else ~true()


def _count(where: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((where, 1), else_=0)), 0)
