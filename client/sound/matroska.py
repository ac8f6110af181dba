"""Leaves the pictures out of a Matroska or WebM file: RFC 8794 (EBML), RFC 9559 (Matroska).

The first blocks of each video track stay, by which libavformat learns of the track what its header does not say. Of
each later one its header and one byte stay, so that every time in the file stays as it was. The elements around it
become shorter, and the positions in ``SeekHead`` and ``Cues`` those in the shorter file.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from client.sound.view import Span, UnsupportedLayout, View

_EBML: Final = 0x1A45DFA3
_SEGMENT: Final = 0x18538067
_SEEK_HEAD: Final = 0x114D9B74
_TRACKS: Final = 0x1654AE6B
_CLUSTER: Final = 0x1F43B675
_CUES: Final = 0x1C53BB6B
_CRC: Final = 0xBF
_VOID: Final = 0xEC
_TRACK: Final = 0xAE
_TRACK_NUMBER: Final = 0xD7
_TRACK_TYPE: Final = 0x83
_CODEC: Final = 0x86
_SIMPLE_BLOCK: Final = 0xA3
_BLOCK_GROUP: Final = 0xA0
_BLOCK: Final = 0xA1
_ADDITIONS: Final = 0x75A1
_POSITION: Final = 0xA7
_PREVIOUS_SIZE: Final = 0xAB
#: Elements with positions: in the segment, or, the last one, in a cluster.
_SEEK_POSITION: Final = 0x53AC
_CUE_CLUSTER: Final = 0xF1
_CUE_RELATIVE: Final = 0xF0
#: Elements of SeekHead and Cues whose contents are elements.
_MASTERS: Final = frozenset({0x4DBB, 0xBB, 0xB7})
_MAX_DEPTH: Final = 4
_VIDEO: Final = 1
#: Codecs of moving pictures that fill most of a file.
_CODECS: Final = (b"V_MPEG4/ISO/", b"V_MPEGH/ISO/", b"V_VP8", b"V_VP9", b"V_AV1", b"V_MPEG2", b"V_THEORA", b"V_PRORES")
_LACING: Final = 0x06
#: Blocks of each video track that stay: libavformat looks at 20 frames or so (libavformat/demux.c,
#: avformat_find_stream_info).
_PROBED: Final = 40
#: Bytes of the largest element other than a cluster that is read.
_MAX_ELEMENT: Final = 64 << 20
#: Bytes that are read ahead while looking for the headers of elements.
_WINDOW: Final = 1 << 16


class _Element(NamedTuple):
    """An element: its id, and where it, its size, its contents, and what follows it begin."""

    id: int
    start: int
    size_at: int
    body: int
    end: int


class _Scanner:
    """Parses elements of the file, and reads it in windows."""

    def __init__(self, file: View) -> None:
        self._file = file
        self._window = b""
        self._start = 0

    def bytes(self, start: int, size: int) -> bytes:
        """Returns bytes of the file, fewer at its end."""
        if not (self._start <= start and start + size <= self._start + len(self._window)):
            self._window = self._file.read(start, max(size, _WINDOW))
            self._start = start
        return self._window[start - self._start : start - self._start + size]

    def element(self, start: int, end: int) -> _Element:
        """Returns the element at an offset, which must end before ``end``."""
        head = self.bytes(start, 12)
        id_, size_at = _id(head)
        size, body = _vint(head, size_at)
        element = _Element(id_, start, start + size_at, start + body, start + body + size)
        if element.end > end:
            raise UnsupportedLayout
        return element

    def children(self, start: int, end: int) -> Iterator[_Element]:
        """Yields the elements of a range, which they must fill."""
        while start < end:
            element = self.element(start, end)
            yield element
            start = element.end


def _id(data: bytes) -> tuple[int, int]:
    """Returns an element's id and its length."""
    length = 9 - data[0].bit_length() if data else 9
    if length > 4 or len(data) < length:
        raise UnsupportedLayout
    return int.from_bytes(data[:length]), length


def _vint(data: bytes, start: int) -> tuple[int, int]:
    """Returns a number of variable length, and the offset behind it.

    Raises:
        UnsupportedLayout: it is malformed, or stands for an unknown size.
    """
    length = 9 - data[start].bit_length() if start < len(data) else 9
    if length > 8 or len(data) < start + length:
        raise UnsupportedLayout
    value = int.from_bytes(data[start : start + length]) & (1 << 7 * length) - 1
    if value == (1 << 7 * length) - 1:
        raise UnsupportedLayout
    return value, start + length


def _size(value: int, length: int) -> bytes:
    """Returns a size as a number of this length in bytes."""
    if value >= (1 << 7 * length) - 1:
        raise UnsupportedLayout
    return (value | 1 << 7 * length).to_bytes(length)


def _shortest(value: int) -> bytes:
    return _size(value, next(length for length in range(1, 9) if value < (1 << 7 * length) - 1))


class _Parts:
    """The parts of the new file, and where elements of the file are in it."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.size = 0
        self._replaced: list[tuple[int, _Element]] = []
        self._old: list[int] = []
        self._new: list[int] = []

    def mark(self, offset: int, ahead: int = 0) -> None:
        """Notes that what is ``ahead`` bytes behind the end is at this offset of the file."""
        self._old.append(offset)
        self._new.append(self.size + ahead)

    def keep(self, start: int, end: int) -> None:
        """Adds bytes of the file."""
        last = self.spans[-1] if self.spans else None
        if last is not None and not last.data and last.end == start:
            self.spans[-1] = Span(last.start, end)
        else:
            self.spans.append(Span(start, end))
        self.size += end - start

    def write(self, data: bytes) -> None:
        """Adds other bytes."""
        last = self.spans[-1] if self.spans else None
        is_open = not self._replaced or self._replaced[-1][0] < len(self.spans) - 1
        if last is not None and last.data and is_open:
            self.spans[-1] = Span(0, 0, last.data + data)
        else:
            self.spans.append(Span(0, 0, data))
        self.size += len(data)

    def leave(self, element: _Element, data: bytes) -> None:
        """Adds an element, which ``replace`` replaces."""
        self._replaced.append((len(self.spans), element))
        self.spans.append(Span(0, 0, data))
        self.size += len(data)

    def replace(self, new: Callable[[_Element], bytes]) -> None:
        """Replaces the elements that were left to it by others of the same sizes."""
        for number, element in self._replaced:
            self.spans[number] = Span(0, 0, new(element))

    def moved(self, offset: int) -> int:
        """Returns where an element of the file is in the new one."""
        number = bisect_left(self._old, offset)
        if number == len(self._old) or self._old[number] != offset:
            raise UnsupportedLayout
        return self._new[number]


def spans(file: View) -> list[Span]:
    """Returns the file without its pictures.

    Raises:
        UnsupportedLayout: the file is something else, incomplete, or more complicated.
    """
    scanner = _Scanner(file)
    header = scanner.element(0, file.size)
    segment = scanner.element(header.end, file.size)
    if (header.id, segment.id, segment.end) != (_EBML, _SEGMENT, file.size):
        raise UnsupportedLayout
    top = list(scanner.children(segment.body, segment.end))
    videos = {number: _PROBED for each in top if each.id == _TRACKS for number in _videos(scanner, each)}
    if not videos:
        raise UnsupportedLayout
    parts = _Parts()
    for element in top:
        parts.mark(element.start)
        if element.id == _CLUSTER:
            _write_cluster(scanner, element, videos, parts)
        elif element.id in (_SEEK_HEAD, _CUES):
            parts.leave(element, scanner.bytes(element.start, _checked(element)))
        elif element.id == _CRC:
            parts.write(_void(scanner, element))
        else:
            parts.keep(element.start, element.end)
    parts.replace(lambda element: _repointed(scanner, element, segment.body, parts))
    head = scanner.bytes(0, segment.size_at) + _size(parts.size, segment.body - segment.size_at)
    return [Span(0, 0, head), *parts.spans]


def _checked(element: _Element) -> int:
    if element.end - element.start > _MAX_ELEMENT:
        raise UnsupportedLayout
    return element.end - element.start


def _void(scanner: _Scanner, checksum: _Element) -> bytes:
    """Returns an element of the same length in place of a checksum that is no longer right."""
    return bytes([_VOID]) + scanner.bytes(checksum.size_at, checksum.end - checksum.size_at)


def _videos(scanner: _Scanner, tracks: _Element) -> Iterator[int]:
    """Yields the numbers of the video tracks."""
    for track in scanner.children(tracks.body, tracks.end):
        if track.id == _TRACK:
            fields = {each.id: each for each in scanner.children(track.body, track.end)}
            if not {_TRACK_NUMBER, _TRACK_TYPE, _CODEC} <= fields.keys():
                raise UnsupportedLayout
            codec = scanner.bytes(fields[_CODEC].body, _checked(fields[_CODEC]) - 2)
            if _unsigned(scanner, fields[_TRACK_TYPE]) == _VIDEO and codec.startswith(_CODECS):
                yield _unsigned(scanner, fields[_TRACK_NUMBER])


def _unsigned(scanner: _Scanner, element: _Element) -> int:
    return int.from_bytes(scanner.bytes(element.body, min(element.end - element.body, 8)))


def _write_cluster(scanner: _Scanner, cluster: _Element, videos: dict[int, int], parts: _Parts) -> None:
    inside = _Parts()
    head = cluster.body - cluster.start
    for element in scanner.children(cluster.body, cluster.end):
        parts.mark(element.start, head + inside.size)
        if element.id in (_SIMPLE_BLOCK, _BLOCK_GROUP):
            _write_block(scanner, element, videos, inside)
        elif element.id in (_CRC, _POSITION, _PREVIOUS_SIZE):  # players ignore the last two
            inside.write(_void(scanner, element))
        else:
            inside.keep(element.start, element.end)
    parts.write(scanner.bytes(cluster.start, cluster.size_at - cluster.start))
    parts.write(_size(inside.size, cluster.body - cluster.size_at))
    parts.spans += inside.spans
    parts.size += inside.size


def _write_block(scanner: _Scanner, element: _Element, videos: dict[int, int], parts: _Parts) -> None:
    if element.id == _SIMPLE_BLOCK:
        stub = _stub(scanner, element, videos)
        if stub is None:
            parts.keep(element.start, element.end)
        else:
            parts.write(stub)
        return
    children = list(scanner.children(element.body, element.end))
    block = next((each for each in children if each.id == _BLOCK), None)
    stub = None if block is None else _stub(scanner, block, videos)
    if stub is None:
        parts.keep(element.start, element.end)
        return
    body = b"".join(
        stub if each is block else scanner.bytes(each.start, _checked(each))
        for each in children
        if each.id not in (_ADDITIONS, _CRC)
    )
    parts.write(bytes([_BLOCK_GROUP]) + _shortest(len(body)) + body)


def _stub(scanner: _Scanner, block: _Element, videos: dict[int, int]) -> bytes | None:
    """Returns a block of a video track without its pictures; None for a block that stays.

    Args:
        scanner: the file.
        block: the block.
        videos: the numbers of video tracks, and how many blocks of each stay yet.
    """
    head = scanner.bytes(block.body, 12)
    number, at = _vint(head, 0)
    if videos.get(number):
        videos[number] -= 1
        return None
    if number not in videos or len(head) < at + 3 or head[at + 2] & _LACING or block.end - block.body < at + 4:
        return None
    content = head[: at + 4]  # the track, the time in 16 bits, flags, and a byte of the frame
    return bytes([block.id]) + _shortest(len(content)) + content


def _repointed(scanner: _Scanner, element: _Element, origin: int, parts: _Parts) -> bytes:
    """Returns SeekHead or Cues with the positions of the new file, whose segment begins at ``origin``, too."""
    data = bytearray(scanner.bytes(element.start, _checked(element)))
    cluster = origin

    def put(field: _Element, value: int) -> None:
        start = field.body - element.start
        data[start : field.end - element.start] = value.to_bytes(field.end - field.body)

    def visit(start: int, end: int, depth: int = 0) -> None:
        nonlocal cluster
        for field in scanner.children(start, end):
            if field.id in _MASTERS and depth >= _MAX_DEPTH:
                raise UnsupportedLayout
            if field.id in _MASTERS:
                visit(field.body, field.end, depth + 1)
            elif field.id == _CRC:
                data[field.start - element.start] = _VOID
            elif field.id in (_SEEK_POSITION, _CUE_CLUSTER):
                cluster = origin + _unsigned(scanner, field)
                put(field, parts.moved(cluster))
            elif field.id == _CUE_RELATIVE:
                body = scanner.element(cluster, element.start if cluster < element.start else cluster + (1 << 60)).body
                old = body + _unsigned(scanner, field)
                put(field, parts.moved(old) - parts.moved(cluster) - (body - cluster))

    visit(element.body, element.end)
    return bytes(data)
