"""Reduces the names of files that arrive to what is safe to keep and to show."""

import unicodedata
from typing import Final

#: Characters of a name that are looked at, before folders are removed.
_MAX_FILENAME: Final = 4 << 10
#: Characters that a file name has none of: controls, line and paragraph separators, lone surrogates, and invisible
#: characters, of which some change the direction of the text after them and can disguise the file's extension.
_NOT_IN_NAMES: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
#: The exceptions: Persian and Indian scripts and emoji need the zero width joiner and non-joiner.
_JOINERS: Final = "\u200c\u200d"


def base_name(name: str) -> str:
    """Returns a file name without folders and invisible characters, of at most 255 characters, with its extension."""
    name = name[-_MAX_FILENAME:].replace("\\", "/").rpartition("/")[2]
    name = "".join(filter(_is_in_names, name)).strip().strip(_JOINERS) or "upload"
    stem, dot, extension = name.rpartition(".")
    if len(name) > 255 and len(extension) <= 16:
        return stem[: 254 - len(extension)] + dot + extension
    return name[:255]


def _is_in_names(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _NOT_IN_NAMES
