"""Reads settings from the environment: what is missing or wrong is named in the error, with what to do about it."""

import math
from collections.abc import Mapping

from events.errors import Mp3burstError

#: Variables of the tutorial systems that have no counterpart, and what took their place.
REFUSED = {
    "JWT_SECRET": (
        "JWT_SECRET is not used: tokens are signed with an Ed25519 key. Remove it; set TOKEN_PRIVATE_KEY for login and "
        "TOKEN_PUBLIC_KEYS for every function that checks tokens."
    ),
    "AUTH_SVC_ADDR": (
        "AUTH_SVC_ADDR is not used: every function checks tokens itself with the keys in TOKEN_PUBLIC_KEYS. Remove it."
    ),
}


class BadSetting(Mp3burstError):
    """An environment variable is missing or makes no sense."""


def refuse_outdated(environ: Mapping[str, str]) -> None:
    """Refuse variables that a reader of the tutorials would set in vain.

    Raises:
        BadSetting: one of them is set; the sentence says what took its place.
    """
    for name, sentence in REFUSED.items():
        if environ.get(name):
            raise BadSetting(sentence)


def required(environ: Mapping[str, str], name: str, what: str) -> str:
    """The variable's value.

    Raises:
        BadSetting: it is not set; ``what`` says in the sentence what it should hold.
    """
    value = environ.get(name, "")
    if not value:
        raise BadSetting(f"{name} is not set: it must hold {what}.")
    return value


def number(environ: Mapping[str, str], name: str, default: float, least: float = 0, most: float = math.inf) -> float:
    """The variable as a number, or its default.

    Raises:
        BadSetting: it is no number, less than ``least``, or more than ``most``.
    """
    text = environ.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most or value == math.inf:
        bounds = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        raise BadSetting(f"{name} is {text!r}: it must be a number {bounds}.")
    return value
