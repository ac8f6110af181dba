"""Describes an audio track, and the file it is in, to the parent: codec, tags, chapters, tracks, cover."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from functions.convert.demux.child.claimed_length import credible, surroundings
from functions.convert.demux.child.demuxer import Demuxer
from functions.convert.demux.child.libav import by_preference, codec_name
from functions.convert.demux.child.mp4 import movie as mp4
from functions.convert.demux.child.pictures import is_picture
from functions.convert.demux.protocol import MAX_COVER, TrackReport
from functions.convert.track_list import LANGUAGE, MAX_TITLE, MAX_TRACKS, ListedTrack
from functions.mp3.chapters import MAX_CHAPTERS, Chapter

if TYPE_CHECKING:
    import av.audio.stream
    import av.container

_MAX_TAGS = 500
#: Characters of the name of a tag.
_MAX_NAME = 100
#: Characters of the value of a tag; lyrics are the longest.
_MAX_TAG = 20_000
#: Characters of all tags. Each may take a dozen bytes of a report, which must be shorter than MAX_REPORT.
_MAX_TEXT = 250_000
#: Characters of a chapter's title.
_MAX_TITLE = 200
#: Containers, by the first of libav's names, that have texts in UTF-8 or UTF-16 only.
_UNICODE = ("mov", "matroska", "ogg", "flac", "asf", "nut")
#: Names of tags that are not the file's where a track has them: programs name it "Track1" or "Surround 5.1".
_OF_THE_TRACK = ("title", "comment", "encoder")


@dataclass(frozen=True, slots=True)
class Extracted:
    """An extracted track: its report, and its cover, empty if there is none."""

    report: TrackReport
    cover: bytes


def report_track(
    container: "av.container.InputContainer",
    demuxer: Demuxer,
    name: str,
    pause: float = 0.0,
    values: Mapping[str, str] | None = None,
) -> TrackReport:
    """Reports what a track is, but not whether anything of it is missing.

    Args:
        container: the file.
        demuxer: the track's packets, as far as they were read.
        name: the container that the track was written to.
        pause: seconds before the sound on the file's clock that the demuxer does not know of.
        values: tags that libavformat does not give.
    """
    stream = demuxer.stream
    return TrackReport(
        codec=codec_name(stream),
        container=name,
        rate=demuxer.rate,
        channels=demuxer.channels,
        packets=demuxer.packets,
        errors=demuxer.errors,
        skipped=demuxer.skipped,
        discarded=demuxer.discarded,
        duration=demuxer.duration,
        missing=0.0,
        tags=_limited(_merged([values or {}, _tags(container, stream)])),
        chapters=_chapters(container, demuxer, pause),
        ambisonic=stream.layout.name.startswith("ambisonic"),
        unicode=container.format.name.partition(",")[0] in _UNICODE,
        dropped=len(demuxer.cover) if len(demuxer.cover) > MAX_COVER else 0,
        tracks=list_tracks(container),
    )


def report_by_tables(
    container: "av.container.InputContainer", demuxer: Demuxer, movie: mp4.Movie, values: Mapping[str, str]
) -> TrackReport:
    """Reports a track of which only the first packets were read; what the report says of the others is in the tables.

    Args:
        container: the beginning of the file.
        demuxer: the track's packets in it.
        movie: the file.
        values: tags that libavformat does not give.
    """
    timeline = movie.timeline()
    return replace(
        report_track(container, demuxer, "mov", timeline.pause, values),
        duration=timeline.duration,
        gaps=timeline.gaps,
        lead=credible(timeline.lead),
        tail=credible(timeline.tail),
        start=credible(timeline.pause),
    )


def report_of_ends(
    container: "av.container.InputContainer", demuxer: Demuxer, name: str, missing: float, values: Mapping[str, str]
) -> TrackReport:
    """Reports a track of which only the first and the last seconds were read."""
    lead, tail = surroundings(container, demuxer)
    return replace(
        report_track(container, demuxer, name, values=values),
        missing=credible(missing),
        lead=credible(lead),
        tail=0.0 if missing > 1.0 else credible(tail),
        start=credible(demuxer.start),
    )


def cover_of(demuxer: Demuxer) -> bytes:
    """Returns the picture in the file; nothing if there is none, or one that is too large."""
    return demuxer.cover if len(demuxer.cover) <= MAX_COVER else b""


def list_tracks(container: "av.container.InputContainer") -> list[ListedTrack]:
    """Lists the audio tracks of the file."""
    streams = container.streams.audio
    default = by_preference(streams)[0]
    return [_listed_track(container, streams[number], number == default) for number in range(len(streams))][:MAX_TRACKS]


def _listed_track(
    container: "av.container.InputContainer", stream: "av.audio.stream.AudioStream", default: bool
) -> ListedTrack:
    # PyAV creates no context without a decoder, whatever its types say.
    context = getattr(stream, "codec_context", None)
    language = stream.metadata.get("language", "")
    if language == "und" or not LANGUAGE.fullmatch(language):
        language = ""
    # The tags of an Ogg stream are those of the file. libav calls a title ``name`` in mov, and ``track_name`` in MXF.
    title = "" if container.format.name == "ogg" else _first_tag(stream.metadata, "title", "name", "track_name")
    return ListedTrack(
        codec="" if context is None else context.codec.canonical_name,
        channels=0 if context is None else context.channels,
        language=language,
        title=title[:MAX_TITLE],
        default=default,
    )


def _first_tag(tags: Mapping[str, str], *names: str) -> str:
    return next((tags[name].strip() for name in names if name in tags), "")


def _tags(container: "av.container.InputContainer", stream: "av.audio.stream.AudioStream") -> dict[str, str]:
    """Returns the tags of the file, and those of the track that apply to all of it."""
    if container.format.name == "ogg":  # has all its tags in the streams
        others = [video.metadata for video in container.streams.video if not is_picture(video)]
        return _merged([stream.metadata, container.metadata, *others])
    tags = {name: value for name, value in stream.metadata.items() if name.lower() not in _OF_THE_TRACK}
    return _merged([container.metadata, tags])


def _merged(sources: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Merges tags; the first source that has a name counts, whatever its case."""
    merged: dict[str, str] = {}
    names: set[str] = set()
    for source in sources:
        merged |= {name: value for name, value in source.items() if name.lower() not in names}
        names |= {name.lower() for name in source}
    return merged


def _limited(found: dict[str, str]) -> dict[str, str]:
    # An untrusted file may have any number of tags of any length; no MP3 has so many or such long ones.
    kept: dict[str, str] = {}
    space = _MAX_TEXT
    for name, value in itertools.islice(found.items(), _MAX_TAGS):
        name = name[:_MAX_NAME]
        value = value[:_MAX_TAG]
        space -= len(name) + len(value)
        if space < 0:
            break
        kept[name] = value
    return kept


def _chapters(container: "av.container.InputContainer", demuxer: Demuxer, pause: float) -> list[Chapter]:
    """Returns the container's chapters, on the clock of the extracted track."""
    # The tag of an MP3 file counts from the first sample that is played, not from the first packet.
    start = 0.0 if container.format.name == "mp3" else demuxer.start + pause
    chapters: list[Chapter] = []
    following = demuxer.end
    for number, chapter in reversed(list(enumerate(container.chapters()[:MAX_CHAPTERS], 1))):
        base = float(chapter["time_base"] or 0)
        title = chapter["metadata"].get("title", "").strip() or f"Chapter {number}"
        begin = chapter["start"] * base
        # Vorbis comments have no ends of chapters, and libav knows no end of the last if it does not know the file's.
        end = chapter["end"] * base if chapter["end"] > chapter["start"] else following
        chapters.insert(0, Chapter(begin - start, end - start, title[:_MAX_TITLE]))
        following = begin
    return chapters
