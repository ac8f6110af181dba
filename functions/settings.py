"""Reads settings from environment variables. An error names the variable that is missing or invalid and the remedy."""

import math
from collections.abc import Mapping
from typing import Final

from events.errors import Mp3burstError

#: Variables of the tutorial systems that mp3burst does not use, and what replaces them.
OUTDATED: Final = {
    "JWT_SECRET": (
        "JWT_SECRET is not used: tokens are signed with an Ed25519 key. Remove it; set TOKEN_PRIVATE_KEY for login and "
        "TOKEN_PUBLIC_KEYS for every function that checks tokens."
    ),
    "AUTH_SVC_ADDR": (
        "AUTH_SVC_ADDR is not used: every function checks tokens itself with the keys in TOKEN_PUBLIC_KEYS. Remove it."
    ),
}


class BadSetting(Mp3burstError):
    """An environment variable is missing or invalid."""


def refuse_outdated(environ: Mapping[str, str]) -> None:
    """Rejects variables of the tutorial systems, which would have no effect.

    Raises:
        BadSetting: one of them is set; the message says what replaces it.
    """
    for name, message in OUTDATED.items():
        if environ.get(name):
            raise BadSetting(message)


def required(environ: Mapping[str, str], name: str, meaning: str) -> str:
    """Returns the variable's value.

    Args:
        environ: the environment.
        name: the variable.
        meaning: what its value must be; completes the sentence "it must be ..." of the error.

    Raises:
        BadSetting: the variable is not set.
    """
    value = environ.get(name, "")
    if not value:
        raise BadSetting(f"{name} is not set: it must be {meaning}.")
    return value


def number(
    environ: Mapping[str, str], name: str, default: float, minimum: float = 0, maximum: float = math.inf
) -> float:
    """Returns the variable's value as a number, or the default if it is not set.

    Raises:
        BadSetting: the value is not a finite number from ``minimum`` to ``maximum``.
    """
    text = environ.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not minimum <= value <= maximum or value == math.inf:
        bounds = f"from {minimum:g} to {maximum:g}" if maximum < math.inf else f"of at least {minimum:g}"
        raise BadSetting(f"{name} is {text!r}: it must be a number {bounds}.")
    return value


def switch(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Returns whether the variable is ``on``, or the default if it is not set.

    Raises:
        BadSetting: the value is neither ``on`` nor ``off``.
    """
    text = environ.get(name, "")
    if text not in ("", "on", "off"):
        raise BadSetting(f"{name} is {text!r}: it must be on or off.")
    return text == "on" if text else default
