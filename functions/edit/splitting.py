"""Splits finished MP3s into parts. Their sound stays where it is: a part has a head of its own, and shares the rest."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, NamedTuple

from events.errors import Mp3burstError
from events.schema import JobId
from functions.auth.tokens import Identity
from functions.edit import api, tagging
from functions.edit.tagging import Tagging
from functions.http_endpoint import Unprocessable
from functions.media import BlobId, BlobNotFound, Description, Reader, open_mp3
from functions.mp3 import cut, tags
from functions.mp3.chapters import Chapter, within
from functions.mp3.crc import CRC32, append_zeros
from functions.mp3.names import mp3_file_name
from functions.state.jobs import Job, JobNotFound
from functions.state.parts import NewPart, Parts, part_id

#: Times that a split is made anew because another request was faster.
_TRIES: Final = 3
#: Seconds of the shortest part.
_SHORTEST: Final = 0.1
_MISPLACED: Final = f"must be in order, within the MP3, and at least {_SHORTEST} seconds apart"
_NO_CHAPTERS: Final = "says chapters, but fewer than two begin in the MP3 with sound between them"
_TOO_LARGE: Final = "makes {} parts, each with a copy of the {:.1f} MB of tags: make fewer, or a smaller cover"
_TOO_LARGE_AGAIN: Final = (
    "gives {} parts other titles or numbers, which writes their {:.1f} MB of tags again: make their covers smaller, or "
    "delete these parts before"
)
#: Bytes of tags, covers above all, that one request copies: with all of them it ends in a tenth of its 60 s.
_MAX_TAGS: Final = 256 << 20
#: Characters of a title, and of the name of what was split, in the name of a part.
_MAX_NAME: Final = 110


class SplitChanged(Mp3burstError):
    """Other requests have split the MP3, or deleted parts of it, again and again meanwhile."""

    status = 409


@dataclass(frozen=True, slots=True)
class Splitting:
    """What splitting needs: what changing tags does, and the records of parts."""

    tagging: Tagging
    parts: Parts


class _Wanted(NamedTuple):
    """A part that is wanted, before it is cut.

    Attributes:
        id: of its job.
        range: its samples.
        title: its title.
        has_title: whether the request or a chapter says the title.
        number: its place among the parts, from 1 on.
        total: how many parts there are.
    """

    id: JobId
    range: cut.Range
    title: str
    has_title: bool
    number: int
    total: int


class _Mp3(NamedTuple):
    """An MP3 that is split.

    Attributes:
        job: its job.
        tag: its ID3 tag.
        content: what the tag says.
        timeline: of its samples.
    """

    job: Job
    tag: bytes
    content: tags.Tag
    timeline: cut.Timeline


def split(job: str, identity: Identity, wanted: api.SplitRequest, deps: Splitting) -> api.Split:
    """Splits the MP3 of a job, and returns its parts.

    Raises:
        JobNotFound: the user has no such job.
        NoMp3: it is not done.
        BlobNotFound: the MP3 was deleted.
        MediaUnavailable: the media store does not answer.
        Unprocessable: the MP3 cannot be cut there.
        UnknownSound: the MP3 cannot be cut at all.
        QuotaFull: the tags of the parts do not fit into the user's quota.
        TooManyParts: the sound has as many parts as it may have.
        SplitChanged: other requests are splitting it, too.
    """
    for _ in range(_TRIES):
        found = deps.tagging.jobs.finished(job, identity.user)
        with open_mp3(deps.tagging.media.mp3s, found.stored) as reader:
            mp3 = _read(found, reader)
            parts = _parts(mp3, wanted)
            known = deps.tagging.jobs.with_ids([part.id for part in parts])
            renamed = _renamed(mp3.job, parts, known)
            missing = [part for part in parts if part.id not in known]
            is_complete = not missing or _add(mp3, reader, identity, missing, deps)
        if is_complete and _rename(mp3.job, identity, renamed, deps):
            known = deps.tagging.jobs.with_ids([part.id for part in parts])
            if len(known) == len(parts):
                return api.Split([_shown(part, known[part.id], mp3.timeline.rate) for part in parts])
    raise SplitChanged("Other requests are splitting this MP3 or deleting its parts: try again in a moment.")


def _read(job: Job, reader: Reader) -> _Mp3:
    size = tags.size_of(reader.read(tags.HEADER_SIZE))
    reader.seek(0)
    tag = reader.read(size)
    return _Mp3(job, tag, tags.read(tag), cut.read_timeline(reader, len(tag)))


def _parts(mp3: _Mp3, wanted: api.SplitRequest) -> list[_Wanted]:
    """Returns the parts that are wanted.

    Raises:
        Unprocessable: they are too short, not within the MP3, or not in order, or there are no chapters.
    """
    rate = mp3.timeline.rate
    chapters = _chapters(mp3)
    if isinstance(wanted.at, str):
        if len(chapters) < 2:
            raise Unprocessable.naming({"at": _NO_CHAPTERS})
        starts = [*chapters]
    else:
        starts = [0, *(round(second * rate) for second in wanted.at)]
    ends = [*starts[1:], mp3.timeline.length]
    if any(end - start < _SHORTEST * rate for start, end in zip(starts, ends, strict=True)):
        raise Unprocessable.naming({"at": _MISPLACED})
    if wanted.titles is not None and len(wanted.titles) != len(starts):
        raise Unprocessable.naming({"titles": f"must be {len(starts)}, one for each part"})
    if len(starts) * len(mp3.tag) > _MAX_TAGS:
        raise Unprocessable.naming({"at": _TOO_LARGE.format(len(starts), len(mp3.tag) / 1e6)})
    parts = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True), 1):
        asked = wanted.titles[number - 1] if wanted.titles else chapters.get(start, "")
        title = asked if asked.strip() else f"{mp3.content.fields.get('title', '')} ({number})".strip()
        id_ = part_id(mp3.job.id, start, end)
        parts.append(_Wanted(id_, cut.Range(start, end), title, bool(asked.strip()), number, len(starts)))
    return parts


def _chapters(mp3: _Mp3) -> dict[int, str]:
    """Returns the titles of chapters by the first sample of the parts that they make, which begin with 0.

    What is too short for a part belongs to the part after it, or at the end to the one before.
    """
    rate = mp3.timeline.rate
    shortest = _SHORTEST * rate
    last = 0
    titles = {last: ""}
    for chapter in mp3.content.chapters:
        start = round(chapter.start * rate)
        if start - last < shortest:
            titles[last] = chapter.title.strip() or titles[last]
        elif mp3.timeline.length - start >= shortest:
            last = start
            titles[last] = chapter.title
    return titles


def _add(mp3: _Mp3, reader: Reader, identity: Identity, wanted: Sequence[_Wanted], deps: Splitting) -> bool:
    """Cuts, stores and records parts; returns False if another request was faster."""
    stored = mp3.job.stored
    if stored.sound is None:
        # Behind its tag, the MP3 is its own blob from the end of the first tag on.
        shift = (mp3.job.sound_at or 0) - len(mp3.tag) if stored.tag is not None else 0
        sound, movable = stored.mp3, mp3.timeline.offset
    else:
        movable = reader.stat.size - (stored.sound_to - stored.sound_from)
        sound, shift = stored.sound, stored.sound_from - movable
    deps.parts.require_room(sound, [each.id for each in wanted])
    found = cut.cut(reader, mp3.timeline, [each.range for each in wanted], movable)
    without_chapters = tags.change(mp3.tag, {}, [])  # reading 255 of them before a large cover takes half a second
    waveform = deps.tagging.jobs.waveform(mp3.job)
    media = deps.tagging.media
    heads: list[BlobId] = []
    new = []
    is_recorded = False
    try:
        for each, part in zip(wanted, found, strict=True):
            head = _tag(mp3, each, without_chapters) + part.head
            name = _name(mp3.job, each)
            description = Description(mp3.job.owner, each.id, name, "audio/mpeg")
            grant = deps.tagging.quota.grow(identity, len(head), len(head))
            with deps.tagging.blobs.writing(media, "mp3s", description, grant) as out:
                out.write(head)
            heads.append(out.blob)
            crc32 = append_zeros(zlib.crc32(head), part.stop - part.start, CRC32) ^ part.crc32
            place = part.start + shift, part.stop + shift
            seconds = (each.range.last - each.range.first) / mp3.timeline.rate
            shown = waveform and waveform.part(*each.range)
            new.append(NewPart(each.id, name, out.blob, len(head), sound, *place, f"{crc32:08x}", seconds, shown))
        is_recorded = deps.parts.add(mp3.job, new)
    finally:
        if not is_recorded:
            for blob in heads:
                deps.tagging.blobs.discard(media, "mp3s", blob)  # It stays if it is on record after all.
    return is_recorded


def _renamed(source: Job, parts: Sequence[_Wanted], known: Mapping[JobId, Job]) -> list[_Wanted]:
    """Returns the parts that are there and get the title and number of this request: their names say others.

    Raises:
        Unprocessable: their tags, which may have covers of their own, are too large together.
    """
    found = [
        part for part in parts if part.id in known and part.has_title and known[part.id].filename != _name(source, part)
    ]
    size = sum(_head_size(known[part.id]) for part in found)
    if size > _MAX_TAGS:
        raise Unprocessable.naming({"at": _TOO_LARGE_AGAIN.format(len(found), size / 1e6)})
    return found


def _head_size(part: Job) -> int:
    """Returns the bytes of a part that are not in the sound that it shares: hardly more than those of its tag."""
    return (part.record.mp3_size or 0) - ((part.sound_to or 0) - (part.sound_from or 0))


def _rename(source: Job, identity: Identity, renamed: Sequence[_Wanted], deps: Splitting) -> bool:
    """Gives parts that were there the titles and numbers of this request.

    What their owner has changed since the same request stays.

    Returns:
        False if one of them was deleted.
    """
    for part in renamed:
        try:
            tagging.change(part.id, identity, api.TagChange(title=part.title, track=_number(part)), deps.tagging)
        except (JobNotFound, BlobNotFound):
            return False
        deps.parts.rename(part.id, _name(source, part))
    return True


def _number(part: _Wanted) -> str:
    return f"{part.number}/{part.total}"


def _tag(mp3: _Mp3, part: _Wanted, without_chapters: bytes) -> bytes:
    """Returns the ID3 tag of a part: that of the MP3 with its own title, number and chapters."""
    rate = mp3.timeline.rate
    first, last = part.range
    inside = within(mp3.content.chapters, first / rate, (last - first) / rate)
    # Chapter times are rounded to milliseconds: of a neighbor, less than that may be left.
    chapters = [Chapter(*chapter) for chapter in inside if chapter.end - chapter.start > _SHORTEST]
    fields = {"title": part.title, "track": _number(part)}
    title = mp3.content.fields.get("title", "")
    if "album" not in mp3.content.fields and title:
        fields["album"] = title
    return tags.change(without_chapters, fields, chapters if len(chapters) > 1 else [])


def _name(job: Job, part: _Wanted) -> str:
    stem = PurePath(job.filename.replace("\\", "/")).stem[:_MAX_NAME]
    number = f"{part.number:0{len(str(part.total))}}"
    return mp3_file_name(f"{stem} - {number} {part.title[:_MAX_NAME]}.mp3")


def _shown(part: _Wanted, job: Job, rate: int) -> api.Part:
    start, end = (round(sample / rate, 3) for sample in part.range)
    return api.Part(job.id, job.stored.mp3, job.filename, start, end)
