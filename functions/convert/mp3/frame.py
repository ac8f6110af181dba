"""MPEG audio frames of Layer III: their headers, and what of the Xing/Info tag is needed to tell one from sound."""

from dataclasses import dataclass
from functools import lru_cache

# ISO/IEC 11172-3 and 13818-3: kbit/s by bitrate_index, for MPEG-1 and for MPEG-2 and 2.5; index 0 is free format.
_BITRATES = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# Hz by sampling_frequency, for version bits 3 (MPEG-1), 2 (MPEG-2), 0 (MPEG-2.5).
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}

#: Every sample rate that Layer III has.
SAMPLE_RATES = tuple(sorted(rate for rates in _RATES.values() for rate in rates))

HEADER_SIZE = 4

#: Samples that a decoder adds in front, and that a LAME tag's delay does not count (libavformat/mp3dec.c).
DECODER_DELAY = 529

#: Samples at the beginning that a tag can keep from being heard: its delay has 12 bits.
MAX_SKIPPED = 0xFFF + DECODER_DELAY


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """One frame's header.

    Attributes:
        rate: samples a second.
        samples: samples of each channel in the frame.
        size: bytes of the frame, header and padding included.
        bitrate: kbit/s.
        side_info: bytes between the header (and its CRC) and the main data.
        protected: whether two bytes of CRC follow the header.
    """

    rate: int
    samples: int
    size: int
    bitrate: int
    side_info: int
    protected: bool

    @property
    def kind(self) -> tuple[int, int]:
        """What must not change within a file: the rate, and with it the MPEG version."""
        return self.rate, self.samples


def samples_per_frame(rate: int) -> int:
    """Samples of each channel in a frame: 1152 for MPEG-1, from 32 kHz on, else 576."""
    return 1152 if rate >= 32000 else 576


def parse_header(data: bytes | bytearray | memoryview) -> FrameHeader | None:
    """The Layer III frame that begins at the first byte, None where none does (free format counts as none)."""
    return _parse(bytes(data[:HEADER_SIZE]))


@lru_cache(maxsize=4096)
def _parse(header: bytes) -> FrameHeader | None:
    if len(header) < HEADER_SIZE or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    rates = _RATES.get(header[1] >> 3 & 3)
    bitrate_index, rate_index = header[2] >> 4, header[2] >> 2 & 3
    if rates is None or rate_index == 3 or bitrate_index in (0, 15):
        return None
    first = header[1] >> 3 & 3 == 3
    mono = header[3] >> 6 == 3
    rate = rates[rate_index]
    samples = samples_per_frame(rate)
    bitrate = _BITRATES[first][bitrate_index]
    side_info = (17 if mono else 32) if first else (9 if mono else 17)
    size = samples // 8 * bitrate * 1000 // rate + (header[2] >> 1 & 1)
    return FrameHeader(rate, samples, size, bitrate, side_info, not header[1] & 1)


def tag_offset(data: bytes | bytearray) -> int | None:
    """Where the words ``Xing`` or ``Info`` stand in a frame that is a tag; None where it is sound."""
    frame = parse_header(data)
    if frame is None:
        return None
    for offset in {HEADER_SIZE + frame.side_info, HEADER_SIZE + frame.side_info + 2 * frame.protected}:
        if data[offset : offset + 4] in (b"Xing", b"Info"):
            return offset
    return None


def is_tag(data: bytes | bytearray) -> bool:
    """Whether the frame is no sound but a Xing, Info or VBRI tag."""
    return tag_offset(data) is not None or data[36:40] == b"VBRI"
