"""Reads and changes the ID3v2.3 tag of an MP3 that is finished."""

import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from functions.mp3 import id3
from functions.mp3.chapters import Chapter
from functions.mp3.frame import syncsafe

#: The fields that can be changed, and their frames. Their values are made as those of a conversion are.
FIELDS: Final[dict[str, str]] = {
    "title": "TIT2",
    "subtitle": "TIT3",
    "artist": "TPE1",
    "album": "TALB",
    "album_artist": "TPE2",
    "composer": "TCOM",
    "genre": "TCON",
    "date": "TYER",
    "track": "TRCK",
    "disc": "TPOS",
    "publisher": "TPUB",
    "copyright": "TCOP",
    "comment": "COMM",
    "lyrics": "USLT",
}
#: First bytes of the pictures that every player shows: JPEG and PNG.
PICTURES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
#: Bytes of an ID3 header (ID3v2.3, 3.1).
HEADER_SIZE: Final = 10
#: The day and month of the date, which have a frame of their own.
_DAY: Final = "TDAT"


@dataclass(frozen=True, slots=True)
class Tag:
    """What an ID3 tag says.

    Attributes:
        fields: the fields of ``FIELDS`` that it has; several values are separated by slashes.
        chapters: on the clock of the MP3.
        cover: a JPEG or PNG image, or empty.
    """

    fields: Mapping[str, str]
    chapters: Sequence[Chapter] = ()
    cover: bytes = b""


def size_of(data: bytes) -> int:
    """Returns the bytes of the tag that begins with ``data``, 10 bytes or more; 0 if there is none."""
    if data[:3] != b"ID3" or len(data) < HEADER_SIZE:
        return 0
    return HEADER_SIZE + syncsafe(data[6:HEADER_SIZE])


def read(data: bytes) -> Tag:
    """Reads a complete tag; no bytes are an empty one."""
    frames = _parse(_mutagen(), data)
    fields = {name: text for name, frame in FIELDS.items() if (text := _text(frames, frame))}
    pictures = frames.getall("APIC")
    chapters = sorted(
        Chapter(chapter.start_time / 1000, chapter.end_time / 1000, _text(chapter.sub_frames, "TIT2"))
        for chapter in frames.getall("CHAP")
    )
    return Tag(fields, chapters, pictures[0].data if pictures else b"")


def change(
    data: bytes, fields: Mapping[str, str], chapters: Sequence[Chapter] | None = None, cover: bytes | None = None
) -> bytes:
    """Returns a complete tag with changes; everything else in it stays.

    Args:
        data: the tag as it is; no bytes are an empty one.
        fields: new values by the names of ``FIELDS``; an empty one removes the field.
        chapters: the new chapters; None leaves them as they are.
        cover: the new cover, empty for none; None leaves it as it is.
    """
    mutagen = _mutagen()
    frames = _parse(mutagen, data)
    values = {name.replace("_", ""): value for name, value in fields.items() if value}
    if lyrics := frames.getall(FIELDS["lyrics"]):
        values["lyricslanguage"] = lyrics[0].lang
    for name in fields:
        frames.delall(FIELDS[name])
        if name == "date":
            frames.delall(_DAY)
    for frame in id3.text_frames(mutagen, values):
        frames.add(frame)
    if chapters is not None:
        frames.delall("CTOC")
        frames.delall("CHAP")
        for frame in id3.chapter_frames(mutagen, chapters):
            frames.add(frame)
    if cover is not None:
        frames.delall("APIC")
        if cover:
            frames.add(id3.cover_frame(mutagen, cover))
    return id3.saved(frames)


def _mutagen() -> Any:
    return importlib.import_module("mutagen.id3")  # it has no types


def _parse(mutagen: Any, data: bytes) -> Any:
    frames = mutagen.ID3()
    if data:
        frames.load(io.BytesIO(data), translate=False)  # which would make frames of ID3v2.4
    return frames


def _text(frames: Any, name: str) -> str:
    """Returns the text of a frame; empty if there is none."""
    found = frames.getall(name)
    if not found:
        return ""
    text = found[0].text
    joined = text if isinstance(text, str) else "/".join(map(str, text))
    if name == FIELDS["date"] and (days := frames.getall(_DAY)) and len(day := str(days[0].text[0])) == 4:
        return f"{joined}-{day[2:]}-{day[:2]}"
    return joined
