"""infra/ping.py: what it sends, and that it continues whatever it receives."""

import socket
import subprocess
import sys

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
