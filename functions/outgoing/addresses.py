"""Which addresses of users are called or fetched: they must not reach anything but the public internet.

A name is resolved once, right before the connection is made to one of the addresses that were found
(``functions.outgoing.client``), so that nobody can change what it stands for in between.
"""

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

from events.errors import Mp3burstError
from functions.settings import BadSetting

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: IANA's special-purpose addresses of IPv4, multicast, and the address of Azure's host, which is none of them.
_SPECIAL_IPV4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",
    )
)
#: All global unicast addresses of IPv6. Mapped and translated IPv4 addresses and local ones are outside.
_GLOBAL_IPV6: Final = ipaddress.IPv6Network("2000::/3")
#: Special-purpose addresses within it, such as Teredo and 6to4, which contain IPv4 addresses.
_SPECIAL_IPV6: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
_MAX_LENGTH: Final = 2000  # characters
#: Characters of an address to fetch: object stores and CDNs sign theirs, with tokens of a thousand characters and more.
_MAX_FETCHED_LENGTH: Final = 8000
_PRINTABLE: Final = re.compile(r"[!-~]+", re.ASCII)
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.ASCII)
#: The last label of what inet_aton(3) and so getaddrinfo(3) take for an IPv4 address: 127.1, 0x7f000001, 2130706433.
_NUMBER: Final = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)", re.ASCII)
_PORTS: Final = "443,8443"
_FETCHED_PORTS: Final = frozenset({80, 443})
#: The lengths that a prefix of NAT64 may have (RFC 6052, 2.2). Bits 64 to 71 are not part of the IPv4 address.
_NAT64_LENGTHS: Final = (32, 40, 48, 56, 64, 96)
_BAD_NAT64: Final = "WEBHOOK_NAT64 must be IPv6 prefixes of 32, 40, 48, 56, 64 or 96 bits, such as 64:ff9b::/96."


class AddressRefused(Mp3burstError):
    """The address is not valid, or not on the public internet.

    Attributes:
        what: the rest of a sentence that begins with the address.
    """

    status = 422
    security_event = "webhook.refused"

    def __init__(self, what: str) -> None:
        """Refuses an address; ``what`` is the rest of a sentence that begins with "The webhook's address"."""
        super().__init__(f"The webhook's address {what}.")
        self.what = what
        self.fields = {"url": what}


class HostUnknown(Mp3burstError):
    """The host's name cannot be resolved."""

    status = 422

    def __init__(self) -> None:
        super().__init__("The host in the webhook's address has no IP address: check its name.")
        self.fields = {"url": "has a host without an IP address"}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook is called, or a file is fetched.

    Attributes:
        is_secure: whether by HTTPS.
        host: a name, or an address without brackets.
        port: of TCP.
        path: with the query.
    """

    is_secure: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_secure else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator allows.

    Attributes:
        networks: that may be reached although they are not public, also by HTTP and on any port.
        ports: of public addresses.
        nat64: prefixes with which the network of the installation translates IPv4 addresses (RFC 6052).
        is_http_allowed: whether public addresses may be reached by HTTP without TLS.
        max_length: characters of an address.
    """

    networks: tuple[Network, ...] = ()
    ports: frozenset[int] = frozenset({443, 8443})
    nat64: tuple[ipaddress.IPv6Network, ...] = ()
    is_http_allowed: bool = False
    max_length: int = _MAX_LENGTH

    @classmethod
    def for_fetching(cls, environ: Mapping[str, str]) -> Self:
        """Returns what files may be fetched from: the ports of HTTP and HTTPS.

        Args:
            environ: ``FETCH_NETWORKS``, which webhooks need not be able to reach, and ``WEBHOOK_NAT64``.

        Raises:
            BadSetting: one of them is invalid.
        """
        return cls(
            networks=_networks(environ, "FETCH_NETWORKS"),
            ports=_FETCHED_PORTS,
            nat64=_nat64(environ),
            is_http_allowed=True,
            max_length=_MAX_FETCHED_LENGTH,
        )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Reads ``WEBHOOK_NETWORKS``, ``WEBHOOK_PORTS`` (443 and 8443) and ``WEBHOOK_NAT64``, separated by commas.

        Raises:
            BadSetting: one of them is invalid.
        """
        ports = [int(text) if text.isdecimal() else 0 for text in _listed(environ, "WEBHOOK_PORTS", _PORTS)]
        if not all(0 < port < 1 << 16 for port in ports):
            raise BadSetting("WEBHOOK_PORTS must be port numbers, separated by commas.")
        return cls(_networks(environ, "WEBHOOK_NETWORKS"), frozenset(ports), _nat64(environ))

    def parse(self, url: str) -> Target:
        """Checks all of an address that can be checked without asking a name server.

        Raises:
            AddressRefused: it is not valid, or not allowed.
        """
        if len(url) > self.max_length or not _PRINTABLE.fullmatch(url) or "\\" in url:
            raise AddressRefused(f"must have at most {self.max_length} characters, of ASCII and without spaces")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise AddressRefused("is not a valid URL") from error
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise AddressRefused(self._beginning)
        if "@" in parts.netloc or parts.fragment:
            raise AddressRefused("must not have a user, a password or a fragment")
        is_secure = parts.scheme == "https"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = _checked_host(parts.hostname, is_bracketed="[" in parts.netloc)
        target = Target(is_secure, host, (443 if is_secure else 80) if port is None else port, path)
        if _parsed(host) is not None:
            self._check(target, host)
        elif not self.networks:
            self._check_public(target)
        return target

    def resolve(self, target: Target) -> list[str]:
        """Returns the addresses of the target's host, of which all are allowed.

        Raises:
            AddressRefused: one of them is not.
            HostUnknown: there is none.
        """
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise HostUnknown from error
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        for address in addresses:
            self._check(target, address)
        if not addresses:
            raise HostUnknown
        return addresses

    def _check(self, target: Target, address: str) -> None:
        """Checks one IP address of the target's host, or the IPv4 address for which it stands."""
        reached = self._translated(address)
        if self._is_listed(reached):
            return
        self._check_public(target)
        if not is_public(reached):
            raise AddressRefused("is not on the public internet: use one that is")

    def _check_public(self, target: Target) -> None:
        if not target.is_secure and not self.is_http_allowed:
            raise AddressRefused(self._beginning)
        if target.port not in self.ports:
            allowed = " or ".join(map(str, sorted(self.ports)))
            raise AddressRefused(f"must have the port {allowed}")

    @property
    def _beginning(self) -> str:
        return "must begin with https:// or http://" if self.is_http_allowed else "must begin with https://"

    def _translated(self, text: str) -> str:
        """Returns the IPv4 address that NAT64 makes of an IPv6 address; any other address as it is."""
        address = _parsed(text)
        for prefix in self.nat64:
            if isinstance(address, ipaddress.IPv6Address) and address in prefix:
                packed = address.packed[:8] + address.packed[9:] if prefix.prefixlen < 96 else address.packed
                start = prefix.prefixlen // 8
                return str(ipaddress.IPv4Address(packed[start : start + 4]))
        return text

    def _is_listed(self, text: str) -> bool:
        address = _parsed(text)
        return address is not None and any(address in network for network in self.networks)


def is_public(text: str) -> bool:
    """Returns whether an IP address is a host's on the public internet."""
    address = _parsed(text)
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_IPV4)
    if isinstance(address, ipaddress.IPv6Address):
        return address in _GLOBAL_IPV6 and not any(address in network for network in _SPECIAL_IPV6)
    return False


def _checked_host(host: str, *, is_bracketed: bool) -> str:
    """Returns the host if it is a name, or an IP address in its one usual spelling.

    Raises:
        AddressRefused: it is neither.
    """
    if is_bracketed:
        if not isinstance(_parsed(host), ipaddress.IPv6Address) or "%" in host:
            raise AddressRefused("is not a valid URL")
        return host
    if _NUMBER.fullmatch(host):
        if not isinstance(_parsed(host), ipaddress.IPv4Address):
            raise AddressRefused("must have its IP address as four decimal numbers")
        return host
    if not _HOST.fullmatch(host):
        raise AddressRefused("must have a host name of letters, digits and hyphens: write others in Punycode")
    return host


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _networks(environ: Mapping[str, str], name: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text) for text in _listed(environ, name, ""))
    except ValueError as error:
        raise BadSetting(f"{name} must be networks such as 10.1.0.0/16, separated by commas.") from error


def _nat64(environ: Mapping[str, str]) -> tuple[ipaddress.IPv6Network, ...]:
    try:
        prefixes = tuple(ipaddress.IPv6Network(text) for text in _listed(environ, "WEBHOOK_NAT64", ""))
    except ValueError as error:
        raise BadSetting(_BAD_NAT64) from error
    if not all(prefix.prefixlen in _NAT64_LENGTHS for prefix in prefixes):
        raise BadSetting(_BAD_NAT64)
    return prefixes


def _listed(environ: Mapping[str, str], name: str, default: str) -> list[Any]:
    return [text.strip() for text in (environ.get(name) or default).split(",") if text.strip()]
