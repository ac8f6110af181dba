"""Attacks on the function server by clients that send or read slowly, or not at all."""

import contextlib
import http.client
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.processes import descendants, most_lines_since, wait_for
from tests.support.servers import free_port

SAMPLES = Path(__file__).with_name("samples.py")
#: A request without its end: of a head, of a small body with and without a length, and of a large body that is refused.
UNFINISHED = (
    b"GET / HTTP/1.1\r\nHost: h\r\nX-More",
    b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n.",
    b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n",
    b"POST /count HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n",
    b"POST /count HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n" + bytes(60_000),
    b"POST /count HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + 20_000 * b"1\r\na\r\n",
    b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n.",
    b"POST /early HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n" + bytes(70_000),
)


class Server:
    """A function that serves the samples with one thread."""

    def __init__(self, notes: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.notes = notes
        self.port = port
        self.process = process

    def connect(self, request: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(request)
        return connection

    def get(self, path: str = "/") -> int:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        with contextlib.closing(client):
            client.request("GET", path)
            return client.getresponse().status

    def log(self) -> str:
        return (self.notes / "log").read_text()


@contextlib.contextmanager
def serving(notes: Path, descriptors: int | None = None, **env: str) -> Iterator[Server]:
    port = free_port()
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "FUNCTION_SOURCE": str(SAMPLES),
        "FUNCTION_TARGET": "web",
        "BIND_ADDRESS": "127.0.0.1",
        "PORT": str(port),
        "NOTES": str(notes),
        "THREADS": "1",
        "TIMEOUT_SECONDS": "1",
        **env,
    }
    with (notes / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "infra.serve"], cwd=ROOT, env=env, stderr=log)
        try:
            server = Server(notes, port, process)
            wait_for(lambda: listens(port), "the server to listen")
            if descriptors is not None:
                for pid in wait_for(lambda: descendants(process.pid), "the worker"):
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, descriptors))
            yield server
        finally:
            process.terminate()
            process.wait(timeout=30)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def response(connection: socket.socket) -> http.client.HTTPResponse:
    found = http.client.HTTPResponse(connection)
    found.begin()
    return found


def test_unfinished_requests_occupy_no_thread(tmp_path: Path) -> None:
    """The clients stay within every limit of time; others are served meanwhile."""
    with serving(tmp_path) as server, contextlib.ExitStack() as stack:
        attackers = {stack.enter_context(server.connect(request)): request for request in 3 * UNFINISHED}
        assert server.get() == 200
        for connection, request in attackers.items():
            if b"/early" in request:
                assert response(connection).status == 401
            elif b"Expect" in request:
                assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        unanswered = [connection for connection, request in attackers.items() if b"/early" not in request]
        assert not select.select(unanswered, [], [], 0)[0]


@pytest.mark.parametrize("body", [b"a", b"0123456789"])
def test_requests_that_arrive_in_pieces_are_complete(tmp_path: Path, body: bytes) -> None:
    chunk = f"{len(body):x};extension\r\n".encode() + body + b"\r\n"
    requests = {
        b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body): len(body),
        b"POST /count HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%s0\r\n\r\n" % (3 * chunk): 3
        * len(body),
        b"POST /count HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: h\r\n\r\n%s0\r\nT: 1\r\n\r\n" % chunk: len(body),
        b"POST /count HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\nabcdefghi": 9,
    }
    with serving(tmp_path) as server:
        for request, length in requests.items():
            with server.connect(b"") as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in request:
                    connection.sendall(bytes([byte]))
                answer = response(connection)
                assert (answer.status, answer.read()) == (200, str(length).encode())
                # The connection can be used again, also for two requests at once.
                connection.sendall(2 * request)
                received = b""
                while received.count(b"\r\n\r\n%d" % length) < 2:
                    received += connection.recv(1 << 16)


def test_clients_that_leave_at_once_do_no_harm(tmp_path: Path) -> None:
    reset = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST
    with serving(tmp_path) as server:
        (worker,) = wait_for(lambda: descendants(server.process.pid), "the worker")
        # While the worker is stopped, both the bytes and the end of each connection arrive before it looks.
        os.kill(worker, signal.SIGSTOP)
        for request in UNFINISHED:
            connection = server.connect(request)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            connection.close()
        os.kill(worker, signal.SIGCONT)
        assert server.get() == 200
        assert descendants(server.process.pid) == [worker]
    assert "Traceback" not in server.log()


def test_slow_requests_and_unread_responses_are_cut_off(tmp_path: Path) -> None:
    """Both keep the only thread, for the time that they are granted."""
    with serving(tmp_path, BODY_SECONDS="1", MIN_RATE="50000") as server:
        with server.connect(b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n") as slow:

            def dribble() -> bool:
                with contextlib.suppress(OSError):
                    slow.sendall(bytes(100))
                return bool(select.select([slow], [], [], 0.05)[0])

            wait_for(dribble, "the response to an unfinished body")
            answer = response(slow)
            assert (answer.status, answer.headers["Connection"]) == (500, "close")
        with server.connect(b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n.") as slow:
            answer = response(slow)
            assert (answer.status, json.load(answer)["status"]) == (408, 408)
        with server.connect(b"GET /flood?bytes=100000000 HTTP/1.1\r\nHost: h\r\n\r\n") as deaf:
            assert deaf.recv(1)
            assert server.get() == 200
            assert (tmp_path / "flood").read_text() == "disconnected\n"


def test_clients_that_read_no_answers_without_a_body_are_cut_off(tmp_path: Path) -> None:
    with serving(tmp_path, BODY_SECONDS="0.5") as server, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(("127.0.0.1", server.port))
        deaf.settimeout(0.5)
        with contextlib.suppress(TimeoutError):  # the answers will fill all buffers
            deaf.sendall(20_000 * b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_for(lambda: "Disconnected a client" in server.log(), "the client to be disconnected")
        assert server.get() == 200
        assert "Traceback" not in server.log()


def test_headers_of_clients_do_not_change_the_path_or_the_scheme(tmp_path: Path) -> None:
    """The embedded platform's ingress calls functions from 127.0.0.1, which gunicorn trusts by default."""
    fields = "SCRIPT_NAME: /a\r\nPATH_INFO: /early\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off"
    request = f"GET /a/b HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n".encode()
    with serving(tmp_path) as server, server.connect(request) as connection:
        answer = response(connection)
        assert answer.status == 200
        assert json.load(answer)["path"] == "/a/b?"


def test_clients_of_http_1_0_get_no_100_continue(tmp_path: Path) -> None:
    head = b"POST /count HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    with serving(tmp_path) as server, server.connect(head + b"a") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.0 200 OK\r\n")


def test_clients_above_the_minimum_rate_are_served(tmp_path: Path) -> None:
    """Both transfers take longer than the time that a client may pause."""
    with serving(tmp_path, BODY_SECONDS="0.4", MIN_RATE="100000", BUFFERED_BODY_BYTES="0") as server:
        with server.connect(b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n") as steady:
            for _ in range(40):
                steady.sendall(bytes(25_000))
                select.select([steady], [], [], 0.05)
            assert response(steady).read() == b"1000000"
        with socket.socket() as steady:
            steady.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
            steady.connect(("127.0.0.1", server.port))
            steady.sendall(b"GET /flood?bytes=3997696 HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = response(steady)
            received = 0
            while data := answer.read(100_000):
                received += len(data)
                select.select([], [], [], 0.03)
            assert received == 3_997_696


def test_malformed_requests_are_problems_and_are_not_repeated(tmp_path: Path) -> None:
    long = b"secret" * 10_000
    requests = {
        b"secret\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\nHost: h\r\nsecret secret\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\nHost: h\r\nA: %s\r\n\r\n" % long: 431,
        b"GET / HTTP/1.1\r\nHost: h\r\n%s\r\n" % (101 * b"A: secret\r\n"): 431,
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: secret\r\n\r\n": 501,
        b"POST / HTTP/1.1\r\nHost: h\r\nExpect: secret\r\n\r\n": 417,
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n": 400,
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + long: 400,
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + 50_000 * b"1\r\na\r\n": 413,
    }
    with serving(tmp_path) as server:
        began = time.monotonic()
        for _ in range(20):
            for request, status in requests.items():
                with server.connect(request) as connection:
                    answer = response(connection)
                    text = answer.read().decode()
                assert answer.headers["Content-Type"] == "application/problem+json"
                assert (answer.status, json.loads(text)["status"]) == (status, status)
                assert "secret" not in text
        lines = [line for line in server.log().splitlines() if "Refused a request" in line]
        assert 0 < len(lines) <= most_lines_since(began)
        assert "secret" not in server.log()
        assert "Traceback" not in server.log()


def test_malformed_chunks_are_the_clients_fault(tmp_path: Path) -> None:
    register = {"FUNCTION_SOURCE": str(ROOT / "functions/register/main.py"), "FUNCTION_TARGET": "register"}
    register |= {"DATABASE_URL": f"sqlite:///{tmp_path / 'db'}", "CONFIRM_EMAIL": "off"}
    head = b"POST /register HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    bodies = (b"2;=\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx0\r\n\r\n", b"2\r\n{}\r\n0\r\nno trailer\r\n\r\n")
    with serving(tmp_path, None, **register) as server:
        for body in bodies:
            with server.connect(head + body) as connection:
                answer = response(connection)
                assert (answer.status, json.load(answer)["status"]) == (400, 400)
                assert answer.headers["Connection"] == "close"
        assert "Traceback" not in server.log()


def test_without_file_descriptors_connections_wait_and_one_line_a_second_is_logged(tmp_path: Path) -> None:
    with serving(tmp_path, descriptors=32) as server:
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(server.connect(UNFINISHED[0]))
            wait_for(
                lambda: server.log().count("New connections wait: Too many open files") > 1, "the lines in the log"
            )
        assert server.get() == 200
        assert server.log().count("New connections wait") <= most_lines_since(began)
        assert "more in the meantime" not in server.log(), "it does not pause between two attempts"
        assert "Traceback" not in server.log()
