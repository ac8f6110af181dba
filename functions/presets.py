"""Presets: the options of a conversion under one name. Some are built in, and an installation adds its own."""

import json
import unicodedata
from collections.abc import Mapping
from typing import Final

from functions.options import BadOption, Options
from functions.settings import BadSetting

Form = Mapping[str, str]

#: What an upload calls the preset that it wants.
PRESET: Final = "preset"
BUILT_IN: Final[Mapping[str, Form]] = {
    "standard": {"bitrate": "192k"},
    "speech": {"bitrate": "96k", "mono": "true", "normalize": "true"},
    "music": {"bitrate": "256k"},
    "best": {"bitrate": "320k"},
    "smallest": {"bitrate": "64k", "mono": "true"},
}
#: Options that exclude each other: whoever gives one of them does not want the preset's other one.
_QUALITY: Final = frozenset({"bitrate", "vbr"})
_MAX_NAME: Final = 60


def of_installation(environ: Mapping[str, str]) -> dict[str, Form]:
    """Returns the presets that every user has: the built-in ones, with what PRESETS adds, replaces and removes.

    Raises:
        BadSetting: PRESETS is invalid.
    """
    found = dict(BUILT_IN)
    try:
        added = json.loads(environ.get("PRESETS") or "{}")
    except ValueError as error:
        raise BadSetting(f"PRESETS is not JSON ({error}): {_EXAMPLE}") from error
    if not isinstance(added, dict):
        raise BadSetting(f"PRESETS is not a JSON object: {_EXAMPLE}")
    for typed, options in added.items():
        name = normalize(typed)
        if options is None:
            found.pop(name, None)
            continue
        if not is_name(name):
            raise BadSetting(f"PRESETS has the name {name!r}: a name has {NAMES}.")
        if not (isinstance(options, dict) and all(isinstance(value, str) for value in options.values())):
            raise BadSetting(f"PRESETS does not say the options of {name} as texts: {_EXAMPLE}")
        try:
            found[name] = checked(options)
        except BadOption as error:
            raise BadSetting(f"PRESETS has an invalid option in {name}: {error}") from error
    return found


_EXAMPLE: Final = """set it to a JSON object such as {"podcast": {"bitrate": "96k", "mono": "true"}}."""
#: What a name of a preset has, for messages.
NAMES: Final = f"1 to {_MAX_NAME} characters, without slashes and invisible ones"


def normalize(name: str) -> str:
    """Returns a name as it is stored and compared: letters with accents can be written in two ways."""
    return unicodedata.normalize("NFC", name)


def is_name(name: str) -> bool:
    """Returns whether a preset may have this name."""
    is_visible = name.isprintable() and name == name.strip() and "/" not in name and name not in (".", "..")
    return 0 < len(name) <= _MAX_NAME and is_visible


def checked(options: Form) -> dict[str, str]:
    """Returns the options that have a value.

    Raises:
        BadOption: one of them is invalid.
    """
    given = {name: value for name, value in options.items() if value}
    Options.from_form(given)
    return given


def merge(preset: Form, options: Form) -> dict[str, str]:
    """Returns the options of a preset with those that are given beside it, which come before the preset's."""
    given = {name: value for name, value in options.items() if value}
    overridden = _QUALITY if given.keys() & _QUALITY else frozenset[str]()
    return {**{name: value for name, value in preset.items() if name not in overridden}, **given}
