"""Builds the ID3v2.3 tag at the start of the MP3: title, other metadata, cover and chapters."""

import datetime
import importlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

from functions.mp3.chapters import Chapter
from functions.options import Options

#: Frames of text, and the fields that they are taken from, best first. A field's name is libavformat's, or the source's
#: own where libavformat does not translate it, in lower case without anything but letters and digits.
TEXT_FRAMES: Final[dict[str, tuple[str, ...]]] = {
    "TIT1": ("grouping", "contentgroup"),
    "TIT2": ("title",),
    "TIT3": ("subtitle", "tit3", "wmsubtitle"),
    "TPE1": ("artist", "author"),
    "TPE2": ("albumartist", "wmalbumartist"),
    "TPE3": ("conductor", "wmconductor", "performer"),
    "TPE4": ("remixer", "mixartist", "tpe4", "wmmodifiedby"),
    "TCOM": ("composer", "wmcomposer"),
    "TEXT": ("lyricist", "text", "wmwriter"),
    "TALB": ("album",),
    "TCON": ("genre",),
    "TRCK": ("track", "tracknumber"),
    "TPOS": ("disc", "disk", "discnumber"),
    "TYER": ("date", "year", "wmyear", "datereleased", "daterecorded"),
    "TORY": ("originaldate", "originalyear", "tdor", "tory", "wmoriginalreleaseyear"),
    "TBPM": ("bpm", "tbpm", "tempo", "wmbeatsperminute"),
    "TCMP": ("compilation", "itunescompilation", "wmiscompilation"),
    "TKEY": ("initialkey", "tkey", "wminitialkey"),
    "TLAN": ("language",),
    "TSRC": ("isrc", "tsrc", "wmisrc"),
    "TPUB": ("publisher", "label", "organization"),
    "TCOP": ("copyright",),
    "TENC": ("encodedby",),
    "TSOT": ("titlesort", "sortname", "wmtitlesortorder"),
    "TSOP": ("artistsort", "sortartist", "wmartistsortorder"),
    "TSOA": ("albumsort", "sortalbum", "wmalbumsortorder"),
    "TSO2": ("albumartistsort", "sortalbumartist", "tso2", "wmalbumartistsortorder"),
    "TSOC": ("composersort", "sortcomposer", "tsoc", "wmcomposersortorder"),
    "COMM": ("comment", "description"),
    "USLT": ("lyrics", "lyricsdescribed", "unsyncedlyrics", "wmlyrics"),
}
#: The number of tracks or discs, which the frame has after a slash.
TOTALS: Final[dict[str, tuple[str, ...]]] = {
    "TRCK": ("tracktotal", "totaltracks", "totalparts"),
    "TPOS": ("disctotal", "totaldiscs"),
}
#: Descriptions of TXXX frames by the field: what MusicBrainz Picard calls them.
USER_FRAMES: Final[dict[str, str]] = {
    "replaygaintrackgain": "REPLAYGAIN_TRACK_GAIN",
    "replaygaintrackpeak": "REPLAYGAIN_TRACK_PEAK",
    "replaygainalbumgain": "REPLAYGAIN_ALBUM_GAIN",
    "replaygainalbumpeak": "REPLAYGAIN_ALBUM_PEAK",
    "musicbrainzalbumid": "MusicBrainz Album Id",
    "musicbrainzartistid": "MusicBrainz Artist Id",
    "musicbrainzalbumartistid": "MusicBrainz Album Artist Id",
    "musicbrainzreleasegroupid": "MusicBrainz Release Group Id",
    "musicbrainzreleasetrackid": "MusicBrainz Release Track Id",
    "musicbrainzworkid": "MusicBrainz Work Id",
    "musicbrainzdiscid": "MusicBrainz Disc Id",
    "acoustidid": "Acoustid Id",
    "barcode": "BARCODE",
    "catalognumber": "CATALOGNUMBER",
}
#: Opus states its gain in 1/256 dB towards -23 LUFS (RFC 7845, 5.2.1), which is 5 dB below ReplayGain's level.
R128_FRAMES: Final[dict[str, str]] = {
    "r128trackgain": "replaygaintrackgain",
    "r128albumgain": "replaygainalbumgain",
}
_R128_STEPS: Final = 256
_R128_OFFSET: Final = 5.0
#: The field with MusicBrainz's id of the recording, and the owner of the UFID frame that it becomes.
RECORDING: Final = "musicbrainztrackid"
RECORDING_OWNER: Final = "http://musicbrainz.org"

#: Frames that may have several values. libavformat joins Vorbis comments by a semicolon, and people write it, too.
_LISTS: Final = frozenset({"TPE1", "TPE2", "TPE3", "TPE4", "TCOM", "TEXT", "TCON"})
#: Frames whose line breaks are kept.
_MULTILINE: Final = frozenset({"COMM", "USLT"})
#: libavformat appends a description and a language to the name of ID3's lyrics.
_LYRICS: Final = re.compile(r"lyrics-(.*-)?([a-z]{3})", re.DOTALL)
#: Players look for comments in this language only.
_COMMENT_LANGUAGE: Final = "eng"
#: ISO 639-2. "und" is "undetermined".
_LANGUAGE: Final = re.compile(r"(?!und)[a-z]{3}")
_TRUE: Final = ("1", "true", "yes")
#: Maximum number of characters of a text, and of lyrics and comments.
MAX_TEXT: Final = 1000
MAX_LINES: Final = 20_000
#: Stands for a byte offset that is not given: the time applies (ID3v2 Chapter Frame Addendum, 3.1).
_NO_OFFSET: Final = 0xFFFFFFFF
#: Maximum time in milliseconds that fits into four bytes, 49 days. A damaged file may claim to be longer.
_MAX_TIME: Final = 0xFFFFFFFF
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
_CONTROL_EXCEPT_BREAKS: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]+")
_DATES_BY_SLASHES: Final = (
    re.compile(r"(?P<day>[0-9]{1,2})[-/](?P<month>[0-9]{1,2})[-/](?P<year>[0-9]{4})(?![0-9])"),
    re.compile(r"(?P<month>[0-9]{1,2})[-/](?P<day>[0-9]{1,2})[-/](?P<year>[0-9]{4})(?![0-9])"),
)
_DATES: Final = (
    re.compile(r"(?P<year>[0-9]{4})[-/.:]?(?P<month>[0-9]{2})[-/.:]?(?P<day>[0-9]{2})(?![0-9])"),
    re.compile(r"(?P<year>[0-9]{4})[-/.](?P<month>[0-9]{1,2})[-/.](?P<day>[0-9]{1,2})(?![0-9])"),
    re.compile(r"(?P<day>[0-9]{1,2})\.(?P<month>[0-9]{1,2})\.(?P<year>[0-9]{4})(?![0-9])"),
    *_DATES_BY_SLASHES,
)
_YEAR: Final = re.compile(r"(?<![0-9])(?!0000)([0-9]{4})(?![0-9])")


def title(tags: Mapping[str, str], filename: str) -> str:
    """Returns the title from the tags, or else the file's name without its extension."""
    return _clean(_fields(tags).get("title", "")) or _clean(PurePath(filename.replace("\\", "/")).stem) or "audio"


def without_loudness(tags: Mapping[str, str], options: Options) -> dict[str, str]:
    """Returns the tags that still apply to the edited sound: ReplayGain does not if its loudness was changed."""
    if options.volume is None and not options.normalize:
        return dict(tags)
    return {name: value for name, value in tags.items() if not _field(name).startswith(("replaygain", "r128"))}


def build_tag(tags: Mapping[str, str], filename: str, cover: bytes, chapters: Sequence[Chapter] = ()) -> bytes:
    """Builds the complete ID3v2.3 tag.

    Args:
        tags: names and values as in the source.
        filename: the source's name.
        cover: a JPEG or PNG image, or empty.
        chapters: on the clock of the MP3.
    """
    mutagen: Any = importlib.import_module("mutagen.id3")  # it has no types

    fields = _fields(tags)
    fields["title"] = title(tags, filename)
    out = mutagen.ID3()
    for frame in (*text_frames(mutagen, fields), *_user_frames(mutagen, fields)):
        out.add(frame)
    if cover:
        out.add(cover_frame(mutagen, cover))
    for frame in chapter_frames(mutagen, chapters):
        out.add(frame)
    return saved(out)


def saved(frames: Any) -> bytes:
    """Returns the complete tag with these frames, an ``ID3`` of mutagen."""
    file = io.BytesIO()
    frames.save(file, v1=0, v2_version=3, padding=lambda _: 0)
    return file.getvalue()


def picture_type(picture: bytes) -> str:
    """Returns the content type of a JPEG or PNG image."""
    return "image/png" if picture.startswith(b"\x89PNG") else "image/jpeg"


def cover_frame(mutagen: Any, cover: bytes) -> Any:
    """Returns the frame of a JPEG or PNG image."""
    mime = picture_type(cover)
    return mutagen.APIC(encoding=mutagen.Encoding.LATIN1, mime=mime, type=3, desc="", data=cover)


def _fields(tags: Mapping[str, str]) -> dict[str, str]:
    """Returns the tags by the names that the tables above use; of several of one name, the first that has a value."""
    fields: dict[str, str] = {}
    languages: dict[str, str] = {}
    for name, value in tags.items():
        lyrics = _LYRICS.fullmatch(name)
        field = _field(name)
        if lyrics:
            field = "lyricsdescribed" if lyrics[1] else "lyrics"
            languages.setdefault(field, lyrics[2])
        if value.strip():
            fields.setdefault(field, value)
    for field in ("lyrics", "lyricsdescribed"):
        if field in fields:
            fields["lyricslanguage"] = languages.get(field, "")
            break
    return fields


def _field(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def text_frames(mutagen: Any, fields: Mapping[str, str]) -> Iterator[Any]:
    """Yields the frames of text for fields that are named as in ``TEXT_FRAMES``."""
    encoding = mutagen.Encoding.UTF16
    for frame, names in TEXT_FRAMES.items():
        values = _values(frame, names, fields)
        if not values:
            continue
        make = getattr(mutagen, frame)
        if frame == "COMM":
            yield make(encoding=encoding, lang=_COMMENT_LANGUAGE, desc="", text=values)
        elif frame == "USLT":
            yield make(encoding=encoding, lang=_lyrics_language(fields), desc="", text=values[0])
        else:
            yield make(encoding=encoding, text=values)
    day = _date(_clean(fields[found]))[1] if (found := _first(TEXT_FRAMES["TYER"], fields)) else ""
    if day:
        yield mutagen.TDAT(encoding=encoding, text=[day])


def _first(names: Sequence[str], fields: Mapping[str, str]) -> str | None:
    return next((name for name in names if name in fields), None)


def _values(frame: str, names: Sequence[str], fields: Mapping[str, str]) -> list[str]:
    """Returns the values of a frame, none if the source has nothing for it."""
    name = _first(names, fields)
    if name is None:
        return []
    clean = _clean_lines if frame in _MULTILINE else _clean
    change = _CHANGES.get(frame, str)
    parts = fields[name].split(";") if frame in _LISTS else [fields[name]]
    values = list(dict.fromkeys(value for part in parts if (value := change(clean(part)))))
    total = _first(TOTALS.get(frame, ()), fields)
    if total is not None and values:
        return [_with_total(values[0], fields[total])]
    return values


def _with_total(number: str, total: str) -> str:
    total = _clean(total)
    return f"{number}/{total}" if "/" not in number and total.isdecimal() else number


def _date(text: str) -> tuple[str, str]:
    """Returns the year of a date, and its day as DDMM; either is empty if it is unknown or unclear."""
    for pattern in _DATES:
        if found := pattern.match(text):
            try:
                date = datetime.date(int(found["year"]), int(found["month"]), int(found["day"]))
            except ValueError:
                continue
            is_unclear = pattern in _DATES_BY_SLASHES and date.day <= 12 and date.day != date.month
            return f"{date.year:04}", "" if is_unclear else f"{date.day:02}{date.month:02}"
    year = _YEAR.search(text) or re.match(r"(?!0000)([0-9]{4})", text)
    return (year[1] if year else ""), ""


def _genre(text: str) -> str:
    """Returns the name of a genre by its number in ID3v1, which several values of ID3v2.4 may be, if it has one."""
    names: Sequence[str] = importlib.import_module("mutagen.id3").TCON.GENRES
    return names[int(text)] if text.isdecimal() and int(text) < len(names) else text


#: How the values of some frames are changed; an empty result leaves the frame out.
_CHANGES: Final[dict[str, Callable[[str], str]]] = {
    "TCON": _genre,
    "TYER": lambda text: _date(text)[0],
    "TORY": lambda text: _date(text)[0],
    "TCMP": lambda text: "1" if text.lower() in _TRUE else "",
    "TLAN": lambda text: text if _LANGUAGE.fullmatch(text) else "",
}


def _lyrics_language(fields: Mapping[str, str]) -> str:
    for name in ("lyricslanguage", "language"):
        if _LANGUAGE.fullmatch(fields.get(name, "")):
            return fields[name]
    return _COMMENT_LANGUAGE


def _user_frames(mutagen: Any, fields: Mapping[str, str]) -> Iterator[Any]:
    found = dict(fields)
    for name, field in R128_FRAMES.items():
        if re.fullmatch(r"[+-]?[0-9]{1,5}", fields.get(name, "")):
            found.setdefault(field, f"{int(fields[name]) / _R128_STEPS + _R128_OFFSET:.2f} dB")
    for name, description in USER_FRAMES.items():
        if text := _clean(found.get(name, "")):
            yield mutagen.TXXX(encoding=mutagen.Encoding.UTF16, desc=description, text=[text])
    if recording := _clean(found.get(RECORDING, "")):
        data = recording.encode("ascii", "replace")[:64]  # the frame's limit (ID3v2.3, 4.1)
        yield mutagen.UFID(owner=RECORDING_OWNER, data=data)


def chapter_frames(mutagen: Any, chapters: Sequence[Chapter]) -> Iterator[Any]:
    """Yields the table of contents, and a frame for each chapter."""
    names = [f"chp{number}" for number in range(len(chapters))]
    if names:
        flags = mutagen.CTOCFlags.TOP_LEVEL | mutagen.CTOCFlags.ORDERED
        yield mutagen.CTOC(element_id="toc", flags=flags, child_element_ids=names, sub_frames=[])
    for name, chapter in zip(names, chapters, strict=True):
        text = mutagen.TIT2(encoding=mutagen.Encoding.UTF16, text=[_clean(chapter.title)])
        yield mutagen.CHAP(
            element_id=name,
            start_time=min(round(chapter.start * 1000), _MAX_TIME),
            end_time=min(round(chapter.end * 1000), _MAX_TIME),
            start_offset=_NO_OFFSET,
            end_offset=_NO_OFFSET,
            sub_frames=[text],
        )


def _clean(text: str) -> str:
    return _CONTROL.sub(" ", _encodable(text)).strip()[:MAX_TEXT]


def _clean_lines(text: str) -> str:
    lines = _encodable(text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL_EXCEPT_BREAKS.sub(" ", lines).strip()[:MAX_LINES]


def _encodable(text: str) -> str:
    # A file name may contain bytes that are not text, which Python represents as lone surrogates.
    return text.encode("utf-8", "replace").decode()
