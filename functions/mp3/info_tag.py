"""Reads and writes the Xing/Info tag with LAME's extension: the silent first frame that says how long the MP3 is.

Written as ffmpeg's muxer does (libavformat/mp3enc.c, mp3_write_xing and mp3_update_xing), byte for byte.
"""

from collections.abc import Sequence

from functions.mp3.frame import HEADER_SIZE, parse_header, tag_offset

# Byte offsets from the word Xing or Info.
_FRAMES = 8
_BYTES = 12
_TOC = 16
_ENCODER = 120
_DELAYS = 141
_MUSIC = 148
_MUSIC_CRC = 152
_TAG_CRC = 154
_SIZE = 156
_ALL_FIELDS = 0x0F
_TOC_ENTRIES = 100
_CRC_SPAN = 190

#: The table of contents is made from fewer marks than this (libavformat/mp3enc.c, XING_NUM_BAGS).
MAX_MARKS = 400


def delay_and_padding(tag: bytes) -> tuple[int, int] | None:
    """Returns the encoder delay and padding in samples, from the LAME extension; None if there is none."""
    offset = tag_offset(tag)
    if offset is None or len(tag) < offset + _SIZE or tag[offset + 4 : offset + 8] != _ALL_FIELDS.to_bytes(4, "big"):
        return None
    both = int.from_bytes(tag[offset + _DELAYS : offset + _DELAYS + 3], "big")
    return both >> 12, both & 0xFFF


def frame_count(tag: bytes) -> int:
    """Returns the number of frames of sound that a tag frame announces; 0 if it is no tag or does not say."""
    offset = tag_offset(tag)
    if offset is None or len(tag) < offset + _BYTES or not tag[offset + 7] & 1:
        return 0
    return int.from_bytes(tag[offset + _FRAMES : offset + _BYTES], "big")


def encoder(tag: bytes) -> bytes:
    """Returns the nine bytes of the encoder's name in a tag frame; none if there are none."""
    offset = tag_offset(tag)
    return b"" if offset is None else tag[offset + _ENCODER : offset + _ENCODER + 9]


def blank_tag(like: bytes, bitrate: int | None, encoder: bytes, delay: int, padding: int) -> bytes:
    """Builds a tag frame without figures, in the format of the frames that follow it.

    Args:
        like: the four header bytes of such a frame.
        bitrate: minimum bit rate of the tag frame in kbit/s; None for the smallest that fits the tag.
        encoder: the encoder's name, up to nine bytes.
        delay: samples that the encoder added at the start.
        padding: samples that it added at the end.
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


def fill_tag(template: bytes, *, frames: int, size: int, crc: int, marks: Sequence[int], variable: bool) -> bytes:
    """Fills in the figures of a tag frame.

    Args:
        template: a tag frame with the right header, encoder, delay and padding.
        frames: number of frames of sound that follow.
        size: their bytes.
        crc: their CRC-16 (ARC).
        marks: bytes of sound before each of fewer than MAX_MARKS evenly spaced marks.
        variable: whether the frames' bit rates differ.
    """
    from fastcrc import crc16

    tag = bytearray(template)
    offset = tag_offset(template)
    if offset is None:
        raise ValueError("the template is not a Xing or Info frame")
    total = len(tag) + size

    def put(field: int, value: int, width: int) -> None:
        limit = (1 << 8 * width) - 1
        tag[offset + field : offset + field + width] = min(value, limit).to_bytes(width, "big")

    tag[offset : offset + 4] = b"Xing" if variable else b"Info"
    put(_FRAMES, frames, 4)
    put(_BYTES, total, 4)
    put(_TOC, 0, 1)
    for entry in range(1, _TOC_ENTRIES):
        mark = entry * len(marks) // _TOC_ENTRIES
        position = len(tag) + marks[mark] if marks else 0
        put(_TOC + entry, min(256 * position // total, 255), 1)
    put(_MUSIC, total, 4)
    put(_MUSIC_CRC, crc, 2)
    put(_TAG_CRC, 0, 2)  # in a mono file the CRC field is itself within the bytes that the CRC covers
    put(_TAG_CRC, crc16.arc(bytes(tag[:_CRC_SPAN]).ljust(_CRC_SPAN, b"\0")), 2)
    return bytes(tag)
