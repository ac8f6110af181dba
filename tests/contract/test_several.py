"""Zip files of several MP3s: names, checksums, and whose they are."""

import io
import zipfile
import zlib

import pytest

from events.schema import JobId
from functions.download.several import Zip, zip_of
from functions.media import Description, Media
from functions.options import Options
from functions.state.blobs import Blobs
from functions.state.database import Database
from functions.state.jobs import JobNotFound, Jobs, NewJob, Outcome, new_job_id
from functions.state.schema import UserId
from tests.support.fakes import memory_media

ADA, BOB = (UserId(name * 32) for name in "ab")


class Library:
    """MP3s of Ada."""

    def __init__(self, database: Database) -> None:
        self.media: Media = memory_media()
        self.jobs = Jobs(database)
        self._blobs = Blobs(database)

    def add(self, filename: str, content: bytes, *, is_done: bool = True, is_known: bool = True) -> JobId:
        job = new_job_id()
        with self._blobs.writing(self.media, "videos", Description(ADA, job, filename, "video/mp4")) as video:
            video.write(b"video")
        self.jobs.add(NewJob(job, ADA, video.blob, filename, Options()))
        lease = self.jobs.claim(job) if is_done else None
        if lease is None:
            return job
        with self._blobs.writing(self.media, "mp3s", Description(ADA, job, "a.mp3", "audio/mpeg")) as mp3:
            mp3.write(content)
        crc32 = f"{zlib.crc32(content):08x}" if is_known else None
        assert self.jobs.finish(lease, Outcome(mp3.blob, 60.0, None, mp3.size, crc32=crc32))
        return job

    def zip_of(self, *jobs: str, owner: UserId = ADA) -> Zip:
        return zip_of(jobs, owner, self.jobs, self.media)


@pytest.fixture
def library(database: Database) -> Library:
    return Library(database)


def files_in(made: Zip) -> dict[str, bytes]:
    content = b"".join(made.archive.stream())
    assert len(content) == made.archive.size
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_names_are_unique_and_safe(library: Library) -> None:
    names = [
        "talk.mp4",
        "Talk.MKV",
        "talk (2).mov",
        "../../etc/passwd.mp4",
        "a:b?.mp4",
        " . .mp4",
        "日本.webm",
        "\u202e3pm.exe.mp4",
        "Cafe\u0301.mp4",
        "Caf\u00e9.mp4",
        "\u8b1b" * 120,
    ]
    jobs = [library.add(name, name.encode(), is_known=bool(n % 2)) for n, name in enumerate(names)]
    found = files_in(library.zip_of(*jobs, jobs[0]))
    assert list(found.values()) == [name.encode() for name in names]
    assert list(found) == [
        "talk.mp3",
        "Talk (2).mp3",
        "talk (2) (2).mp3",
        "_.._etc_passwd.mp3",
        "a_b_.mp3",
        "audio.mp3",
        "日本.mp3",
        "_3pm.exe.mp3",
        "Cafe\u0301.mp3",
        "Caf\u00e9 (2).mp3",
        "\u8b1b" * 80 + ".mp3",
    ]


def test_resumed_download_continues_the_first(library: Library) -> None:
    jobs = [library.add(f"{n}.mp4", bytes([n]) * 300_000, is_known=n != 1) for n in range(3)]
    whole = b"".join(library.zip_of(*jobs).archive.stream())
    first, second = library.zip_of(*jobs), library.zip_of(*jobs)
    assert first.etag == second.etag
    for cut in (10, 300_000, 450_000, len(whole) - 20):
        assert b"".join(library.zip_of(*jobs).archive.stream(cut)) == whole[cut:]


def test_validator_changes_with_the_files(library: Library) -> None:
    one, other = library.add("a.mp4", b"one"), library.add("a.mp4", b"two")
    tags = {library.zip_of(*jobs).etag for jobs in ([one], [other], [one, other], [other, one])}
    assert len(tags) == 4


def test_mp3s_of_others_and_unfinished_ones_are_not_found(library: Library) -> None:
    job = library.add("a.mp4", b"mine")
    unfinished = library.add("b.mp4", b"", is_done=False)
    with pytest.raises(JobNotFound):
        library.zip_of(job, owner=BOB)
    for other in ("0" * 32, "no id", unfinished):
        with pytest.raises(JobNotFound):
            library.zip_of(job, other)
