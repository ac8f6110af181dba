"""Tags of finished MP3s on every SQL database: changed at once, within the quota, gone with their job."""

import base64
import zlib
from dataclasses import replace

import pytest
from sqlalchemy import insert, select, update

from events.schema import JobId
from functions.auth.tokens import Identity
from functions.edit import api, tagging
from functions.edit.tagging import Tagging
from functions.http_endpoint import Unprocessable
from functions.media import Description, new_blob_id, open_mp3
from functions.mp3 import id3, tags
from functions.options import Options
from functions.state.blobs import Blobs
from functions.state.database import Database
from functions.state.jobs import JobNotFound, Jobs, NewJob, NoMp3, Outcome, new_job_id
from functions.state.quota import Quota, QuotaFull
from functions.state.schema import UserId, blobs, now, users
from functions.state.tags import NewTag, Tags
from tests.contract.test_jobs import at_once
from tests.support.fakes import memory_media

ADA, BOB = (Identity(UserId(name * 32), name, "user", {}) for name in "ab")
FIRST = id3.build_tag({"title": "First", "album": "Kept"}, "a.mp4", b"")
SOUND = bytes(range(256)) * 3000
JPEG = b"\xff\xd8\xff" + bytes(1000)


@pytest.fixture
def deps(database: Database) -> Tagging:
    row = {"id": ADA.user, "username": "a", "role": "user", "created_at": now()}
    row |= dict.fromkeys(("email", "name", "password_hash"), "-")
    database.run(lambda connection: connection.execute(insert(users).values(row)))
    return Tagging(memory_media(), Jobs(database), Tags(database), Blobs(database), Quota())


@pytest.fixture
def job(deps: Tagging) -> JobId:
    """A job that is done."""
    job = begun(deps)
    lease = deps.jobs.claim(job)
    assert lease is not None
    with deps.blobs.writing(deps.media, "mp3s", Description(ADA.user, job, "a.mp3", "audio/mpeg")) as mp3:
        mp3.write(FIRST + SOUND)
    crc32 = f"{zlib.crc32(FIRST + SOUND):08x}"
    assert deps.jobs.finish(lease, Outcome(mp3.blob, 60.0, None, mp3.size, crc32=crc32))
    return job


def begun(deps: Tagging) -> JobId:
    job = new_job_id()
    with deps.blobs.writing(deps.media, "videos", Description(ADA.user, job, "a.mp4", "video/mp4")) as video:
        video.write(b"video")
    return deps.jobs.add(NewJob(job, ADA.user, video.blob, "a.mp4", Options())).id


def content_of(deps: Tagging, job: JobId) -> bytes:
    found = deps.jobs.get(job, ADA.user)
    assert found.mp3 is not None
    with open_mp3(deps.media.mp3s, found.stored) as mp3:
        return mp3.read()


def rows(database: Database) -> list[tuple[str, int, bool]]:
    """The blobs of MP3s and tags: id, bytes that count, whether they are retained."""
    query = select(blobs.c.id, blobs.c.size, blobs.c.expires_at).where(blobs.c.store == "mp3s")
    return database.run(lambda connection: [(row[0], row[1], row[2] is None) for row in connection.execute(query)])


def test_new_tag_is_in_front_of_the_same_sound(deps: Tagging, job: JobId, database: Database) -> None:
    before = deps.jobs.get(job, ADA.user)
    shown = tagging.change(job, ADA, api.TagChange(title="Second", cover=base64.b64encode(JPEG).decode()), deps)

    assert (shown.title, shown.album, shown.cover) == ("Second", "Kept", api.Cover("image/jpeg", len(JPEG)))
    assert shown == tagging.show(job, ADA, deps)
    new = id3.build_tag({"title": "Second", "album": "Kept"}, "a.mp4", JPEG)
    assert content_of(deps, job) == new + SOUND
    after = deps.jobs.get(job, ADA.user)
    assert (after.mp3, after.record.mp3_size) == (before.mp3, len(new + SOUND))
    assert after.mp3_crc32 == f"{zlib.crc32(new + SOUND):08x}"
    assert set(rows(database)) == {(after.mp3, len(FIRST + SOUND), True), (after.tag, len(new), True)}


def test_second_change_replaces_the_tag_but_not_at_once(deps: Tagging, job: JobId, database: Database) -> None:
    tagging.change(job, ADA, api.TagChange(title="Second"), deps)
    second = deps.jobs.get(job, ADA.user)
    assert second.mp3 is not None
    with open_mp3(deps.media.mp3s, second.stored) as download:
        begin = download.read(10)
        tagging.change(job, ADA, api.TagChange(title="A third title"), deps)
        swept = deps.blobs.expired(100)
        assert (begin + download.read())[: download.stat.size].endswith(SOUND)
    assert swept == []
    third = deps.jobs.get(job, ADA.user)
    assert second.tag in {blob for blob, size, is_retained in rows(database) if size and not is_retained}
    assert (third.tag, tags.size_of(content_of(deps, job)), True) in rows(database)


def test_change_that_changes_nothing_writes_nothing(deps: Tagging, job: JobId, database: Database) -> None:
    tagging.change(job, ADA, api.TagChange(title="Second"), deps)
    before = rows(database)
    tagging.change(job, ADA, api.TagChange(title="Second", album="Kept"), deps)
    assert rows(database) == before


def test_two_changes_at_once_both_take_effect(deps: Tagging, job: JobId) -> None:
    changes = [api.TagChange(title="Second"), api.TagChange(album="Other"), api.TagChange(artist="Ada")]
    at_once(3, lambda n: tagging.change(job, ADA, changes[n], deps))
    shown = tagging.show(job, ADA, deps)
    assert (shown.title, shown.album, shown.artist) == ("Second", "Other", "Ada")


def test_deleted_job_takes_its_tags_along(deps: Tagging, job: JobId, database: Database) -> None:
    tagging.change(job, ADA, api.TagChange(title="Second"), deps)
    deps.jobs.delete(job, ADA.user)
    assert not any(is_retained for _, _, is_retained in rows(database))


def test_tag_is_not_recorded_for_a_job_that_was_deleted(deps: Tagging, job: JobId) -> None:
    found = deps.jobs.get(job, ADA.user)
    deps.jobs.delete(job, ADA.user)
    assert not deps.tags.replace(found, NewTag(new_blob_id(), 1, 2, 3))


def test_tag_counts_towards_the_quota(deps: Tagging, job: JobId) -> None:
    full = replace(deps, quota=Quota(size=len(FIRST + SOUND) + 500))
    tagging.change(job, ADA, api.TagChange(title="Second"), full)
    with pytest.raises(QuotaFull):
        tagging.change(job, ADA, api.TagChange(title="x" * 900), full)
    assert tagging.show(job, ADA, deps).title == "Second"


def test_replaced_tags_count_as_long_as_they_are_stored(deps: Tagging, job: JobId, database: Database) -> None:
    limited = replace(deps, quota=Quota(size=len(FIRST + SOUND) + 10 * len(FIRST)))
    with pytest.raises(QuotaFull):
        for number in range(20):
            tagging.change(job, ADA, api.TagChange(title=str(number)), limited)
    past = update(blobs).where(blobs.c.expires_at.is_not(None)).values(expires_at=now() - 1)
    database.run(lambda connection: connection.execute(past))
    assert tagging.change(job, ADA, api.TagChange(title="later"), limited).title == "later"


def test_only_the_owner_of_an_mp3_has_its_tags(deps: Tagging, job: JobId) -> None:
    with pytest.raises(JobNotFound):
        tagging.show(job, BOB, deps)
    with pytest.raises(JobNotFound):
        tagging.change(job, BOB, api.TagChange(title="Bob's"), deps)
    with pytest.raises(NoMp3):
        tagging.change(begun(deps), ADA, api.TagChange(title="Early"), deps)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (api.TagChange(date="soon"), "date"),
        (api.TagChange(cover="?"), "cover"),
        (api.TagChange(cover=base64.b64encode(b"GIF89a").decode()), "cover"),
        (api.TagChange(chapters=[api.ChapterChange(0, "a"), api.ChapterChange(99, "b")]), "chapters"),
        (api.TagChange(chapters=[api.ChapterChange(9, "a"), api.ChapterChange(3, "b")]), "chapters"),
        (api.TagChange(chapters=[api.ChapterChange(9, "a", 20), api.ChapterChange(3, "b", 5)]), "chapters"),
        (api.TagChange(chapters=[api.ChapterChange(3, "a"), api.ChapterChange(3.0004, "b")]), "chapters"),
    ],
)
def test_invalid_values_are_named(wanted: api.TagChange, field: str) -> None:
    with pytest.raises(Unprocessable) as raised:
        tagging.changed_tag(FIRST, 60.0, wanted)
    assert list(raised.value.fields) == [field]


def test_empty_list_removes_the_chapters() -> None:
    with_chapters = tagging.changed_tag(FIRST, 60.0, api.TagChange(chapters=[api.ChapterChange(0, "a")]))[0]
    assert tagging.changed_tag(with_chapters, 60.0, api.TagChange(chapters=[]))[0] == FIRST


def test_chapters_end_where_the_next_one_begins() -> None:
    wanted = api.TagChange(
        chapters=[api.ChapterChange(0, "a", 5), api.ChapterChange(9, "b"), api.ChapterChange(20, "c")]
    )
    found = tagging.changed_tag(FIRST, 60.0, wanted)[1].chapters
    assert [(chapter.start, chapter.end) for chapter in found] == [(0, 5), (9, 20), (20, 60)]
