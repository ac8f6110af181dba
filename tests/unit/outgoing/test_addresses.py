"""Which addresses webhooks may have, and that nobody can change what a name stands for in between."""

import socket
import threading
import time
from typing import Any

import pytest

from functions.outgoing.addresses import AddressRefused, HostUnknown, Policy, is_public
from functions.outgoing.client import NoReply, call
from functions.settings import BadSetting
from tests.support.servers.receiver import Receiver

LOCAL = Policy.from_environ({"WEBHOOK_NETWORKS": "127.0.0.1/32"})


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",  # noqa: S104 - an address to refuse
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
        ),
        *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "203.0.113.7"),
        *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.88.99.1", "168.63.129.16"),
        *("::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
        *("fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "100::1", "2001::1"),
        *("2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1", "nonsense"),
    ],
)
def test_addresses_that_are_not_on_the_public_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00::1"])
def test_addresses_on_the_public_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.org/", "ftp://example.org/", "//example.org/", "example.org", "https://", "https:///x", ""),
        *(
            "https://example.org:22/",
            "https://example.org:8080/",
            "https://example.org:99999/",
            "https://example.org:x/",
        ),
        *("https://user@example.org/", "https://user:pass@example.org/", "https://@example.org/"),
        *(
            "https://example.org/#a",
            "https://example.org/a b",
            "https://example.org\\@127.0.0.1/",
            "https://ex\nample.org",
        ),
        *("https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://127.1/", "https://0177.0.0.1/"),
        *(
            "https://127.0.0.1./",
            "https://0x7f.0x0.0x0.0x1/",
            "https://0/",
            "https://1.2.3.4.5/",
            "https://017700000001/",
        ),
        *(
            "https://①②⑦.⓪.⓪.①/",
            "https://bücher.example/",
            "https://exa%6dple.org/",
            "https://[::1",
            "https://[fe80::1%25x]/",
        ),
        *("https://-.example.org:443:443/", "https://" + "a" * 64 + ".org/", "https://example.org/" + "a" * 2000),
    ],
)
def test_addresses_that_are_refused_without_resolving_them(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("resolved"))
    with pytest.raises(AddressRefused):
        Policy().parse(url)


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Has the resolver give these answers, one after the other; returns the hosts that it was asked for."""
    asked: list[str] = []
    left = list(answers)

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if host[0].isdecimal():  # the address that was found
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        asked.append(host)
        found = left.pop(0)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("found", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:169.254.169.254"]])
def test_name_of_which_any_address_is_private_is_refused(found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, found)
    policy = Policy()
    with pytest.raises(AddressRefused):
        policy.resolve(policy.parse("https://example.org/"))


def test_unknown_name_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, [])
    with pytest.raises(HostUnknown):
        Policy().resolve(Policy().parse("https://example.org/"))


def test_name_that_changes_between_check_and_connection_reaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # A name server that answers with a public address first, and with a private one from then on.
    asked = names(monkeypatch, ["8.8.8.8"], ["127.0.0.1"], ["127.0.0.1"])
    connected: list[Any] = []

    def create_connection(address: Any, *, timeout: float) -> socket.socket:
        assert timeout > 0
        connected.append(address)
        raise OSError("unreachable")

    monkeypatch.setattr(socket, "create_connection", create_connection)
    policy = Policy()
    target = policy.parse("https://rebinding.example/")
    with pytest.raises(NoReply):
        call("POST", target, policy, {}, b"x")
    assert (asked, connected) == (["rebinding.example"], [("8.8.8.8", 443)])
    with pytest.raises(AddressRefused):
        call("POST", target, policy, {}, b"x")
    assert len(connected) == 1


def test_operator_can_allow_a_private_network_and_nothing_beside_it() -> None:
    assert LOCAL.resolve(LOCAL.parse("http://127.0.0.1:9/")) == ["127.0.0.1"]
    for url in ("http://127.0.0.2:9/", "https://127.0.0.2/", "https://169.254.169.254/", "http://8.8.8.8/"):
        with pytest.raises(AddressRefused):
            LOCAL.resolve(LOCAL.parse(url))


@pytest.mark.parametrize(
    ("prefix", "public", "private"),
    [
        ("64:ff9b::/96", "64:ff9b::808:808", "64:ff9b::7f00:1"),
        ("2001:db8::/32", "2001:db8:808:808::", "2001:db8:a9fe:a9fe::"),
        ("2a00:100::/40", "2a00:100:8:808:8::", "2a00:100:a:0:1::"),
        ("2a00::/48", "2a00:0:0:808:8:800::", "2a00:0:0:a00:0:100::"),
        ("2a00::/56", "2a00:0:0:8:8:808::", "2a00:0:0:a:0:1::"),
        ("2a00::/64", "2a00::8:808:800:0", "2a00::7f:0:100:0"),
        ("2a00::/96", "2a00::808:808", "2a00::a00:1"),
    ],
)
def test_address_behind_nat64_is_judged_by_the_ipv4_address(prefix: str, public: str, private: str) -> None:
    policy = Policy.from_environ({"WEBHOOK_NAT64": prefix})
    assert policy.parse(f"https://[{public}]/").host == public
    with pytest.raises(AddressRefused):
        policy.parse(f"https://[{private}]/")
    assert policy.parse("https://[2606:4700::1111]/").host == "2606:4700::1111"


@pytest.mark.parametrize("value", ["x", "64:ff9b::/95", "10.0.0.0/8", "64:ff9b::1/96"])
def test_invalid_nat64(value: str) -> None:
    with pytest.raises(BadSetting, match="WEBHOOK_NAT64"):
        Policy.from_environ({"WEBHOOK_NAT64": value})


@pytest.mark.parametrize("name", ["WEBHOOK_NETWORKS", "WEBHOOK_PORTS"])
@pytest.mark.parametrize("value", ["x", "1.2.3.4/33", "0", "70000", "443;8443"])
def test_invalid_settings(name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=name):
        if name == "WEBHOOK_NETWORKS" and value.isdecimal():
            value = "x"
        Policy.from_environ({name: value})


def test_request_has_the_name_of_the_host_and_follows_no_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver(lambda _: (301, {"Location": "http://127.0.0.1:1/"})) as receiver:
        names(monkeypatch, ["127.0.0.1"])
        target = LOCAL.parse(f"http://hooks.example:{receiver.port}/a?b=c")
        reply = call("POST", target, LOCAL, {"X-Test": "1"}, b"body")
        [message] = receiver.messages
    assert reply.status == 301
    assert (message.method, message.path, message.body) == ("POST", "/a?b=c", b"body")
    assert message.headers["host"] == f"hooks.example:{receiver.port}"
    assert message.headers["x-test"] == "1"


@pytest.mark.parametrize("drip", [b"H", b"HTTP/1.1 200 OK\r\nX: ", b""])
def test_receiver_that_answers_byte_by_byte_or_never_is_left_in_time(drip: bytes) -> None:
    stop = threading.Event()

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(drip)
            while not stop.wait(0.05):
                try:
                    connection.sendall(drip and b"a")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        began = time.monotonic()
        target = LOCAL.parse(f"http://127.0.0.1:{server.getsockname()[1]}/")
        with pytest.raises(NoReply, match=r"within 0.5 seconds|could not be reached"):
            call("POST", target, LOCAL, {}, b"", seconds=0.5)
        assert time.monotonic() - began < 5
        stop.set()
        thread.join(10)


def test_answer_that_is_not_http_is_no_reply() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(NoReply):
            call("POST", LOCAL.parse(f"http://127.0.0.1:{server.getsockname()[1]}/"), LOCAL, {}, b"")
        thread.join(10)
