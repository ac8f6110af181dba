"""Splits Matroska files at their clusters: those that libav's muxer writes with one audio track (RFC 9559).

Clusters are independent of each other: the head of the file and any run of clusters form a valid file.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import IO

from functions.convert.errors import UnsupportedLayout

# Element IDs (RFC 9559; Void and CRC-32: RFC 8794).
_SEGMENT = 0x18538067
_SEEK_HEAD = 0x114D9B74
_TRACKS = 0x1654AE6B
_CLUSTER = 0x1F43B675
_TRACK_ENTRY = 0xAE
_CODEC_PRIVATE = 0x63A2
_CODEC_DELAY = 0x56AA
_SIMPLE_BLOCK = 0xA3
_BLOCK_GROUP = 0xA0
_BLOCK = 0xA1
_DISCARD_PADDING = 0x75A2
_VOID = 0xEC
_CRC = 0xBF
_TIMESTAMP = 0xE7
_LACING = 0x06
#: Bytes of the largest cluster that is held in memory; the muxer ends a cluster after 5 MB or 5 s.
_MAX_CLUSTER = 64 << 20
#: Maximum bytes of an element's name and size.
_MAX_HEADER = 12


def head(file: IO[bytes]) -> bytes:
    """Returns everything before the first cluster, and leaves the file at that cluster.

    Raises:
        UnsupportedLayout: the file is not of this kind.
    """
    file.seek(0)
    data = file.read(1 << 20)
    at = _inside(data)
    while at < len(data):
        kind, _, end = _element(data, at)
        if kind == _CLUSTER:
            file.seek(at)
            return data[:at]
        at = end
    raise UnsupportedLayout


def excerpt_head(start: bytes, at_start: bool) -> bytes:
    """Returns the head for a file that contains only some of the clusters.

    It does not say where clusters are or where they end. Unless the first cluster is included, it does not have samples
    dropped at the beginning either.

    Args:
        start: the ``head`` of the complete file.
        at_start: whether the first cluster is included.
    """
    changed = bytearray(start)
    at = _inside(start)
    changed[at - 8 : at] = b"\x01" + b"\xff" * 7  # unknown size
    for kind, begin, _, end in _elements(start, at, len(start)):
        if kind == _SEEK_HEAD:
            _void(changed, begin, end)
    found = None if at_start else _find(start, _TRACKS, _TRACK_ENTRY, _CODEC_DELAY)
    if found:
        _void(changed, found[0], found[2])
    return bytes(changed)


def private(start: bytes) -> bytes:
    """Returns the decoder's configuration from the ``head``; empty for most codecs."""
    found = _find(start, _TRACKS, _TRACK_ENTRY, _CODEC_PRIVATE)
    return start[found[1] : found[2]] if found else b""


def delay(start: bytes) -> int | None:
    """Returns the nanoseconds at the beginning that are not to be played, from the ``head``; None if not given."""
    found = _find(start, _TRACKS, _TRACK_ENTRY, _CODEC_DELAY)
    return int.from_bytes(start[found[1] : found[2]], "big") if found else None


def clusters(file: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Iterates over the clusters from the file's current position.

    Yields:
        Where the cluster starts and ends in the file, and its content.

    Raises:
        UnsupportedLayout: a cluster is damaged or too large.
    """
    at = file.tell()
    while len(header := file.read(_MAX_HEADER)) == _MAX_HEADER:
        kind, body, end = _element(header, 0)
        if kind != _CLUSTER:
            return
        if end > _MAX_CLUSTER:
            raise UnsupportedLayout
        data = header[body:] + file.read(end - _MAX_HEADER)
        if len(data) != end - body:
            raise UnsupportedLayout
        yield at, at + end, data
        at += end


def cluster_of(packets: Sequence[bytes], time: int, step: int) -> bytes:
    """Returns a cluster with these packets.

    Args:
        packets: of the track.
        time: milliseconds of the first one.
        step: milliseconds from one to the next.
    """
    data = _wrap(_TIMESTAMP, time.to_bytes(8, "big"))
    for number, packet in enumerate(packets):
        data += _wrap(_SIMPLE_BLOCK, struct.pack(">BhB", 0x81, number * step, 0x80) + packet)
    return cluster(data)


def cluster(content: bytes) -> bytes:
    """Returns a cluster with this content."""
    return _wrap(_CLUSTER, content)


def _wrap(kind: int, content: bytes) -> bytes:
    name = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    return name + (len(content) | 1 << 56).to_bytes(8, "big") + content


def timestamp(cluster: bytes) -> int:
    """Returns the cluster's time stamp in milliseconds."""
    for kind, _, body, end in _elements(cluster, 0, len(cluster)):
        if kind == _TIMESTAMP:
            return int.from_bytes(cluster[body:end], "big")
    raise UnsupportedLayout


def packets(cluster: bytes) -> Iterator[tuple[int, int, bool]]:
    """Iterates over the packets of a cluster: where each starts and ends in it, and whether to drop some samples."""
    for kind, _, body, end in _elements(cluster, 0, len(cluster)):
        if kind == _SIMPLE_BLOCK:
            yield _payload(cluster, body), end, False
        elif kind == _BLOCK_GROUP:
            group = list(_elements(cluster, body, end))
            blocks = [(start, stop) for inner, _, start, stop in group if inner == _BLOCK]
            if len(blocks) != 1:
                raise UnsupportedLayout
            ((start, stop),) = blocks
            yield _payload(cluster, start), stop, any(element[0] == _DISCARD_PADDING for element in group)
        elif kind not in (_TIMESTAMP, _CRC, _VOID):
            raise UnsupportedLayout


def block_time(cluster: bytes, start: int) -> int:
    """Returns the milliseconds between the cluster's time stamp and that of the packet that starts at an offset."""
    return int.from_bytes(cluster[start - 3 : start - 1], "big", signed=True)


def _payload(data: bytes, at: int) -> int:
    if data[at] != 0x81 or data[at + 3] & _LACING:  # track number 1; the time takes two bytes
        raise UnsupportedLayout
    return at + 4


def _inside(data: bytes) -> int:
    """Returns where the content of the segment starts."""
    _, _, end = _element(data, 0)
    kind, body, _ = _element(data, end)
    if kind != _SEGMENT or body - end != 12:
        raise UnsupportedLayout
    return body


def _find(data: bytes, *path: int) -> tuple[int, int, int] | None:
    """Finds the element at the end of a path in the segment: its start, the start of its content, its end."""
    at = _inside(data)
    end = len(data)
    begin = at
    for wanted in path:
        found = [element[1:] for element in _elements(data, at, end) if element[0] == wanted]
        if not found:
            return None
        if len(found) > 1:
            raise UnsupportedLayout
        ((begin, at, end),) = found
    return begin, at, end


def _void(data: bytearray, begin: int, end: int) -> None:
    """Overwrites an element with a Void element of the same size."""
    width = 1 if end - begin < 128 else 8
    length = end - begin - 1 - width | 1 << 7 * width
    data[begin : begin + 1 + width] = bytes([_VOID]) + length.to_bytes(width, "big")


def _elements(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Iterates over the elements between two offsets: kind, start, start of the content, end."""
    while at < end:
        kind, body, following = _element(data, at)
        if following > end:
            raise UnsupportedLayout
        yield kind, at, body, following
        at = following


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Returns the element's kind, the start of its content, and its end."""
    try:
        width = 9 - data[at].bit_length()
        kind = int.from_bytes(data[at : at + width], "big")
        at += width
        first = data[at]
    except IndexError as error:
        raise UnsupportedLayout from error
    length = 9 - first.bit_length()
    if width > 4 or length > 8:
        raise UnsupportedLayout
    body = at + length
    return kind, body, body + (int.from_bytes(data[at:body], "big") & (1 << 7 * length) - 1)
