"""Gives all links of a chained Opus file the same number of channels, which libav demands.

A link is a stream of its own (RFC 7845, 4 and 10), and a radio station's may be stereo and mono in turn. Every decoder
makes two channels of either (RFC 6716, 4.5.4), so a head that says 2 is right for both.
"""

import io
from collections.abc import Iterator
from typing import Final

from functions.convert.demux.child.declared import read_at
from functions.convert.demux.child.mp4.boxes import PatchedFile

#: Links of a file, at most; one with more is left as it is.
_MAX_LINKS: Final = 1000
_BLOCK: Final = 1 << 20
#: The start of a page that begins a stream (RFC 3533, 6): version 0, flag 2.
_FIRST_PAGE: Final = b"OggS\0\2"
_CRC_AT: Final = 22
_HEAD_AT: Final = 28  # after one segment
_CHANNELS_AT: Final = _HEAD_AT + 9
_FAMILY_AT: Final = _HEAD_AT + 18
_PAGE: Final = _FAMILY_AT + 1
_POLYNOMIAL: Final = 0x04C11DB7


def with_two_channels(source: io.RawIOBase, size: int) -> PatchedFile | None:
    """Returns the file with two channels in every link; None if there is nothing to change, or no way to."""
    if read_at(source, 0, 4) != b"OggS":
        return None  # without reading the rest: Opus in Matroska may be hours of video
    pages = [(offset, page) for offset, page in _first_pages(source) if page[_HEAD_AT:].startswith(b"OpusHead")]
    channels = {page[_CHANNELS_AT] for _, page in pages}
    if channels != {1, 2} or any(page[_FAMILY_AT] for _, page in pages) or len(pages) > _MAX_LINKS:
        return None
    patches: dict[int, bytes] = {}
    for offset, page in pages:
        if page[_CHANNELS_AT] == 1:
            stereo = bytearray(page)
            stereo[_CHANNELS_AT] = 2
            stereo[_CRC_AT : _CRC_AT + 4] = bytes(4)
            patches[offset + _CHANNELS_AT] = b"\2"
            patches[offset + _CRC_AT] = crc(stereo).to_bytes(4, "little")
    return PatchedFile(source, size, patches)


def crc(page: bytes | bytearray) -> int:
    """Returns the checksum of a page whose own is 0 (RFC 3533, 6)."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (_POLYNOMIAL if value & 1 << 31 else 0)) & 0xFFFF_FFFF
    return value


def _first_pages(source: io.RawIOBase) -> Iterator[tuple[int, bytes]]:
    """Yields the pages with one short packet that begin streams: where they are, and their bytes."""
    overlap = _HEAD_AT + 255
    start = 0
    found = 0
    while found <= _MAX_LINKS:
        block = read_at(source, start, _BLOCK + overlap)
        at = block.find(_FIRST_PAGE)
        while 0 <= at < _BLOCK:
            if len(block) >= at + _PAGE and block[at + 26] == 1:
                found += 1
                yield start + at, block[at : at + _HEAD_AT + block[at + 27]]
            at = block.find(_FIRST_PAGE, at + 1)
        if len(block) <= _BLOCK:
            return
        start += _BLOCK
