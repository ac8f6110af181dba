"""The contract of resumable uploads on every SQL database: exclusive writers, offsets and expiry."""

import base64
import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, event, func, select

from functions.auth.allowance import FetchLimit
from functions.auth.tokens import Identity
from functions.http_endpoint import BadRequest
from functions.media import Checkpoint, MediaUnavailable, StaleWriter
from functions.media.integrity import BlockAppender
from functions.options import Options
from functions.presets import BUILT_IN
from functions.state.blobs import Blobs
from functions.state.database import Database
from functions.state.fetches import Fetches
from functions.state.jobs import Jobs
from functions.state.leases import LeaseTerms
from functions.state.outbox import Outbox
from functions.state.presets import Presets
from functions.state.schema import UserId, blobs, metadata
from functions.upload.dependencies import Dependencies
from functions.upload.tus import receive as receive_module
from functions.upload.tus import uploads as uploads_module
from functions.upload.tus.headers import Checksum
from functions.upload.tus.receive import Part, WrongOffset, complete, discard, receive
from functions.upload.tus.uploads import Upload, UploadGone, UploadLocked, UploadNotFound, Uploads
from tests.contract.media_places import Place
from tests.contract.test_jobs import at_once
from tests.e2e.client import wave_bytes
from tests.support.databases import make_past
from tests.support.fakes import memory_media

OWNER = UserId("a" * 32)
OTHER_USER = UserId("b" * 32)
ADA = Identity(OWNER, "ada", "user", {})
SOUND = wave_bytes(0.5)


@pytest.fixture
def deps(database: Database) -> Dependencies:
    outbox = Outbox(database, lambda _, __: None)
    uploads = Uploads(database, terms=LeaseTerms(lease=2_000, renewal=500, due=2_500))
    return Dependencies(
        memory_media(),
        Blobs(database),
        Jobs(database),
        uploads,
        outbox,
        Presets(database, BUILT_IN),
        Fetches(database),
        FetchLimit(database),
    )


def begin(deps: Dependencies) -> Upload:
    return deps.uploads.begin(OWNER, "a.wav", Options(), "filename YQ==", len(SOUND), deps.quota.begin(ADA, len(SOUND)))


def count(database: Database, table: str) -> int:
    query = select(func.count()).select_from(metadata.tables[table])
    return int(database.run(lambda connection: connection.scalar(query)) or 0)


def test_only_its_owner_finds_an_upload(deps: Dependencies) -> None:
    upload = begin(deps)
    found = deps.uploads.find(upload.id, OWNER)
    assert (found.received, found.length, found.about, found.state) == (0, len(SOUND), "filename YQ==", "open")
    assert found.expires_in is not None
    assert 23.9 * 3_600_000 < found.expires_in <= 24 * 3_600_000
    for name, owner in ((upload.id, OTHER_USER), ("0" * 32, OWNER), ("x", OWNER)):
        with pytest.raises(UploadNotFound):
            deps.uploads.find(name, owner)


def test_finding_an_upload_is_one_query_by_primary_keys(deps: Dependencies, database: Database) -> None:
    upload = begin(deps)
    queries: list[tuple[str, Any]] = []
    event.listen(database.engine, "before_cursor_execute", lambda *arguments: queries.append(arguments[2:4]))
    deps.uploads.find(upload.id, OWNER)
    [(statement, values)] = [each for each in queries if each[0].startswith("SELECT")]

    def plan(connection: Connection) -> list[Any]:
        match database.engine.dialect.name:
            case "sqlite":
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
                return [row.detail.split(" (")[0].removeprefix("SEARCH ") for row in rows]
            case "postgresql":  # which would rather scan a table of one row
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
                rows = connection.exec_driver_sql(f"EXPLAIN {statement}", values)
                # Which index, and which kind of scan, depends on statistics that are gathered at any time.
                found = "\n".join(rows.scalars())
                return sorted(re.findall(r"(?:uploads|blobs)(?=_pkey|_blob_key)|Seq Scan", found))
            case _:
                rows = connection.exec_driver_sql(f"EXPLAIN {statement}", values)
                return [(row.table, row.type, row.key) for row in rows]

    assert database.run(plan) in (
        ["uploads USING INDEX sqlite_autoindex_uploads_1", "blobs USING INDEX sqlite_autoindex_blobs_1"],
        ["blobs", "uploads"],
        [("uploads", "const", "PRIMARY"), ("blobs", "const", "PRIMARY")],
    )


def test_eight_concurrent_completions_make_one_job(deps: Dependencies, database: Database) -> None:
    upload = receive(begin(deps), Part(0, iter([SOUND])), deps, ADA)
    assert at_once(8, lambda _: complete(upload, deps)) == [upload.job] * 8
    assert count(database, "jobs") == 1
    assert complete(deps.uploads.find(upload.id, OWNER), deps) == upload.job
    assert database.run(lambda connection: connection.scalar(select(blobs.c.expires_at))) is None


def test_a_dead_writer_is_replaced_and_can_no_longer_write(deps: Dependencies, database: Database) -> None:
    upload = begin(deps)
    with ExitStack() as dying:
        dead = dying.enter_context(deps.uploads.writing(upload))
        dead.save(Checkpoint(5, "00000001"))
        make_past(database, "uploads", "lease_until")
        with deps.uploads.writing(upload) as claim:
            assert (claim.upload.received, claim.upload.attempts) == (5, dead.upload.attempts + 1)
            for move in (
                dead.renew,
                lambda: dead.save(Checkpoint(7, "00000002")),
                lambda: dead.end(Checkpoint(7, "00000002")),
            ):
                with pytest.raises(StaleWriter):
                    move()
            claim.end(Checkpoint(6, "00000003"))
    assert deps.uploads.find(upload.id, OWNER).checkpoint == Checkpoint(6, "00000003")


def test_a_live_writer_excludes_others(deps: Dependencies, database: Database) -> None:
    deps = replace(deps, uploads=Uploads(database, terms=LeaseTerms(lease=60_000, renewal=50, due=100)))
    upload = begin(deps)

    def slowly() -> Iterator[bytes]:
        yield SOUND[:1000]
        with pytest.raises(UploadLocked), deps.uploads.writing(upload):
            pass

    assert receive(upload, Part(0, slowly()), deps, ADA).received == 1000


def test_the_writer_of_a_deleted_upload_gets_not_found(deps: Dependencies, database: Database) -> None:
    upload = begin(deps)
    with pytest.raises(UploadNotFound), deps.uploads.writing(upload) as claim:
        discard(upload, deps)
        claim.save(Checkpoint(5, "00000001"))
    assert count(database, "uploads") == 0
    assert count(database, "blobs") == 1  # until its writer has certainly stopped
    make_past(database, "blobs", "expires_at")
    for blob, store in deps.blobs.expired(10):
        deps.blobs.delete(deps.media, store, blob)
    assert count(database, "blobs") == 0


def sweep(deps: Dependencies) -> None:
    for blob, store in deps.blobs.expired(10):
        deps.blobs.delete(deps.media, store, blob)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("end", ["deleted", "deleted and swept", "expired and swept"])
def test_a_writer_whose_client_paused_leaves_nothing_of_an_upload_that_is_gone(
    deps: Dependencies, database: Database, place: Place, end: str
) -> None:
    deps = replace(deps, media=place.media)
    chunk = 1 << 20
    size = 32 * chunk
    upload = deps.uploads.begin(OWNER, "a.wav", Options(), "", size, deps.quota.begin(ADA, size))

    def content() -> Iterator[bytes]:
        yield SOUND.ljust(6 * chunk, b"-")
        make_past(database, "uploads", "lease_until")  # the client pauses
        if end.startswith("deleted"):
            discard(deps.uploads.find(upload.id, OWNER), deps)
            assert count(database, "blobs") == 1  # in case that the writer is killed before it notices
        if end.endswith("swept"):
            make_past(database, "blobs", "expires_at")
            sweep(deps)
        for _ in range(20):
            yield bytes(chunk)

    with pytest.raises((UploadNotFound, UploadGone, StaleWriter)):
        receive(upload, Part(0, content()), deps, ADA)
    make_past(database, "blobs", "expires_at")
    sweep(deps)
    assert (count(database, "uploads"), count(database, "blobs")) == (0, 0)
    assert not place.remains(upload.blob)


def storing_then_raising(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets stores fail from now on as when the answer is lost, after they have stored what they get."""
    pass_on = BlockAppender._pass_on

    def failing(appender: BlockAppender, blocks: list[bytes]) -> None:
        pass_on(appender, blocks)
        raise error

    monkeypatch.setattr(BlockAppender, "_pass_on", failing)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("error", [MediaUnavailable(), StaleWriter()], ids=["unavailable", "stale"])
def test_a_writer_whose_store_fails_leaves_nothing_of_an_upload_that_is_gone(
    deps: Dependencies, database: Database, place: Place, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    deps = replace(deps, media=place.media)
    size = 32 << 20
    upload = deps.uploads.begin(OWNER, "a.wav", Options(), "", size, deps.quota.begin(ADA, size))

    def content() -> Iterator[bytes]:
        yield SOUND.ljust(6 << 20, b"-")
        make_past(database, "uploads", "lease_until")  # the client pauses
        discard(deps.uploads.find(upload.id, OWNER), deps)
        make_past(database, "blobs", "expires_at")
        sweep(deps)
        storing_then_raising(error, monkeypatch)
        for _ in range(20):
            yield bytes(1 << 20)

    with pytest.raises((MediaUnavailable, StaleWriter)):
        receive(upload, Part(0, content()), deps, ADA)
    assert (count(database, "uploads"), count(database, "blobs")) == (0, 0)
    assert not place.remains(upload.blob)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_an_upload_that_is_deleted_while_it_is_completed_leaves_nothing(
    deps: Dependencies, database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    deps = replace(deps, media=place.media)
    upload = receive(begin(deps), Part(0, iter([SOUND])), deps, ADA)
    add = Jobs.add

    def swept(jobs: Jobs, *new: Any) -> Any:
        with monkeypatch.context() as context:
            context.setattr(type(place.videos), "delete", lambda *_: None)  # has gone before the file was visible
            discard(upload, deps)
        return add(jobs, *new)

    monkeypatch.setattr(Jobs, "add", swept)
    with pytest.raises(UploadGone):
        complete(upload, deps)
    assert (count(database, "uploads"), count(database, "blobs"), count(database, "jobs")) == (0, 0, 0)
    assert not place.remains(upload.blob)


def test_an_upload_that_nobody_writes_is_deleted_at_once(deps: Dependencies, database: Database) -> None:
    """Its bytes no longer count towards the quota."""
    upload = receive(begin(deps), Part(0, iter([SOUND[:1000]])), deps, ADA)
    discard(upload, deps)
    assert (count(database, "uploads"), count(database, "blobs")) == (0, 0)


def test_a_request_cannot_claim_an_upload_while_it_is_being_deleted(deps: Dependencies, database: Database) -> None:
    """Its bytes would be deleted at once although it writes them."""
    upload = begin(deps)
    claims: list[str] = []

    def claim() -> None:
        with deps.uploads.writing(upload) as claim:
            claims.append(claim.upload.id)

    with ThreadPoolExecutor(1) as other:

        def interfere(_: object, __: object, statement: str, *___: object) -> None:
            if statement.startswith("DELETE FROM uploads"):
                wait([other.submit(claim)], timeout=1)

        event.listen(database.engine, "before_cursor_execute", interfere)
        try:
            is_deleted_at_once = deps.uploads.delete(upload)
        finally:
            event.remove(database.engine, "before_cursor_execute", interfere)
    assert is_deleted_at_once
    assert claims == []


@pytest.mark.parametrize("has_checksum", [False, True])
def test_an_upload_does_not_expire_while_one_part_arrives_for_longer_than_it_may_wait(
    deps: Dependencies, database: Database, monkeypatch: pytest.MonkeyPatch, has_checksum: bool
) -> None:
    clock = [0.0]
    for module in (uploads_module, receive_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    deps = replace(deps, uploads=Uploads(database, hours=0.25))
    upload = begin(deps)

    def content() -> Iterator[bytes]:
        for start in range(0, len(SOUND), 200):
            clock[0] += 60
            make_past(database, "blobs", "expires_at", 60_000)
            sweep(deps)
            yield SOUND[start : start + 200]

    checksum = Checksum("sha1 " + base64.b64encode(hashlib.sha1(SOUND).digest()).decode())  # noqa: S324 - tus
    upload = receive(upload, Part(0, content(), checksum if has_checksum else None), deps, ADA)
    assert clock[0] > 2 * 0.25 * 3600
    assert complete(upload, deps) == upload.job


def test_an_expired_upload_is_refused_and_deleted_with_its_blob(deps: Dependencies, database: Database) -> None:
    upload = receive(begin(deps), Part(0, iter([SOUND[:1000]])), deps, ADA)
    make_past(database, "blobs", "expires_at")
    for call in (lambda: deps.uploads.find(upload.id, OWNER), lambda: complete(upload, deps)):
        with pytest.raises(UploadGone):
            call()
    [(blob, store)] = deps.blobs.expired(10)
    deps.blobs.delete(deps.media, store, blob)
    assert (count(database, "uploads"), count(database, "blobs"), count(database, "jobs")) == (0, 0, 0)


def test_a_refused_request_leaves_the_length_open(deps: Dependencies) -> None:
    """It has found the upload before another request went on with it."""
    upload = deps.uploads.begin(OWNER, "a.wav", Options(), "", None, deps.quota.begin(ADA, None))
    receive(upload, Part(0, iter([SOUND[:1000]])), deps, ADA)
    with pytest.raises(WrongOffset):
        receive(upload, Part(0, iter([SOUND]), length=len(SOUND)), deps, ADA)
    assert deps.uploads.find(upload.id, OWNER).length is None


def test_a_request_cannot_replace_the_length_that_another_one_has_declared(deps: Dependencies) -> None:
    upload = deps.uploads.begin(OWNER, "a.wav", Options(), "", None, deps.quota.begin(ADA, None))
    declared = receive(upload, Part(0, iter([SOUND[:1000]]), length=len(SOUND)), deps, ADA)
    assert (declared.length, declared.is_complete) == (len(SOUND), False)
    late = replace(upload, received=1000)
    with pytest.raises(BadRequest):
        receive(late, Part(1000, iter([SOUND[1000:2000]]), length=2000), deps, ADA)
    found = deps.uploads.find(upload.id, OWNER)
    assert (found.length, found.received) == (len(SOUND), 1000)
    assert receive(found, Part(1000, iter([SOUND[1000:]])), deps, ADA).is_complete


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_killed_process_loses_at_most_nine_megabytes(deps: Dependencies) -> None:
    chunk = 1 << 18
    size = 40 << 20
    upload = deps.uploads.begin(OWNER, "a.wav", Options(), "", size, deps.quota.begin(ADA, size))
    lost: list[int] = []

    def content() -> Iterator[bytes]:
        for sent in range(0, size, chunk):
            lost.append(sent - deps.uploads.find(upload.id, OWNER).received)  # if the process were killed now
            yield SOUND.ljust(chunk, b"-") if not sent else bytes(chunk)

    assert receive(upload, Part(0, content()), deps, ADA).is_complete
    assert max(lost) < 9_000_000


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_the_cost_of_a_part_does_not_grow_with_their_number(deps: Dependencies, database: Database) -> None:
    statements: list[int] = []
    event.listen(database.engine, "before_cursor_execute", lambda *_: statements.append(1))
    upload = begin(deps)
    costs: list[int] = []
    for start in range(0, 2000, 10):
        statements.clear()
        upload = receive(upload, Part(start, iter([SOUND[start : start + 10]])), deps, ADA)
        costs.append(len(statements))
    assert len(costs) == 200
    assert len(set(costs[1:])) == 1
