"""What has to be known about AAC to begin in the middle of it: whether it is plain AAC-LC, and packets that draw.

The decoder of AAC-LC remembers one packet, and the state of the random numbers that perceptual noise substitution draws
(ISO/IEC 14496-3, 4.6.13). Packets that draw are written here, bit by bit, so that they fit every track.
"""

from typing import Final

from functions.convert.errors import UnsupportedLayout

#: Samples of a packet.
SAMPLES: Final = 1024
#: AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1): AAC-LC, and a sampling frequency that is written out.
_LOW_COMPLEXITY: Final = 2
_EXPLICIT_RATE: Final = 15
#: The extension that announces spectral band replication at the end of the configuration.
_SYNC_EXTENSION: Final = 0x2B7
#: Elements of a packet (ISO/IEC 14496-3, table 4.85): one channel, two, low frequencies; and the end.
_SCE: Final = "000"
_CPE: Final = "001"
_LFE: Final = "011"
_END: Final = "111"
#: The elements of each channelConfiguration (ISO/IEC 14496-3, table 1.19) and their numbers among those of their kind.
_ELEMENTS: Final = {
    1: ((_SCE, 0),),
    2: ((_CPE, 0),),
    3: ((_SCE, 0), (_CPE, 0)),
    4: ((_SCE, 0), (_CPE, 0), (_SCE, 1)),
    5: ((_SCE, 0), (_CPE, 0), (_CPE, 1)),
    6: ((_SCE, 0), (_CPE, 0), (_CPE, 1), (_LFE, 0)),
    7: ((_SCE, 0), (_CPE, 0), (_CPE, 1), (_CPE, 2), (_LFE, 0)),
}
#: The codebook of bands that are noise (ISO/IEC 14496-3, table 4.A.1).
_NOISE: Final = 13


def drawing_packet(config: bytes) -> bytes:
    """Returns a packet that makes the decoder of a track draw random numbers.

    Args:
        config: the track's AudioSpecificConfig.

    Raises:
        UnsupportedLayout: the track is not plain AAC-LC with packets of 1,024 samples.
    """
    channels = _channels(config)
    if channels not in _ELEMENTS:
        raise UnsupportedLayout
    bits = ""
    for kind, number in _ELEMENTS[channels]:
        bits += f"{kind}{number:04b}"
        # A pair of channels, without a common window, and stereo that is not joint.
        bits += "0" + _channel() * 2 if kind == _CPE else _channel()
    bits += _END
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _channel() -> str:
    """Returns the bits of a channel with a single band, which is noise (ISO/IEC 14496-3, 4.4.2.7)."""
    window = "0" + "00" + "0" + f"{1:06b}" + "0"  # one long window, up to band 1, no prediction
    section = f"{_NOISE:04b}{1:05b}"
    energy = f"{256:09b}"  # relative to the global gain: no difference
    return f"{180:08b}" + window + section + energy + "0" + "0" + "0"  # no pulses, no TNS, no gain control


def _channels(config: bytes) -> int:
    """Returns the channelConfiguration of plain AAC-LC."""
    bits = "".join(f"{byte:08b}" for byte in config[:16])
    if len(bits) < 16 or int(bits[:5], 2) != _LOW_COMPLEXITY or int(bits[5:9], 2) == _EXPLICIT_RATE:
        raise UnsupportedLayout
    if bits[13:16] != "000":
        raise UnsupportedLayout  # packets of 960 samples, or an extension
    extension = bits[16:]
    if len(extension) >= 17 and int(extension[:11], 2) == _SYNC_EXTENSION and extension[16] == "1":
        raise UnsupportedLayout  # spectral band replication
    return int(bits[9:13], 2)
