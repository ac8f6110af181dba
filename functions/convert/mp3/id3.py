"""Builds the ID3v2.3 tag at the start of the MP3: title, other metadata, cover and chapters."""

import importlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from functions.convert.chapters import Chapter

#: ID3v2.3 frames by the names that libavformat gives to the metadata of any container.
_FRAMES = {
    "title": "TIT2",
    "artist": "TPE1",
    "album": "TALB",
    "album_artist": "TPE2",
    "composer": "TCOM",
    "genre": "TCON",
    "track": "TRCK",
    "disc": "TPOS",
    "copyright": "TCOP",
    "publisher": "TPUB",
    "date": "TDRC",  # mutagen writes it as TYER and TDAT
}
#: Maximum number of characters of a text.
_MAX_TEXT = 1000
#: Stands for a byte offset that is not given: the time applies (ID3v2 Chapter Frame Addendum, 3.1).
_NO_OFFSET = 0xFFFFFFFF
#: First bytes of image files other than JPEG.
_IMAGES = (
    (b"\x89PNG", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
#: Maximum time in milliseconds that fits into four bytes, 49 days. A damaged file may claim to be longer.
_MAX_TIME = 0xFFFFFFFF
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def title(tags: Mapping[str, str], filename: str) -> str:
    """Returns the title from the tags, or else the file's name without its extension."""
    return _clean(_lower(tags).get("title", "")) or _clean(PurePath(filename.replace("\\", "/")).stem) or "audio"


def build_tag(tags: Mapping[str, str], filename: str, cover: bytes, chapters: Sequence[Chapter] = ()) -> bytes:
    """Builds the complete ID3v2.3 tag.

    Args:
        tags: names and values as in the source.
        filename: the source's name.
        cover: an image, or empty.
        chapters: on the clock of the MP3.
    """
    mutagen: Any = importlib.import_module("mutagen.id3")  # it has no types

    lowercase = _lower(tags)
    out = mutagen.ID3()
    for name, frame in _FRAMES.items():
        text = title(tags, filename) if name == "title" else _clean(lowercase.get(name, ""))
        if text:
            out.add(getattr(mutagen, frame)(encoding=mutagen.Encoding.UTF16, text=[text]))
    if comment := _clean(lowercase.get("comment", "")):
        out.add(mutagen.COMM(encoding=mutagen.Encoding.UTF16, lang="und", desc="", text=[comment]))
    if cover:
        mime = _media_type(cover)
        out.add(mutagen.APIC(encoding=mutagen.Encoding.LATIN1, mime=mime, type=3, desc="", data=cover))
    for frame in _chapter_frames(mutagen, chapters):
        out.add(frame)
    file = io.BytesIO()
    out.update_to_v23()
    out.save(file, v1=0, v2_version=3, padding=lambda _: 0)
    return file.getvalue()


def _media_type(image: bytes) -> str:
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in _IMAGES if image.startswith(magic)), "image/jpeg")


def _chapter_frames(mutagen: Any, chapters: Sequence[Chapter]) -> Iterator[Any]:
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


def _lower(tags: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in tags.items()}


def _clean(text: str) -> str:
    # A file name may contain bytes that are not text, which Python represents as lone surrogates.
    text = text.encode("utf-8", "replace").decode()
    return _CONTROL.sub(" ", text).strip()[:_MAX_TEXT]
