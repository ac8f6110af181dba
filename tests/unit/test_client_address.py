"""The client's address behind proxies: a client cannot forge it with X-Forwarded-For."""

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from functions.http_endpoint import came_through, client_address, is_trusted_proxy
from functions.settings import BadSetting


def request(peer: str, forwarded: str | None) -> Request:
    headers = [] if forwarded is None else [("X-Forwarded-For", forwarded)]
    return Request(EnvironBuilder("/", headers=headers, environ_base={"REMOTE_ADDR": peer}).get_environ())


def address(peer: str, forwarded: str | None = None, trusted: str = "") -> str:
    return client_address(request(peer, forwarded), {"TRUSTED_PROXIES": trusted} if trusted else {})


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.5", None, "203.0.113.5"),
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),  # not a trusted proxy: its header is ignored
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2, 192.168.1.1", "198.51.100.1"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.1", "198.51.100.1"),  # the client sent the first one itself
        ("10.0.0.1", "127.0.0.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "10.9.9.9, 10.0.0.2", "10.9.9.9"),  # a client on our own network
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, nonsense, 10.0.0.2", "10.0.0.2"),
        ("::1", "2001:db8::1", "2001:db8::1"),
        ("fd00::1", "2001:db8::1, fd00::2", "2001:db8::1"),
        ("", None, ""),
    ],
)
def test_client_is_the_nearest_address_that_is_not_a_proxy(peer: str, forwarded: str | None, client: str) -> None:
    assert address(peer, forwarded) == client


def test_setting_replaces_the_default_proxies() -> None:
    assert address("203.0.113.5", "198.51.100.1", "203.0.113.0/24") == "198.51.100.1"
    assert address("10.0.0.1", "198.51.100.1", "203.0.113.0/24") == "10.0.0.1"
    assert address("10.0.0.1", "203.0.113.5, 198.51.100.1", "10.0.0.0/8 , 198.51.100.1/32") == "203.0.113.5"


@pytest.mark.parametrize("trusted", ["nonsense", "10.0.0.1/8", "10.0.0.0/8,,"])
def test_invalid_setting(trusted: str) -> None:
    with pytest.raises(BadSetting, match="TRUSTED_PROXIES"):
        address("10.0.0.1", None, trusted)


@pytest.mark.parametrize(
    ("peer", "trusted", "trusted_proxy"),
    [("127.0.0.1", "", False), ("127.0.0.1", "127.0.0.0/8", True), ("192.168.0.9", "127.0.0.0/8,10.0.0.0/8", False)],
)
def test_no_proxy_is_trusted_unless_the_setting_names_it(peer: str, trusted: str, trusted_proxy: bool) -> None:
    assert is_trusted_proxy(peer, {"TRUSTED_PROXIES": trusted}) is trusted_proxy


@pytest.mark.parametrize(
    ("peer", "forwarded", "came"),
    [
        ("10.0.0.1", "198.51.100.1, 10.0.9.9", True),
        ("10.0.0.1", "198.51.100.1, 10.0.9.9, 10.0.0.2", True),  # two gateways of ours
        ("10.0.0.1", "10.0.9.9", True),  # the proxy does not say for whom it asks
        ("10.0.0.1", "198.51.100.1, 192.0.2.9", True),  # a proxy with a public address
        ("10.0.0.1", "198.51.100.1", False),
        ("10.0.0.1", "10.0.9.9, 198.51.100.1", False),  # the client has forged the first one
        ("10.0.0.1", "192.0.2.9, 192.168.0.7", False),  # a client on a private network, too
        ("10.0.0.1", "10.0.9.9, nonsense", False),
        ("10.0.0.1", None, False),
        ("10.0.9.9", None, False),  # what calls the function is the gateway
        ("198.51.100.1", "198.51.100.2, 10.0.9.9", False),
        ("", "10.0.9.9", False),
    ],
)
def test_only_hops_that_ours_have_seen_tell_whether_a_request_came_through_a_proxy(
    peer: str, forwarded: str | None, came: bool
) -> None:
    seen = request(peer, forwarded)
    proxies = "10.0.9.9/32, 192.0.2.9"
    assert came_through(seen, proxies, {"TRUSTED_PROXIES": "10.0.0.0/16"}) is came
    assert not came_through(seen, proxies, {}), "by default no address is trusted"
