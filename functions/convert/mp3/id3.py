"""The ID3v2.3 tag in front of the MP3: title and what else the source says of itself."""

import importlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from functions.convert.chapters import Chapter

#: ID3v2.3 frames by the names that libavformat gives to what it finds in any container.
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
    "date": "TDRC",  # mutagen writes TYER and TDAT of it
}
_LONGEST = 1000
#: In the place of a byte offset: the time holds (ID3v2 Chapter Frame Addendum, 3.1).
_BY_TIME = 0xFFFFFFFF
#: How files of pictures begin, beside those of JPEG.
_PICTURES = (
    (b"\x89PNG", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
#: Milliseconds: what four bytes hold, 49 days. A damaged file may claim to be longer.
_LATEST = 0xFFFFFFFF
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def title(tags: Mapping[str, str], filename: str) -> str:
    """The file's own title, else its name without the extension."""
    return _clean(_lower(tags).get("title", "")) or _clean(PurePath(filename.replace("\\", "/")).stem) or "audio"


def build_tag(tags: Mapping[str, str], filename: str, cover: bytes, chapters: Sequence[Chapter] = ()) -> bytes:
    """The whole ID3v2.3 tag.

    Args:
        tags: names and values as the source has them.
        filename: the source's name.
        cover: a picture, or nothing.
        chapters: of the MP3.
    """
    mutagen: Any = importlib.import_module("mutagen.id3")  # it has no types

    found = _lower(tags)
    out = mutagen.ID3()
    for name, frame in _FRAMES.items():
        text = title(tags, filename) if name == "title" else _clean(found.get(name, ""))
        if text:
            out.add(getattr(mutagen, frame)(encoding=mutagen.Encoding.UTF16, text=[text]))
    if comment := _clean(found.get("comment", "")):
        out.add(mutagen.COMM(encoding=mutagen.Encoding.UTF16, lang="und", desc="", text=[comment]))
    if cover:
        out.add(mutagen.APIC(encoding=mutagen.Encoding.LATIN1, mime=_kind(cover), type=3, desc="", data=cover))
    for frame in _chapter_frames(mutagen, chapters):
        out.add(frame)
    file = io.BytesIO()
    out.update_to_v23()
    out.save(file, v1=0, v2_version=3, padding=lambda _: 0)
    return file.getvalue()


def _kind(picture: bytes) -> str:
    webp = picture[:4] == b"RIFF" and picture[8:12] == b"WEBP"
    return (
        "image/webp" if webp else next((kind for begin, kind in _PICTURES if picture.startswith(begin)), "image/jpeg")
    )


def _chapter_frames(mutagen: Any, chapters: Sequence[Chapter]) -> Iterator[Any]:
    names = [f"chp{number}" for number in range(len(chapters))]
    if names:
        flags = mutagen.CTOCFlags.TOP_LEVEL | mutagen.CTOCFlags.ORDERED
        yield mutagen.CTOC(element_id="toc", flags=flags, child_element_ids=names, sub_frames=[])
    for name, one in zip(names, chapters, strict=True):
        text = mutagen.TIT2(encoding=mutagen.Encoding.UTF16, text=[_clean(one.title)])
        yield mutagen.CHAP(
            element_id=name,
            start_time=min(round(one.start * 1000), _LATEST),
            end_time=min(round(one.end * 1000), _LATEST),
            start_offset=_BY_TIME,
            end_offset=_BY_TIME,
            sub_frames=[text],
        )


def _lower(tags: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in tags.items()}


def _clean(text: str) -> str:
    # The name of a file on a disk may have bytes that are no text, which Python keeps as lone surrogates.
    text = text.encode("utf-8", "replace").decode()
    return _CONTROL.sub(" ", text).strip()[:_LONGEST]
