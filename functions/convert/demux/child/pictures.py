"""Ranks the pictures that are embedded in a file: the front cover comes first."""

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av.container
    import av.stream

#: What libavformat calls the picture type 3 of ID3, FLAC, Ogg and ASF, and the field of APEv2 (libavformat/id3v2.c).
_FRONT = ("cover (front)", "cover art (front)")
_ICONS = ("32x32 pixels 'file icon'", "other file icon")
#: Names of Matroska attachments (RFC 9559, 21.2) without their extension: the cover, and those that are worse than any
#: other name.
_COVER = "cover"
_SMALL = "small_"

#: The ranks, best first.
FRONT = 0
UNSPECIFIED = 1
OTHER = 2
ICON = 3


def is_picture(stream: "av.stream.Stream") -> bool:
    """Returns whether a stream is a single embedded picture rather than a video."""
    return stream.type == "video" and bool(stream.disposition & stream.disposition.attached_pic)


def rank(metadata: Mapping[str, str]) -> int:
    """Returns how well a picture suits as the cover, by the metadata of its stream; less is better."""
    kind = metadata.get("comment", "").lower()
    names = [name.lower() for name in metadata]
    file = PurePath(metadata.get("filename", "").lower()).stem
    if kind in _FRONT or file == _COVER or any(name in _FRONT for name in names):
        return FRONT
    if kind in _ICONS or file.startswith(_SMALL):
        return ICON
    if kind not in ("", "other") or any(name.startswith("cover art (") for name in names):
        return OTHER
    return UNSPECIFIED


def attachments(container: "av.container.InputContainer") -> Iterator[tuple[int, bytes]]:
    """Yields rank and content of the pictures among Matroska's attachments that libavformat leaves as they are."""
    for stream in container.streams.attachments:
        if (stream.mimetype or "").startswith("image/") and (data := stream.data):
            yield rank(stream.metadata), data
