"""The contract of quotas on every SQL database, also under concurrent requests."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import insert, select

from events.schema import JobId
from functions.auth.allowance import FetchLimit
from functions.auth.tokens import Identity
from functions.media import Description, new_blob_id
from functions.options import Options
from functions.presets import BUILT_IN
from functions.state.blobs import Blobs
from functions.state.database import Database
from functions.state.fetches import Fetches
from functions.state.jobs import Jobs, Outcome
from functions.state.outbox import Outbox
from functions.state.presets import Presets
from functions.state.quota import Quota, QuotaFull, TooManyJobs
from functions.state.schema import UserId, blobs, now, uploads, users
from functions.upload.dependencies import Dependencies
from functions.upload.main import create_job
from functions.upload.multipart import ClientDisconnected, Form
from functions.upload.tus.receive import Part, complete, discard, receive
from functions.upload.tus.uploads import Upload, Uploads
from tests.contract.test_jobs import at_once
from tests.e2e.client import wave_bytes
from tests.support.databases import make_past
from tests.support.fakes import memory_media

ADA, BOB = (Identity(UserId(name * 32), name, "user", {}) for name in "ab")
ROOT = Identity(UserId("a" * 32), "a", "admin", {})
SOUND = wave_bytes(0.5)
SIZE = len(SOUND)


@pytest.fixture
def deps(database: Database) -> Dependencies:
    for who in (ADA, BOB):
        row = {"id": who.user, "username": who.username, "role": "user", "created_at": now()}
        row |= dict.fromkeys(("email", "name", "password_hash"), "-")
        database.run(lambda connection, row=row: connection.execute(insert(users).values(row)))  # type: ignore[misc]
    return Dependencies(
        media=memory_media(),
        blobs=Blobs(database),
        jobs=Jobs(database),
        uploads=Uploads(database),
        outbox=Outbox(database, lambda _, __: None),
        presets=Presets(database, BUILT_IN),
        fetches=Fetches(database),
        fetch_limit=FetchLimit(database),
    )


def with_quota(deps: Dependencies, **quota: int) -> Dependencies:
    return replace(deps, quota=Quota(**quota))


def begin(deps: Dependencies, length: int | None = SIZE, who: Identity = ADA) -> Upload:
    return deps.uploads.begin(who.user, "a.wav", Options(), "", length, deps.quota.begin(who, length))


def post(
    deps: Dependencies, length: int | None = SIZE, content: Iterator[bytes] | None = None, who: Identity = ADA
) -> JobId:
    """Uploads as POST /upload does, and returns the job's id."""
    return create_job(Form("a.wav", {}, content or iter([SOUND])), who, None, deps, length).id


def convert(deps: Dependencies, job: JobId, size: int) -> None:
    lease = deps.jobs.claim(job)
    assert lease is not None
    with deps.blobs.writing(deps.media, "mp3s", Description(ADA.user, job, "a.mp3", "audio/mpeg")) as mp3:
        mp3.write(bytes(size))
    assert deps.jobs.finish(lease, Outcome(mp3.blob, 1.0, None, mp3.size))


def test_concurrent_uploads_cannot_exceed_the_quota(deps: Dependencies) -> None:
    for quota, error_type in (({"jobs": 3}, TooManyJobs), ({"size": 4 * SIZE - 1}, QuotaFull)):
        limited = with_quota(deps, **quota)
        begun: list[Upload] = []

        def start_one(n: int, limited: Dependencies = limited, begun: list[Upload] = begun) -> type[Exception] | None:
            try:
                if n % 2:
                    post(limited)
                else:
                    begun.append(begin(limited))
            except (TooManyJobs, QuotaFull) as error:
                return type(error)
            return None

        outcomes = at_once(8, start_one)
        assert sorted(map(str, outcomes)) == sorted(map(str, [None] * 3 + [error_type] * 5))
        assert begin(limited, who=BOB).size == SIZE
        assert begin(limited, who=ROOT).size == SIZE
        for job in limited.jobs.page(ADA.user, 100):
            limited.jobs.delete(job.id, ADA.user)
        for upload in [*begun, *(limited.uploads.find(u, ADA.user) for u in open_uploads(limited))]:
            discard(upload, limited)


def open_uploads(deps: Dependencies) -> list[str]:
    query = select(uploads.c.id).where(uploads.c.owner == ADA.user)
    return deps.blobs._database.run(lambda connection: list(connection.scalars(query)))


def test_whatever_ends_frees_its_quota(deps: Dependencies, database: Database) -> None:
    deps = with_quota(deps, jobs=1)
    convert(deps, post(deps), 10)
    lease = deps.jobs.claim(post(deps))
    assert lease is not None
    deps.jobs.fail(lease, "no")
    deps.jobs.delete(post(deps), ADA.user)
    discard(begin(deps), deps)
    begin(deps)
    make_past(database, "blobs", "expires_at")
    lose_connection(deps)
    upload = receive(begin(deps), Part(0, iter([SOUND])), deps, ADA)
    for _ in range(2):
        with pytest.raises(TooManyJobs) as refused:
            post(deps)
        assert refused.value.retry_after > 0
        complete(upload, deps)  # now a job, which is still in progress


def lose_connection(deps: Dependencies) -> None:
    def content() -> Iterator[bytes]:
        yield SOUND[:1000]
        raise ClientDisconnected("The connection was lost: send the file again.")

    with pytest.raises(ClientDisconnected):
        post(deps, SIZE, content())


def test_videos_and_mp3s_count_until_they_are_deleted(deps: Dependencies) -> None:
    deps = with_quota(deps, size=2 * SIZE + 10)
    job = post(deps)
    convert(deps, job, 10)
    upload = begin(deps)
    with pytest.raises(QuotaFull, match=f"store {2 * SIZE + 10} bytes .* and 0 are left"):
        begin(deps, 1)
    complete(receive(upload, Part(0, iter([SOUND])), deps, ADA), deps)
    for start_another in (lambda: begin(deps, 1), lambda: begin(deps, None), lambda: post(deps, None)):
        with pytest.raises(QuotaFull):
            start_another()
    deps.jobs.delete(job, ADA.user)
    with pytest.raises(QuotaFull, match=f"and {SIZE + 10} are left"):
        begin(deps, SIZE + 11)
    assert begin(deps, SIZE + 10).size == SIZE + 10


def test_upload_of_unknown_length_may_use_only_what_is_left(deps: Dependencies) -> None:
    deps = with_quota(deps, size=SIZE)
    post(deps, None)
    for job in deps.jobs.page(ADA.user, 10):
        deps.jobs.delete(job.id, ADA.user)
    with pytest.raises(QuotaFull):
        post(deps, None, iter([SOUND, b"+"]))
    upload = receive(begin(deps, None), Part(0, iter([SOUND[:1000]])), deps, ADA)
    with pytest.raises(QuotaFull):
        receive(upload, Part(1000, iter([SOUND[1000:], b"+"])), deps, ADA)
    upload = deps.uploads.find(upload.id, ADA.user)
    read: list[bytes] = []
    with pytest.raises(QuotaFull):
        receive(upload, Part(upload.received, map(read.append, [b"+"]), length=SIZE + 1), deps, ADA)  # type: ignore[arg-type]
    assert read == []


def test_a_deferred_length_replaces_the_reservation(deps: Dependencies) -> None:
    deps = with_quota(deps, size=2 * SIZE)
    upload = receive(begin(deps, None), Part(0, iter([SOUND[:1000]])), deps, ADA)
    assert upload.size == 2 * SIZE
    with pytest.raises(QuotaFull):
        begin(deps, 1)
    complete(receive(upload, Part(1000, iter([SOUND[1000:]]), length=SIZE), deps, ADA), deps)
    assert begin(deps).size == SIZE


def test_the_overhead_of_a_form_does_not_count(deps: Dependencies) -> None:
    deps = with_quota(deps, size=SIZE)

    def send(*content: bytes, overhead: int) -> None:
        create_job(Form("a.wav", {}, iter(content), overhead), ADA, None, deps, SIZE + 500)

    for content, overhead in (((SOUND, b"+"), 1000), ((SOUND,), 0)):
        with pytest.raises(QuotaFull):
            send(*content, overhead=overhead)
    send(SOUND, overhead=1000)


def test_upload_is_told_what_is_left_with_it(deps: Dependencies) -> None:
    told: dict[str, tuple[int, int]] = {}
    quota = Quota(jobs=5, size=1000)
    for length in (100, 50):
        grant = quota.begin(ADA, length, tell=lambda limit: told.update({limit.name: (limit.quota, limit.left)}))
        deps.uploads.begin(ADA.user, "a.wav", Options(), "", length, grant)
    assert told == {"jobs": (5, 3), "storage": (1000, 850)}


def test_a_repeated_transaction_does_not_count_its_own_blob(deps: Dependencies) -> None:
    """The first try was committed, but its answer was lost."""
    deps = with_quota(deps, jobs=1, size=SIZE)
    blob = new_blob_id()
    grant = deps.quota.begin(ADA, SIZE)
    database = deps.blobs._database
    row = {"id": blob, "store": "videos", "owner": ADA.user, "job": "c" * 32, "size": SIZE, "expires_at": now() + 9_000}
    database.run(lambda connection: connection.execute(insert(blobs).values(row)))
    assert database.run(lambda connection: grant(connection, blob)) == SIZE
    with pytest.raises(TooManyJobs):
        database.run(lambda connection: grant(connection, new_blob_id()))
