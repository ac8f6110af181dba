"""Sessions: recording, listing, using and ending them, on every SQL database."""

import logging
from typing import Any

import pytest
from sqlalchemy import Row, insert, select, update

from functions.auth.accounts import Accounts, User
from functions.auth.identification import MAX_AGE
from functions.auth.profiles import Profiles
from functions.auth.sessions import EndedTokens, SessionNotFound, Sessions
from functions.auth.tokens import Identity, Signer, Verifier
from functions.state.database import Conflict, Database, DatabaseUnavailable
from functions.state.deleted_users import DeletedUsers
from functions.state.overdue import Overdue
from functions.state.schema import UserId, ended_tokens, sessions
from tests.contract.test_jobs import at_once
from tests.contract.test_keys import DAY, Process
from tests.unit.auth.test_tokens import KEY, private_pem, public_pem

SIGNER = Signer(private_pem(KEY), 1)
NOBODY = UserId("e" * 32)


@pytest.fixture
def ann(database: Database) -> User:
    return Accounts(database).add("Ann", "ann", "correct horse", "ann@example.org")


def begin(database: Database, user: User, agent: str = "browser", address: str = "192.0.2.7") -> tuple[str, str]:
    """Returns a new session and its token."""
    token = Sessions(database).begin(user, SIGNER, agent, address)
    return str(identity(token).claims["jti"]), token


def identity(token: str) -> Identity:
    return Verifier(public_pem(KEY)).verify(token)


def listed(database: Database, user: User) -> list[str]:
    return [session.id for session in Sessions(database).of(user.id)]


def rows(database: Database) -> dict[str, Row[Any]]:
    return {row.id: row for row in database.read(lambda connection: connection.execute(select(sessions)).all())}


def let_pass(database: Database, session: str, milliseconds: int) -> None:
    """Moves the times of a session into the past, as if that much time had passed."""
    past = {name: sessions.c[name] - milliseconds for name in ("created_at", "expires_at")}
    statement = update(sessions).where(sessions.c.id == session).values(past)
    database.run(lambda connection: connection.execute(statement))


def test_login_is_listed_until_its_token_expires(database: Database, ann: User) -> None:
    first, _ = begin(database, ann, "Mozilla/5.0\t" + "x" * 300, "2001:db8:1:2:3::4")
    second, _ = begin(database, ann, "", "")
    let_pass(database, first, 1000)
    assert listed(database, ann) == [second, first]
    nothing, shown = Sessions(database).of(ann.id)
    assert (shown.agent, shown.network) == ("Mozilla/5.0" + "x" * 189, "2001:db8:1:2::/64")
    assert (nothing.agent, nothing.network) == ("", "")
    assert nothing.expires_at - nothing.created_at in range(3_599_000, 3_601_000)
    assert nothing.used_at % DAY == 0
    assert nothing.used_at <= nothing.created_at < nothing.used_at + DAY + 1000
    let_pass(database, first, 3_600_000)
    assert listed(database, ann) == [second]
    Overdue(database).forget_logins(100)
    assert rows(database).keys() == {second}


def test_expired_sessions_are_forgotten_in_batches(database: Database, ann: User) -> None:
    kept, *expired = [begin(database, ann)[0] for _ in range(4)]
    for session in expired:
        let_pass(database, session, 3_600_000)
    assert [Overdue(database).forget_logins(2) for _ in range(2)] == [True, False]
    assert rows(database).keys() == {kept}


def test_only_the_newest_are_listed(database: Database, ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functions.auth.sessions.MAX_LISTED", 2)
    oldest, *others = [begin(database, ann)[0] for _ in range(3)]
    let_pass(database, oldest, 1000)
    assert {*listed(database, ann)} == {*others}


def test_login_beyond_the_most_withdraws_all_others(
    database: Database, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("functions.auth.sessions.MAX_SESSIONS", 3)
    tokens = [begin(database, ann)[1] for _ in range(3)]
    process = Process(database)
    assert {process.user(token) for token in tokens} == {ann.id}
    EndedTokens(database).end(identity(tokens[0]))
    eve = Accounts(database).add("Eve", "eve", "correct horse", "eve@example.org")
    kept, _ = begin(database, eve)
    session, token = begin(database, ann)
    process.seconds += MAX_AGE
    assert process.user(token) == ann.id
    assert [process.refuses(each) for each in tokens] == ["withdrawn"] * 3
    assert rows(database).keys() == {session, kept}
    assert EndedTokens(database).of(ann.id) == frozenset()


def test_logins_beyond_the_most_at_once_leave_one_valid(
    database: Database, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("functions.auth.sessions.MAX_SESSIONS", 1)
    begin(database, ann)
    tokens: list[str] = []
    refused: list[str] = []

    def log_in(_: int) -> None:
        try:
            tokens.append(begin(database, ann)[1])
        except Conflict as error:
            refused.append(str(error))

    at_once(3, log_in)
    assert [Process(database).user(token) for token in tokens] == [ann.id]
    assert len(refused) == 2


def test_login_fails_if_all_tokens_were_withdrawn_since_the_password_was_checked(database: Database, ann: User) -> None:
    """Its token would be refused from the first request on."""
    Profiles(database).withdraw_tokens(ann.id)
    with pytest.raises(Conflict, match="log in again"):
        begin(database, ann)
    assert rows(database) == {}


def test_ended_token_stays_refused_while_all_are_withdrawn(
    database: Database, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process asks which tokens have ended at the moment at which a new version makes that needless."""
    _, token = begin(database, ann)
    EndedTokens(database).end(identity(token))
    ended = EndedTokens.of

    def of(self: EndedTokens, user: UserId) -> frozenset[str]:
        monkeypatch.setattr("functions.auth.sessions.MAX_SESSIONS", 1)
        begin(database, ann)
        return ended(self, user)

    monkeypatch.setattr(EndedTokens, "of", of)
    assert Process(database).refuses(token) == "withdrawn"


def test_ended_session_is_refused_and_no_longer_listed(database: Database, ann: User) -> None:
    mine, my_token = begin(database, ann)
    other, other_token = begin(database, ann)
    process = Process(database)
    for _ in range(2):
        Sessions(database).end(other, ann.id)
    assert listed(database, ann) == [mine]
    assert process.refuses(other_token) == "withdrawn"
    assert process.user(my_token) == ann.id
    [ended] = database.read(lambda connection: connection.execute(select(ended_tokens)).all())
    assert ended.expires_at == rows(database)[other].expires_at + 600_000, "clocks may differ"
    assert EndedTokens(database).end(identity(my_token))
    assert listed(database, ann) == []


def test_sessions_of_others_do_not_exist(database: Database, ann: User) -> None:
    session, token = begin(database, ann)
    for owner, name in ((NOBODY, session), (ann.id, "f" * 32), (ann.id, "x\0"), (ann.id, session.upper() + "0")):
        with pytest.raises(SessionNotFound):
            Sessions(database).end(name, owner)
    assert Sessions(database).of(NOBODY) == []
    assert Process(database).user(token) == ann.id


def test_withdrawn_sessions_are_not_listed(database: Database, ann: User) -> None:
    begin(database, ann)
    Profiles(database).withdraw_tokens(ann.id)
    assert listed(database, ann) == []
    renewed = Accounts(database).authenticate("ann", "correct horse")
    session, _ = begin(database, renewed)
    assert listed(database, ann) == [session]


def test_deleted_user_has_no_sessions(database: Database, ann: User) -> None:
    session, _ = begin(database, ann)
    row = rows(database)[session]
    deleted = DeletedUsers(database)
    deleted.mark(ann.id)
    assert rows(database) == {}
    with pytest.raises(Conflict):
        begin(database, ann)  # the password was checked before
    # During a rolling update, a login of the previous version records it all the same.
    database.run(lambda connection: connection.execute(insert(sessions).values(row._asdict())))
    deleted.purge(ann.id)
    assert rows(database) == {}


def test_use_is_recorded_once_a_day(database: Database, ann: User) -> None:
    session, token = begin(database, ann)
    today = rows(database)[session].used_at
    process = Process(database)

    def use(seconds: float = 0.0) -> int:
        process.seconds += seconds
        assert process.user(token) == ann.id
        return int(rows(database)[session].used_at)

    def set_used(time: int) -> None:
        database.run(lambda connection: connection.execute(update(sessions).values(used_at=time)))

    set_used(today - 3 * DAY)
    assert use() in (today, today + DAY)
    set_used(0)
    assert use(MAX_AGE) == 0, "the process knows that it has recorded this day"
    assert use(DAY / 1000) > 0
    set_used(today + 5 * DAY)
    assert Sessions(database).use(session) > 0
    assert rows(database)[session].used_at == today + 5 * DAY, "another process has a later day"


def test_token_without_a_session_is_valid(database: Database, ann: User) -> None:
    """Those of logins before there were sessions."""
    token = SIGNER.sign(ann.id, "ann", "user")
    process = Process(database)
    assert process.user(token) == process.user(token) == ann.id
    assert listed(database, ann) == []


def test_use_that_cannot_be_recorded_prevents_no_request(
    database: Database, ann: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session, token = begin(database, ann)
    calls = []

    def fail(_: Sessions, session: str) -> float:
        calls.append(session)
        raise DatabaseUnavailable("The disk is full.")

    monkeypatch.setattr(Sessions, "use", fail)
    process = Process(database)
    with caplog.at_level(logging.WARNING):
        assert process.user(token) == process.user(token) == ann.id
    assert calls == [session], "not with each request"
    assert session in caplog.text
    process.seconds += MAX_AGE
    assert process.user(token) == ann.id
    assert calls == [session] * 2
