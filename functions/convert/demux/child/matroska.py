"""Finds the clusters of a Matroska or WebM file, without reading what is in them (RFC 9559).

A video of an hour has gigabytes in thousands of clusters. Its cues say where those are that begin with a picture. A
recording that was not finished, or that was piped, has none: there, the size of each cluster leads to the next one. The
head of the file and clusters that follow each other form a valid file, from which the demux child of an encoder
extracts its part of the track (``seek.recipe``).
"""

import contextlib
import io
import itertools
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from functions.convert.demux.child.declared import read_at
from functions.convert.demux.protocol import PositionedFile
from functions.convert.errors import UnsupportedLayout

# Element IDs (RFC 9559; EBML and Void: RFC 8794).
_EBML: Final = 0x1A45DFA3
_VOID: Final = b"\xec"
_SEGMENT: Final = 0x18538067
_SEEK_HEAD: Final = 0x114D9B74
_SEEK: Final = 0x4DBB
_SEEK_ID: Final = 0x53AB
_SEEK_POSITION: Final = 0x53AC
_INFO: Final = 0x1549A966
_TIMESTAMP_SCALE: Final = 0x2AD7B1
_DURATION: Final = 0x4489
_TRACKS: Final = 0x1654AE6B
_TRACK_ENTRY: Final = 0xAE
_TRACK_TYPE: Final = 0x83
_AUDIO: Final = 2
_CODEC_DELAY: Final = 0x56AA
_CUES: Final = 0x1C53BB6B
_CUE_POINT: Final = 0xBB
_CUE_TIME: Final = 0xB3
_CUE_TRACK_POSITIONS: Final = 0xB7
_CUE_CLUSTER_POSITION: Final = 0xF1
_CLUSTER: Final = 0x1F43B675
_TIMESTAMP: Final = 0xE7
#: Nanoseconds of a tick in all files but some with sound alone.
_MILLISECOND: Final = 1_000_000
#: Bytes of an element's name and size, at most.
_MAX_NAME: Final = 4
_MAX_SIZE: Final = 8
#: Bytes of a number, at most (RFC 8794, 7.2).
_MAX_NUMBER: Final = 8
#: An offset that no file has, in a damaged one, and that a request for bytes can still have.
_MAX_OFFSET: Final = 1 << 62
#: Bytes of a cluster in which its time is: it comes first, or after a checksum.
_CLUSTER_HEAD: Final = 64
#: Clusters that are sought one by one, at most: ten hours with one every second have half of that.
_MAX_CLUSTERS: Final = 1 << 16
#: Elements before the first cluster, at most.
_MAX_TOP: Final = 64
#: Bytes of the elements that are read: the file's head, and its cues; ten hours with a cue every second have 1 MB.
_MAX_HEAD: Final = 4 << 20
_MAX_CUES: Final = 8 << 20
#: Milliseconds by which sound may be in an earlier or a later cluster than its time says.
INTERLEAVE: Final = 500
#: Milliseconds at the start and the end of the file that show what the track is.
_SHOWN: Final = 3_000


class _Element(NamedTuple):
    """The offsets of an element: where it starts, where its content starts, and where it ends; None if unknown."""

    kind: int
    start: int
    body: int
    end: int | None


class Cluster(NamedTuple):
    """A cluster: its time in milliseconds, and its offset in the file."""

    time: int
    offset: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A file whose clusters are known.

    Attributes:
        source: the file.
        end: where its clusters end at the latest.
        head: what precedes the clusters of an excerpt: the file's description of itself and of its tracks.
        seconds: that the file claims to have, or else those up to its last cluster.
        delays: for each audio track, the nanoseconds at its start that are not played.
        clusters: the first one, and those with a cue, in the file's order; if there are no cues, all.
    """

    source: io.RawIOBase
    end: int
    head: bytes
    seconds: float
    delays: tuple[int, ...]
    clusters: tuple[Cluster, ...]

    def without_middle(self) -> "Hollow":
        """Returns the file as if there were nothing between its first seconds and its last ones.

        Raises:
            UnsupportedLayout: these are three quarters of the file or more.
        """
        start = self._shown(0)
        end = self._shown_before_end()
        if end - start < self.end / 4:
            raise UnsupportedLayout
        return Hollow(self.source, start, end)

    def span(self, start: float, end: float | None) -> tuple[int, int]:
        """Returns offset and size of the clusters that contain these seconds on the file's clock; None for its end."""
        first = bisect_right(self.clusters, start * 1000 - INTERLEAVE, key=_time)
        last = len(self.clusters) if end is None else bisect_right(self.clusters, end * 1000 + INTERLEAVE, key=_time)
        offset = self.clusters[max(first - 1, 0)].offset
        return offset, (self.clusters[last].offset if last < len(self.clusters) else self.end) - offset

    def window(self, second: float) -> tuple[int, int]:
        """Returns offset and size of some seconds of clusters from the cue before a second on."""
        number = max(bisect_right(self.clusters, second * 1000, key=_time) - 1, 0)
        offset = self.clusters[number].offset
        return offset, self._shown(number) - offset

    def _shown(self, number: int) -> int:
        """Returns where the clusters from one of ``clusters`` on have shown enough."""
        start = self.clusters[number]
        following = itertools.chain(self._clusters_from(start.offset), self.clusters[number + 1 :])
        return next((cluster.offset for cluster in following if cluster.time >= start.time + _SHOWN), self.end)

    def _shown_before_end(self) -> int:
        """Returns where the clusters begin that show enough of the end."""
        last = self.clusters[-1].time
        for end in (max(self.seconds * 1000, last), last):
            before = [cluster for cluster in self.clusters if cluster.time <= end - _SHOWN] or self.clusters[:1]
            final = [before[-1], *self._clusters_from(before[-1].offset)]
            enough = [cluster.offset for cluster in final if cluster.time <= final[-1].time - _SHOWN]
            if enough:
                return enough[-1]
        return before[-1].offset

    def _clusters_from(self, offset: int) -> Iterator[Cluster]:
        """Yields the clusters from an offset on, those without a cue too, as long as their sizes lead to the next."""
        with contextlib.suppress(UnsupportedLayout):
            yield from _walk(self.source, offset, self.end)


def _time(cluster: Cluster) -> int:
    return cluster.time


class Hollow(PositionedFile):
    """A file with a Void element in place of everything between two offsets, which demuxers pass over.

    Attributes:
        start: where the Void element starts.
        end: where it ends.
        size: bytes of the file.
    """

    def __init__(self, source: io.RawIOBase, start: int, end: int) -> None:
        self._source = source
        self.start = start
        self.end = end
        self._void = _void(end - start)
        self.size = source.seek(0, io.SEEK_END)
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        """Reads up to ``size`` bytes."""
        at = self._position
        size = self.size - at if size < 0 else size
        if self.start <= at < self.end:
            size = min(size, self.end - at)
            data = self._void[at - self.start :][:size].ljust(size, b"\0")
        else:
            size = min(size, self.start - at) if at < self.start else size
            self._source.seek(at)
            data = self._source.read(size) or b""
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Sets the offset of the next read."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position


def parse(source: io.RawIOBase) -> Segment:
    """Reads the head and the cues of a file, or the heads of all clusters.

    Raises:
        UnsupportedLayout: it is something else, or has neither cues nor the sizes of its clusters.
    """
    size = source.seek(0, io.SEEK_END)
    ebml = _element_at(source, 0)
    if ebml.kind != _EBML or ebml.end is None:
        raise UnsupportedLayout
    start = _read(source, _Element(_EBML, 0, 0, ebml.end), _MAX_HEAD)
    segment = _element_at(source, ebml.end)
    end = size if segment.end is None else segment.end
    if segment.kind != _SEGMENT or end > size:
        raise UnsupportedLayout
    top = {element.kind: element for element in _top(source, segment.body, end)}
    if not {_INFO, _TRACKS, _CLUSTER} <= top.keys():
        raise UnsupportedLayout
    info = _read(source, top[_INFO], _MAX_HEAD)
    tracks = _read(source, top[_TRACKS], _MAX_HEAD)
    if _number(info, _TIMESTAMP_SCALE, _MILLISECOND) != _MILLISECOND:
        raise UnsupportedLayout
    cues = top[_CUES] if _CUES in top else _sought_cues(source, segment.body, top)
    if cues is None:
        clusters = tuple(_walk(source, top[_CLUSTER].start, end))
    else:
        clusters = _clusters(source, segment.body, top[_CLUSTER].start, _read(source, cues, _MAX_CUES))
    if any(after.time < before.time for before, after in pairwise(clusters)):
        raise UnsupportedLayout
    if clusters[-1].offset >= end:
        raise UnsupportedLayout
    head = start + _wrap(_SEGMENT, None) + _wrap(_INFO, info) + _wrap(_TRACKS, _without_delays(tracks))
    seconds = _seconds(info) or clusters[-1].time / 1000
    return Segment(source, end, head, seconds, _delays(tracks), clusters)


def _top(source: io.RawIOBase, start: int, end: int) -> Iterator[_Element]:
    """Iterates over the elements of the segment, up to the first cluster."""
    for _ in range(_MAX_TOP):
        element = _element_at(source, start)
        yield element
        if element.kind == _CLUSTER or element.end is None or element.end >= end:
            return
        start = element.end


def _sought_cues(source: io.RawIOBase, body: int, top: dict[int, _Element]) -> _Element | None:
    """Returns the cues that the index at the start of the file points to; None if it points to none."""
    if _SEEK_HEAD in top:
        data = _read(source, top[_SEEK_HEAD], _MAX_HEAD)
        for entry in _elements(data):
            content = data[entry.body : entry.end]
            if entry.kind == _SEEK and _number(content, _SEEK_ID, 0) == _CUES:
                cues = _element_at(source, body + _number(content, _SEEK_POSITION, 0))
                if cues.kind != _CUES:
                    raise UnsupportedLayout
                return cues
    return None


def _clusters(source: io.RawIOBase, body: int, first: int, cues: bytes) -> tuple[Cluster, ...]:
    """Returns the first cluster, and those with a cue.

    Args:
        source: the file.
        body: where the content of the segment starts, from which cues count.
        first: offset of the first cluster.
        cues: the content of the cues.
    """
    clusters = [Cluster(_cluster_time(source, first), first)]
    for cue in _elements(cues):
        if cue.kind != _CUE_POINT:
            continue
        content = cues[cue.body : cue.end]
        time = _number(content, _CUE_TIME, 0)
        for part in _elements(content):
            if part.kind == _CUE_TRACK_POSITIONS:
                offset = body + _number(content[part.body : part.end], _CUE_CLUSTER_POSITION, 0)
                if offset > clusters[-1].offset:
                    clusters.append(Cluster(time, offset))
    return tuple(clusters)


def _walk(source: io.RawIOBase, first: int, end: int) -> Iterator[Cluster]:
    """Yields all clusters.

    Args:
        source: the file.
        first: offset of the first one.
        end: where the last one ends at the latest.
    """
    offset = first
    for _ in range(_MAX_CLUSTERS):
        if offset == end:
            return
        data = _read_at(source, offset, _CLUSTER_HEAD)
        element = _element(data, 0)
        if element.end is None or offset + element.end > end:
            raise UnsupportedLayout  # nothing says where the next one is, or this one is incomplete
        if element.kind == _CLUSTER:
            yield Cluster(_time_in(data), offset)
        offset += element.end
    raise UnsupportedLayout


def _cluster_time(source: io.RawIOBase, offset: int) -> int:
    """Returns the time of the cluster at an offset."""
    return _time_in(_read_at(source, offset, _CLUSTER_HEAD))


def _time_in(data: bytes) -> int:
    """Returns the time of the cluster that begins with these bytes."""
    at = _element(data, 0).body
    while (element := _element(data, at)).kind != _TIMESTAMP:
        if element.end is None:
            raise UnsupportedLayout
        at = element.end
    return int.from_bytes(data[element.body : element.end], "big")


def _delays(tracks: bytes) -> tuple[int, ...]:
    """Returns the nanoseconds at the start of each audio track that are not played."""
    entries = [tracks[entry.body : entry.end] for entry in _elements(tracks) if entry.kind == _TRACK_ENTRY]
    return tuple(_number(entry, _CODEC_DELAY, 0) for entry in entries if _number(entry, _TRACK_TYPE, 0) == _AUDIO)


def _without_delays(tracks: bytes) -> bytes:
    """Returns the descriptions of the tracks without the samples to drop at the start."""
    changed = bytearray(tracks)
    for entry in _elements(tracks):
        if entry.kind == _TRACK_ENTRY:
            for part in _elements(tracks[entry.body : entry.end]):
                if part.kind == _CODEC_DELAY and part.end is not None:
                    if part.end - part.body > _MAX_NUMBER:
                        raise UnsupportedLayout
                    start = entry.body + part.start
                    size = part.end - part.start
                    changed[start : start + size] = (_VOID + bytes([0x80 | size - 2])).ljust(size, b"\0")
    return bytes(changed)


def _seconds(info: bytes) -> float:
    """Returns the seconds that the file claims to have, 0 if it claims none."""
    for element in _elements(info):
        if element.kind == _DURATION:
            data = info[element.body : element.end]
            if len(data) in (4, 8):
                return float(struct.unpack(">f" if len(data) == 4 else ">d", data)[0]) / 1000
    return 0.0


def _read(source: io.RawIOBase, element: _Element, limit: int) -> bytes:
    """Returns the content of an element."""
    if element.end is None or element.end - element.body > limit:
        raise UnsupportedLayout
    data = read_at(source, element.body, element.end - element.body)
    if len(data) < element.end - element.body:
        raise UnsupportedLayout
    return data


def _read_at(source: io.RawIOBase, offset: int, size: int) -> bytes:
    """Returns the bytes from an offset on that a damaged file may have invented, fewer at the end of the source."""
    if offset > _MAX_OFFSET:
        raise UnsupportedLayout
    return read_at(source, offset, size)


def _element_at(source: io.RawIOBase, offset: int) -> _Element:
    kind, _, body, end = _element(_read_at(source, offset, _MAX_NAME + _MAX_SIZE), 0)
    return _Element(kind, offset, offset + body, None if end is None else offset + end)


def _elements(data: bytes) -> Iterator[_Element]:
    """Iterates over elements of known size."""
    at = 0
    while at < len(data):
        element = _element(data, at)
        if element.end is None or element.end > len(data):
            raise UnsupportedLayout
        yield element
        at = element.end


def _number(data: bytes, kind: int, default: int) -> int:
    """Returns the first of several elements that is of a kind, as an unsigned integer."""
    for element in _elements(data):
        if element.kind == kind and element.end is not None:
            if element.end - element.body > _MAX_NUMBER:
                raise UnsupportedLayout
            return int.from_bytes(data[element.body : element.end], "big")
    return default


def _element(data: bytes, at: int) -> _Element:
    """Reads the name and the size of an element (RFC 8794, 4): their first bytes say how long they are."""
    start = at
    try:
        width = 9 - data[at].bit_length()
        kind = int.from_bytes(data[at : at + width], "big")
        at += width
        length = 9 - data[at].bit_length()
    except IndexError as error:
        raise UnsupportedLayout from error
    if width > _MAX_NAME or length > _MAX_SIZE or at + length > len(data):
        raise UnsupportedLayout
    body = at + length
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(data[at:body], "big") & unknown
    return _Element(kind, start, body, None if size == unknown else body + size)


def _wrap(kind: int, content: bytes | None) -> bytes:
    """Returns an element; without content, the start of one of unknown size."""
    size = (1 << 56) - 1 if content is None else len(content)
    return kind.to_bytes(_MAX_NAME, "big") + (size | 1 << 56).to_bytes(_MAX_SIZE, "big") + (content or b"")


def _void(size: int) -> bytes:
    """Returns the start of a Void element of this size."""
    return _VOID + (size - 1 - _MAX_SIZE | 1 << 56).to_bytes(_MAX_SIZE, "big")
