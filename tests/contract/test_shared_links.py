"""Links and feeds of users, on every SQL database: stored as hashes, valid until they expire or are deleted."""

import pytest
from sqlalchemy import select

from events.schema import JobId
from functions.auth import shared_links as module
from functions.auth.accounts import Accounts
from functions.auth.feeds import Feeds
from functions.auth.links import BadLink
from functions.auth.shared_links import LinkNotFound, SharedLinks, TooManyLinks
from functions.media import BlobId
from functions.state.database import Database
from functions.state.deleted_users import DeletedUsers
from functions.state.jobs import Jobs, Outcome
from functions.state.leases import LeaseTerms
from functions.state.overdue import Overdue
from functions.state.owners import OwnerChanged
from functions.state.schema import UserId, feeds, shared_links
from tests.contract.test_jobs import Records, at_once
from tests.support.databases import make_past


@pytest.fixture
def ann(database: Database) -> UserId:
    return Accounts(database).add("Ann", "ann", "correct horse", "ann@example.org").id


@pytest.fixture
def links(database: Database) -> SharedLinks:
    return SharedLinks(database)


def done(database: Database, owner: UserId) -> tuple[JobId, BlobId]:
    """Returns a new job that is done, and its MP3."""
    records = Records(database, LeaseTerms())
    job = records.job(owner=owner).id
    lease = records.jobs.claim(job)
    assert lease is not None
    mp3 = records.blob("mp3s", job, owner)
    assert records.jobs.finish(lease, Outcome(mp3, 1.0, None, 5))
    return job, mp3


def rows(database: Database) -> list[str]:
    return [str(row) for row in database.read(lambda connection: connection.execute(select(shared_links)).all())]


def test_link_is_for_one_mp3_and_stored_as_a_hash(database: Database, ann: UserId, links: SharedLinks) -> None:
    job, mp3 = done(database, ann)
    secret, created = links.create(ann, job, mp3, 3600)
    assert links.verify(secret, mp3) == ann
    assert links.of(ann) == [created]
    assert (created.job, created.mp3, created.filename) == (job, mp3, "a.mp4")
    assert created.expires_at - created.created_at == 3_600_000
    assert secret not in rows(database)[0]
    for token, fid in ((secret, done(database, ann)[1]), (secret[:-1], mp3), ("mp3l_\ud800", mp3)):
        with pytest.raises(BadLink):
            links.verify(token, fid)


def test_deleted_link_is_refused_at_once(database: Database, ann: UserId, links: SharedLinks) -> None:
    other = Accounts(database).add("Bob", "bob", "correct horse", "bob@example.org").id
    secret, created = links.create(ann, *done(database, ann), 3600)
    for link, owner in ((created.id, other), ("x", ann)):
        with pytest.raises(LinkNotFound):
            links.delete(link, owner)
    assert (links.of(ann), links.of(other)) == ([created], [])
    links.delete(created.id, ann)
    with pytest.raises(BadLink):
        links.verify(secret, created.mp3)
    with pytest.raises(LinkNotFound):
        links.delete(created.id, ann)


def test_expired_link_is_refused_and_swept(database: Database, ann: UserId, links: SharedLinks) -> None:
    secret, created = links.create(ann, *done(database, ann), 60)
    make_past(database, "shared_links", "expires_at", 60_000)
    with pytest.raises(BadLink):
        links.verify(secret, created.mp3)
    assert links.of(ann) == []
    kept = links.create(ann, *done(database, ann), 60)[1]
    Overdue(database).forget_logins(100)
    assert [kept.id in row for row in rows(database)] == [True]


def test_links_go_with_their_job_and_their_owner(database: Database, ann: UserId, links: SharedLinks) -> None:
    job, mp3 = done(database, ann)
    links.create(ann, job, mp3, 3600)
    Jobs(database).delete(job, ann)
    assert links.of(ann) == []
    kept = links.create(ann, *done(database, ann), 3600)[1]
    assert [kept.id in row for row in rows(database)] == [True]
    with pytest.raises(LinkNotFound):
        links.create(ann, job, mp3, 3600)
    DeletedUsers(database).delete(ann)
    assert rows(database) == []
    with pytest.raises(OwnerChanged):
        links.create(ann, job, mp3, 3600)


def test_number_of_links_is_limited(
    database: Database, ann: UserId, links: SharedLinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LINKS", 2)
    job, mp3 = done(database, ann)

    def create(_: int) -> bool:
        try:
            links.create(ann, job, mp3, 3600)
        except TooManyLinks:
            return False
        return True

    assert sorted(at_once(4, create)) == [False, False, True, True]
    links.delete(links.of(ann)[0].id, ann)
    assert create(0)


def test_new_feed_replaces_the_one_before(database: Database, ann: UserId) -> None:
    table = Feeds(database)
    created = at_once(3, lambda _: table.create(ann))
    valid = []
    for secret in created:
        try:
            valid.append(table.verify(secret) == ann)
        except BadLink:
            continue
    assert valid == [True]
    last = table.create(ann)
    assert table.verify(last) == ann
    [row] = database.read(lambda connection: connection.execute(select(feeds)).all())
    assert last not in str(row)
    table.delete(ann)
    for secret in (created[0], last, "mp3f_\ud800"):
        with pytest.raises(BadLink):
            table.verify(secret)


def test_feed_goes_with_its_user(database: Database, ann: UserId) -> None:
    Feeds(database).create(ann)
    DeletedUsers(database).delete(ann)
    assert database.read(lambda connection: connection.execute(select(feeds)).all()) == []
    with pytest.raises(OwnerChanged):
        Feeds(database).create(ann)
