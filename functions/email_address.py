"""Email addresses that mails can be sent to."""

from email.errors import MessageError
from typing import TYPE_CHECKING, Final

from events.errors import Mp3burstError

if TYPE_CHECKING:
    from email.headerregistry import Address

#: Characters: the longest path of RFC 5321, 4.5.3.1.3, without its angle brackets.
MAX_LENGTH: Final = 254
#: Characters of a label of a domain (RFC 1035, 2.3.4).
_MAX_LABEL: Final = 63
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
        BadAddress: the text is not an address, is too long, or its local part is not ASCII.
    """
    if len(text) > MAX_LENGTH:
        raise BadAddress(_INVALID)
    # Imported here because only a registration needs it, and it would slow down every start of register.
    from email.headerregistry import Address

    try:
        parsed = Address(addr_spec=text)
        if not parsed.username or not parsed.domain:
            raise ValueError(text)
        if any(len(label) > _MAX_LABEL for label in parsed.domain.split(".")):
            raise ValueError(text)  # before IDNA, which takes quadratic time
        return Address(name, parsed.username, parsed.domain.encode("idna").decode())
    except (ValueError, IndexError, MessageError) as error:
        raise BadAddress(_INVALID) from error
