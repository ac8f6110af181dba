"""Parses headers of MPEG audio frames (Layer III) and recognizes frames that are tags."""

from dataclasses import dataclass
from functools import lru_cache

# ISO/IEC 11172-3 and 13818-3: kbit/s by bitrate_index, for MPEG-1 and for MPEG-2 and 2.5; index 0 is free format.
_BITRATES = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# Hz by sampling_frequency, for version bits 3 (MPEG-1), 2 (MPEG-2), 0 (MPEG-2.5).
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}

#: All sample rates of Layer III, Hz.
SAMPLE_RATES = tuple(sorted(rate for rates in _RATES.values() for rate in rates))

#: Bytes of a frame's header.
HEADER_SIZE = 4

#: Samples that a decoder adds at the start, not included in a LAME tag's delay (libavformat/mp3dec.c).
DECODER_DELAY = 529

#: Maximum number of samples at the start that a tag can make players skip: the delay field has 12 bits.
MAX_SKIPPED = 0xFFF + DECODER_DELAY

#: Bytes of an ID3v1 tag, and of the longest header of a tag, APEv2's.
_ID3V1_SIZE = 128
_TAG_HEADER = 32
#: The first bytes of a Lyrics3 tag, and the last ones of its two versions (id3.org/Lyrics3, id3.org/Lyrics3v2).
_LYRICS3 = b"LYRICSBEGIN"
_LYRICS3_ENDS = (b"LYRICS200", b"LYRICSEND")


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The header of one frame.

    Attributes:
        rate: samples a second.
        samples: samples per channel in the frame.
        size: bytes of the frame, including header and padding.
        bitrate: kbit/s.
        side_info: bytes between the header (and its CRC) and the main data.
        protected: whether a CRC of two bytes follows the header.
    """

    rate: int
    samples: int
    size: int
    bitrate: int
    side_info: int
    protected: bool

    @property
    def kind(self) -> tuple[int, int]:
        """The rate and the MPEG version (as samples per frame): both must be the same in all frames of a file."""
        return self.rate, self.samples


def samples_per_frame(rate: int) -> int:
    """Returns the samples per channel in a frame: 1152 in MPEG-1 (32 kHz and up), 576 below."""
    return 1152 if rate >= 32000 else 576


def parse_header(data: bytes | bytearray | memoryview) -> FrameHeader | None:
    """Parses the header at the start of ``data``; None if it is not a Layer III header, or is free format."""
    return _parse(bytes(data[:HEADER_SIZE]))


@lru_cache(maxsize=4096)
def _parse(header: bytes) -> FrameHeader | None:
    if len(header) < HEADER_SIZE or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version = header[1] >> 3 & 3
    rates = _RATES.get(version)
    bitrate_index = header[2] >> 4
    rate_index = header[2] >> 2 & 3
    if rates is None or rate_index == 3 or bitrate_index in (0, 15):
        return None
    mpeg1 = version == 3
    mono = header[3] >> 6 == 3
    rate = rates[rate_index]
    samples = samples_per_frame(rate)
    bitrate = _BITRATES[mpeg1][bitrate_index]
    side_info = (17 if mono else 32) if mpeg1 else (9 if mono else 17)
    size = samples // 8 * bitrate * 1000 // rate + (header[2] >> 1 & 1)
    return FrameHeader(rate, samples, size, bitrate, side_info, not header[1] & 1)


def tag_offset(data: bytes | bytearray) -> int | None:
    """Returns the byte offset of the word ``Xing`` or ``Info`` in a tag frame; None if the frame has neither."""
    frame = parse_header(data)
    if frame is None:
        return None
    for offset in {HEADER_SIZE + frame.side_info, HEADER_SIZE + frame.side_info + 2 * frame.protected}:
        if data[offset : offset + 4] in (b"Xing", b"Info"):
            return offset
    return None


def is_tag(data: bytes | bytearray) -> bool:
    """Returns whether the frame is a Xing, Info or VBRI tag instead of sound."""
    return tag_offset(data) is not None or data[36:40] == b"VBRI"


def tags_size(data: bytes) -> int:
    """Returns how many bytes at the start of ``data`` are ID3, APEv2 and Lyrics3 tags, at most."""
    size = 0
    while found := _tag_size(data[size : size + _TAG_HEADER]) or _lyrics_size(data, size):
        size += found
    return size


def syncsafe(data: bytes) -> int:
    """Returns a number of ID3, of whose bytes the upper bit is not used (ID3v2.4 structure document, 6.2)."""
    value = 0
    for byte in data:
        value = value << 7 | byte & 0x7F
    return value


def _lyrics_size(data: bytes, start: int) -> int:
    if not data.startswith(_LYRICS3, start):
        return 0
    ends = [at + len(end) for end in _LYRICS3_ENDS if (at := data.find(end, start)) > 0]
    return min(ends, default=len(data)) - start


def _tag_size(header: bytes) -> int:
    if header.startswith(b"TAG"):
        return _ID3V1_SIZE
    if header.startswith(b"ID3") and len(header) >= 10 and max(header[6:10]) < 0x80:  # ID3v2.4, 3.1
        return 10 + syncsafe(header[6:10]) + (10 if header[5] & 0x10 else 0)
    if header.startswith(b"APETAGEX") and len(header) >= _TAG_HEADER:
        # The length counts the items and the footer. Bit 29 of the flags marks a header.
        is_header = header[23] & 0x20
        return _TAG_HEADER + int.from_bytes(header[12:16], "little") if is_header else _TAG_HEADER
    return 0
