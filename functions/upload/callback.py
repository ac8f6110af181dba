"""The callback of an upload: an address that is told when its job has ended."""

from collections.abc import MutableMapping
from typing import Final

from functions.http_endpoint import Unprocessable
from functions.outgoing.addresses import AddressRefused, Policy

#: The field of a form or a query, and the key of tus metadata.
CALLBACK: Final = "callback"


def take_callback(fields: MutableMapping[str, str], policy: Policy) -> str | None:
    """Removes the callback from the fields and returns it; None if there is none.

    Its host is resolved by hook alone, at each attempt: a name server that takes its time must not keep an upload's
    thread waiting.

    Raises:
        Unprocessable: the address is not allowed, whatever the name server would say.
    """
    url = fields.pop(CALLBACK, "")
    if not url:
        return None
    try:
        policy.parse(url)
    except AddressRefused as error:
        raise Unprocessable(str(error), {CALLBACK: error.fields["url"]}) from error
    return url
