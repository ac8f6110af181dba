"""The gateway, on Debian's nginx: the same paths as the manifests, and streaming in both directions."""

import contextlib
import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest
import yaml

from functions import http_endpoint
from functions.login.proxy import HEADERS as IDENTITY_HEADERS
from infra import front
from infra.apidocs.site import documents
from infra.slow_clients import SEND_BUFFER
from tests.support.paths import ROOT
from tests.support.processes import wait_for
from tests.support.servers import free_port
from tests.support.servers.nginx import CONFIGURATION, Gateway, upstreams

ROUTE = re.compile(
    r"location ~ \^(\S+?)\(/\|\$\) { (?:error_log /dev/null; )?"
    r"(?:client_max_body_size (?:0|16m); proxy_request_buffering off; )?"
    r"set \$function \${(\w+)_UPSTREAM}; proxy_pass http://functions; }"
)
#: Bytes: more than the kernel buffers in both directions.
LARGE = 64 << 20
#: Of a request that says who its user is.
IDENTITY = [f"{name}: ann@example.org" for name in IDENTITY_HEADERS]


def claimed() -> dict[str, str]:
    """Returns the function of each path, from the annotations of the manifests."""
    found = {}
    for file in (ROOT / "knative").glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            for path in document.get("metadata", {}).get("annotations", {}).get("mp3burst.dev/paths", "").split(","):
                if path.strip():
                    found[path.strip()] = document["metadata"]["name"].upper()
    return found


def test_it_routes_exactly_the_paths_that_the_manifests_claim() -> None:
    text = CONFIGURATION.read_text()
    routes = [(path.replace("[^/]+", "*").replace("\\", ""), name) for path, name in ROUTE.findall(text)]

    assert dict(routes) == claimed()
    assert len(routes) == text.count("proxy_pass http://functions;") == text.count("location ~")
    # nginx takes the first match, the platform the longest one: they agree if no path is a prefix of a later one.
    paths = [path for path, _ in routes]
    assert not [(a, b) for n, a in enumerate(paths) for b in paths[n + 1 :] if f"{b}/".startswith(f"{a}/")]


class Function:
    """A function whose connections the test controls, one at a time."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    @contextlib.contextmanager
    def connection(self, seconds: float = 30) -> Iterator[tuple[socket.socket, bytes, bytes]]:
        """Accepts a connection; yields it, the head of its request, and the part of the body received with the head."""
        self._listener.settimeout(seconds)
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(30)
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(1 << 16)
            head, _, body = data.partition(b"\r\n\r\n")
            yield connection, head, body

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def function() -> Iterator[Function]:
    made = Function()
    yield made
    made.close()


@pytest.fixture
def gateway(function: Function) -> Iterator[Gateway]:
    environ = upstreams(function.address) | {"NGINX_LOCAL_RESOLVERS": "127.0.0.1"}
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


def test_upload_is_streamed(gateway: Gateway, function: Function) -> None:
    with client(gateway, f"POST /upload HTTP/1.1\nHost: h\nContent-Length: {LARGE}") as user:
        user.sendall(b"first")
        with function.connection() as (connection, head, body):
            while len(body) < 5:
                body += connection.recv(1 << 16)
            # The user has sent only this much, so the gateway did not wait for the rest.
            assert body == b"first"
            assert f"content-length: {LARGE}".encode() in head.lower()
            sender = in_background(lambda: user.sendall(bytes(LARGE - 5)))
            received = 5
            while received < LARGE:
                received += len(connection.recv(1 << 20))
                assert gateway.spooled() == []
            sender.join()
            connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok")
            assert user.recv(1 << 16).startswith(b"HTTP/1.1 202 Accepted\r\n")


def test_chunked_upload_is_streamed(gateway: Gateway, function: Function) -> None:
    with client(gateway, "POST /upload HTTP/1.1\nHost: h\nTransfer-Encoding: chunked") as user:
        user.sendall(b"5\r\nfirst\r\n")
        with function.connection() as (connection, head, body):
            assert b"transfer-encoding: chunked" in head.lower()
            while b"first" not in body:
                body += connection.recv(1 << 16)


def test_interrupted_upload_is_interrupted_for_the_function(gateway: Gateway, function: Function) -> None:
    with client(gateway, "POST /upload HTTP/1.1\nHost: h\nContent-Length: 1000") as user:
        user.sendall(b"abc")
        with function.connection() as (connection, _, body):
            while len(body) < 3:
                body += connection.recv(1 << 16)
            user.close()
            while more := connection.recv(1 << 16):
                body += more
            assert body == b"abc"


def test_download_is_streamed_at_the_speed_of_its_client(gateway: Gateway, function: Function) -> None:
    """The function cannot send much more than the client has read."""
    with client(gateway, "GET /download?fid=1 HTTP/1.1\nHost: h") as user, function.connection() as (connection, *_):
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\nfirst".encode())
        data = b""
        while not data.endswith(b"first"):
            data += user.recv(1 << 16)
        sender = in_background(lambda: connection.sendall(bytes(LARGE - 5)))
        sender.join(0.5)
        assert sender.is_alive(), "the gateway buffered 64 MB that the client has not read"
        assert gateway.spooled() == []
        received = 5
        while received < LARGE:
            received += len(user.recv(1 << 20))
        sender.join()


def test_ranges_and_headers_are_passed_on(gateway: Gateway, function: Function) -> None:
    head = "GET /download/a%2Fb?d=%26 HTTP/1.1\nHost: mp3converter.com\nRange: bytes=1-2\nX-Forwarded-For: 192.0.2.1"
    head = "\n".join((head, *IDENTITY, "Remote_Email: eve@example.org"))
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
    assert "@example.org" not in seen.decode(), "who the user is, only a proxy in front may say"


def test_forwarded_addresses_and_users_of_a_proxy_in_front_are_kept(function: Function) -> None:
    environ = upstreams(function.address) | {"NGINX_LOCAL_RESOLVERS": "127.0.0.1", "BEHIND_PROXY": "yes"}
    head = "\n".join(("GET /jobs HTTP/1.1", "Host: h", "X-Forwarded-For: 192.0.2.1, 198.51.100.1", *IDENTITY))
    with Gateway(environ) as gateway, client(gateway, head), function.connection() as (_, seen, _):
        lines = seen.decode().split("\r\n")
        assert {"X-Forwarded-For: 192.0.2.1, 198.51.100.1, 127.0.0.1", *IDENTITY} <= set(lines)


def test_scheme_and_host_of_a_tls_proxy_are_kept(gateway: Gateway, function: Function) -> None:
    head = "GET /jobs HTTP/1.1\nHost: inner\nX-Forwarded-Proto: https\nX-Forwarded-Host: mp3converter.com"
    with client(gateway, head), function.connection() as (_, seen, _):
        lines = seen.decode().split("\r\n")
    assert {"X-Forwarded-Proto: https", "X-Forwarded-Host: mp3converter.com"} <= set(lines)


@pytest.mark.parametrize(
    "path",
    [
        "/assets/",
        "/assets/page.js",
        "/index.html",
        "/other.html",
        "/index.html/",
        "/uploads",
        "/downloadx",
        "/.well-known/jwksXjson",
        "/sweep",
        "/_platform",
        "/schemas",
        "/docs/",
    ],
)
def test_unknown_path_is_a_404_problem(gateway: Gateway, path: str) -> None:
    assert problem(gateway, path)["status"] == 404


@pytest.mark.parametrize(
    ("location", "headers"),
    [
        ("= /", front.PAGE_HEADERS),
        ("^~ /assets/", front.ASSET_HEADERS),
        ("= /share/", front.SHARE_HEADERS),
        ("= /share/worker.js", front.WORKER_HEADERS),
        ("/", front.DOCUMENT_HEADERS),
    ],
)
def test_headers_of_documents_are_those_of_the_embedded_ingress(location: str, headers: dict[str, str]) -> None:
    _, _, rest = CONFIGURATION.read_text().partition(f"        location {location} {{\n")
    block, _, _ = rest.partition("        }\n")
    assert dict(re.findall(r'add_header (\S+) "(.*)";', block)) == headers


@pytest.mark.parametrize(("method", "page"), [("POST", front.NOT_RECEIVED), ("GET", "/")])
def test_what_is_shared_without_a_service_worker_leads_to_the_page(gateway: Gateway, method: str, page: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    with contextlib.closing(connection):
        for _ in range(2):  # on the same connection: all that was sent is read
            connection.request(method, front.SHARE, bytes(5 << 20) if method == "POST" else None)
            with connection.getresponse() as answer:
                answer.read()
                assert (answer.status, answer.headers["Location"]) == (303, page)
                assert {name: answer.headers[name] for name in front.SHARE_HEADERS} == front.SHARE_HEADERS


@pytest.mark.parametrize("path", sorted(documents()))
def test_documents_are_served(gateway: Gateway, path: str) -> None:
    document = documents()[path]
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    with contextlib.closing(connection):
        for method, body in (("GET", document.content), ("HEAD", b"")):
            connection.request(method, path)
            with connection.getresponse() as answer:
                assert (answer.status, answer.read()) == (200, body)
                assert answer.headers["Content-Type"] == document.content_type
                assert {name: answer.headers[name] for name in document.headers} == document.headers
        connection.request("POST", path)
        with connection.getresponse() as answer:
            assert json.load(answer)["status"] == answer.status == 405


def test_unreachable_function_is_a_502_problem(gateway: Gateway) -> None:
    assert problem(gateway, "/validate")["status"] == 502


GO_ERROR = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s" % (
    57,
    b"readfrom tcp 127.0.0.1:8080: use of closed network conn.\n",
)


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        ("POST /upload HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc", "/upload"),
        ("PATCH /files/1 HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc", "/files/1"),
        ("POST /login HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc", "/login"),
        ("GET /sso/callback?code=1 HTTP/1.1\nHost: h", "/sso/callback"),
    ],
)
def test_what_knative_answers_for_an_ended_pod_becomes_a_problem(
    gateway: Gateway, function: Function, request_: str, path: str
) -> None:
    with client(gateway, request_) as user:
        with function.connection() as (connection, *_):
            connection.sendall(GO_ERROR)
        answer = http.client.HTTPResponse(user)
        answer.begin()
        assert (answer.status, answer.headers["Content-Type"]) == (502, "application/problem+json")
        assert json.load(answer)["detail"] == front.interrupted(path)
    with pytest.raises(TimeoutError), function.connection(0.2):
        pass  # Nothing is sent twice that might change something.


def test_reading_is_tried_once_more_when_a_pod_ends(gateway: Gateway, function: Function) -> None:
    with client(gateway, "GET /jobs?limit=1 HTTP/1.1\nHost: h\nAuthorization: Bearer a") as user:
        heads = []
        for answered in (GO_ERROR, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"):
            with function.connection() as (connection, head, _):
                heads.append(head)
                connection.sendall(answered)
        assert heads[0] == heads[1]
        assert b"GET /jobs?limit=1 HTTP" in heads[0]
        answer = http.client.HTTPResponse(user)
        answer.begin()
        assert (answer.status, answer.read()) == (200, b"{}")


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("text", [b"context deadline exceeded\n", b""])
@pytest.mark.parametrize(
    "request_",
    ["POST /login HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc", "GET /sso/providers HTTP/1.1\nHost: h"],
    ids=["login", "providers"],
)
def test_what_knative_answers_if_no_pod_can_becomes_a_problem(
    gateway: Gateway, function: Function, status: int, text: bytes, request_: str
) -> None:
    with client(gateway, request_) as user:
        with function.connection() as (connection, *_):
            head = f"HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n"
            connection.sendall(head.encode() + text)
        answer = http.client.HTTPResponse(user)
        answer.begin()
        assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
        assert answer.headers["Retry-After"] == ("5" if status == 503 else None)
        assert json.load(answer)["detail"] == front.MESSAGES[status]


def test_what_a_function_says_of_its_503_reaches_the_user(gateway: Gateway, function: Function) -> None:
    said = http_endpoint.problem(503, 'The "store" of Zoë is down: try again.')
    said.headers["Retry-After"] = "7"
    said.headers["Tus-Resumable"] = "1.0.0"
    with client(gateway, "PATCH /files/1 HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc") as user:
        with function.connection() as (connection, *_):
            connection.sendall(f"HTTP/1.1 503 X\r\n{said.headers}".encode() + said.get_data())
        answer = http.client.HTTPResponse(user)
        answer.begin()
        assert (answer.status, answer.headers["Retry-After"], answer.headers["Tus-Resumable"]) == (503, "7", "1.0.0")
        assert (answer.headers["Content-Type"], answer.headers["X-Problem"]) == (said.content_type, None)
        assert json.load(answer) == said.get_json()


def test_page_of_a_503_reaches_the_user(gateway: Gateway, function: Function) -> None:
    with client(gateway, "GET /sso/callback?code=1 HTTP/1.1\nHost: h") as user:
        with function.connection() as (connection, *_):
            connection.sendall(b"HTTP/1.1 503 X\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>")
        answer = http.client.HTTPResponse(user)
        answer.begin()
        assert (answer.status, answer.headers["Content-Type"], answer.read()) == (503, "text/html", b"<html>")


@pytest.mark.parametrize("status", [400, 413, 429, 507])
def test_errors_of_functions_reach_the_user_as_they_are(gateway: Gateway, function: Function, status: int) -> None:
    with client(gateway, "GET /jobs HTTP/1.1\nHost: h") as user, function.connection() as (connection, *_):
        connection.sendall(f"HTTP/1.1 {status} X\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        answer = http.client.HTTPResponse(user)
        answer.begin()
        assert (answer.status, answer.headers["Retry-After"], answer.read()) == (status, "7", b"{}")


def problem(gateway: Gateway, path: str) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    connection.request("GET", path)
    with contextlib.closing(connection), connection.getresponse() as answer:
        found: dict[str, object] = json.load(answer)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.status == found["status"]
        assert found.keys() == {"type", "title", "status", "detail"}
        return found


def test_limits_and_messages_are_those_of_the_embedded_ingress() -> None:
    text, _, second = CONFIGURATION.read_text().partition("    # Where a pod ends")
    assert dict(re.findall(r'"~\^(\S+)\(/\|\$\)" "(The .*)";', second)) == front.INTERRUPTED
    assert (text + second).count(f" sndbuf={SEND_BUFFER >> 10}k;") == (text + second).count(" listen ") == 2
    assert f'default "{front.MESSAGES[502]}"' in second
    for status in (500, 503, 504):
        assert f'"status":{status},"detail":"{front.MESSAGES[status]}"' in second
    directives = dict(re.findall(r"^ {4,8}(\w+) (.*);$", text, re.MULTILINE))
    assert directives["client_header_timeout"] == f"{front.HEADER_SECONDS}s"
    assert directives["client_body_timeout"] == f"{front.BODY_SECONDS}s"
    assert directives["send_timeout"] == f"{front.SEND_SECONDS}s"
    assert directives["keepalive_timeout"] == f"{front.KEEPALIVE_SECONDS}s"
    share = dict(re.findall(r"^ {12}(lingering_\w+) (.*);$", text, re.MULTILINE))
    assert share == {"lingering_time": f"{front.SHARE_SECONDS}s", "lingering_timeout": f"{front.BODY_SECONDS}s"}
    assert directives["large_client_header_buffers"] == f"4 {front.MAX_LINE >> 10}k"
    assert directives["limit_conn"] == f"connections {front.REQUESTS_AT_ONCE}"
    assert directives["limit_req_zone"].endswith(f" rate={front.REQUESTS_PER_SECOND}r/s")
    assert directives["limit_req"] == f"zone=requests burst={front.BURST} nodelay"
    problems = [json.loads(found) for found in re.findall(r"return \d+ '(.*?)';", text)]
    assert {each["status"]: each["detail"] for each in problems if each["status"] != 404} == front.MESSAGES
    for each in problems:
        assert f"return {each['status']} '" in text
        assert each["title"] == HTTPStatus(each["status"]).phrase
        assert each["status"] == 404 or f"error_page {each['status']} " in text


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /jobs HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
        (b"GET /jobs HTTP/1.1\r\n\r\n", 400),
        (b"TRACE /jobs HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"POST /login HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n", 413),
        (b"GET /%s HTTP/1.1\r\nHost: h\r\n\r\n" % (b"secret" * 3000), 414),
        (b"GET /jobs HTTP/1.1\r\nHost: h\r\nA: %s\r\n\r\n" % (b"secret" * 3000), 431),
        (b"POST /login HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: secret\r\n\r\n", 501),
    ],
)
def test_requests_that_the_gateway_refuses_get_a_problem(gateway: Gateway, request_: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as user:
        user.sendall(request_)
        answer = http.client.HTTPResponse(user)
        answer.begin()
        text = answer.read().decode()
    assert (answer.status, json.loads(text)["status"]) == (status, status)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "secret" not in text


def test_small_requests_reach_the_function_only_once_they_are_complete(gateway: Gateway, function: Function) -> None:
    """So a client that sends slowly takes no place in the function. The length is known even if it was not sent."""
    with client(gateway, "POST /register HTTP/1.1\nHost: h\nTransfer-Encoding: chunked") as user:
        user.sendall(b"5\r\nfirst\r\n")
        with pytest.raises(TimeoutError), function.connection(0.5):
            pass
        user.sendall(b"0\r\n\r\n")
        with function.connection() as (connection, head, body):
            while len(body) < 5:
                body += connection.recv(1 << 16)
            assert b"content-length: 5" in head.lower()
    assert gateway.spooled() == []


@pytest.mark.parametrize(
    ("behind_proxy", "forwarded", "others"),
    [
        # Without a proxy in front, clients cannot choose their address.
        ("no", ["192.0.2.1", "192.0.2.2"], []),
        (
            "yes",
            ["192.0.2.1", "1.2.3.4, 192.0.2.1", "192.0.2.1, 10.1.2.3", "192.0.2.1, 172.31.0.1, fd00::1"],
            ["192.0.2.2"],
        ),
        ("yes", ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2:9::"], ["2001:db8:1:3:3:4:5:6"]),
        ("yes", ["2001:db8::1", "2001:db8::a:b:c:d"], ["2001:db9::1", "::1"]),
        ("yes", ["10.0.0.1, 10.0.0.2", "10.0.0.1"], ["10.0.0.2"]),
    ],
)
def test_a_network_has_a_limited_number_of_requests(
    function: Function, behind_proxy: str, forwarded: list[str], others: list[str]
) -> None:
    environ = upstreams(function.address)
    environ |= {"NGINX_LOCAL_RESOLVERS": "127.0.0.1", "BEHIND_PROXY": behind_proxy}
    with Gateway(environ) as gateway, contextlib.ExitStack() as stack:

        def send(address: str) -> socket.socket:
            head = f"GET /jobs HTTP/1.1\nHost: h\nX-Forwarded-For: {address}"
            return stack.enter_context(client(gateway, head))

        waiting = [send(forwarded[n % len(forwarded)]) for n in range(front.REQUESTS_AT_ONCE)]
        for _ in waiting:
            stack.enter_context(function.connection())
        for address in forwarded:
            answer = http.client.HTTPResponse(send(address))
            answer.begin()
            assert answer.status == 429
            assert {name: answer.headers[name] for name in front.REFUSAL_HEADERS} == front.REFUSAL_HEADERS
            assert json.load(answer)["detail"] == front.MESSAGES[429]
        for address in others:
            send(address)
            stack.enter_context(function.connection())


@pytest.mark.parametrize("upstream", ["refused", "unresolved"])
def test_failed_link_is_logged_without_its_token(upstream: str) -> None:
    """The token of a link in a mail is valid for days, for anyone who has it, and a callback's query may be secret."""
    address = {"refused": f"127.0.0.1:{free_port()}", "unresolved": "no-such-name.invalid"}[upstream]
    environ = upstreams(address) | {"NGINX_LOCAL_RESOLVERS": "127.0.0.1"}
    paths = (
        "/download",
        "//download",
        "/downloads",
        "/feed",
        "/upload",
        "/confirm",
        "/unsubscribe",
        "/unsubscribe/undo",
    )
    with Gateway(environ) as gateway:
        with ThreadPoolExecutor(len(paths)) as threads:  # each waits for a name server that does not answer
            list(
                threads.map(
                    lambda path: problem(gateway, f"{path}?fid=1&token=secret&callback=https://h/secret"), paths
                )
            )
        # All but /downloads, which is no path of a function.
        wait_for(lambda: gateway.log().count(" [error] 502 GET /") == len(paths) - 1, "a line for each call")
        log = gateway.log()
    assert "secret" not in log
    assert "client" not in log  # nor whose it was
    logged = [line for line in log.splitlines() if " 502 GET /download, " in line]
    assert len(logged) == 2
    for path in ("/feed", "/upload", "/confirm", "/unsubscribe", "/unsubscribe/undo"):
        assert f" 502 GET {path}, " in log
    if upstream == "refused":
        assert f'upstream "{address} : {address}" answered "502 : 502"' in logged[0]  # tried again


def test_interrupted_download_is_logged_without_its_token(gateway: Gateway, function: Function) -> None:
    with client(gateway, "GET /download?fid=1&token=secret HTTP/1.1\nHost: h") as user:
        with function.connection() as (connection, *_):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst")
        while user.recv(1 << 16):
            pass
    problem(gateway, "/validate/last")
    wait_for(lambda: " 502 GET /validate/last, " in gateway.log(), "the last line of the log")
    assert "secret" not in gateway.log()
