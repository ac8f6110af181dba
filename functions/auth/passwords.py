"""Which passwords a user may choose. Logging in is possible with any password that was accepted earlier.

The rules follow NIST SP 800-63B, 5.1.1.2: a minimum length and a blocklist, and no rule about kinds of characters.
"""

import re
from collections.abc import Container, Iterable
from typing import Final

from functions.auth.accounts import normalize_username
from functions.auth.limits import MAX_PASSWORD, MIN_PASSWORD

#: Characters that a part of a name must have to be refused: "Ann" is also a part of "channel".
_MIN_PERSONAL: Final = 4
_SERVICE: Final = "mp3burst"
#: Lone halves of a UTF-16 surrogate pair: JSON can contain them, but no encoding can.
_LONE_SURROGATES: Final = re.compile(r"[\ud800-\udfff]")


def password_fault(password: str, personal: Iterable[str]) -> str | None:
    """Returns what is wrong with a new password, as the rest of the sentence "password ...", or None.

    Args:
        password: as the user typed it.
        personal: names of the user, which must not be in it: the username, the address, the name.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        return f"must have {MIN_PASSWORD} to {MAX_PASSWORD} characters"
    if _LONE_SURROGATES.search(password):
        return "must be text"
    if not any(character.isprintable() and not character.isspace() for character in password):
        return "must contain a visible character"
    folded = normalize_username(password)  # the form in which the list has its passwords
    if any(word in folded for word in _words(personal)):
        return f"must not contain your name or username, nor {_SERVICE}"
    if folded in _most_used():
        return "is one of the most used passwords: choose another"
    return None


def _words(personal: Iterable[str]) -> set[str]:
    """Returns each name, and each word of it, that is long enough."""
    words = {_SERVICE}
    for text in personal:
        name = normalize_username(text)
        words |= {name, "".join(name.split()), *re.split(r"[\W_]+", name)}
    return {word for word in words if len(word) >= _MIN_PERSONAL}


def _most_used() -> Container[str]:
    """Returns the 30,000 most used passwords in lower case; 11,611 of them have MIN_PASSWORD characters or more."""
    # Imported here because only a registration needs it. The import takes 50 ms and 10 MB.
    from zxcvbn.matching import RANKED_DICTIONARIES  # type: ignore[import-untyped]

    passwords: Container[str] = RANKED_DICTIONARIES["passwords"]
    return passwords
