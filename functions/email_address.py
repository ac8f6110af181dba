"""Email addresses that mails can be sent to."""

from email.errors import MessageError
from typing import TYPE_CHECKING

from events.errors import Mp3burstError

if TYPE_CHECKING:
    from email.headerregistry import Address


class BadAddress(Mp3burstError):
    """The text is not an email address, or not one that mails can be sent to."""

    status = 422


def parse(text: str, name: str = "") -> "Address":
    """Returns the address as a mail's header has it, with the domain in ASCII.

    Args:
        text: such as ``ann@example.org``.
        name: the display name, if there is one.

    Raises:
        BadAddress: the text is not an address, or its local part is not ASCII.
    """
    # Imported here because only a registration needs it, and it would slow down every start of register.
    from email.headerregistry import Address

    try:
        parsed = Address(addr_spec=text)
        if not parsed.username or not parsed.domain:
            raise ValueError(text)
        return Address(name, parsed.username, parsed.domain.encode("idna").decode())
    except (ValueError, IndexError, MessageError) as error:
        raise BadAddress("This is not a valid email address: use one such as ann@example.org.") from error
