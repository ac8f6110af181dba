"""Reads the tags of which libavformat returns the first of several values, or nothing: in ID3v2.4 and in mp4.

In ID3v2.4 a text has its values one after the other, with a zero character between them (structure document, 4.2). In
an mp4 an item of the list has a box for each value (QuickTime File Format, metadata).
"""

import codecs
import contextlib
import io
import struct
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

from functions.convert.demux.child.declared import read_at
from functions.convert.demux.child.mp4.boxes import Box, BoxReader
from functions.convert.errors import UnsupportedLayout
from functions.mp3.frame import syncsafe

#: Bytes of an ID3 tag that are read: programs write texts before pictures.
_MAX_TAG: Final = 64 << 10
_MAX_VALUES: Final = 100
#: Chunks of RIFF and AIFF that are searched for a tag.
_MAX_CHUNKS: Final = 64
#: libavformat's names for the texts that may have several values.
_ID3_NAMES: Final = {
    b"TPE1": "artist",
    b"TPE2": "album_artist",
    b"TPE3": "performer",
    b"TPE4": "TPE4",
    b"TCOM": "composer",
    b"TCON": "genre",
    b"TEXT": "TEXT",
}
_MP4_NAMES: Final = {b"\xa9ART": "artist", b"aART": "album_artist", b"\xa9wrt": "composer", b"\xa9gen": "genre"}
#: By the number of the encoding: without a search for its module, since the sandbox opens no files.
_DECODERS: Final = (codecs.latin_1_decode, codecs.utf_16_decode, codecs.utf_16_be_decode, codecs.utf_8_decode)
#: Flags of a tag and of a frame (ID3v2.4 structure document, 3.1 and 4.1.2).
_UNSYNCHRONIZED: Final = 0x80
_EXTENDED: Final = 0x40
_GROUPED: Final = 0x40
_UNREADABLE: Final = 0x0C  # compressed or encrypted
_FRAME_UNSYNCHRONIZED: Final = 0x02
_WITH_LENGTH: Final = 0x01
#: Types of values in an mp4: text in UTF-8 and a number.
_UTF8: Final = 1
_INTEGER: Final = 21


def read_values(source: io.RawIOBase, size: int) -> dict[str, str]:
    """Returns tags with several values by libavformat's names, joined by semicolons; leaves the source at any position.

    Args:
        source: the file.
        size: bytes of it.
    """
    head = read_at(source, 0, 12)
    if head[4:8] == b"ftyp":
        with contextlib.suppress(UnsupportedLayout):
            return dict(_mp4_values(BoxReader(source, size)))
        return {}
    offset = 0
    if head[:4] in (b"RIFF", b"FORM"):
        offset = _id3_chunk(source, "<I" if head[:4] == b"RIFF" else ">I")
    tag = read_at(source, offset, 10)
    if tag[:4] != b"ID3\4" or len(tag) < 10:
        return {}
    content = read_at(source, offset + 10, min(syncsafe(tag[6:10]), _MAX_TAG))
    values = {}
    for kind, text in _id3_frames(content, tag[5]):
        if kind in _ID3_NAMES and (joined := _joined(_id3_texts(text))):
            values[_ID3_NAMES[kind]] = joined
    return values


def _joined(values: Sequence[str]) -> str:
    """Returns several values as one text; empty for a single value, which libavformat reads."""
    found = [value.strip() for value in values if value.strip()]
    return ";".join(found[:_MAX_VALUES]) if len(found) > 1 else ""


def _id3_chunk(source: io.RawIOBase, number: str) -> int:
    """Returns where the ID3 tag of a WAV or AIFF is; 0 if it has none."""
    offset = 12
    for _ in range(_MAX_CHUNKS):
        header = read_at(source, offset, 8)
        if len(header) < 8:
            break
        if header[:4].lower() == b"id3 ":
            return offset + 8
        (size,) = struct.unpack(number, header[4:])
        offset += 8 + size + size % 2
    return 0


def _id3_frames(content: bytes, flags: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields the kind and the content of the frames that are complete and neither compressed nor encrypted."""
    at = syncsafe(content[:4]) if flags & _EXTENDED else 0
    while at + 10 <= len(content) and content[at]:
        size = syncsafe(content[at + 4 : at + 8])
        frame_flags = content[at + 9]
        frame = content[at + 10 : at + 10 + size]
        if len(frame) == size and not frame_flags & _UNREADABLE:
            skipped = bool(frame_flags & _GROUPED) + 4 * bool(frame_flags & _WITH_LENGTH)
            frame = frame[skipped:]
            if flags & _UNSYNCHRONIZED or frame_flags & _FRAME_UNSYNCHRONIZED:
                frame = frame.replace(b"\xff\0", b"\xff")
            yield content[at : at + 4], frame
        at += 10 + size


def _id3_texts(frame: bytes) -> list[str]:
    if not frame or frame[0] >= len(_DECODERS):
        return []
    text, _ = _DECODERS[frame[0]](frame[1:], "replace")
    return [value.strip("\ufeff") for value in text.split("\0")]


def _mp4_values(reader: BoxReader) -> Iterator[tuple[str, str]]:
    """Yields the items with several texts, and the tempo."""
    moov = next((box for box in reader.boxes(0, reader.size) if box.kind == b"moov"), None)
    if moov is None:
        return
    meta = reader.find(moov, b"udta", b"meta")
    lists = [box for box in reader.boxes(meta.body + 4, meta.end) if box.kind == b"ilst"]
    for item in chain.from_iterable(map(reader.children, lists)):
        if item.kind in _MP4_NAMES:
            if joined := _joined([data.decode("utf-8", "replace") for data in _mp4_data(reader, item, _UTF8)]):
                yield _MP4_NAMES[item.kind], joined
        elif item.kind == b"tmpo":
            for data in _mp4_data(reader, item, _INTEGER):
                if number := int.from_bytes(data, "big"):
                    yield "tempo", str(number)


def _mp4_data(reader: BoxReader, item: Box, kind: int) -> Iterator[bytes]:
    for box in reader.children(item):
        if box.kind == b"data" and reader.number(box.body) == kind and 8 < box.end - box.body <= _MAX_TAG:
            yield reader.read_at(box.body + 8, box.end - box.body - 8)
