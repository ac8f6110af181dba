"""Parts of MP3s on every SQL database: recorded once, within the quota; their sound stays with the last of them."""

import base64
import io
from dataclasses import replace

import pytest
from sqlalchemy import select

from events.schema import JobId
from functions.edit import api, splitting, tagging
from functions.edit.splitting import Splitting
from functions.edit.tagging import Tagging
from functions.http_endpoint import Unprocessable
from functions.media import Description, open_mp3
from functions.mp3 import cut, id3, tags
from functions.mp3.chapters import Chapter
from functions.mp3.cut import read_timeline
from functions.state.database import Database
from functions.state.jobs import Job, JobNotFound, Jobs, Outcome
from functions.state.overdue import Overdue
from functions.state.parts import Parts, TooManyParts
from functions.state.quota import Quota, QuotaFull, usage
from functions.state.schema import UserId, blobs
from functions.waveform import Waveform
from tests.contract.test_jobs import at_once
from tests.contract.test_tags import ADA, BOB, begun
from tests.contract.test_tags import deps as deps_for_tags
from tests.support import clips

tagged = deps_for_tags
CHAPTERS = [Chapter(0, 1, "Intro"), Chapter(1, 2.5, "Middle"), Chapter(2.5, 4, "End/Coda")]
#: A point for each half of a second.
WAVEFORM = Waveform(48000, 24000, bytes(range(16)))
BY_CHAPTERS = api.SplitRequest("chapters")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The frames of an MP3, with their Info tag."""
    path = tmp_path_factory.mktemp("sound") / "a.mp3"
    return clips.without_id3(clips.clip(path, "-c:a", "libmp3lame", "-q:a", "4", seconds=4).read_bytes())


@pytest.fixture
def deps(tagged: Tagging, database: Database) -> Splitting:
    return Splitting(tagged, Parts(database))


@pytest.fixture
def job(deps: Splitting, sound: bytes) -> JobId:
    """A job that is done, with chapters."""
    tag = id3.build_tag({"title": "Talk", "artist": "Ada"}, "a.mp4", b"", CHAPTERS)
    job = begun(deps.tagging)
    lease = deps.tagging.jobs.claim(job)
    assert lease is not None
    description = Description(ADA.user, job, "a.mp3", "audio/mpeg")
    with deps.tagging.blobs.writing(deps.tagging.media, "mp3s", description) as mp3:
        mp3.write(tag + sound)
    assert deps.tagging.jobs.finish(lease, Outcome(mp3.blob, 4.0, None, mp3.size, waveform=WAVEFORM))
    return job


def get(deps: Splitting, job: str) -> Job:
    return deps.tagging.jobs.get(job, ADA.user)


def content_of(deps: Splitting, job: str) -> bytes:
    with open_mp3(deps.tagging.media.mp3s, get(deps, job).stored) as mp3:
        return mp3.read()


def length(mp3: bytes) -> int:
    return read_timeline(io.BytesIO(mp3), tags.size_of(mp3)).length


def retained(database: Database) -> int:
    """How many blobs of MP3s are retained."""
    query = select(blobs.c.id).where(blobs.c.store == "mp3s", blobs.c.expires_at.is_(None))
    return len(database.run(lambda connection: connection.execute(query).all()))


def test_parts_are_jobs_with_tags_of_their_own(deps: Splitting, job: JobId) -> None:
    parts = splitting.split(job, ADA, BY_CHAPTERS, deps).parts
    assert [(part.start, part.end) for part in parts] == [(0, 1), (1, 2.5), (2.5, 4)]
    assert [part.filename for part in parts] == ["a - 1 Intro.mp3", "a - 2 Middle.mp3", "a - 3 End_Coda.mp3"]
    shown = [tagging.show(part.job, ADA, deps.tagging) for part in parts]
    assert [(tag.title, tag.album, tag.artist, tag.track) for tag in shown] == [
        ("Intro", "Talk", "Ada", "1/3"),
        ("Middle", "Talk", "Ada", "2/3"),
        ("End/Coda", "Talk", "Ada", "3/3"),
    ]
    assert not any(tag.chapters for tag in shown)
    mp3s = [content_of(deps, part.job) for part in parts]
    assert sum(map(length, mp3s)) == length(content_of(deps, job))
    for part, mp3 in zip(parts, mp3s, strict=True):
        found = get(deps, part.job)
        assert (found.state, found.mp3, found.source) == ("done", part.mp3, job)
        assert found.record.mp3_size == len(mp3)  # and its checksum is verified when it is read


def test_parts_have_their_parts_of_the_waveform(deps: Splitting, job: JobId) -> None:
    parts = splitting.split(job, ADA, api.SplitRequest([1.0, 2.6]), deps).parts
    found = [deps.tagging.jobs.waveform(get(deps, part.job)) for part in parts]
    assert [each and each.data for each in found] == [bytes(range(4)), bytes(range(4, 12)), bytes(range(10, 16))]
    inner = splitting.split(parts[1].job, ADA, api.SplitRequest([1.0]), deps).parts[1]
    assert deps.tagging.jobs.waveform(get(deps, inner.job)) == replace(WAVEFORM, data=bytes(range(8, 12)))
    odd = splitting.split(parts[2].job, ADA, api.SplitRequest([0.3, 0.45]), deps).parts[1]  # from 2.9 to 3.05 s
    assert deps.tagging.jobs.waveform(get(deps, odd.job)) == WAVEFORM.part(139_200, 146_400)
    tagging.change(parts[0].job, ADA, api.TagChange(title="Other"), deps.tagging)
    assert deps.tagging.jobs.waveform(get(deps, parts[0].job)) == found[0]


def test_chapters_of_a_part_are_on_its_own_clock(deps: Splitting, job: JobId) -> None:
    first, second = splitting.split(job, ADA, api.SplitRequest([2.0], ["One", "Two"]), deps).parts
    assert [chapter.title for chapter in tagging.show(first.job, ADA, deps.tagging).chapters] == ["Intro", "Middle"]
    found = tagging.show(second.job, ADA, deps.tagging)
    assert [(chapter.start, chapter.end) for chapter in found.chapters] == [(0, 0.5), (0.5, 2)]
    assert found.title == "Two"


def test_first_part_has_the_title_of_a_chapter_that_begins_almost_at_once(deps: Splitting, job: JobId) -> None:
    chapters = [api.ChapterChange(0.05, "Intro"), api.ChapterChange(1, "Middle")]
    tagging.change(job, ADA, api.TagChange(chapters=chapters), deps.tagging)
    parts = splitting.split(job, ADA, BY_CHAPTERS, deps).parts
    assert [part.filename for part in parts] == ["a - 1 Intro.mp3", "a - 2 Middle.mp3"]


def test_splitting_again_makes_no_further_parts(deps: Splitting, job: JobId, database: Database) -> None:
    first = splitting.split(job, ADA, BY_CHAPTERS, deps)
    before = retained(database)
    assert splitting.split(job, ADA, BY_CHAPTERS, deps) == first
    assert (retained(database), len(deps.tagging.jobs.page(ADA.user, 100))) == (before, 4)
    deps.tagging.jobs.delete(first.parts[1].job, ADA.user)
    assert [part.job for part in splitting.split(job, ADA, BY_CHAPTERS, deps).parts] == [
        part.job for part in first.parts
    ]


def test_requests_at_once_make_the_same_parts(deps: Splitting, job: JobId, database: Database) -> None:
    results: dict[int, api.Split] = {}
    at_once(3, lambda n: results.update({n: splitting.split(job, ADA, BY_CHAPTERS, deps)}))
    assert results[0] == results[1] == results[2]
    assert retained(database) == 4  # heads and sound


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_sound_stays_until_its_last_mp3_is_deleted(
    order: list[int], deps: Splitting, job: JobId, database: Database
) -> None:
    parts = splitting.split(job, ADA, BY_CHAPTERS, deps).parts
    jobs = [job, *(JobId(part.job) for part in parts)]
    contents = {each: content_of(deps, each) for each in jobs}
    for number in order:
        deps.tagging.jobs.delete(jobs[number], ADA.user)
        del contents[jobs[number]]
        for blob, store in deps.tagging.blobs.expired(100):
            deps.tagging.blobs.delete(deps.tagging.media, store, blob)
        for each, content in contents.items():
            assert content_of(deps, each) == content
    assert retained(database) == 0
    assert usage(database, ADA.user).size == 0


def test_sound_is_deleted_if_its_mp3s_are_deleted_at_once(deps: Splitting, job: JobId, database: Database) -> None:
    jobs = [job, *(part.job for part in splitting.split(job, ADA, BY_CHAPTERS, deps).parts)]
    at_once(len(jobs), lambda n: deps.tagging.jobs.delete(jobs[n], ADA.user))
    assert retained(database) == 0


def test_parts_retire_with_their_sound(deps: Splitting, job: JobId, database: Database) -> None:
    splitting.split(job, ADA, BY_CHAPTERS, deps)
    assert Overdue(database).retire(-1, 100) == 4
    assert retained(database) == 0


def test_part_can_be_split_and_changed(deps: Splitting, job: JobId) -> None:
    part = splitting.split(job, ADA, BY_CHAPTERS, deps).parts[1]
    before = content_of(deps, part.job)
    tagging.change(part.job, ADA, api.TagChange(title="A much longer title than before"), deps.tagging)
    changed = content_of(deps, part.job)
    assert clips.without_id3(changed) == clips.without_id3(before)
    assert get(deps, part.job).record.mp3_size == len(changed)
    deps.tagging.jobs.delete(job, ADA.user)
    inner = splitting.split(part.job, ADA, api.SplitRequest([0.5]), deps).parts
    assert sum(length(content_of(deps, each.job)) for each in inner) == length(before)
    assert [tagging.show(each.job, ADA, deps.tagging).title for each in inner] == [
        "A much longer title than before (1)",
        "A much longer title than before (2)",
    ]


def test_mp3_whose_tag_was_replaced_can_be_split(deps: Splitting, job: JobId) -> None:
    expected = splitting.split(job, ADA, api.SplitRequest([1.3]), deps).parts
    sounds = [clips.without_id3(content_of(deps, part.job)) for part in expected]
    for part in expected:
        deps.tagging.jobs.delete(part.job, ADA.user)
    tagging.change(job, ADA, api.TagChange(title="A much longer title than before"), deps.tagging)
    parts = splitting.split(job, ADA, api.SplitRequest([1.3]), deps).parts
    assert [clips.without_id3(content_of(deps, part.job)) for part in parts] == sounds


def test_parts_count_towards_the_quota(deps: Splitting, job: JobId, database: Database) -> None:
    used = usage(database, ADA.user).size
    parts = splitting.split(job, ADA, BY_CHAPTERS, deps).parts
    heads = usage(database, ADA.user).size - used
    assert 0 < heads < 9000
    for part in parts:
        deps.tagging.jobs.delete(part.job, ADA.user)
    full = replace(deps, tagging=replace(deps.tagging, quota=Quota(size=used + heads - 1)))
    with pytest.raises(QuotaFull):
        splitting.split(job, ADA, BY_CHAPTERS, full)
    assert usage(database, ADA.user).size == used


def test_only_the_owner_of_an_mp3_can_split_it(deps: Splitting, job: JobId) -> None:
    with pytest.raises(JobNotFound):
        splitting.split(job, BOB, BY_CHAPTERS, deps)


def test_deleted_job_is_not_split(deps: Splitting, job: JobId, database: Database) -> None:
    found = get(deps, job)
    Jobs(database).delete(job, ADA.user)
    assert not deps.parts.add(found, [])


def test_parts_must_make_sense(deps: Splitting, job: JobId) -> None:
    for wanted, field in (
        (api.SplitRequest([0.0]), "at"),
        (api.SplitRequest([4.0]), "at"),
        (api.SplitRequest([2.0, 1.0]), "at"),
        (api.SplitRequest([1.0, 1.01]), "at"),
        (api.SplitRequest([1.0], ["only one"]), "titles"),
    ):
        with pytest.raises(Unprocessable) as raised:
            splitting.split(job, ADA, wanted, deps)
        assert list(raised.value.fields) == [field]


def test_chapters_too_close_for_a_part_are_one(deps: Splitting, job: JobId) -> None:
    starts = [(0, "Jingle"), (0.04, "Intro"), (2, "Ad"), (2.05, ""), (2.09, "Talk"), (3.95, "End")]
    chapters = [api.ChapterChange(start, title) for start, title in starts]
    tagging.change(job, ADA, api.TagChange(chapters=chapters), deps.tagging)
    parts = splitting.split(job, ADA, BY_CHAPTERS, deps).parts
    assert [(part.start, part.filename) for part in parts] == [(0, "a - 1 Intro.mp3"), (2, "a - 2 Talk.mp3")]


def test_splitting_again_gives_the_parts_other_titles_and_keeps_their_other_tags(deps: Splitting, job: JobId) -> None:
    """A title that the owner has given a part stays until a split says another one than the split before."""
    first, last = splitting.split(job, ADA, api.SplitRequest([1.0], ["One", "Two"]), deps).parts
    tagging.change(last.job, ADA, api.TagChange(title="Mine", genre="Talk"), deps.tagging)
    for again in (api.SplitRequest([1.0], ["One", "Two"]), api.SplitRequest([1.0], ["One", ""])):
        assert [part.filename for part in splitting.split(job, ADA, again, deps).parts] == [
            "a - 1 One.mp3",
            "a - 2 Two.mp3",
        ]
    assert tagging.show(last.job, ADA, deps.tagging).title == "Mine"

    parts = splitting.split(job, ADA, api.SplitRequest([0.5, 1.0], ["A", "B", "C"]), deps).parts

    assert [part.filename for part in parts] == ["a - 1 A.mp3", "a - 2 B.mp3", "a - 3 C.mp3"]
    assert (parts[2].job, parts[2].mp3) == (last.job, last.mp3)
    shown = tagging.show(last.job, ADA, deps.tagging)
    assert (shown.title, shown.track, shown.genre) == ("C", "3/3", "Talk")
    assert get(deps, first.job).filename == "a - 1 One.mp3"


def test_one_sound_has_a_limited_number_of_parts(
    deps: Splitting, job: JobId, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also parts of parts count, and one that is deleted makes room."""
    monkeypatch.setattr("functions.state.parts.MAX_PARTS", 4)
    first, second = splitting.split(job, ADA, api.SplitRequest([2.0]), deps).parts
    inner = splitting.split(second.job, ADA, api.SplitRequest([1.0]), deps).parts
    before = retained(database)
    with monkeypatch.context() as patch:
        patch.setattr(cut, "cut", pytest.fail)  # nothing is cut or stored for nothing
        with pytest.raises(TooManyParts, match="has 4 parts and may have 4"):
            splitting.split(first.job, ADA, api.SplitRequest([1.0]), deps)
    assert retained(database) == before
    for part in inner:
        deps.tagging.jobs.delete(part.job, ADA.user)
    assert len(splitting.split(first.job, ADA, api.SplitRequest([1.0]), deps).parts) == 2


def test_parts_are_recognized_although_there_is_room_for_no_more(
    deps: Splitting, job: JobId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction runs again if the answer to its commit was lost."""
    monkeypatch.setattr("functions.state.parts.MAX_PARTS", 2)
    add = Parts.add
    monkeypatch.setattr(Parts, "add", lambda *args: add(*args) and add(*args))
    assert len(splitting.split(job, ADA, api.SplitRequest([2.0]), deps).parts) == 2


def test_large_cover_is_copied_into_few_parts_only(
    deps: Splitting, job: JobId, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = b"\xff\xd8\xff" + bytes(100_000)
    tagging.change(job, ADA, api.TagChange(cover=base64.b64encode(picture).decode()), deps.tagging)
    monkeypatch.setattr(splitting, "_MAX_TAGS", 250_000)
    with pytest.raises(Unprocessable, match="makes 3 parts, each with a copy"):
        splitting.split(job, ADA, BY_CHAPTERS, deps)
    parts = splitting.split(job, ADA, api.SplitRequest([2.0]), deps).parts
    assert tags.read(content_of(deps, parts[1].job)[:110_000]).cover == picture


def test_large_covers_of_parts_are_written_again_for_few_parts_only(
    deps: Splitting, job: JobId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts may have larger covers than the MP3 that they were cut out of."""
    wanted = api.SplitRequest([1.0, 2.0], ["A", "B", "C"])
    picture = base64.b64encode(b"\xff\xd8\xff" + bytes(100_000)).decode()
    parts = splitting.split(job, ADA, wanted, deps).parts
    for part in parts:
        tagging.change(part.job, ADA, api.TagChange(cover=picture), deps.tagging)
    monkeypatch.setattr(splitting, "_MAX_TAGS", 150_000)
    assert [part.job for part in splitting.split(job, ADA, wanted, deps).parts] == [part.job for part in parts]
    for at, titles in (([1.0, 2.0], ["X", "Y", "C"]), ([1.0, 2.0, 3.0], ["X", "Y", "Z", "W"])):
        with pytest.raises(Unprocessable, match="gives 2 parts other titles or numbers"):
            splitting.split(job, ADA, api.SplitRequest(at, titles), deps)
    assert len(deps.tagging.jobs.page(ADA.user, 100)) == 4
    renamed = splitting.split(job, ADA, api.SplitRequest([1.0, 2.0], ["X", "B", "C"]), deps).parts
    assert [part.filename for part in renamed] == ["a - 1 X.mp3", "a - 2 B.mp3", "a - 3 C.mp3"]


def test_part_that_is_deleted_while_it_gets_another_title_is_made_again(
    deps: Splitting, job: JobId, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = splitting.split(job, ADA, api.SplitRequest([1.0], ["A", "B"]), deps).parts[0]
    records = deps.tagging.jobs
    written = deps.tagging.blobs
    finished = records.finished

    def delete_once_found(wanted: str, owner: UserId) -> Job:
        found = finished(wanted, owner)
        if wanted == part.job:
            monkeypatch.undo()
            records.delete(part.job, ADA.user)
            for blob, store in written.expired(100):
                written.delete(deps.tagging.media, store, blob)
        return found

    monkeypatch.setattr(records, "finished", delete_once_found)
    again = splitting.split(job, ADA, api.SplitRequest([1.0], ["X", "Y"]), deps).parts
    assert [each.filename for each in again] == ["a - 1 X.mp3", "a - 2 Y.mp3"]
    assert again[0].mp3 != part.mp3
    assert content_of(deps, again[0].job)


def test_mp3_without_chapters_has_none_to_split_by(deps: Splitting, job: JobId) -> None:
    tagging.change(job, ADA, api.TagChange(chapters=[]), deps.tagging)
    with pytest.raises(Unprocessable):
        splitting.split(job, ADA, BY_CHAPTERS, deps)
