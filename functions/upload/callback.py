"""The callback of an upload: an address that is told when its job has ended."""

from collections.abc import MutableMapping
from typing import Final

from functions.http_endpoint import Unprocessable
from functions.outgoing.addresses import AddressRefused, HostUnknown, Policy

#: The field of a form or a query, and the key of tus metadata.
CALLBACK: Final = "callback"


def take_callback(fields: MutableMapping[str, str], policy: Policy) -> str | None:
    """Removes the callback from the fields and returns it; None if there is none.

    Raises:
        Unprocessable: the address is not allowed.
    """
    url = fields.pop(CALLBACK, "")
    if not url:
        return None
    try:
        policy.resolve(policy.parse(url))
    except (AddressRefused, HostUnknown) as error:
        raise Unprocessable(str(error), {CALLBACK: error.fields["url"]}) from error
    return url
