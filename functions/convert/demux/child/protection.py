"""Tells whether an audio track is encrypted, in every container that says so.

libav demuxes such tracks and decodes noise, a fraction of a second, or nothing.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from functions.convert.demux.child.declared import read_at
from functions.convert.demux.child.mp4.boxes import BoxReader
from functions.convert.errors import UnsupportedLayout

if TYPE_CHECKING:
    import av.audio.stream
    import av.container

#: Sample entries of encrypted tracks: Common Encryption (ISO/IEC 14496-12, 8.12), FairPlay, Audible.
ENTRIES: Final = frozenset({b"enca", b"drms", b"drmi", b"aavd"})
#: The box in a sample entry that says how it is protected (ISO/IEC 14496-12, 8.12.1).
_SCHEME: Final = b"sinf"
#: Bytes of a sample entry that are searched.
_MAX_ENTRY: Final = 1 << 16
#: Objects of an ASF header: Content Encryption, Extended and Advanced Content Encryption (Advanced Systems Format
#: specification, 10.1 and 10.2).
_ASF_OBJECTS: Final = tuple(
    bytes.fromhex(guid)
    for guid in (
        "fbb3112223bdd211b4b700a0c955fc6e",
        "14e68a292226174cb935dae07ee9289c",
        "b669859b4be1d2468a7f31dba25e0d1e",
    )
)
#: The key of an encrypted part of MXF (SMPTE 429-6); byte 7 is a version.
_MXF_TRIPLET: Final = bytes.fromhex("060e2b3402040107 0d010301027e01")
#: Names of tags by which recordings of Windows Media Center say that they are protected.
_PROTECTED_TAGS: Final = ("wmrvcontentprotected", "mediaisprotected")
#: Bytes at the beginning of a stream in which encrypted packets are counted.
_SEARCHED: Final = 2 << 20
#: Sizes of the packets of a transport stream, and where the sync byte is in them: plain, M2TS, with error correction.
_TS_LAYOUTS: Final = ((188, 0), (192, 4), (204, 0))


class _Track(NamedTuple):
    """An audio track of an open file."""

    source: io.RawIOBase
    container: "av.container.InputContainer"
    stream: "av.audio.stream.AudioStream"


def is_protected(
    source: io.RawIOBase, container: "av.container.InputContainer", stream: "av.audio.stream.AudioStream"
) -> bool:
    """Returns whether the audio track is encrypted; leaves the source where it was."""
    position = source.tell()
    try:
        track = _Track(source, container, stream)
        check = _CHECKS.get(container.format.name.partition(",")[0])
        return check is not None and check(track)
    finally:
        source.seek(position)


def _movie(track: _Track) -> bool:
    reader = BoxReader(track.source, track.source.seek(0, io.SEEK_END))
    number = track.container.streams.audio.index(track.stream)
    try:
        moov = next(box for box in reader.boxes(0, reader.size) if box.kind == b"moov")
        traks = [box for box in reader.children(moov) if box.kind == b"trak"]
        handlers = [reader.read_at(reader.find(trak, b"mdia", b"hdlr").body + 8, 4) for trak in traks]
        audios = [trak for trak, handler in zip(traks, handlers, strict=True) if handler == b"soun"]
        stsd = reader.find(audios[number], b"mdia", b"minf", b"stbl", b"stsd")
        return any(
            entry.kind in ENTRIES or _SCHEME in reader.read_at(entry.start, min(entry.end - entry.start, _MAX_ENTRY))
            for entry in reader.boxes(stsd.body + 8, stsd.end)
        )
    except (UnsupportedLayout, StopIteration, IndexError):
        return False


def _matroska(track: _Track) -> bool:
    # libav's name for the ContentEncKeyID of a track (RFC 9559, 5.1.4.1.31.9).
    return "enc_key_id" in track.stream.metadata


def _asf(track: _Track) -> bool:
    head = read_at(track.source, 0, 1 << 16)
    header = head[: int.from_bytes(head[16:24], "little")]
    return any(guid in header for guid in _ASF_OBJECTS) or _tagged(track)


def _tagged(track: _Track) -> bool:
    return any(
        name.lower().endswith(_PROTECTED_TAGS) and value.strip().lower() not in ("", "0", "false")
        for name, value in track.container.metadata.items()
    )


def _transport_stream(track: _Track) -> bool:
    data = read_at(track.source, 0, _SEARCHED)
    for size, offset in _TS_LAYOUTS:
        # A recording may begin inside a packet.
        for start in range(size):
            syncs = data[start + offset : start + offset + 5 * size : size]
            if syncs == b"G" * 5:
                return _is_scrambled(data[start + offset :], size, track.stream.id)
    return False


def _is_scrambled(data: bytes, size: int, pid: int) -> bool:
    # ISO/IEC 13818-1, 2.4.3.2: the PID is 13 bits from byte 1 on, transport_scrambling_control the first two of byte 3.
    scrambled = 0
    packets = 0
    for start in range(0, len(data) - 4, size):
        if (data[start + 1] & 0x1F) << 8 | data[start + 2] == pid:
            packets += 1
            scrambled += data[start + 3] >= 0x40
    return 2 * scrambled > packets


def _program_stream(track: _Track) -> bool:
    # ISO/IEC 13818-1, 2.4.3.6: after the start code, stream_id and length two bits are 10, and the next two say whether
    # the packet is scrambled. DVDs (CSS) scramble the packets of a title's sound (0xBD, 0xC0 to 0xDF).
    data = read_at(track.source, 0, _SEARCHED)
    scrambled = 0
    packets = 0
    start = data.find(b"\x00\x00\x01")
    while 0 <= start < len(data) - 7:
        kind = data[start + 3]
        if (kind == 0xBD or 0xC0 <= kind <= 0xDF) and data[start + 6] >> 6 == 2:
            packets += 1
            scrambled += bool(data[start + 6] & 0x30)
        start = data.find(b"\x00\x00\x01", start + 3)
    return 2 * scrambled > packets


def _flash(track: _Track) -> bool:
    # Adobe Flash Video File Format Specification 10.1, annex E.4.1: a tag's type is five bits, and the bit above them
    # says that it is encrypted.
    data = read_at(track.source, 0, _SEARCHED)
    start = int.from_bytes(data[5:9], "big") + 4
    filtered = 0
    tags = 0
    while start < len(data) - 11:
        if data[start] & 0x1F == 8:
            tags += 1
            filtered += bool(data[start] & 0x20)
        start += 15 + int.from_bytes(data[start + 1 : start + 4], "big")
    return 2 * filtered > tags


def _exchange_format(track: _Track) -> bool:
    return _MXF_TRIPLET in read_at(track.source, 0, _SEARCHED)


#: What tells whether a track is encrypted, by libav's first name for the demuxer that reads it.
_CHECKS: Final[dict[str, Callable[[_Track], bool]]] = {
    "mov": _movie,
    "matroska": _matroska,
    "asf": _asf,
    "wtv": _tagged,
    "mpegts": _transport_stream,
    "mpeg": _program_stream,
    "flv": _flash,
    "mxf": _exchange_format,
}
