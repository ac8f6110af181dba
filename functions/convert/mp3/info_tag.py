"""The Xing/Info tag with LAME's extension: the first frame of an MP3, silent, that says how long the file is.

Written as ffmpeg's muxer does (libavformat/mp3enc.c, mp3_write_xing and mp3_update_xing), byte for byte.
"""

from collections.abc import Sequence

from functions.convert.mp3.frame import HEADER_SIZE, parse_header, tag_offset

# Offsets from the word Xing or Info.
_FRAMES, _BYTES, _TOC, _ENCODER, _DELAYS, _MUSIC, _MUSIC_CRC, _TAG_CRC = 8, 12, 16, 120, 141, 148, 152, 154
_SIZE = 156
_ALL_FIELDS = 0x0F
_TOC_ENTRIES = 100
_CRC_SPAN = 190

#: A table of contents is made from at most so many marks (libavformat/mp3enc.c, XING_NUM_BAGS).
MARKS = 400


def delays(tag: bytes) -> tuple[int, int] | None:
    """Encoder delay and padding in samples, as the LAME extension gives them; None where there is none."""
    offset = tag_offset(tag)
    if offset is None or len(tag) < offset + _SIZE or tag[offset + 4 : offset + 8] != _ALL_FIELDS.to_bytes(4, "big"):
        return None
    both = int.from_bytes(tag[offset + _DELAYS : offset + _DELAYS + 3], "big")
    return both >> 12, both & 0xFFF


def blank(like: bytes, bitrate: int | None, encoder: bytes, delay: int, padding: int) -> bytes:
    """A tag frame without figures for sound whose frames look like the header ``like``.

    Args:
        like: the four bytes of a frame's header.
        bitrate: kbit/s that the tag frame itself should have, None for the least that holds the tag.
        encoder: nine bytes at most.
        delay: samples that the encoder put in front.
        padding: samples that it put behind.
    """
    for index in range(1, 15):
        header = bytes((0xFF, like[1] | 1, index << 4 | like[2] & 0x0C, like[3] & 0xC0))
        frame = parse_header(header)
        if frame and frame.size >= HEADER_SIZE + frame.side_info + _SIZE and frame.bitrate >= (bitrate or 0):
            break
    else:
        raise ValueError(f"no tag fits into frames like {like.hex()}")
    tag = bytearray(frame.size)
    tag[:HEADER_SIZE] = header
    offset = HEADER_SIZE + frame.side_info
    tag[offset : offset + 4] = b"Xing"
    tag[offset + 4 : offset + 8] = _ALL_FIELDS.to_bytes(4, "big")
    tag[offset + _ENCODER : offset + _ENCODER + 9] = encoder[:9].ljust(9, b"\0")
    both = min(max(delay, 0), 0xFFF) << 12 | min(max(padding, 0), 0xFFF)
    tag[offset + _DELAYS : offset + _DELAYS + 3] = both.to_bytes(3, "big")
    return bytes(tag)


def fill(template: bytes, *, frames: int, size: int, crc: int, marks: Sequence[int], variable: bool) -> bytes:
    """The tag frame with its figures.

    Args:
        template: a tag frame with the right header, encoder, delay and padding.
        frames: how many frames of sound follow.
        size: how many bytes they have.
        crc: their CRC-16 (ARC).
        marks: bytes of sound before each mark, evenly spaced, fewer than MARKS.
        variable: whether the frames' bit rates differ.
    """
    from fastcrc import crc16

    tag = bytearray(template)
    offset = tag_offset(template)
    if offset is None:
        raise ValueError("the template is no Xing or Info frame")
    whole = len(tag) + size

    def put(field: int, value: int, width: int) -> None:
        limit = (1 << 8 * width) - 1
        tag[offset + field : offset + field + width] = min(value, limit).to_bytes(width, "big")

    tag[offset : offset + 4] = b"Xing" if variable else b"Info"
    put(_FRAMES, frames, 4)
    put(_BYTES, whole, 4)
    put(_TOC, 0, 1)
    for entry in range(1, _TOC_ENTRIES):
        mark = entry * len(marks) // _TOC_ENTRIES
        position = len(tag) + marks[mark] if marks else 0
        put(_TOC + entry, min(256 * position // whole, 255), 1)
    put(_MUSIC, whole, 4)
    put(_MUSIC_CRC, crc, 2)
    put(_TAG_CRC, 0, 2)  # in a mono file the CRC's own place is within the bytes that it is made of
    put(_TAG_CRC, crc16.arc(bytes(tag[:_CRC_SPAN]).ljust(_CRC_SPAN, b"\0")), 2)
    return bytes(tag)
