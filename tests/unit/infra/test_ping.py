"""infra/ping.py: what it sends, and that it continues whatever it receives."""

import socket
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.servers.function import Function


def test_ping_sends_events_that_sweep_can_read() -> None:
    with Function() as sweep:
        process = subprocess.Popen([sys.executable, "-m", "infra.ping", sweep.url, "0.1"], cwd=ROOT)
        try:
            sweep.wait(lambda: len(sweep.requests) >= 3)
        finally:
            process.terminate()
            assert process.wait(10) == 0
    assert len(set(sweep.ids)) == len(sweep.ids)
    assert sweep.requests[0].headers["ce-type"] == "dev.knative.sources.ping"
    assert sweep.requests[0].headers["ce-specversion"] == "1.0"


def test_ping_continues_after_an_invalid_response() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        process = subprocess.Popen([sys.executable, "-m", "infra.ping", url, "0.1"], cwd=ROOT)
        try:
            for _ in range(3):
                connection, _ = server.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(b"not HTTP\r\n\r\n")
        finally:
            process.terminate()
            assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("url", "seconds", "message"),
    [
        ("ftp://sweep", "300", "'ftp://sweep' is not a URL to send events to: write http://HOST:PORT/PATH."),
        ("http://sweep:99999", "300", "'http://sweep:99999' is not a URL to send events to"),
        ("http://sweep", "0", "argument seconds: invalid"),
        ("http://sweep", "nan", "argument seconds: invalid"),
    ],
)
def test_ping_refuses_what_it_cannot_do(url: str, seconds: str, message: str) -> None:
    command = [sys.executable, "-m", "infra.ping", url, seconds]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
