"""Reads the tags of which libavformat returns one of several values, or nothing: in ID3v2.4, mp4, APEv2 and ASF.

In ID3v2.4 a text has its values one after the other, with a zero character between them (structure document, 4.2), and
so has an item of APEv2. In an mp4 an item of the list has a box for each value (QuickTime File Format, metadata). In
ASF several attributes have the same name (Advanced Systems Format specification, 3.10, 3.11 and 4.8).
"""

import codecs
import contextlib
import io
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Final

from functions.convert.demux.child.declared import asf_objects, read_at
from functions.convert.demux.child.mp4.boxes import Box, BoxReader
from functions.convert.errors import UnsupportedLayout
from functions.mp3.frame import syncsafe

#: Bytes of an ID3 tag that are read: programs write texts before pictures.
_MAX_TAG: Final = 64 << 10
_MAX_VALUES: Final = 100
_MAX_ITEMS: Final = 500
#: Chunks of RIFF and AIFF, or objects of ASF, that are searched for a tag.
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
_APE_NAMES: Final = {
    b"artist": "artist",
    b"album artist": "album_artist",
    b"albumartist": "album_artist",
    b"composer": "composer",
    b"conductor": "conductor",
    b"lyricist": "lyricist",
    b"mixartist": "mixartist",
    b"genre": "genre",
}
#: The flag of the header of an APEv2 tag, and those of the kind of a value, which are zero for a text.
_APE_HEADER: Final = 1 << 29
_APE_KIND: Final = 6
_ASF_NAMES: Final = {
    "Author": "artist",
    "WM/AlbumArtist": "album_artist",
    "WM/Composer": "composer",
    "WM/Conductor": "conductor",
    "WM/Writer": "lyricist",
    "WM/ModifiedBy": "mixartist",
    "WM/Genre": "genre",
}
#: The type of a value in ASF that is a text.
_ASF_TEXT: Final = 0
#: GUIDs of ASF's objects (10.1 to 10.3).
_ASF_CONTENT: Final = bytes.fromhex("3326b2758e66cf11a6d900aa0062ce6c")
_ASF_EXTENDED_CONTENT: Final = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850")
_ASF_EXTENSION: Final = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")
_ASF_LIBRARY: Final = bytes.fromhex("941c23449894d149a1411d134e457054")
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
    if asf := _asf_values(source):
        return asf
    offset = 0
    if head[:4] in (b"RIFF", b"FORM"):
        offset = _id3_chunk(source, "<I" if head[:4] == b"RIFF" else ">I")
    return _ape_values(source, size) | _id3_values(source, offset)


def _id3_values(source: io.RawIOBase, offset: int) -> dict[str, str]:
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
            texts = islice(_mp4_data(reader, item, _UTF8), _MAX_VALUES)
            if joined := _joined([data.decode("utf-8", "replace") for data in texts]):
                yield _MP4_NAMES[item.kind], joined
        elif item.kind == b"tmpo":
            for data in _mp4_data(reader, item, _INTEGER):
                if number := int.from_bytes(data, "big"):
                    yield "tempo", str(number)


def _mp4_data(reader: BoxReader, item: Box, kind: int) -> Iterator[bytes]:
    for box in reader.children(item):
        if box.kind == b"data" and reader.number(box.body) == kind and 8 < box.end - box.body <= _MAX_TAG:
            yield reader.read_at(box.body + 8, box.end - box.body - 8)


def _ape_values(source: io.RawIOBase, size: int) -> dict[str, str]:
    """Reads a tag of APEv2 at the end of the file, before a tag of ID3v1 if there is one."""
    if read_at(source, max(size - 128, 0), 3) == b"TAG":
        size -= 128
    footer = read_at(source, max(size - 32, 0), 32)
    if len(footer) < 32 or not footer.startswith(b"APETAGEX"):
        return {}
    length, count, flags = struct.unpack_from("<III", footer, 12)
    if flags & _APE_HEADER or not 32 <= length <= size:
        return {}
    content = read_at(source, size - length, min(length - 32, _MAX_TAG))
    values = {}
    at = 0
    for _ in range(min(count, _MAX_ITEMS)):
        if at + 8 > len(content):
            break
        length, flags = struct.unpack_from("<II", content, at)
        end = content.find(b"\0", at + 8)
        name = _APE_NAMES.get(content[at + 8 : end].lower())
        at = end + 1 + length
        if end < 0 or at > len(content):
            break
        texts = content[end + 1 : at].decode("utf-8", "replace").split("\0")
        if name and not flags & _APE_KIND and (joined := _joined(texts)):
            values[name] = joined
    return values


def _asf_values(source: io.RawIOBase) -> dict[str, str]:
    """Reads attributes that occur more than once in the header of an ASF."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in islice(_asf_attributes(source), _MAX_ITEMS):
        text = _asf_text(value)
        if name in _ASF_NAMES and text not in found[_ASF_NAMES[name]]:
            found[_ASF_NAMES[name]].append(text)
    return {name: joined for name, values in found.items() if (joined := _joined(values))}


def _asf_attributes(source: io.RawIOBase) -> Iterator[tuple[str, bytes]]:
    """Yields names and values, in UTF-16, of the attributes of the complete file: first values come first."""
    contents = {kind: content for kind, content in _asf_contents(source) if kind in _ASF_PARSERS}
    for kind, parse in _ASF_PARSERS.items():
        # What does not fit into an object is damaged: its attributes up to there are read.
        with contextlib.suppress(struct.error):
            yield from parse(contents.get(kind, b""))


def _asf_contents(source: io.RawIOBase) -> Iterator[tuple[bytes, bytes]]:
    """Yields the GUIDs and the contents of the objects of the header, those of its extension included."""
    for kind, offset, size in asf_objects(source):
        if kind != _ASF_EXTENSION:
            yield kind, read_at(source, offset + 24, min(size - 24, _MAX_TAG))
            continue
        at = offset + 46
        for _ in range(_MAX_CHUNKS):
            header = read_at(source, at, 24)
            inner = int.from_bytes(header[16:], "little")
            if at + 24 > offset + size or inner < 24:
                break
            yield header[:16], read_at(source, at + 24, min(inner - 24, _MAX_TAG))
            at += inner


def _asf_description(content: bytes) -> Iterator[tuple[str, bytes]]:
    title, author = struct.unpack_from("<HH", content)
    yield "Author", content[10 + title : 10 + title + author]


def _asf_extended(content: bytes) -> Iterator[tuple[str, bytes]]:
    (count,) = struct.unpack_from("<H", content)
    at = 2
    for _ in range(count):
        (size,) = struct.unpack_from("<H", content, at)
        name = content[at + 2 : at + 2 + size]
        at += 2 + size
        kind, size = struct.unpack_from("<HH", content, at)
        if kind == _ASF_TEXT:
            yield _asf_text(name), content[at + 4 : at + 4 + size]
        at += 4 + size


def _asf_library(content: bytes) -> Iterator[tuple[str, bytes]]:
    (count,) = struct.unpack_from("<H", content)
    at = 2
    for _ in range(count):
        _, _, name_size, kind, size = struct.unpack_from("<HHHHI", content, at)
        at += 12
        if kind == _ASF_TEXT:
            yield _asf_text(content[at : at + name_size]), content[at + name_size : at + name_size + size]
        at += name_size + size


def _asf_text(data: bytes) -> str:
    text, _ = codecs.utf_16_le_decode(data, "replace")  # as for ``_DECODERS``
    return text.strip("\0")


#: The objects with attributes, in the order in which programs fill them with values of one name.
_ASF_PARSERS: Final = {
    _ASF_CONTENT: _asf_description,
    _ASF_EXTENDED_CONTENT: _asf_extended,
    _ASF_LIBRARY: _asf_library,
}
