"""Whose address a login comes from: nobody can choose it by writing X-Forwarded-For."""

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from functions.http_endpoint import client_address, is_trusted_proxy
from functions.settings import BadSetting


def address(peer: str, forwarded: str | None = None, trusted: str = "") -> str:
    headers = [] if forwarded is None else [("X-Forwarded-For", forwarded)]
    environ = EnvironBuilder("/", headers=headers, environ_base={"REMOTE_ADDR": peer}).get_environ()
    return client_address(Request(environ), {"TRUSTED_PROXIES": trusted} if trusted else {})


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.5", None, "203.0.113.5"),
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),  # no proxy of ours: what it says is not heard
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2, 192.168.1.1", "198.51.100.1"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.1", "198.51.100.1"),  # the client wrote the first itself
        ("10.0.0.1", "127.0.0.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "10.9.9.9, 10.0.0.2", "10.9.9.9"),  # a neighbour
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, nonsense, 10.0.0.2", "10.0.0.2"),
        ("::1", "2001:db8::1", "2001:db8::1"),
        ("fd00::1", "2001:db8::1, fd00::2", "2001:db8::1"),
        ("", None, ""),
    ],
)
def test_the_nearest_address_that_is_no_proxy(peer: str, forwarded: str | None, client: str) -> None:
    assert address(peer, forwarded) == client


def test_trusted_proxies_are_those_of_the_setting() -> None:
    assert address("203.0.113.5", "198.51.100.1", "203.0.113.0/24") == "198.51.100.1"
    assert address("10.0.0.1", "198.51.100.1", "203.0.113.0/24") == "10.0.0.1"
    assert address("10.0.0.1", "203.0.113.5, 198.51.100.1", "10.0.0.0/8 , 198.51.100.1/32") == "203.0.113.5"


@pytest.mark.parametrize("trusted", ["nonsense", "10.0.0.1/8", "10.0.0.0/8,,"])
def test_a_setting_that_makes_no_sense(trusted: str) -> None:
    with pytest.raises(BadSetting, match="TRUSTED_PROXIES"):
        address("10.0.0.1", None, trusted)


@pytest.mark.parametrize(
    ("peer", "trusted", "is_one"),
    [("127.0.0.1", "", False), ("127.0.0.1", "127.0.0.0/8", True), ("192.168.0.9", "127.0.0.0/8,10.0.0.0/8", False)],
)
def test_whoever_asks_is_no_proxy_unless_the_setting_says_so(peer: str, trusted: str, is_one: bool) -> None:
    assert is_trusted_proxy(peer, {"TRUSTED_PROXIES": trusted}) is is_one
