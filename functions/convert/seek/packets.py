"""How many samples a packet decodes to, told from the packet itself: for codecs whose decoders forget.

PCM and FLAC have no memory. What Vorbis decodes to depends on one packet before it, MP3 on the one before and on as
many as hold the 511 bytes that its frames may borrow: after that a decoder that began late gives the same samples to
the last bit, since no more than that goes into them.
"""

from collections.abc import Callable

from functions.convert.errors import UnsupportedLayout
from functions.convert.mp3.frame import HEADER_SIZE, parse_header

#: Samples of each channel that the packet between two offsets adds.
Count = Callable[[bytes, int, int], int]

#: Bytes of a sample.
_PCM = {
    "pcm_u8": 1,
    **dict.fromkeys(("pcm_s16le", "pcm_s16be"), 2),
    **dict.fromkeys(("pcm_s24le", "pcm_s24be"), 3),
    **dict.fromkeys(("pcm_s32le", "pcm_s32be", "pcm_f32le"), 4),
    "pcm_f64le": 8,
}
#: Bytes of a packet of FLAC at least (RFC 9639, 9): header, one constant sample, CRC. Silence takes little more.
_LEAST_FLAC = 10
#: Codecs whose packets can be counted.
COUNTED = frozenset({*_PCM, "flac", "mp3", "vorbis"})


def counting(codec: str, channels: int, private: bytes) -> Count:
    """What counts the samples of a track's packets, which it has to be given in their order, each once.

    Args:
        codec: one of ``COUNTED``.
        channels: of the track.
        private: what the decoder is told before the first packet.

    Raises:
        UnsupportedLayout: they cannot be counted; the function that is returned raises it, too.
    """
    if codec == "vorbis":
        return _vorbis(private)
    if codec in _PCM:
        return _pcm(_PCM[codec] * channels)
    return _steady(_flac if codec == "flac" else _mp3)


def _pcm(size: int) -> Count:
    def count(_: bytes, start: int, end: int) -> int:
        samples, rest = divmod(end - start, size)
        if rest:
            raise UnsupportedLayout
        return samples

    return count


def _steady(read: Callable[[bytes, int, int], tuple[int, object]]) -> Count:
    """Counts packets whose header tells their samples and a kind of sound, which has to stay the same."""
    first: list[object] = []

    def count(data: bytes, start: int, end: int) -> int:
        samples, kind = read(data, start, end)
        first[:] = first or [kind]
        if kind != first[0]:
            raise UnsupportedLayout
        return samples

    return count


def _mp3(data: bytes, start: int, end: int) -> tuple[int, object]:
    frame = parse_header(data[start : start + HEADER_SIZE])
    if frame is None or frame.size != end - start:
        raise UnsupportedLayout
    return frame.samples, (frame.rate, data[start + 3] >> 6 == 3)


def _flac(data: bytes, start: int, end: int) -> tuple[int, object]:
    # RFC 9639, 9.1: sync code, block size and rate, channels and bits, the frame's number, then what had no room.
    if end - start < _LEAST_FLAC or data[start] != 0xFF or data[start + 1] & 0xFE != 0xF8:
        raise UnsupportedLayout
    size, kind = data[start + 2] >> 4, data[start + 3]
    channels = min(kind >> 4, 8)
    if size in (6, 7):
        number = 8 - (data[start + 4] ^ 0xFF).bit_length()  # leading ones: bytes of the number, as in UTF-8
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
    if not size or kind >> 4 > 10:
        raise UnsupportedLayout
    return samples, (data[start + 2] & 15, 1 if channels == 8 else channels, kind & 15)


def _vorbis(private: bytes) -> Count:
    sizes, long, bits = _setup(private)
    before: list[int] = []

    def count(data: bytes, start: int, end: int) -> int:
        if start == end or data[start] & 1:
            raise UnsupportedLayout
        mode = data[start] >> 1 & (1 << bits) - 1
        if mode >= len(long):
            raise UnsupportedLayout
        size = sizes[long[mode]]
        # Half of the first is heard only where it is not said how much is to be dropped; as a rule nothing of it is.
        samples = (before[0] + size) // 4 if before else size // 2
        before[:] = [size]
        return samples

    return count


def _setup(private: bytes) -> tuple[tuple[int, int], list[bool], int]:
    """The two sizes of blocks, which of them each mode has, and the bits of a mode's number.

    Modes stand at the end of the setup header (Vorbis I, 4.2.4), behind what would be long to read. So they are read
    from there, backwards: framing bit, then of each mode its mapping, two zeros of 16 bits, and the block's size; what
    stands before them is how many they are.
    """
    if len(private) < 3 or private[0] != 2:
        raise UnsupportedLayout
    lengths, at = [], 1
    for _ in range(2):
        length = 0
        while at < len(private):
            length, at = length + private[at], at + 1
            if private[at - 1] != 255:
                break
        lengths.append(length)
    identity, setup = private[at : at + lengths[0]], private[at + sum(lengths) :]
    if identity[:7] != b"\x01vorbis" or len(identity) != 30 or setup[:7] != b"\x05vorbis":
        raise UnsupportedLayout
    sizes = 1 << (identity[28] & 15), 1 << (identity[28] >> 4)
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
        raise UnsupportedLayout  # no encoder makes more, and the more there are the less sure it is
    return sizes, found, (len(found) - 1).bit_length()
