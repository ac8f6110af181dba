"""Email addresses that mails can be sent to."""

import re
from email.errors import MessageError
from typing import TYPE_CHECKING, Final

from events.errors import Mp3burstError

if TYPE_CHECKING:
    from email.headerregistry import Address

#: Characters: the longest path of RFC 5321, 4.5.3.1.3, without its angle brackets.
MAX_LENGTH: Final = 254
#: Characters of a label of a domain (RFC 1035, 2.3.4).
_MAX_LABEL: Final = 63
#: A top-level domain is alphabetic (RFC 3696, section 2) or the ASCII form of one that is not (RFC 5890). So an IPv4
#: address, in whatever notation, is no domain.
_TOP_LEVEL: Final = re.compile(r"[a-z]{2,63}|xn--[a-z0-9-]{1,59}", re.IGNORECASE)
#: Top-level domains that lead into the operator's own network, or nowhere: RFC 6761, RFC 6762 with its appendix G, RFC
#: 7686, RFC 8375, RFC 9476, and ICANN's reservation of .internal. Not .example: it leads nowhere either, but documents
#: and tests use it, and no resolver has a use for it of its own.
_SPECIAL_USE: Final = frozenset(
    (
        *("alt", "arpa", "corp", "home", "internal", "intranet", "invalid"),
        *("lan", "local", "localdomain", "localhost", "onion", "private", "test"),
    )
)
#: Deliberately coarse: only sending a mail shows whether an address exists.
_COARSE: Final = re.compile(r"[^\s@<>\"(),;:\\]+@[^\s@<>\"(),;:\\]+\.[^\s@<>\"(),;:\\.]+")
_INVALID: Final = "This is not a valid email address: use one such as ann@example.org."


class BadAddress(Mp3burstError):
    """The text is not an email address, or not one that mails can be sent to."""

    status = 422


def parse(text: str, name: str = "") -> "Address":
    """Returns the address as a mail's header has it, with the domain in ASCII.

    Args:
        text: such as ``ann@example.org``.
        name: the display name, if there is one.

    Raises:
        BadAddress: the text is not an address, is too long, its local part is not ASCII, or it has the address of a
            host in place of a domain, such as ``ann@[127.0.0.1]``.
    """
    if len(text) > MAX_LENGTH:
        raise BadAddress(_INVALID)
    # Imported here because only a registration needs it, and it would slow down every start of register.
    from email.headerregistry import Address

    try:
        parsed = Address(addr_spec=text)
        if not parsed.username or not parsed.domain or parsed.domain.startswith("["):
            raise ValueError(text)
        if any(len(label) > _MAX_LABEL for label in parsed.domain.split(".")):
            raise ValueError(text)  # before IDNA, which takes quadratic time
        return Address(name, parsed.username, parsed.domain.encode("idna").decode())
    except (ValueError, IndexError, MessageError) as error:
        raise BadAddress(_INVALID) from error


def parse_public(text: str) -> "Address":
    """Returns the address as ``parse`` does, if its domain can be one of the Internet.

    Raises:
        BadAddress: as ``parse``, or the domain has a single label, ends in a number or is for special use. Who enters
            such an address wants us to send mails to a host of our own network.
    """
    parsed = parse(text)
    name, _, top_level = parsed.domain.rpartition(".")
    if not name or not _TOP_LEVEL.fullmatch(top_level) or top_level.lower() in _SPECIAL_USE:
        raise BadAddress(_INVALID)
    return parsed


def is_public(text: str) -> bool:
    """Returns whether ``parse_public`` takes the text, and it looks like an address to a person."""
    if len(text) > MAX_LENGTH or not _COARSE.fullmatch(text):
        return False
    try:
        parse_public(text)
    except BadAddress:
        return False
    return True


def mailbox(text: str) -> str:
    """Returns the same text for addresses that reach one mailbox: a key to count by, not to send to.

    Upper and lower case, dots and what follows a plus make no difference: they do not at most providers. Where they do,
    two mailboxes are counted as one.
    """
    try:
        parsed = parse(text.strip())
    except BadAddress:
        return text.strip().casefold()
    local = parsed.username.partition("+")[0].replace(".", "")
    return f"{local}@{parsed.domain}".casefold()
