"""Whose address a request comes from, behind proxies that append to X-Forwarded-For."""

import functools
import ipaddress
from collections.abc import Mapping
from typing import Final

from flask import Request

from functions.settings import BadSetting

#: Loopback, the private networks of RFC 1918, carrier-grade NAT (RFC 6598), link-local, and their like in IPv6.
PROXIES: Final = "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,169.254.0.0/16,::1/128,fc00::/7"


def client_address(request: Request, environ: Mapping[str, str]) -> str:
    """The nearest address that is no proxy of ours.

    Every proxy on the way appends the address that it was called from, so the right end of X-Forwarded-For is ours and
    the left end is whatever the client wrote there. Where everything is a proxy's address, the client is one of our
    neighbours, and the farthest hop is taken.

    Args:
        request: the request as it arrived.
        environ: ``TRUSTED_PROXIES``, networks separated by commas; by default the private ones.
    """
    networks = _networks(environ.get("TRUSTED_PROXIES") or PROXIES)
    hops = [hop.strip() for hop in request.headers.get("X-Forwarded-For", "").split(",")]
    nearest = request.remote_addr or ""
    for hop in [nearest, *reversed(hops)]:
        try:
            address = ipaddress.ip_address(hop)
        except ValueError:
            break
        nearest = hop
        if not any(address in network for network in networks):
            break
    return nearest


def is_proxy(address: str, environ: Mapping[str, str]) -> bool:
    """Whether ``TRUSTED_PROXIES`` names the address; where it is not set, nobody's is."""
    text = environ.get("TRUSTED_PROXIES", "")
    return bool(text) and any(ipaddress.ip_address(address) in network for network in _networks(text))


@functools.cache
def _networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    try:
        return tuple(ipaddress.ip_network(net.strip()) for net in text.split(","))
    except ValueError as error:
        raise BadSetting("TRUSTED_PROXIES must be networks such as 10.0.0.0/8, separated by commas.") from error
