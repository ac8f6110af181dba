"""Several MP3s as one zip file."""

import functools
import hashlib
import itertools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from events.schema import JobId
from functions.download.archive import Archive, Entry
from functions.download.export import date, read_chunks
from functions.media import Media, open_mp3
from functions.mp3.names import mp3_file_name
from functions.state.jobs import Job, JobNotFound, Jobs
from functions.state.schema import UserId, is_id


class Zip(NamedTuple):
    """A zip file, and a strong validator of its bytes."""

    archive: Archive
    etag: str


def zip_of(ids: Sequence[str], owner: UserId, jobs: Jobs, media: Media) -> Zip:
    """Returns the zip file of the MP3s of these jobs, in this order. Their bytes are read only when it is streamed.

    Raises:
        JobNotFound: the owner has no such job, or it has no MP3 yet.
        BlobNotFound, MediaUnavailable: an MP3 whose size is not on record cannot be opened.
    """
    wanted = list(dict.fromkeys(ids))
    found = jobs.with_ids([JobId(job) for job in wanted if is_id(job)])
    mine = {job: each for job, each in found.items() if each.owner == owner and each.mp3 and each.state == "done"}
    if missing := next((job for job in wanted if job not in mine), None):
        raise JobNotFound(f"There is no MP3 of the job {missing[:40]}: GET /jobs lists yours.")
    names: set[str] = set()
    files = [(job, _entry(job, names, media)) for job in (mine[JobId(job)] for job in wanted)]
    described = [(entry.name, job.mp3, job.tag, job.mp3_crc32) for job, entry in files]
    etag = hashlib.sha256(repr(described).encode()).hexdigest()
    return Zip(Archive([entry for _, entry in files]), f'"{etag}"')


def _entry(job: Job, names: set[str], media: Media) -> Entry:
    open_ = functools.partial(open_mp3, media.mp3s, job.stored)
    size = job.record.mp3_size
    if size is None:
        with open_() as reader:
            size = reader.stat.size
    time = date(job.finished_at or job.created_at)
    crc32 = None if job.mp3_crc32 is None else int(job.mp3_crc32, 16)
    return Entry(_unique(mp3_file_name(job.filename), names), size, time, functools.partial(read_chunks, open_), crc32)


def _unique(name: str, names: set[str]) -> str:
    """Returns a name that no file system takes for one in ``names``, whatever the case; adds it to them."""
    stem = name.removesuffix(".mp3")
    numbered = itertools.chain([stem], (f"{stem} ({n})" for n in itertools.count(2)))
    chosen = next(each for each in numbered if _folded(each) not in names)
    names.add(_folded(chosen))
    return f"{chosen}.mp3"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
