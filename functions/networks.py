"""Maps a client's address to its networks, for the counts of failed logins and for the security log."""

import ipaddress
from typing import Final

#: Prefix lengths of IPv6: that of the smallest network of a subscriber, and that of a site (RFC 6177).
_NETWORK: Final = 64
_SITE: Final = 48


def networks(address: str) -> list[str]:
    """Returns an IPv4 address itself, the /64 and the /48 of an IPv6 address, and any other text unchanged."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return [address]
    if isinstance(parsed, ipaddress.IPv4Address):
        return [str(parsed)]
    if parsed.ipv4_mapped is not None:
        return [str(parsed.ipv4_mapped)]
    return [str(ipaddress.ip_network((parsed, prefix), strict=False)) for prefix in (_NETWORK, _SITE)]
