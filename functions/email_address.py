"""E-mail addresses that a mail can be sent to."""

from email.errors import MessageError
from typing import TYPE_CHECKING

from events.errors import Mp3burstError

if TYPE_CHECKING:
    from email.headerregistry import Address


class BadAddress(Mp3burstError):
    """No e-mail address, or one that no mail of ours can be sent to."""

    status = 422


def parse(text: str, name: str = "") -> "Address":
    """The address as it stands in a mail's header, with the domain in ASCII.

    Args:
        text: such as ``ann@example.org``.
        name: whose it is, if that is to stand beside it.

    Raises:
        BadAddress: it is none, or its local part is not ASCII.
    """
    # Not at the top: it costs register a part of its start, which only a registration has to pay.
    from email.headerregistry import Address

    try:
        parsed = Address(addr_spec=text)
        if not parsed.username or not parsed.domain:
            raise ValueError(text)
        return Address(name, parsed.username, parsed.domain.encode("idna").decode())
    except (ValueError, IndexError, MessageError) as error:
        raise BadAddress("This is no e-mail address.") from error
