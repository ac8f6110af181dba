"""API keys and the identification of their users, on every SQL database."""

import pytest
from sqlalchemy import select, update

from functions.auth.accounts import Accounts
from functions.auth.identification import MAX_AGE, Identification, TooManyUnknownKeys
from functions.auth.keys import MAX_KEYS, ApiKeys, KeyNotFound, TooManyKeys, new_key, operator_keys
from functions.auth.sessions import EndedTokens
from functions.auth.stored_secrets import digest
from functions.auth.tokens import NotAuthenticated, ScopeMissing, Signer, Verifier
from functions.state.database import Database
from functions.state.overdue import Overdue
from functions.state.owners import OwnerChanged
from functions.state.schema import UserId, api_keys, ended_tokens, users
from tests.contract.test_jobs import at_once
from tests.support.databases import make_past, queries, set_role
from tests.unit.auth.test_tokens import KEY, private_pem, public_pem

ADDRESS = "192.0.2.1"
DAY = 86_400_000


class Process:
    """A process of a function, whose clock the test sets."""

    def __init__(self, database: Database, keys: str = "") -> None:
        self.seconds = 0.0
        verifier = Verifier(public_pem(KEY))
        self._identification = Identification(
            verifier, database, operator_keys({"API_KEYS": keys}), lambda: self.seconds
        )

    def user(self, credentials: str, address: str = ADDRESS, max_age: float = MAX_AGE) -> str:
        return self._identification.identify(f"Bearer {credentials}", address, max_age).user

    def role(self, credentials: str, max_age: float = MAX_AGE) -> str:
        return self._identification.identify(f"Bearer {credentials}", ADDRESS, max_age).role

    def refuses(self, credentials: str) -> str:
        """Asserts that the credentials are refused; returns the reason."""
        with pytest.raises(NotAuthenticated) as refused:
            self.user(credentials)
        return refused.value.reason


@pytest.fixture
def ann(database: Database) -> UserId:
    return Accounts(database).add("Ann", "ann", "correct horse", "ann@example.org").id


@pytest.fixture
def process(database: Database) -> Process:
    return Process(database)


def test_key_stands_for_its_owner_and_is_stored_as_a_hash(database: Database, ann: UserId, process: Process) -> None:
    key, created = ApiKeys(database).create(ann, "backup", ["read", "upload"])
    assert process.user(key) == ann
    [row] = database.run(lambda connection: list(connection.execute(select(api_keys))))
    assert key not in str(row)
    assert row.digest == digest(key)
    [listed] = ApiKeys(database).of(ann)
    assert (listed.id, listed.name, listed.scopes) == (created.id, "backup", ("upload", "read"))


def test_last_use_is_recorded_by_the_day(database: Database, ann: UserId, process: Process) -> None:
    keys = ApiKeys(database)
    key, created = keys.create(ann, "backup", ["read"])
    assert created.used_at is None
    process.user(key)
    [today] = keys.of(ann)
    assert today.used_at is not None
    assert today.used_at % DAY == 0
    assert 0 <= today.created_at - today.used_at < 2 * DAY
    make_past(database, "api_keys", "used_at", 3 * DAY)
    process.seconds += MAX_AGE
    process.user(key)
    assert keys.of(ann) == [today]


def test_key_costs_a_process_no_query_within_half_a_minute(database: Database, ann: UserId, process: Process) -> None:
    key, _ = ApiKeys(database).create(ann, "backup", ["upload"])
    assert process.user(key) == ann
    with queries(database) as executed:
        assert {process.user(key) for _ in range(10)} == {ann}
        assert executed == []
        process.seconds += MAX_AGE
        assert process.user(key) == ann
        assert len(executed) == 1


def test_deleted_key_is_refused_within_a_minute(database: Database, ann: UserId, process: Process) -> None:
    keys = ApiKeys(database)
    key, created = keys.create(ann, "backup", ["read"])
    process.user(key)
    keys.delete(created.id, ann)
    process.user(key)  # what the database said a moment ago
    with pytest.raises(NotAuthenticated):
        process.user(key, max_age=0)
    process.seconds += MAX_AGE
    assert MAX_AGE <= 60
    assert process.refuses(key) == "key"


def test_expired_key_is_refused(database: Database, ann: UserId, process: Process) -> None:
    key, _ = ApiKeys(database).create(ann, "backup", ["read"], seconds=60)
    make_past(database, "api_keys", "expires_at", 55_000)
    assert process.user(key) == ann
    process.seconds += 6  # no answer of the database is used beyond the expiry
    make_past(database, "api_keys", "expires_at", 6_000)
    assert process.refuses(key) == "key"


def test_scopes_of_a_key(database: Database, ann: UserId, process: Process) -> None:
    key, created = ApiKeys(database).create(ann, "backup", ["read"])
    identity = process._identification.identify(f"Bearer {key}", ADDRESS)
    identity.require("read")
    identity.require(None)
    for scope in ("upload", "delete", "account"):
        with pytest.raises(ScopeMissing, match=f"scope {scope}"):
            identity.require(scope)
    assert identity.claims["scope"] == "read"
    assert identity.stored_key == created.id


def test_key_of_an_operator(database: Database, ann: UserId) -> None:
    key = new_key()
    process = Process(database, f"{'0' * 64}:{'0' * 32}:read, {digest(key)}:{ann}:upload+read")
    identity = process._identification.identify(f"Bearer {key}", ADDRESS)
    assert (identity.user, identity.username, identity.role) == (ann, "ann", "user")
    assert identity.scopes == frozenset({"upload", "read"})
    assert identity.stored_key is None
    assert Process(database).refuses(key) == "key"
    database.run(lambda connection: connection.execute(users.delete()))
    assert Process(database, f"{digest(key)}:{ann}:upload").refuses(key) == "key"


def test_keys_of_others_do_not_exist(database: Database, ann: UserId) -> None:
    keys = ApiKeys(database)
    _, created = keys.create(ann, "backup", ["read"])
    for owner, key in ((UserId("e" * 32), created.id), (ann, "f" * 32), (ann, "x"), (ann, created.id.upper() + "0")):
        with pytest.raises(KeyNotFound):
            keys.delete(key, owner)
    assert keys.of(UserId("e" * 32)) == []
    assert len(keys.of(ann)) == 1
    with pytest.raises(OwnerChanged):
        keys.create(UserId("e" * 32), "backup", ["read"])


def test_user_has_few_keys_however_many_are_created_at_once(database: Database, ann: UserId) -> None:
    keys = ApiKeys(database)
    for n in range(MAX_KEYS - 2):
        keys.create(ann, f"key {n}", ["read"])

    def create(_: int) -> bool:
        try:
            keys.create(ann, "another", ["read"])
        except TooManyKeys:
            return False
        return True

    assert sum(at_once(6, create)) == 2
    assert len(keys.of(ann)) == MAX_KEYS


def test_unknown_keys_are_limited_by_network_and_known_ones_go_on(
    database: Database, ann: UserId, process: Process
) -> None:
    key, _ = ApiKeys(database).create(ann, "backup", ["read"])
    assert process.user(key) == ann
    process.seconds += MAX_AGE
    wrong = [new_key() for _ in range(30)]
    assert [process.refuses(each) for each in wrong[:20]] == ["key"] * 20
    for each in wrong[20:]:
        with pytest.raises(TooManyUnknownKeys) as refused:
            process.user(each)
        assert 1 <= refused.value.retry_after <= 4
    assert process.user(key) == ann, "its answer is too old, but it was valid before"
    for each in wrong:
        with pytest.raises(NotAuthenticated):
            process.user(each, "192.0.2.2" if each == wrong[0] else f"2001:db8:{wrong.index(each)}::1")
    process.seconds += 3
    assert process.refuses(wrong[0]) == "key"
    with pytest.raises(TooManyUnknownKeys):
        process.user(wrong[0])


def test_mistyped_key_costs_no_query(process: Process, database: Database) -> None:
    database.close()
    key = new_key()
    other = "1" if key[10] != "1" else "2"
    for wrong in (key[:10] + other + key[11:], key[:-1], f"{key}0", key[:5] + "é" + key[6:], "mp3b_"):
        for _ in range(30):
            assert process.refuses(wrong) == "key"


def token(user: UserId, version: int = 0) -> str:
    return Signer(private_pem(KEY)).sign(user, "ann", "user", version)


def set_version(database: Database, version: int) -> None:
    database.run(lambda connection: connection.execute(update(users).values(token_version=version)))


def test_tokens_of_another_version_are_refused_within_a_minute(
    database: Database, ann: UserId, process: Process
) -> None:
    assert process.user(token(ann)) == ann
    set_version(database, 1)
    assert process.user(token(ann, 1)) == ann, "a new login must not wait for what this process remembers"
    assert process.refuses(token(ann)) == "withdrawn"
    other = Process(database)
    assert other.user(token(ann, 1)) == ann
    set_version(database, 2)
    assert other.user(token(ann, 1)) == ann
    with pytest.raises(NotAuthenticated):
        other.user(token(ann, 1), max_age=0)
    other.seconds += MAX_AGE
    assert other.refuses(token(ann, 1)) == "withdrawn"


def test_role_that_was_revoked_ends_within_a_minute(database: Database, ann: UserId, process: Process) -> None:
    set_role(database, "ann", "admin")
    admin = Signer(private_pem(KEY)).sign(ann, "ann", "admin", 0)
    assert process.role(admin) == "admin"
    set_role(database, "ann", "user")
    assert process.role(admin, max_age=0) == "user"
    assert process.role(admin) == "user"


def test_token_of_a_deleted_user_is_refused(database: Database, ann: UserId, process: Process) -> None:
    process.user(token(ann))
    database.run(lambda connection: connection.execute(users.delete()))
    process.seconds += MAX_AGE
    assert process.refuses(token(ann)) == "withdrawn"


def test_token_that_was_logged_out_is_refused(database: Database, ann: UserId, process: Process) -> None:
    mine, other = token(ann), token(ann)
    assert process.user(mine) == process.user(other) == ann
    ended = EndedTokens(database)
    for _ in range(2):
        assert ended.end(process._identification.identify(f"Bearer {mine}", ADDRESS))
    assert process.user(mine) == ann, "what the database said a moment ago"
    process.seconds += MAX_AGE
    assert process.refuses(mine) == "withdrawn"
    assert process.user(other) == ann
    Overdue(database).forget_logins(100)
    assert len(ended.of(ann)) == 1
    make_past(database, "ended_tokens", "expires_at", 2 * DAY)
    Overdue(database).forget_logins(100)
    assert database.run(lambda connection: list(connection.execute(select(ended_tokens)))) == []
