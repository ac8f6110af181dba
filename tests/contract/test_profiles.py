"""Accounts as their users change and delete them, on every SQL database."""

import math
from collections.abc import Callable

import pytest
from sqlalchemy import insert, select, update

from events.schema import AddressUnconfirmed
from functions.auth.accounts import Accounts, WrongCredentials
from functions.auth.external_logins import ExternalLogins, Person
from functions.auth.feeds import Feeds
from functions.auth.keys import ApiKeys
from functions.auth.profiles import Profiles
from functions.auth.shared_links import SharedLinks
from functions.auth.tokens import NotAuthenticated
from functions.media import BlobId, Description
from functions.state.blobs import Blobs
from functions.state.database import Conflict, Database
from functions.state.deleted_users import BATCH, GRACE, DeletedUsers
from functions.state.leases import LeaseTerms
from functions.state.overdue import Overdue
from functions.state.owners import OwnerChanged
from functions.state.quota import Usage, usage
from functions.state.schema import UserId, blobs, deliveries, feeds, jobs, mails, shared_links, users
from functions.state.webhooks import Webhooks
from tests.contract.test_jobs import Records, at_once
from tests.support.databases import make_past
from tests.support.fakes import memory_media

PASSWORD = "correct horse"


@pytest.fixture
def ann(database: Database) -> UserId:
    return Accounts(database).add("Ann", "ann", PASSWORD, "ann@example.org").id


def test_another_address_has_to_be_confirmed(database: Database, ann: UserId) -> None:
    profiles = Profiles(database)
    profile, event = profiles.change(ann, "Ann B.", "ann@example.com", version=None, confirms=True)
    assert (profile.name, profile.email, profile.confirmed_at) == ("Ann B.", "ann@example.com", None)
    assert event == AddressUnconfirmed(ann, 0)
    assert profiles.get(ann) == profile
    profile, event = profiles.change(ann, None, "ann@example.com", version=None, confirms=True)
    assert (profile.name, event) == ("Ann B.", None), "the same address is no change"
    _, event = profiles.change(ann, None, "a.n.n@example.com", version=None, confirms=True)
    assert event is None, "this mailbox has just got a mail"
    profile, event = profiles.change(ann, None, "ann@example.net", version=None, confirms=False)
    assert profile.confirmed_at is not None
    assert event is None


def test_new_password_replaces_the_old_one_and_withdraws_tokens(database: Database, ann: UserId) -> None:
    accounts = Accounts(database)
    profiles = Profiles(database)
    hashed = accounts.hash("another horse")
    profiles.set_password(ann, 0, hashed)
    assert accounts.authenticate("ann", "another horse").token_version == 1
    with pytest.raises(WrongCredentials):
        accounts.authenticate("ann", PASSWORD)
    profiles.set_password(ann, 0, hashed)  # the first answer was lost
    assert profiles.get(ann).token_version == 1
    with pytest.raises(Conflict, match="log in and try again"):
        profiles.set_password(ann, 0, accounts.hash("a third horse"))
    profiles.withdraw_tokens(ann)
    assert profiles.get(ann).token_version == 2


def test_new_password_revokes_other_access_if_asked_to(database: Database, ann: UserId) -> None:
    accounts = Accounts(database)
    bob = accounts.add("Bob", "bob", PASSWORD, "bob@example.org").id
    keys, logins, webhooks = ApiKeys(database), ExternalLogins(database), Webhooks(database)
    confirm = update(users).values(confirmed_at=1)
    database.run(lambda connection: connection.execute(confirm))
    for owner, name in ((ann, "ann"), (bob, "bob")):
        keys.create(owner, "backup", ["read"])
        logins.link(person(name), accounts.authenticate(name, PASSWORD))
        webhooks.ping(webhooks.add(owner, "https://receiver.example").id, owner)
    link = {"id": "a" * 32, "digest": "d" * 64, "job": "j" * 32, "mp3": "m" * 24, "created_at": 0, "expires_at": 2**40}
    shared = insert(shared_links).values(**link, owner=ann)
    database.run(lambda connection: connection.execute(shared))
    feed = insert(feeds).values(digest="d" * 64, created_at=0, owner=ann)
    database.run(lambda connection: connection.execute(feed))
    callback = {"id": "c" * 32, "owner": ann, "job": "j" * 32, "kind": "x", "url": "https://receiver.example"}
    row = insert(deliveries).values(**callback, state="due", created_at=0)
    database.run(lambda connection: connection.execute(row))

    def left(owner: UserId, name: str) -> tuple[int, bool, int, int]:
        has_login = logins.find(person(name)) is not None
        return len(keys.of(owner)), has_login, len(webhooks.of(owner)), len(webhooks.deliveries(owner, 9))

    profiles = Profiles(database)
    profiles.set_password(ann, 0, "hash 0")
    assert left(ann, "ann") == (1, True, 1, 2)
    with pytest.raises(Conflict):
        profiles.set_password(ann, 0, "hash 1", revokes_access=True)
    assert left(ann, "ann") == (1, True, 1, 2)
    profiles.set_password(ann, 1, "hash 2", revokes_access=True)
    assert left(ann, "ann") == (0, False, 0, 1), "the callback of a job stays"
    assert left(bob, "bob") == (1, True, 1, 1)
    shown = select(shared_links.c.owner).union_all(select(feeds.c.owner))
    assert database.read(lambda connection: list(connection.execute(shown))) == []


def person(name: str) -> Person:
    return Person("https://issuer.example", name, f"{name}@example.org", name)


def test_of_simultaneous_changes_of_the_password_one_counts(database: Database, ann: UserId) -> None:
    profiles = Profiles(database)

    def change(n: int) -> bool:
        try:
            profiles.set_password(ann, 0, f"hash {n}")
        except Conflict:
            return False
        return True

    assert sum(at_once(6, change)) == 1
    assert profiles.get(ann).token_version == 1


def test_usage_is_what_the_quota_counts(database: Database, ann: UserId) -> None:
    assert usage(database, ann) == Usage(0, 0)
    records = Records(database, LeaseTerms())
    records.job(owner=ann)
    database.run(lambda connection: connection.execute(update(blobs).values(size=1000)))
    assert usage(database, ann) == Usage(1000, 1)


def test_deleted_account_leaves_nothing(database: Database, ann: UserId) -> None:
    bob = Accounts(database).add("Bob", "bob", PASSWORD, "bob@example.org").id
    records = Records(database, LeaseTerms())
    for owner in (ann, bob):
        for _ in range(2):
            records.job(owner=owner)
        Profiles(database).change(owner, None, f"{owner}@example.com", version=None, confirms=True)
    ApiKeys(database).create(ann, "backup", ["read"])
    deleted = DeletedUsers(database)
    for _ in range(2):
        deleted.delete(ann)
    with pytest.raises(NotAuthenticated):
        Profiles(database).get(ann)
    with pytest.raises(WrongCredentials):
        Accounts(database).authenticate("ann", PASSWORD)
    with pytest.raises(WrongCredentials):
        Accounts(database).authenticate(f"deleted\uff1a{ann}", PASSWORD)  # a fullwidth colon, which becomes a colon
    with pytest.raises(OwnerChanged):
        ApiKeys(database).create(ann, "backup", ["read"])
    assert ApiKeys(database).of(ann) == []
    [row] = database.run(lambda connection: list(connection.execute(select(users).where(users.c.id == ann))))
    assert (row.username, row.name, row.email, row.password_hash) == (f"deleted:{ann}", "", "", "")
    Accounts(database).add("Another", "ann", PASSWORD, "ann@example.org")  # the name is free again
    left = database.run(
        lambda connection: {*connection.scalars(select(jobs.c.owner)), *connection.scalars(select(mails.c.owner))}
    )
    assert left == {bob}
    expired = {blob for blob, _ in Blobs(database).expired(100)}
    assert expired == database.run(lambda c: {*c.scalars(select(blobs.c.id).where(blobs.c.owner == ann))})
    assert len(expired) == 2


def ids(database: Database) -> set[str]:
    return database.run(lambda connection: {*connection.scalars(select(users.c.id))})


def test_row_of_a_deleted_user_stays_until_nothing_is_left(database: Database, ann: UserId) -> None:
    records = Records(database, LeaseTerms())
    DeletedUsers(database).mark(ann)  # and killed
    late = records.job(owner=ann)  # by a request that began before
    overdue = Overdue(database)
    overdue.purge_users(10, math.inf)
    assert database.run(lambda connection: list(connection.scalars(select(jobs.c.id)))) == []
    make_past(database, "users", "deleted_at", GRACE + 1)
    overdue.purge_users(10, math.inf)
    assert ids(database) == {ann}, "a blob is left"
    [(blob, store)] = Blobs(database).expired(10)
    assert late.video == blob
    Blobs(database).delete(records.media, store, blob)
    overdue.purge_users(10, math.inf)
    assert ids(database) == set()


def test_row_of_a_deleted_user_stays_for_ten_minutes(database: Database, ann: UserId) -> None:
    DeletedUsers(database).delete(ann)
    Overdue(database).purge_users(10, math.inf)
    assert ids(database) == {ann}


def test_many_jobs_are_deleted_in_batches(database: Database, ann: UserId) -> None:
    records = Records(database, LeaseTerms())
    for _ in range(BATCH + 1):
        records.job(owner=ann)
    deleted = DeletedUsers(database)
    deleted.mark(ann)
    assert deleted.purge(ann)
    assert not deleted.purge(ann)
    assert database.run(lambda connection: list(connection.scalars(select(jobs.c.id)))) == []


def test_upload_that_is_being_received_is_refused(database: Database, ann: UserId) -> None:
    media = memory_media()
    records = Blobs(database)
    with records.writing(media, "videos", Description(ann, "f" * 32, "a.wav", "audio/wav")) as writer:
        DeletedUsers(database).delete(ann)
        writer.write(b"x")
    assert [blob for blob, _ in records.expired(10)] == [writer.blob]


def test_nothing_is_added_with_a_token_that_was_withdrawn_meanwhile(database: Database, ann: UserId) -> None:
    """A password is reset between the check of the token and the statement that adds what would outlast it."""
    job = Records(database, LeaseTerms()).job(owner=ann)
    database.run(lambda connection: connection.execute(update(jobs).values(state="done", mp3="a" * 24)))
    links = SharedLinks(database)
    add: dict[str, Callable[[int | None], object]] = {
        "key": lambda version: ApiKeys(database).create(ann, "backup", ["read"], version=version),
        "link": lambda version: links.create(ann, job.id, BlobId("a" * 24), 60, version),
        "feed": lambda version: Feeds(database).create(ann, version),
        "webhook": lambda version: Webhooks(database).add(ann, "https://example.org/", None, version),
    }
    Profiles(database).set_password(ann, 0, "hash", revokes_access=True)
    for what, with_version in add.items():
        with pytest.raises(OwnerChanged):
            with_version(0)
        assert with_version(1), what
        assert with_version(None), "an API key has no version"


def test_no_right_outlasts_a_new_password_that_was_set_meanwhile(database: Database, ann: UserId) -> None:
    """A password is reset between the check of the old one and the change that it allows."""
    profiles = Profiles(database)
    profiles.set_password(ann, 0, "hash", revokes_access=True)
    with pytest.raises(Conflict, match="changed at the same time"):
        profiles.change(ann, None, "eve@example.net", version=0, confirms=True)
    with pytest.raises(Conflict, match="changed at the same time"):
        DeletedUsers(database).delete(ann, 0)
    assert profiles.get(ann).email == "ann@example.org"
    profiles.change(ann, None, "a.n.n@example.org", version=1, confirms=True)
    for _ in range(2):
        DeletedUsers(database).delete(ann, 1)


def test_nothing_is_added_with_an_api_key_that_was_deleted_meanwhile(database: Database, ann: UserId) -> None:
    """The same reset deletes the keys."""
    job = Records(database, LeaseTerms()).job(owner=ann)
    database.run(lambda connection: connection.execute(update(jobs).values(state="done", mp3="a" * 24)))
    add: dict[str, Callable[[str | None], object]] = {
        "link": lambda key: SharedLinks(database).create(ann, job.id, BlobId("a" * 24), 60, key=key),
        "feed": lambda key: Feeds(database).create(ann, key=key),
        "webhook": lambda key: Webhooks(database).add(ann, "https://example.org/", key=key),
    }
    _, key = ApiKeys(database).create(ann, "backup", ["account"])
    for what, with_key in add.items():
        assert with_key(key.id), what
    Profiles(database).set_password(ann, 0, "hash", revokes_access=True)
    for with_key in add.values():
        with pytest.raises(OwnerChanged):
            with_key(key.id)
        assert with_key(None), "a key of API_KEYS has no row"
