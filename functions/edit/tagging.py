"""Reads and changes the tags of finished MP3s. Their sound stays where it is."""

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from events.errors import Mp3burstError
from functions.auth.tokens import Identity
from functions.edit import api
from functions.http_endpoint import Unprocessable
from functions.media import BlobId, BlobNotFound, Description, Media, Reader
from functions.mp3 import tags
from functions.mp3.chapters import Chapter
from functions.mp3.crc import replace_beginning
from functions.mp3.id3 import picture_type
from functions.state.blobs import Blobs
from functions.state.jobs import Job, Jobs
from functions.state.quota import Quota
from functions.state.tags import NewTag, Tags

#: Times that a change is made anew because another request was faster.
_TRIES: Final = 5
_MEANINGLESS: Final = "has no value that can be written"
_MISPLACED: Final = "must be in order, and end after they begin and within the MP3"
#: Seconds that a chapter may end after the MP3: the duration is rounded.
_TOLERANCE: Final = 1.0


class TagsChanged(Mp3burstError):
    """Other requests have changed the tags again and again meanwhile."""

    status = 409


@dataclass(frozen=True, slots=True)
class Tagging:
    """What reading and changing tags needs."""

    media: Media
    jobs: Jobs
    tags: Tags
    blobs: Blobs
    quota: Quota


class _Stored(NamedTuple):
    """The tag of an MP3, and the bytes before and after the start of its sound."""

    tag: bytes
    sound_at: int
    sound: int


def show(job: str, identity: Identity, deps: Tagging) -> api.Tags:
    """Returns the tags of the MP3 of a job.

    Raises:
        JobNotFound: the user has no such job.
        NoMp3: it is not done.
        BlobNotFound: the MP3 was deleted.
        MediaUnavailable: the media store does not answer.
    """
    return _shown(tags.read(_read(deps.jobs.finished(job, identity.user), deps).tag))


def change(job: str, identity: Identity, wanted: api.TagChange, deps: Tagging) -> api.Tags:
    """Changes the tags of the MP3 of a job and returns them.

    Raises:
        JobNotFound, NoMp3, BlobNotFound, MediaUnavailable: as in ``show``.
        Unprocessable: a value is invalid.
        QuotaFull: the tag does not fit into the user's quota.
        TagsChanged: other requests are changing the tags, too.
    """
    for _ in range(_TRIES):
        found = deps.jobs.finished(job, identity.user)
        stored = _read(found, deps)
        changed, content = changed_tag(stored.tag, found.duration or 0.0, wanted)
        if changed == stored.tag or _replace(found, identity, stored, changed, deps):
            return _shown(content)
    raise TagsChanged("Other requests are changing the tags of this MP3: try again in a moment.")


def _read(job: Job, deps: Tagging) -> _Stored:
    if job.mp3 is None:
        raise BlobNotFound
    with deps.media.mp3s.open(job.mp3) as mp3:
        own = job.sound_at if job.sound_at is not None else tags.size_of(_head(mp3, tags.HEADER_SIZE))
        if job.tag is None:
            mp3.seek(0)
            return _Stored(_head(mp3, own), own, mp3.stat.size - own + _shared(job))
        size = mp3.stat.size + _shared(job)
    with deps.media.mp3s.open(job.tag) as tag:
        return _Stored(tag.read(), own, size - own)


def _shared(job: Job) -> int:
    """Returns how many bytes of the MP3 are in a blob that other MP3s have, too."""
    return (job.sound_to or 0) - (job.sound_from or 0)


def _head(mp3: Reader, size: int) -> bytes:
    mp3.fetch_until(size)
    return mp3.read(size)


def _replace(job: Job, identity: Identity, stored: _Stored, changed: bytes, deps: Tagging) -> bool:
    """Stores and records a new tag; returns False if the job's tag is no longer the one that was read."""
    description = Description(job.owner, job.id, "tags", "application/octet-stream")
    grant = deps.quota.grow(identity, len(changed), len(changed))
    with deps.blobs.writing(deps.media, "mp3s", description, grant) as out:
        out.write(changed)
    try:
        is_replaced = deps.tags.replace(job, _new_tag(job, out.blob, stored, changed))
    except BaseException:
        deps.blobs.discard(deps.media, "mp3s", out.blob)  # It stays if it is on record after all.
        raise
    if not is_replaced:
        deps.blobs.discard(deps.media, "mp3s", out.blob)
    return is_replaced


def _new_tag(job: Job, blob: BlobId, stored: _Stored, changed: bytes) -> NewTag:
    crc32 = None
    if job.mp3_crc32 is not None:
        known = int(job.mp3_crc32, 16)
        crc32 = f"{replace_beginning(known, zlib.crc32(stored.tag), zlib.crc32(changed), stored.sound):08x}"
    return NewTag(blob, len(changed), stored.sound_at, len(changed) + stored.sound, crc32)


def changed_tag(tag: bytes, duration: float, wanted: api.TagChange) -> tuple[bytes, tags.Tag]:
    """Returns a changed tag, and what it says.

    Args:
        tag: the tag as it is.
        duration: seconds of the MP3.
        wanted: the changes.

    Raises:
        Unprocessable: a value is invalid.
    """
    fields = {name: value for name in tags.FIELDS if (value := getattr(wanted, name)) is not None}
    chapters = None if wanted.chapters is None else _chapters(wanted.chapters, duration)
    changed = tags.change(tag, fields, chapters, None if wanted.cover is None else _cover(wanted.cover))
    content = tags.read(changed)
    faults = {name: _MEANINGLESS for name, value in fields.items() if value.strip() and name not in content.fields}
    if faults:
        raise Unprocessable.naming(faults)
    return changed, content


def _chapters(wanted: Sequence[api.ChapterChange], duration: float) -> list[Chapter]:
    starts = [chapter.start for chapter in wanted]
    found = []
    for chapter, following in zip(wanted, [*starts, duration][1:], strict=True):
        end = following if chapter.end is None else chapter.end
        # ID3 counts milliseconds.
        if round(chapter.start * 1000) >= round(end * 1000) or end > duration + _TOLERANCE:
            raise Unprocessable.naming({"chapters": _MISPLACED})
        found.append(Chapter(chapter.start, end, chapter.title))
    if starts != sorted(starts):
        raise Unprocessable.naming({"chapters": _MISPLACED})
    return found


def _cover(text: str) -> bytes:
    try:
        picture = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unprocessable.naming({"cover": "must be Base64"}) from error
    if len(picture) > api.MAX_COVER:
        raise Unprocessable.naming({"cover": f"must have at most {api.MAX_COVER >> 20} MB"})
    if picture and not picture.startswith(tags.PICTURES):
        raise Unprocessable.naming({"cover": "must be a JPEG or PNG image"})
    return picture


def _shown(tag: tags.Tag) -> api.Tags:
    cover = api.Cover(picture_type(tag.cover), len(tag.cover)) if tag.cover else None
    chapters = [api.Chapter(chapter.start, chapter.end, chapter.title) for chapter in tag.chapters]
    return api.Tags(**{name: tag.fields.get(name, "") for name in tags.FIELDS}, chapters=chapters, cover=cover)
