"""The list of a file's audio tracks, from which its user can choose one."""

import json
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from functions import code_pages

#: Tracks in a list: those that the option ``track`` can name.
MAX_TRACKS: Final = 100
#: Characters of a title. A list of 100 tracks has to fit into 64 KiB, the size of a text in MySQL.
MAX_TITLE: Final = 64
#: A language as containers have it: a code of ISO 639-2, or a tag of BCP 47.
LANGUAGE: Final = re.compile(r"[A-Za-z0-9-]{0,35}")
#: A codec by libavcodec's name.
CODEC: Final = re.compile(r"[A-Za-z0-9_.-]{0,40}")


class ListedTrack(NamedTuple):
    """What a file says about one of its audio tracks.

    Attributes:
        codec: libavcodec's name for it; empty if there is no decoder.
        channels: number of channels; 0 if the file does not say.
        language: as in the file; empty if it does not say.
        title: as in the file; empty if there is none.
        default: whether it is the track that is converted if the user names none.
    """

    codec: str
    channels: int
    language: str
    title: str
    default: bool


def decoded(tracks: Sequence[ListedTrack]) -> list[ListedTrack]:
    """Returns the tracks with the titles that are not in UTF-8 read in their code page."""
    titles = code_pages.decode_all([track.title for track in tracks])
    # Lone surrogates that are no bytes, which only a compromised child sends, become question marks.
    titles = [title.encode("utf-8", "replace").decode() for title in titles]
    return [track._replace(title=title) for track, title in zip(tracks, titles, strict=True)]


def to_json(tracks: Sequence[ListedTrack]) -> str:
    """Returns the list as users see it: an array of objects, in the file's order; what is unknown is null."""
    listed = [
        {
            "number": number,
            "codec": track.codec or None,
            "channels": track.channels or None,
            "language": track.language or None,
            "title": track.title or None,
            "default": track.default,
        }
        for number, track in enumerate(tracks)
    ]
    return json.dumps(listed, ensure_ascii=False)
