"""The function server as a process."""

import contextlib
import http.client
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from events.schema import DeliveryDue, Event, FetchDue, JobId, Mp3Ready, PieceCut, PiecesEncoded, VideoUploaded
from tests.support.databases import sqlite
from tests.support.paths import ROOT
from tests.support.processes import descendants, is_alive, wait_for
from tests.support.servers import free_port

SAMPLES = Path(__file__).with_name("samples.py")


def serve(**env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "infra.serve"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "FUNCTION_SOURCE": str(SAMPLES), **env}
    return subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)


def startup_error(**env: str) -> str:
    process = serve(**env)
    _, text = process.communicate(timeout=30)
    assert process.returncode == 2
    [line] = text.splitlines()
    return line


def test_invalid_settings_give_one_line() -> None:
    assert startup_error().startswith("FUNCTION_TARGET is not set: ")
    assert startup_error(FUNCTION_TARGET="web", FUNCTION_SOURCE="").startswith("FUNCTION_SOURCE is not set: ")
    assert startup_error(FUNCTION_TARGET="nothing").startswith("There is no function nothing in ")
    assert startup_error(FUNCTION_TARGET="web", FUNCTION_SOURCE="/nowhere.py").startswith(
        "There is no function web in "
    )
    assert startup_error(FUNCTION_TARGET="web", JWT_SECRET="sarcasm").startswith("JWT_SECRET is not used: ")
    assert startup_error(FUNCTION_TARGET="web", THREADS="many").startswith("THREADS is 'many': ")
    assert startup_error(FUNCTION_TARGET="web", PORT="-1").startswith("PORT is '-1': ")


@pytest.mark.parametrize("function", ["convert", "encode", "join"])
def test_converter_does_not_listen_without_a_sandbox(function: str, tmp_path: Path) -> None:
    """Kubernetes then says so; a converter that listened would fail every event, and nobody would see it."""
    source = tmp_path / "main.py"
    source.write_text(
        "from functions.convert.sandbox import landlock\n"
        "landlock.version = lambda _: 0  # as on gVisor\n"
        f"from functions.convert.main import {function}\n"
    )
    error = startup_error(FUNCTION_TARGET=function, FUNCTION_SOURCE=str(source))
    assert error.startswith("The sandbox needs Landlock (Linux 5.13), which this system does not offer. ")


def test_running_request_may_finish_after_sigterm(tmp_path: Path) -> None:
    port = free_port()
    process = serve(
        FUNCTION_TARGET="web", BIND_ADDRESS="127.0.0.1", PORT=str(port), TIMEOUT_SECONDS="2", NOTES=str(tmp_path)
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def connected() -> bool:
        try:
            connection.connect()
        except ConnectionRefusedError:
            return False
        return True

    wait_for(connected, "the server to listen")
    connection.request("GET", "/wait?file=never")
    wait_for((tmp_path / "wait").exists, "the request to run")
    workers = descendants(process.pid)
    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=30)
    assert 1.5 < time.monotonic() - began < 10
    assert not any(map(is_alive, workers))
    connection.close()


def test_workers_die_with_the_killed_master(tmp_path: Path) -> None:
    process = serve(
        FUNCTION_TARGET="web", BIND_ADDRESS="127.0.0.1", PORT=str(free_port()), NOTES=str(tmp_path), THREADS="2"
    )
    [worker] = wait_for(lambda: descendants(process.pid), "the worker")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    wait_for(lambda: not is_alive(worker), "the worker to die")


def test_process_exits_if_its_parent_has_ended() -> None:
    process = serve(FUNCTION_TARGET="web", PARENT_PID="1" if os.getpid() != 1 else "2", PORT=str(free_port()))
    process.communicate(timeout=30)
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("function", "variable", "address"),
    [
        ("validate", "DATABASE_URL", "mysql://user:password@{}/mp3burst"),
        ("register", "DATABASE_URL", "mysql://user:password@{}/mp3burst"),
        ("login", "DATABASE_URL", "mysql://user:password@{}/mp3burst"),
        ("notify", "DATABASE_URL", "mysql://user:password@{}/mp3burst"),
        ("download", "MONGO_URI", "mongodb://{}"),
        ("edit", "MONGO_URI", "mongodb://{}"),
        ("upload", "MONGO_URI", "mongodb://{}"),
    ],
)
def test_stores_are_connected_before_the_first_request(function: str, variable: str, address: str) -> None:
    """Nobody calls the function. Where the stores do not answer it serves all the same."""
    with socket.create_server(("127.0.0.1", 0)) as store:
        port = free_port()
        place = f"127.0.0.1:{store.getsockname()[1]}"
        env = {
            "DATABASE_URL": f"mysql://user:password@127.0.0.1:{free_port()}/mp3burst",
            "FUNCTION_SOURCE": str(ROOT / f"functions/{function}/main.py"),
            "FUNCTION_TARGET": function,
            "LINK_KEY": "a" * 64,
            "K_SINK": "http://127.0.0.1:1",
            "PUBLIC_URL": "http://localhost",
            variable: address.format(place),
        }
        process = serve(**env, BIND_ADDRESS="127.0.0.1", PORT=str(port))
        store.settimeout(30)
        store.accept()[0].close()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/nowhere")
        assert connection.getresponse().status in (404, 405)
        connection.close()
        process.terminate()
        process.communicate(timeout=30)


#: Calls an event function after the warm-up; prints how many connections to the database were opened by then and after.
CALL = """
import importlib, sys
from cloudevents.http import CloudEvent
from sqlalchemy import event
from sqlalchemy.pool import Pool
from functions.warm_up import warm_up

opened = []
event.listen(Pool, "connect", lambda *_: opened.append(1))
module, function, type_, data = sys.argv[1:]
target = getattr(importlib.import_module(module), function)
warm_up()
print(len(opened))
target(CloudEvent({"type": type_, "source": "/test"}, data))
print(len(opened))
"""
UNKNOWN = "f" * 32


@pytest.mark.parametrize(
    ("module", "function", "event"),
    [
        ("convert", "convert", VideoUploaded(JobId(UNKNOWN))),
        ("convert", "encode", PieceCut(JobId(UNKNOWN), 0)),
        ("convert", "join", PiecesEncoded(JobId(UNKNOWN))),
        ("fetch", "fetch", FetchDue(JobId(UNKNOWN))),
        ("notify", "notify", Mp3Ready(JobId(UNKNOWN))),
        ("hook", "hook", DeliveryDue(UNKNOWN)),
        ("sweep", "bury", Mp3Ready(JobId(UNKNOWN))),
        ("sweep", "sweep", Mp3Ready(JobId(UNKNOWN))),
    ],
)
def test_first_event_uses_the_connection_of_the_warm_up(
    module: str, function: str, event: Event, tmp_path: Path
) -> None:
    with sqlite(tmp_path) as database:
        address = database.engine.url.render_as_string()
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": address,
        "K_SINK": "http://127.0.0.1:1",
        "LINK_KEY": "a" * 64,
        "MAIL_DIR": str(tmp_path),
        "MEDIA_DIR": str(tmp_path / "media"),
        "MIN_FREE_BYTES": "0",
        "PUBLIC_URL": "http://localhost",
        "WEBHOOK_KEY": "a" * 64,
    }
    command = [sys.executable, "-c", CALL, f"functions.{module}.main", function, event.type, event.data().decode()]
    called = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (called.stdout.split(), called.returncode) == (["1", "1"], 0), called.stderr


def test_slow_client_does_not_block_a_thread(tmp_path: Path) -> None:
    """The client sends a byte now and then; the only thread must become free for others."""
    port = free_port()
    process = serve(
        FUNCTION_TARGET="web",
        BIND_ADDRESS="127.0.0.1",
        PORT=str(port),
        THREADS="1",
        BODY_SECONDS="1",
        NOTES=str(tmp_path),
    )
    try:
        wait_for(lambda: listening(port), "the server to listen")
        with socket.create_connection(("127.0.0.1", port), timeout=30) as slow:
            slow.sendall(b"POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")

            def dribble() -> bool:
                with contextlib.suppress(OSError):
                    slow.sendall(b" ")
                return bool(select.select([slow], [], [], 0.2)[0])

            wait_for(dribble, "the response to an unfinished body")
            assert b" 200 " not in slow.recv(1000)
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        other.request("GET", "/")
        assert other.getresponse().status == 200
        other.close()
    finally:
        process.terminate()
        process.communicate(timeout=30)


def listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
