"""What administrators see and change, on every SQL database."""

import math

import pytest
from sqlalchemy import insert, select, update

from functions.auth.accounts import Accounts, WrongCredentials
from functions.auth.administration import Administration, OwnAccount, Search, UserNotFound
from functions.auth.feeds import Feeds
from functions.auth.identification import MAX_AGE
from functions.auth.keys import ApiKeys
from functions.auth.links import BadLink
from functions.auth.profiles import Profiles
from functions.auth.sessions import Sessions
from functions.auth.shared_links import SharedLinks
from functions.auth.tokens import AccountLocked, NotAllowed, NotAuthenticated, Signer
from functions.media import BlobId
from functions.state.administrators import LastAdministrator
from functions.state.database import Database
from functions.state.deleted_users import GRACE, DeletedUsers
from functions.state.jobs import JobNotFound, new_job_id
from functions.state.leases import LeaseTerms
from functions.state.overdue import Overdue
from functions.state.overview import GivenUp, Overview, Queue
from functions.state.owners import OwnerChanged, may_enter
from functions.state.quota import Quota, QuotaFull, Usage, usage, usages
from functions.state.schema import UserId, blobs, jobs, mails, now, users
from tests.contract.test_jobs import Records, at_once
from tests.contract.test_keys import Process, token
from tests.support.databases import make_past, set_role
from tests.unit.auth.test_tokens import KEY, private_pem

PASSWORD = "correct horse"


@pytest.fixture
def people(database: Database) -> dict[str, UserId]:
    """Ann and Bob, who are administrators, and Carl."""
    accounts = Accounts(database)
    found = {
        name: accounts.add(name.title(), name, PASSWORD, f"{name}@example.org").id for name in ("ann", "bob", "carl")
    }
    for name in ("ann", "bob"):
        set_role(database, name, "admin")
    return found


@pytest.fixture
def administration(database: Database) -> Administration:
    return Administration(database)


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database, LeaseTerms())


def administrators(database: Database) -> set[str]:
    query = select(users.c.username).where(users.c.role == "admin", users.c.deleted_at.is_(None))
    return database.run(lambda connection: set(connection.scalars(query)))


def test_users_are_found_page_by_page(administration: Administration, people: dict[str, UserId]) -> None:
    def names(search: Search, limit: int = 10, after: str | None = None) -> list[str]:
        return [user.username for user in administration.page(search, limit, after)]

    assert names(Search(), 2) == ["ann", "bob"]
    assert names(Search(), 2, people["bob"]) == ["carl"]
    assert names(Search("B@EXAMPLE")) == ["bob"], "a part of the address"
    assert names(Search(" Car ")) == ["carl"]
    assert names(Search("%")) == names(Search("_")) == names(Search("x\0x")) == [], "no wildcards"
    assert names(Search("n", role="admin")) == ["ann"]
    administration.change(people["carl"], people["ann"], is_locked=True)
    assert names(Search(is_locked=True)) == ["carl"]
    assert names(Search(is_locked=False)) == ["ann", "bob"]
    for unknown in ("f" * 32, "'", ""):
        with pytest.raises(UserNotFound):
            administration.page(Search(), 10, unknown)


def test_role_is_given_and_taken(administration: Administration, database: Database, people: dict[str, UserId]) -> None:
    assert administration.change(people["carl"], people["ann"], role="admin").role == "admin"
    assert administrators(database) == {"ann", "bob", "carl"}
    administration.change(people["ann"], people["ann"], role="user")
    with pytest.raises(NotAllowed):
        administration.change(people["bob"], people["ann"], role="user")
    with pytest.raises(NotAllowed):
        administration.set_quota(people["bob"], people["ann"], 0, 0)
    with pytest.raises(NotAllowed):
        administration.withdraw_tokens(people["bob"], people["ann"])
    with pytest.raises(NotAllowed):
        administration.delete(people["bob"], people["ann"])
    assert administrators(database) == {"bob", "carl"}
    administration.change(people["ann"], people["ann"], role="user")  # after an answer that was lost


def test_last_administrator_stays(
    administration: Administration, database: Database, people: dict[str, UserId]
) -> None:
    administration.change(people["bob"], people["ann"], is_locked=True)  # a locked one does not count
    for change in ({"role": "user"}, {"is_locked": True}):
        with pytest.raises(LastAdministrator, match="make another user an administrator first"):
            administration.change(people["ann"], people["ann"], **change)
    with pytest.raises(OwnAccount):
        administration.delete(people["ann"], people["ann"])
    with pytest.raises(LastAdministrator):
        DeletedUsers(database).delete(people["ann"])
    assert Accounts(database).authenticate("ann", PASSWORD).role == "admin"
    administration.change(people["bob"], people["ann"], is_locked=False)
    DeletedUsers(database).delete(people["ann"])
    assert administrators(database) == {"bob"}
    set_role(database, "bob", "user")  # the operator can make one again
    assert administrators(database) == set()


def test_two_administrators_who_dismiss_each_other_at_once(
    administration: Administration, database: Database, people: dict[str, UserId]
) -> None:
    pairs = [("ann", "bob"), ("bob", "ann")]

    def dismiss(n: int) -> type[Exception] | None:
        by, user = pairs[n % 2]
        try:
            if n < 2:
                administration.change(people[user], people[by], role="user")
            else:
                administration.delete(people[user], people[by])
        except (NotAllowed, UserNotFound, LastAdministrator) as error:
            return type(error)
        return None

    for _ in range(5):
        assert sorted(map(str, at_once(2, dismiss))) == sorted(map(str, [None, NotAllowed]))
        [left] = administrators(database)
        for name in {"ann", "bob"} - {left}:
            set_role(database, name, "admin")
    outcomes = at_once(4, dismiss)
    assert outcomes.count(None) >= 1
    assert len(administrators(database)) == 1


def test_two_who_resign_at_once(administration: Administration, database: Database, people: dict[str, UserId]) -> None:
    def resign(n: int) -> bool:
        user = people[("ann", "bob")[n % 2]]
        try:
            if n == 3:
                DeletedUsers(database).mark(user)
            else:
                administration.change(user, user, role="user")
        except (LastAdministrator, UserNotFound):
            return False
        return True

    for _ in range(5):
        at_once(2, resign)
        assert len(administrators(database)) == 1
        for name in ("ann", "bob"):
            set_role(database, name, "admin")
    at_once(4, resign)
    assert len(administrators(database)) == 1


def test_locked_user_is_kept_out(administration: Administration, database: Database, people: dict[str, UserId]) -> None:
    carl = people["carl"]
    process = Process(database)
    key, _ = ApiKeys(database).create(carl, "backup", ["read"])
    feed = Feeds(database).create(carl)
    link, mp3 = add_link(database, carl)
    process.user(key)
    process.user(token(carl))
    administration.change(carl, people["ann"], is_locked=True)

    def keeps_out() -> None:
        for credentials in (key, token(carl)):
            with pytest.raises(AccountLocked, match="ask an administrator"):
                process.user(credentials)

    process.user(key)  # what the database said a moment ago
    process.seconds += MAX_AGE
    assert MAX_AGE <= 60
    keeps_out()
    user = Accounts(database).authenticate("carl", PASSWORD)
    with pytest.raises(AccountLocked):
        Sessions(database).begin(user, Signer(private_pem(KEY)), "", "192.0.2.1")
    with pytest.raises(BadLink):
        Feeds(database).verify(feed)
    with pytest.raises(BadLink):
        SharedLinks(database).verify(link, mp3)
    assert not database.read(lambda connection: may_enter(connection, carl)), "by a link of a mail"
    with pytest.raises(OwnerChanged):
        ApiKeys(database).create(carl, "another", ["read"], version=0)

    administration.change(carl, people["ann"], is_locked=False)
    assert process.user(key, max_age=0) == process.user(token(carl), max_age=0) == carl
    assert Feeds(database).verify(feed) == SharedLinks(database).verify(link, mp3) == carl
    assert database.read(lambda connection: may_enter(connection, carl))
    user = Accounts(database).authenticate("carl", PASSWORD)
    assert Sessions(database).begin(user, Signer(private_pem(KEY)), "", "192.0.2.1")


def test_locked_user_gets_no_mail(administration: Administration, people: dict[str, UserId], records: Records) -> None:
    lease = records.jobs.claim(records.job(owner=people["carl"]).id)
    assert lease is not None
    [event] = records.jobs.fail(lease, "no audio")
    mail = records.mails.claim(event.id)
    assert mail is not None
    for is_locked in (False, True):
        administration.change(people["carl"], people["ann"], is_locked=is_locked)
        addressee = records.mails.addressee(mail)
        assert addressee is not None
        assert (addressee.why_not(event.type) == "the user is locked") == is_locked


def add_link(database: Database, owner: UserId) -> tuple[str, BlobId]:
    mp3 = BlobId("e" * 24)
    job = {"id": "e" * 32, "owner": owner, "filename": "a.mp4", "options": "{}", "state": "done", "mp3": mp3}
    row = insert(jobs).values(**job, total=0, done=0, created_at=now(), attempts=0)
    database.run(lambda connection: connection.execute(row))
    secret, _ = SharedLinks(database).create(owner, job["id"], mp3, 1000)  # type: ignore[arg-type]
    return secret, mp3


def test_user_who_is_locked_while_logging_in_gets_no_token(
    administration: Administration, database: Database, people: dict[str, UserId]
) -> None:
    user = Accounts(database).authenticate("carl", PASSWORD)
    administration.change(user.id, people["ann"], is_locked=True)
    with pytest.raises(Exception, match="changed at the same time"):
        Sessions(database).begin(user, Signer(private_pem(KEY)), "", "192.0.2.1")


def test_sessions_of_a_user_end(administration: Administration, database: Database, people: dict[str, UserId]) -> None:
    process = Process(database)
    administration.withdraw_tokens(people["carl"], people["ann"])
    assert process.refuses(token(people["carl"])) == "withdrawn"
    assert process.user(token(people["carl"], 1)) == people["carl"]


def test_deleted_user_is_out_at_once_and_gone_after_sweeps(
    administration: Administration, database: Database, people: dict[str, UserId], records: Records
) -> None:
    carl = people["carl"]
    records.job(owner=carl)
    records.job(owner=people["bob"])
    Profiles(database).change(carl, None, "carl@example.com", version=0, confirms=True)  # there is a mail
    key, _ = ApiKeys(database).create(carl, "backup", ["read"])
    feed = Feeds(database).create(carl)
    link, mp3 = add_link(database, carl)
    process = Process(database)
    assert administration.delete(carl, people["ann"]).username == "carl"
    with pytest.raises(UserNotFound):
        administration.delete(carl, people["ann"])
    for credentials, reason in ((key, "key"), (token(carl), "withdrawn"), (token(carl, 1), "withdrawn")):
        assert process.refuses(credentials) == reason
    with pytest.raises(BadLink):
        Feeds(database).verify(feed)
    with pytest.raises(BadLink):
        SharedLinks(database).verify(link, mp3)
    with pytest.raises(WrongCredentials):
        Accounts(database).authenticate("carl", PASSWORD)
    with pytest.raises(UserNotFound):
        administration.get(carl)
    with pytest.raises(NotAuthenticated):
        Profiles(database).get(carl)
    overdue = Overdue(database)
    overdue.purge_users(10, math.inf)
    for table in ("api_keys", "feeds", "shared_links", "jobs", "mails"):
        assert records.count(table, owner=carl) == 0, table
    assert records.count("jobs") == 1
    make_past(database, "users", "deleted_at", GRACE + 1)
    for blob, store in records.blobs.expired(10):
        records.blobs.delete(records.media, store, blob)
    overdue.purge_users(10, math.inf)
    assert records.count("users", id=carl) == 0
    assert records.count("users") == 2


def test_quota_of_one_user(
    administration: Administration, database: Database, people: dict[str, UserId], records: Records
) -> None:
    carl, ann = people["carl"], people["ann"]
    usual = Quota(jobs=5, size=1000)

    def limits() -> Quota:
        return usual.of(Profiles(database).get(carl))

    assert limits() == usual
    records.job(owner=carl)
    used = database.run(lambda connection: connection.scalar(select(blobs.c.size).where(blobs.c.owner == carl)))
    assert usage(database, carl) == usages(database, [carl, ann])[carl] == Usage(int(used or 0), 1)
    assert usages(database, [carl, ann])[ann] == Usage(0, 0)
    assert administration.set_quota(carl, ann, 0, 7).quota_jobs == 7
    assert limits() == Quota(jobs=7, size=0)
    administration.set_quota(carl, ann, 50, None)
    assert limits() == Quota(jobs=5, size=50)

    def granted(size: int) -> int:
        grant = usual.convert(carl, size, size)
        return database.run(lambda connection: grant(connection, BlobId("b" * 24)))

    with pytest.raises(QuotaFull, match="You may store 50 bytes"):
        granted(60)
    administration.set_quota(carl, ann, 2000, None)
    assert granted(1500) == 1500, "more than others may have"
    assert Quota().of(Profiles(database).get(carl)).size == 2000, "also if others have no limit"
    administration.set_quota(carl, ann, None, None)
    assert limits() == usual
    assert usual.of(Profiles(database).get(ann)) == Quota(), "administrators have none"
    for unknown in ("f" * 32, "\0"):
        with pytest.raises(UserNotFound):
            administration.set_quota(unknown, ann, 1, 1)


def test_jobs_of_all_users(database: Database, people: dict[str, UserId], records: Records) -> None:
    overview = Overview(database)
    first, second, third = (records.job(owner=people[name]).id for name in ("ann", "carl", "carl"))
    times = {first: 1, second: 2, third: 2}
    for job, time in times.items():
        statement = update(jobs).where(jobs.c.id == job).values(created_at=time)
        database.run(lambda connection, statement=statement: connection.execute(statement))  # type: ignore[misc]
    newest = sorted((second, third), reverse=True)
    assert [job.id for job in overview.jobs(2)] == newest
    assert [job.id for job in overview.jobs(1, newest[0])] == [newest[1]]
    assert [(job.id, job.username) for job in overview.jobs(5, newest[1])] == [(first, "ann")]
    lease = records.jobs.claim(second)
    assert lease is not None
    records.jobs.fail(lease, "This file has no sound: choose another.")
    [failed] = overview.jobs(5, owner=people["carl"], state="failed")
    assert (failed.id, failed.error, failed.attempts) == (second, "This file has no sound: choose another.", 1)
    assert failed.finished_at is not None
    for unknown in (new_job_id(), "'"):
        with pytest.raises(JobNotFound):
            overview.jobs(5, unknown)
    DeletedUsers(database).mark(people["carl"])
    assert {job.username for job in overview.jobs(5)} == {"ann", None}
    assert not hasattr(failed, "filename")


def test_queues(database: Database, people: dict[str, UserId], records: Records) -> None:
    overview = Overview(database)
    waiting, working, later = (records.job(owner=people["carl"]).id for _ in range(3))
    assert records.jobs.claim(working) is not None
    for _ in range(2):  # after the second failure nobody may claim it for a while
        lease = records.jobs.claim(later)
        assert lease is not None
        records.jobs.release(lease)
    deferred = records.job(owner=people["carl"]).id
    change = update(jobs).where(jobs.c.id == deferred).values(deferred_at=now(), due_at=now() + 600_000)
    database.run(lambda connection: connection.execute(change))
    oldest = database.run(lambda connection: connection.scalar(select(jobs.c.created_at).order_by(jobs.c.created_at)))

    def convert() -> Queue:
        return next(queue for queue in overview.queues() if queue.name == "convert")

    assert convert() == Queue("convert", working=1, waiting=1, deferred=1, retrying=1, overdue=1, oldest=oldest)
    assert overview.retry("convert") == 1, "what waits for another attempt"
    assert convert().overdue == 2
    assert overview.retry("convert") == 0
    assert {due.event.about for due in records.overdue.due(10)} == {f"job {waiting}", f"job {later}"}
    assert [queue.name for queue in overview.queues()] == ["fetch", "convert", "encode", "join", "notify", "hook"]
    assert overview.queues()[4] == Queue("notify", 0, 0, 0, 0, 0, None)
    assert overview.given_up() == GivenUp(0, 0, 0)
    lease = records.jobs.claim(waiting)
    assert lease is not None
    [event] = records.jobs.fail(lease, "no audio")
    assert overview.queues()[4].waiting == 1
    mail = update(mails).where(mails.c.id == event.id).values(state="abandoned", due_at=None)
    database.run(lambda connection: connection.execute(mail))
    assert overview.given_up() == GivenUp(jobs=1, mails=1, deliveries=0)
    make_past(database, "jobs", "finished_at", 8 * 86_400_000)
    assert overview.given_up().jobs == 0


def test_storage(database: Database, people: dict[str, UserId], records: Records) -> None:
    overview = Overview(database)
    assert (overview.storage(), overview.largest_users(10)) == ([], [])
    for name, size in (("ann", 5), ("carl", 7)):
        job = records.job(owner=people[name]).id
        resize = update(blobs).where(blobs.c.job == job).values(size=size)
        database.run(lambda connection, resize=resize: connection.execute(resize))  # type: ignore[misc]
    records.blob("mp3s", owner=people["ann"])
    make_past(database, "blobs", "expires_at")
    stores = [(each.store, each.blobs, each.size, each.expired) for each in overview.storage()]
    assert stores == [("mp3s", 1, 0, 1), ("videos", 2, 12, 0)]
    assert [(each.username, each.size) for each in overview.largest_users(10)] == [("carl", 7), ("ann", 5)]
    assert len(overview.largest_users(1)) == 1
