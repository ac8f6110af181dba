"""Refuses files that are certainly neither audio nor video, by their first bytes; the converter decides the rest.

Only what is certain is refused. A recording may begin anywhere in a frame or packet, behind a recorder's own header, or
have no header at all, so a list of known beginnings of audio and video would never be complete.
"""

import codecs
import struct
from collections.abc import Callable
from typing import Final

from events.errors import Mp3burstError

#: Bytes that ``foreign_kind`` needs.
HEAD_SIZE: Final = 512

#: Signatures at the start of files that have no sound, and what each file is, from the formats' specifications. All are
#: of four bytes or more, or of three that are unlikely in sound, which may begin with any bytes.
_STARTS: Final = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"GIF87a": "a GIF picture",
    b"GIF89a": "a GIF picture",
    b"II*\x00": "a TIFF picture",
    b"MM\x00*": "a TIFF picture",
    b"8BPS\x00\x01": "a Photoshop picture",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": "a JPEG 2000 picture",
    b"\x00\x00\x00\x0cJXL \r\n\x87\n": "a JPEG XL picture",
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"PK\x05\x06": "a ZIP archive",
    b"PK\x07\x08": "a ZIP archive",
    b"\x1f\x8b\x08": "a gzip archive",
    b"BZh91AY&SY": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an XZ archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"(\xb5/\xfd": "a Zstandard archive",
    b"MSCF\x00\x00\x00\x00": "a cabinet archive",
    b"%PDF-": "a PDF document",
    b"%!PS-": "a PostScript document",
    b"{\\rtf1": "an RTF document",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an office document",
    b"AT&TFORM": "a DjVu document",
    b"SQLite format 3\x00": "a database",
    b"\x7fELF": "a program",
    b"\xfe\xed\xfa\xce": "a program",
    b"\xfe\xed\xfa\xcf": "a program",
    b"\xce\xfa\xed\xfe": "a program",
    b"\xcf\xfa\xed\xfe": "a program",
    b"\xca\xfe\xba\xbe": "a program",
    b"\x00asm\x01\x00\x00\x00": "a program",
    b"MThd\x00\x00\x00\x06": "a MIDI file, which has notes instead of sound",
    b"d8:announce": "a torrent, which only says where to find a file",
}
#: RIFF files that have no sound, by the form that follows their length.
_RIFF_FORMS: Final = {b"WEBP": "a WebP picture", b"RMID": "a MIDI file, which has notes instead of sound"}
#: Pictures in ISO base media files, by the brand that follows the first box's type (ISO/IEC 23008-12, AV1 image file).
_BRANDS: Final = {
    b"heic": "a HEIF picture",
    b"heix": "a HEIF picture",
    b"mif1": "a HEIF picture",
    b"avif": "an AVIF picture",
}
#: Beginnings of texts, in lower case and after white space, and what they are.
_TEXTS: Final = {
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"#extm3u": "a playlist, which only says where to find a video",
    b"[playlist]": "a playlist, which only says where to find a video",
    b"<svg": "an SVG picture",
    b"webvtt": "a file of subtitles",
}
_TEXT: Final = "a text file"
#: The beginning of a NIST SPHERE file: a text of 1,024 bytes, and sound after it.
_SPHERE: Final = b"NIST_1A\n"
#: Control characters that occur in texts: tab, line feed, form feed, carriage return, escape.
_TEXT_CONTROLS: Final = frozenset(b"\t\n\f\r\x1b")
#: Where a Windows program says at which byte its header starts (PE format, "MS-DOS Stub").
_PE_OFFSET: Final = 0x3C


class UnsupportedMediaType(Mp3burstError):
    """The request has a Content-Type that is not accepted, or the file is certainly neither audio nor video."""

    status = 415


class NotMedia(UnsupportedMediaType):
    """The file is certainly neither audio nor video; ``kind`` is what it is, with its article."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"This is {kind}: choose an audio or video file.")
        self.kind = kind


def foreign_kind(head: bytes) -> str | None:
    """Returns what a file is, with its article, if it is certainly neither audio nor video; None if it may be.

    Args:
        head: the file's first HEAD_SIZE bytes, or all of a shorter file.
    """
    return next((kind for find in _KINDS if (kind := find(head))), None)


def require_media(head: bytes) -> None:
    """Raises NotMedia if the file is certainly neither audio nor video.

    Args:
        head: as for ``foreign_kind``.
    """
    if kind := foreign_kind(head):
        raise NotMedia(kind)


def _by_signature(head: bytes) -> str | None:
    return next((kind for start, kind in _STARTS.items() if head.startswith(start)), None)


def _by_form(head: bytes) -> str | None:
    if head.startswith(b"RIFF"):
        return _RIFF_FORMS.get(head[8:12])
    return _BRANDS.get(head[8:12]) if head[4:8] == b"ftyp" else None


def _bitmap(head: bytes) -> str | None:
    # BITMAPFILEHEADER: "BM", the file's size, two reserved zeros, where the pixels start, then the size of a header.
    if not head.startswith(b"BM") or len(head) < 18:
        return None
    reserved, _, header = struct.unpack_from("<III", head, 6)
    return "a BMP picture" if not reserved and header in (12, 40, 52, 56, 64, 108, 124) else None


def _tar(head: bytes) -> str | None:
    return "a tar archive" if head[257:262] == b"ustar" else None


def _windows_program(head: bytes) -> str | None:
    if not head.startswith(b"MZ") or len(head) < _PE_OFFSET + 4:
        return None
    (offset,) = struct.unpack_from("<I", head, _PE_OFFSET)
    return "a program" if head[offset : offset + 4] == b"PE\x00\x00" else None


def _text(head: bytes) -> str | None:
    if head.startswith(_SPHERE):
        return None
    # A page in another encoding than UTF-8 begins with ASCII as well.
    if kind := _by_beginning(head.removeprefix(codecs.BOM_UTF8)):
        return kind
    is_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        # Not final: the last character may be cut.
        text = codecs.getincrementaldecoder("utf-16" if is_utf16 else "utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None
    if not text.strip() or any(ord(sign) < 0x20 and ord(sign) not in _TEXT_CONTROLS for sign in text):
        return None
    return _by_beginning(text.lstrip().encode()) or _TEXT


def _by_beginning(text: bytes) -> str | None:
    start = text.lstrip().lower()
    return next((kind for beginning, kind in _TEXTS.items() if start.startswith(beginning)), None)


_KINDS: Final[tuple[Callable[[bytes], str | None], ...]] = (
    _by_signature,
    _by_form,
    _bitmap,
    _tar,
    _windows_program,
    _text,
)
