"""Recognizes audio and video by a file's first bytes. This is a quick filter: the converter has the final say."""

from collections.abc import Callable
from typing import Final

from events.errors import Mp3burstError

#: Bytes that ``is_media`` needs: two packets of an M2TS stream, and some to spare.
HEAD_SIZE: Final = 512

#: Signatures at the start of a file, from the formats' specifications and ffmpeg's probes.
_STARTS: Final = (
    b"\x1a\x45\xdf\xa3",  # EBML: Matroska, WebM
    b"OggS",
    b"fLaC",
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF: WMA, WMV
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG video sequence
    b"ID3",
    b"#!AMR",
    b"caff",
    b".snd",
    b".RMF",
    b"wvpk",
    b"MAC ",
    b"TTA1",
    b"MPCK",
    b"MP+",
    b"DSD ",
    b"ADIF",
    b"\x0b\x77",  # AC-3, E-AC-3
    b"\x7f\xfe\x80\x01",  # DTS
    b"\x06\x0e\x2b\x34",  # MXF
    b"nut/multimedia container",
)
#: Types of the first box of a QuickTime or ISO base media file; the type follows the box's length.
_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"styp", b"uuid")
#: Forms by container of RIFF and IFF files.
_FORMS: Final = {
    b"RIFF": (b"AVI ", b"WAVE", b"RMID", b"CDXA"),
    b"RF64": (b"WAVE",),
    b"FORM": (b"AIFF", b"AIFC", b"8SVX"),
}


class UnsupportedMediaType(Mp3burstError):
    """The request has a Content-Type that is not accepted, or the file is neither audio nor video."""

    status = 415


def is_media(head: bytes) -> bool:
    """Returns whether a file may be audio or video.

    Args:
        head: the file's first HEAD_SIZE bytes, or all of a shorter file.
    """
    return any(matches(head) for matches in _FORMATS)


def require_media(head: bytes) -> None:
    """Raises UnsupportedMediaType unless ``is_media(head)``."""
    if not is_media(head):
        raise UnsupportedMediaType("This file is neither audio nor video: choose another.")


def _is_iff(head: bytes) -> bool:
    return head[8:12] in _FORMS.get(head[:4], ())


def _is_transport_stream(head: bytes) -> bool:
    # ISO/IEC 13818-1: packets of 188 bytes that start with 0x47; M2TS adds 4 bytes before each, DVB-ASI 16 after it.
    return any(
        head[first : first + 1] == b"G" and head[first + size : first + size + 1] == b"G"
        for first, size in ((0, 188), (4, 192), (0, 204))
    )


def _is_mpeg_audio(head: bytes) -> bool:
    # ISO/IEC 11172-3 and 13818-7: a sync word of eleven set bits. Some recorders leave zeros before the first frame.
    frame = head.lstrip(b"\x00")[:3]
    if len(frame) < 3 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return False
    layer = frame[1] >> 1 & 3
    version = frame[1] >> 3 & 3
    is_adts = frame[1] & 0xF6 == 0xF0
    return is_adts or (layer != 0 and version != 1 and frame[2] >> 4 != 15 and frame[2] >> 2 & 3 != 3)


_FORMATS: Final[tuple[Callable[[bytes], bool], ...]] = (
    lambda head: head.startswith(_STARTS),
    lambda head: head[4:8] in _BOXES,
    _is_iff,
    _is_transport_stream,
    _is_mpeg_audio,
)
