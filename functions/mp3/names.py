"""The names of MP3s, and names that every file system takes."""

import re
from typing import Final

#: What some file system does not take in a name: controls, separators of lines, lone surrogates, what Windows reserves;
#: and characters that change the direction in which a name is shown.
_UNSAFE: Final = re.compile(
    r'[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069<>:"/\\|?*]'
)
#: A name cannot end like this on Windows, and one that begins with a period is hidden elsewhere.
_EDGES: Final = " ."
#: Bytes of a name without its extension: most file systems take 255, and a number may be appended.
_MAX_STEM: Final = 240


def mp3_name(filename: str) -> str:
    """Returns the file name of the MP3 that is made from this file."""
    stem = filename.rpartition(".")[0] or filename
    return f"{stem[:251]}.mp3"


def mp3_file_name(filename: str) -> str:
    """Returns that name, or one like it, if some file system does not take it."""
    stem = mp3_name(filename).removesuffix(".mp3").encode(errors="replace")[:_MAX_STEM].decode(errors="ignore")
    return f"{without_unsafe(stem).strip(_EDGES) or 'audio'}.mp3"


def without_unsafe(name: str) -> str:
    """Returns the name with an underscore for each character that is not safe in one."""
    return _UNSAFE.sub("_", name)
