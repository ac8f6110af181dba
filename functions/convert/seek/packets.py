"""Counts the samples that a packet decodes to by looking at the packet, for codecs whose decoders have short memories.

PCM and FLAC have no memory. What a Vorbis packet decodes to depends on the one packet before it; an MP3 packet depends
on the one before it and on as many as contain the 511 bytes that its frames may borrow. After that, a decoder that
started late outputs bit-identical samples, since nothing else affects them.
"""

from collections.abc import Callable

from functions.convert.errors import UnsupportedLayout
from functions.mp3.frame import HEADER_SIZE, parse_header

#: Returns the samples per channel that the packet between two offsets adds.
Count = Callable[[bytes, int, int], int]

#: Bytes of a sample.
_PCM = {
    "pcm_u8": 1,
    **dict.fromkeys(("pcm_s16le", "pcm_s16be"), 2),
    **dict.fromkeys(("pcm_s24le", "pcm_s24be"), 3),
    **dict.fromkeys(("pcm_s32le", "pcm_s32be", "pcm_f32le"), 4),
    "pcm_f64le": 8,
}
#: Bytes of the smallest FLAC packet (RFC 9639, 9): header, one constant sample, CRC. Silence takes little more.
_MIN_FLAC = 10
#: Samples of a packet of AAC-LC, of which a few files have 960 instead.
AAC_SAMPLES = 1024
#: Samples a second by which lengths in Opus count.
OPUS_RATE = 48_000
#: Samples of a frame of Opus by the configuration of its packet (RFC 6716, table 2): SILK, both, CELT.
_OPUS_FRAMES = (*(480, 960, 1920, 2880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)
_FIRST_CELT = 16
#: Samples of the longest packet of Opus, 120 ms.
_MAX_OPUS = 5760
#: Codecs whose packets can be counted, and whose decoders have short memories.
COUNTABLE = frozenset({*_PCM, "flac", "mp3", "vorbis"})
#: Those, and codecs whose decoders may remember more.
NUMBERED = COUNTABLE | {"aac", "opus"}


def packet_counter(codec: str, channels: int, private: bytes) -> Count:
    """Returns a function that counts the samples of a track's packets; call it for each packet, once and in order.

    Args:
        codec: one of ``NUMBERED``.
        channels: of the track.
        private: the decoder's configuration from the container.

    Raises:
        UnsupportedLayout: the packets cannot be counted. The returned function raises it too.
    """
    if codec == "vorbis":
        return _vorbis(private)
    if codec in _PCM:
        return _pcm(_PCM[codec] * channels)
    if codec == "aac":
        return lambda *_: AAC_SAMPLES
    if codec == "opus":
        return _opus
    return _uniform(_flac if codec == "flac" else _mp3)


def _pcm(size: int) -> Count:
    def count(_: bytes, start: int, end: int) -> int:
        samples, rest = divmod(end - start, size)
        if rest:
            raise UnsupportedLayout
        return samples

    return count


def _uniform(read: Callable[[bytes, int, int], tuple[int, object]]) -> Count:
    """Returns a function that counts packets whose header gives their samples and a format, which must not change."""
    first: list[object] = []

    def count(data: bytes, start: int, end: int) -> int:
        samples, format_ = read(data, start, end)
        first[:] = first or [format_]
        if format_ != first[0]:
            raise UnsupportedLayout
        return samples

    return count


def _mp3(data: bytes, start: int, end: int) -> tuple[int, object]:
    frame = parse_header(data[start : start + HEADER_SIZE])
    if frame is None or frame.size != end - start:
        raise UnsupportedLayout
    return frame.samples, (frame.rate, data[start + 3] >> 6 == 3)


def _flac(data: bytes, start: int, end: int) -> tuple[int, object]:
    # RFC 9639, 9.1: sync code, block size and rate, channels and bits, frame number, then an uncommon block size.
    if end - start < _MIN_FLAC or data[start] != 0xFF or data[start + 1] & 0xFE != 0xF8:
        raise UnsupportedLayout
    size = data[start + 2] >> 4
    layout = data[start + 3]
    channels = min(layout >> 4, 8)
    if size in (6, 7):
        number = 8 - (data[start + 4] ^ 0xFF).bit_length()  # leading ones: bytes of the frame number, as in UTF-8
        at = start + 4 + max(number, 1)
        if at + size - 5 > end:
            raise UnsupportedLayout
        samples = int.from_bytes(data[at : at + size - 5], "big") + 1
    elif size == 1:
        samples = 192
    elif size < 6:
        samples = 144 << size
    else:
        samples = 1 << size
    if not size or layout >> 4 > 10:
        raise UnsupportedLayout
    return samples, (data[start + 2] & 15, 1 if channels == 8 else channels, layout & 15)


def _opus(data: bytes, start: int, end: int) -> int:
    if start == end or data[start] >> 3 < _FIRST_CELT:  # decoders of SILK remember without end
        raise UnsupportedLayout
    if not (samples := opus_samples(data[start : min(start + 2, end)])):
        raise UnsupportedLayout
    return samples


def opus_samples(beginning: bytes) -> int:
    """Returns the samples of a packet of Opus, at 48 kHz, by its first two bytes; 0 if it is damaged."""
    # RFC 6716, 3.1 and 3.2: the first byte has the configuration, and how many frames there are: 1, 2, or the number
    # in the second byte.
    if not beginning:
        return 0
    frames = min(beginning[0] & 3, 1) + 1
    if beginning[0] & 3 == 3:
        frames = beginning[1] & 63 if len(beginning) > 1 else 0
    samples = _OPUS_FRAMES[beginning[0] >> 3] * frames
    return samples if samples <= _MAX_OPUS else 0


def opus_skip(config: bytes) -> int:
    """Returns the samples that every decoder of a track in Opus drops at its start (RFC 7845, 5.1)."""
    if config[:8] != b"OpusHead" or len(config) < 12:
        raise UnsupportedLayout
    return int.from_bytes(config[10:12], "little")


def _vorbis(private: bytes) -> Count:
    sizes, long, bits = _vorbis_setup(private)
    before: list[int] = []

    def count(data: bytes, start: int, end: int) -> int:
        if start == end or data[start] & 1:
            raise UnsupportedLayout
        mode = data[start] >> 1 & (1 << bits) - 1
        if mode >= len(long):
            raise UnsupportedLayout
        size = sizes[long[mode]]
        # The first packet yields half a block only if the file does not say how much to drop; usually it yields none.
        samples = (before[0] + size) // 4 if before else size // 2
        before[:] = [size]
        return samples

    return count


def _vorbis_setup(private: bytes) -> tuple[tuple[int, int], list[bool], int]:
    """Returns the two block sizes, whether each mode has the long one, and the bits of a mode's number.

    The modes are at the end of the setup header (Vorbis I, 4.2.4), after parts that are laborious to parse. So they are
    read backward from the end: the framing bit, then for each mode its mapping, two zero fields of 16 bits, and the
    block flag; the number of modes is in front of them.
    """
    if len(private) < 3 or private[0] != 2:
        raise UnsupportedLayout
    lengths = []
    at = 1
    for _ in range(2):
        length = 0
        while at < len(private):
            length += private[at]
            at += 1
            if private[at - 1] != 255:
                break
        lengths.append(length)
    identity = private[at : at + lengths[0]]
    setup = private[at + sum(lengths) :]
    if identity[:7] != b"\x01vorbis" or len(identity) != 30 or setup[:7] != b"\x05vorbis":
        raise UnsupportedLayout
    sizes = 1 << (identity[28] & 15), 1 << (identity[28] >> 4)
    modes = _vorbis_modes(setup)
    return sizes, modes, (len(modes) - 1).bit_length()


def _vorbis_modes(setup: bytes) -> list[bool]:
    # The block flag of each mode: whether it has long blocks.
    number = int.from_bytes(setup, "little")
    end = number.bit_length() - 1  # without the framing bit
    long: list[bool] = []
    found: list[bool] = []
    while end >= 97 and len(long) < 64 and number >> end - 8 & 0xFF < 64 and not number >> end - 40 & 0xFFFFFFFF:
        end -= 41
        long.insert(0, bool(number >> end & 1))
        if (number >> end - 6 & 63) + 1 == len(long):
            found = list(long)
    if not 1 <= len(found) <= 2:
        raise UnsupportedLayout  # no encoder makes more, and with more modes the guess is less certain
    return found
