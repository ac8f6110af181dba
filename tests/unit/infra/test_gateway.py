"""The gateway: the same paths as everywhere, and bytes that pass through as they come. With Debian's nginx."""

import contextlib
import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.servers import free_port
from tests.support.servers.nginx import CONFIGURATION, Gateway

ROUTE = re.compile(
    r"location ~ \^(\S+?)\(/\|\$\) { (?:error_log /dev/null; )?"
    r"set \$upstream \${(\w+)_UPSTREAM}; proxy_pass http://\$upstream; }"
)
FUNCTIONS = ("REGISTER", "LOGIN", "VALIDATE", "UPLOAD", "STATUS", "DOWNLOAD")
#: More than the kernel keeps on the way, both ways.
MUCH = 64 << 20


def claimed() -> dict[str, str]:
    """The function of each path, by the annotations of the manifests."""
    found = {}
    for file in (ROOT / "knative").glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            for path in document.get("metadata", {}).get("annotations", {}).get("mp3burst.dev/paths", "").split(","):
                if path.strip():
                    found[path.strip()] = document["metadata"]["name"].upper()
    return found


def test_it_routes_the_paths_that_the_manifests_claim_and_no_others() -> None:
    text = CONFIGURATION.read_text()
    routes = [(path.replace("\\", ""), name) for path, name in ROUTE.findall(text)]

    assert dict(routes) == claimed()
    assert len(routes) == text.count("proxy_pass") == text.count("location ~")
    # nginx takes the first that fits, the platform the longest: they agree where no path begins another.
    assert not [(a, b) for a, _ in routes for b, _ in routes if a != b and f"{a}/".startswith(f"{b}/")]


class Function:
    """One connection's worth of a function, under the test's control."""

    def __init__(self) -> None:
        self._door = socket.create_server(("127.0.0.1", 0))
        self._door.settimeout(30)
        self.address = f"127.0.0.1:{self._door.getsockname()[1]}"

    @contextlib.contextmanager
    def connection(self) -> Iterator[tuple[socket.socket, bytes, bytes]]:
        """The next connection; the head of its request, and what of the body came with it."""
        connection, _ = self._door.accept()
        with connection:
            connection.settimeout(30)
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(1 << 16)
            head, _, body = data.partition(b"\r\n\r\n")
            yield connection, head, body

    def close(self) -> None:
        self._door.close()


@pytest.fixture
def function() -> Iterator[Function]:
    made = Function()
    yield made
    made.close()


@pytest.fixture
def gateway(function: Function) -> Iterator[Gateway]:
    environ = {f"{name}_UPSTREAM": function.address for name in FUNCTIONS} | {"NGINX_LOCAL_RESOLVERS": "127.0.0.1"}
    environ["VALIDATE_UPSTREAM"] = f"127.0.0.1:{free_port()}"
    with Gateway(environ) as running:
        yield running


def client(gateway: Gateway, head: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
    connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    return connection


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_an_upload_reaches_the_function_while_it_is_sent(gateway: Gateway, function: Function) -> None:
    with client(gateway, f"POST /upload HTTP/1.1\nHost: h\nContent-Length: {MUCH}") as user:
        user.sendall(b"first")
        with function.connection() as (connection, head, body):
            while len(body) < 5:
                body += connection.recv(1 << 16)
            # The user has sent no more than this, so nobody waited for the rest.
            assert body == b"first"
            assert f"content-length: {MUCH}".encode() in head.lower()
            sender = in_background(lambda: user.sendall(bytes(MUCH - 5)))
            taken = 5
            while taken < MUCH:
                taken += len(connection.recv(1 << 20))
                assert gateway.spooled() == []
            sender.join()
            connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok")
            assert user.recv(1 << 16).startswith(b"HTTP/1.1 202 Accepted\r\n")


def test_an_upload_of_unknown_length_is_streamed_too(gateway: Gateway, function: Function) -> None:
    with client(gateway, "POST /upload HTTP/1.1\nHost: h\nTransfer-Encoding: chunked") as user:
        user.sendall(b"5\r\nfirst\r\n")
        with function.connection() as (connection, head, body):
            assert b"transfer-encoding: chunked" in head.lower()
            while b"first" not in body:
                body += connection.recv(1 << 16)


def test_an_upload_that_breaks_off_breaks_off_for_the_function(gateway: Gateway, function: Function) -> None:
    with client(gateway, "POST /upload HTTP/1.1\nHost: h\nContent-Length: 1000") as user:
        user.sendall(b"abc")
        with function.connection() as (connection, _, body):
            while len(body) < 3:
                body += connection.recv(1 << 16)
            user.close()
            while more := connection.recv(1 << 16):
                body += more
            assert body == b"abc"


def test_a_download_waits_for_its_client_and_nothing_is_spooled(gateway: Gateway, function: Function) -> None:
    """A download goes as fast as it is taken: the function cannot get rid of much more than the client reads."""
    with client(gateway, "GET /download?fid=1 HTTP/1.1\nHost: h") as user, function.connection() as (connection, *_):
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\nfirst".encode())
        data = b""
        while not data.endswith(b"first"):
            data += user.recv(1 << 16)
        sender = in_background(lambda: connection.sendall(bytes(MUCH - 5)))
        sender.join(0.5)
        assert sender.is_alive(), "the gateway took 64 MB that nobody has read"
        assert gateway.spooled() == []
        taken = 5
        while taken < MUCH:
            taken += len(user.recv(1 << 20))
        sender.join()


def test_ranges_and_headers_pass(gateway: Gateway, function: Function) -> None:
    head = "GET /download/a%2Fb?d=%26 HTTP/1.1\nHost: mp3converter.com\nRange: bytes=1-2\nX-Forwarded-For: 192.0.2.1"
    with client(gateway, head) as user, function.connection() as (connection, seen, _):
        connection.sendall(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/3\r\nContent-Length: 2\r\n\r\nbc")
        answer = user.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 206 Partial Content\r\n")
        assert b"Content-Range: bytes 1-2/3\r\n" in answer
    line, *lines = seen.decode().split("\r\n")
    headers = dict(each.split(": ", 1) for each in lines)
    assert line == "GET /download/a%2Fb?d=%26 HTTP/1.1"
    assert headers["Range"] == "bytes=1-2"
    assert headers["Host"] == function.address
    assert headers["X-Forwarded-Host"] == "mp3converter.com"
    assert headers["X-Forwarded-Proto"] == "http"
    assert headers["X-Forwarded-For"] == "127.0.0.1"


def test_a_proxy_in_front_says_who_calls(function: Function) -> None:
    upstreams = {f"{name}_UPSTREAM": function.address for name in FUNCTIONS}
    environ = {**upstreams, "NGINX_LOCAL_RESOLVERS": "127.0.0.1", "BEHIND_PROXY": "yes"}
    head = "GET /jobs HTTP/1.1\nHost: h\nX-Forwarded-For: 192.0.2.1, 198.51.100.1"
    with Gateway(environ) as gateway, client(gateway, head), function.connection() as (_, seen, _):
        assert "X-Forwarded-For: 192.0.2.1, 198.51.100.1, 127.0.0.1" in seen.decode().split("\r\n")


def test_a_proxy_with_tls_in_front_is_believed(gateway: Gateway, function: Function) -> None:
    head = "GET /jobs HTTP/1.1\nHost: inner\nX-Forwarded-Proto: https\nX-Forwarded-Host: mp3converter.com"
    with client(gateway, head), function.connection() as (_, seen, _):
        lines = seen.decode().split("\r\n")
    assert {"X-Forwarded-Proto: https", "X-Forwarded-Host: mp3converter.com"} <= set(lines)


@pytest.mark.parametrize("path", ["/", "/uploads", "/downloadx", "/.well-known/jwksXjson", "/sweep", "/_platform"])
def test_what_is_not_ours_is_a_404_that_a_program_can_read(gateway: Gateway, path: str) -> None:
    assert problem(gateway, path)["status"] == 404


def test_a_function_that_is_away_is_a_502_that_a_program_can_read(gateway: Gateway) -> None:
    assert problem(gateway, "/validate")["status"] == 502


def problem(gateway: Gateway, path: str) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    connection.request("GET", path)
    with contextlib.closing(connection), connection.getresponse() as answer:
        found: dict[str, object] = json.load(answer)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.status == found["status"]
        assert found.keys() == {"type", "title", "status", "detail"}
        return found


@pytest.mark.parametrize("upstream", ["nobody", "unknown"])
def test_a_download_that_fails_is_told_without_the_key_in_its_link(upstream: str) -> None:
    """The token of a link is good for days, for everybody who has it."""
    where = {"nobody": f"127.0.0.1:{free_port()}", "unknown": "no-such-name.invalid"}[upstream]
    environ = {f"{name}_UPSTREAM": where for name in FUNCTIONS} | {"NGINX_LOCAL_RESOLVERS": "127.0.0.1"}
    with Gateway(environ) as gateway:
        for path in ("/download", "//download", "/downloads"):
            problem(gateway, f"{path}?fid=1&token=secret")
        problem(gateway, "/validate?told")  # after it, whatever is said of the others has been said
        log = gateway.log()
    assert "/validate?told" in log
    assert "secret" not in log
    told = [line for line in log.splitlines() if " 502 GET /download, " in line]
    assert len(told) == 2
    if upstream == "nobody":
        assert f'upstream "{where}" answered "502"' in told[0]


def test_a_download_that_breaks_off_says_nothing_of_its_link(gateway: Gateway, function: Function) -> None:
    with client(gateway, "GET /download?fid=1&token=secret HTTP/1.1\nHost: h") as user:
        with function.connection() as (connection, *_):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst")
        while user.recv(1 << 16):
            pass
    problem(gateway, "/validate?told")
    assert "secret" not in gateway.log()
