"""Runs every command of infra/compose.yaml as a process on real servers, with its environment from docker-compose.

There are no containers: the services' names and ports are replaced by local ones, and nothing else is changed.
"""

import base64
import contextlib
import functools
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.processes import wait_for
from tests.support.servers import free_port, program, smtp
from tests.support.servers.mongodb import MongoDB
from tests.support.servers.nginx import Gateway
from tests.support.servers.postgresql import PostgreSQL
from tests.support.servers.rabbitmq import RabbitMQ

#: Services that the test's own servers, nginx and SMTP server replace.
FOREIGN = {"rabbitmq", "postgresql", "mongodb", "mail", "gateway"}
PUBLIC = "http://mp3converter.com:8080"


def configuration(folder: Path) -> dict[str, Any]:
    """Returns the services as docker-compose reads them, with the variables of the password and key files."""
    docker_compose = program("docker-compose")
    inherited = {"PATH": os.environ["PATH"]}
    program("openssl")
    settings = {**inherited, "PUBLIC_URL": PUBLIC}
    subprocess.run(
        [str(ROOT / "infra/secrets.sh"), "files", str(folder)], env=settings, check=True, capture_output=True
    )
    command = [docker_compose, "-f", str(ROOT / "infra/compose.yaml"), "config"]
    environ = {**inherited, "MP3BURST_SECRETS": str(folder)}
    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    found: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return found


class Installation:
    """The processes of compose.yaml; a context manager."""

    def __init__(self, services: Mapping[str, Any], addresses: Mapping[str, str], folder: Path) -> None:
        self.services = services
        self.folder = folder
        self._ours = [name for name in services if name not in FOREIGN]
        ports = {name: free_port() for name in self._ours}
        self._ports = {name: port for name, port in ports.items() if services[name]["command"][-1] == "infra.serve"}
        self._addresses = {**addresses, **{f"{name}:8080": f"127.0.0.1:{ports[name]}" for name in self._ports}}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._gateway: Gateway | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    @property
    def url(self) -> str:
        assert self._gateway is not None
        return self._gateway.url

    def local(self, text: str) -> str:
        """Replaces the services' addresses in a text by local ones."""
        for name, address in self._addresses.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}\b", address, text)
        return text

    def environment(self, name: str) -> dict[str, str]:
        """Returns a service's environment, with local addresses."""
        given = {key: self.local(str(value)) for key, value in self.services[name].get("environment", {}).items()}
        if "SMTP_HOST" in given:
            mail = self.local(f"{given['SMTP_HOST']}:{given['SMTP_PORT']}").partition(":")
            given |= {"SMTP_HOST": mail[0], "SMTP_PORT": mail[2]}
        for key in {"MONGO_URI", "MONGO_MP3_URI"} & given.keys():
            # The tests' MongoDB has no users.
            given[key] = re.sub("//[^@]*@", "//", given[key]).removesuffix("?authSource=admin")
        return given

    def log(self, name: str) -> str:
        """Returns what a service has written so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self) -> dict[str, int]:
        """Sends SIGTERM to all processes and returns their exit statuses."""
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        ended = {name: process.wait(30) for name, process in self._running.items()}
        self._running.clear()
        return ended

    def _start(self) -> None:
        self._launch("migrations")
        assert self._running.pop("migrations").wait(60) == 0, self.log("migrations")
        for name in self._ports:
            self._launch(name)
        for name, port in self._ports.items():
            wait_for(
                functools.partial(self._listens, name, port), f"{name} to listen", seconds=120
            )  # all start at once
        for name in set(self._ours) - self._running.keys() - {"migrations"}:
            self._launch(name)
        (nginx, option, file, *arguments) = self.services["gateway"]["command"]
        assert (nginx, option, file) == ("nginx", "-c", "/tmp/nginx.conf")  # noqa: S108 - in the container
        environ = {"NGINX_LOCAL_RESOLVERS": "127.0.0.1", **self.environment("gateway")}
        self._gateway = Gateway(environ, tuple(arguments)).__enter__()

    def _listens(self, name: str, port: int) -> bool:
        assert self._running[name].poll() is None, self.log(name)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    def _launch(self, name: str) -> None:
        python, *arguments = (self.local(part) for part in self.services[name]["command"])
        assert python == "python"
        # What the image sets, and what processes on one machine need to stay apart.
        environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), "TMPDIR": str(self.folder)}
        if port := self._ports.get(name):
            environ |= {"BIND_ADDRESS": "127.0.0.1", "PORT": str(port)}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, *arguments], env=environ | self.environment(name), cwd=ROOT, stdout=log, stderr=log
            )

    def _kill(self) -> None:
        if self._gateway is not None:
            self._gateway.__exit__(None, None, None)
        for process in self._running.values():
            process.kill()
            process.wait()


@pytest.fixture
def mailbox() -> Iterator[smtp.SmtpServer]:
    with smtp.running() as server:
        yield server


@pytest.fixture
def installation(tmp_path: Path, mailbox: smtp.SmtpServer) -> Iterator[Installation]:
    services = configuration(tmp_path / "secrets")
    with RabbitMQ() as rabbitmq, PostgreSQL() as postgresql, MongoDB() as mongodb:
        credentials = services["rabbitmq"]["environment"]
        user = credentials["RABBITMQ_DEFAULT_USER"]
        rabbitmq.control("add_user", user, credentials["RABBITMQ_DEFAULT_PASS"])
        rabbitmq.control("set_permissions", user, ".*", ".*", ".*")
        with psycopg.connect(postgresql.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {services['postgresql']['environment']['POSTGRES_DB']}")
        addresses = {"rabbitmq:5672": rabbitmq.port, "postgresql:5432": postgresql.port, "mongodb:27017": mongodb.port}
        addresses["mail:1025"] = mailbox.port
        logs = tmp_path / "logs"
        logs.mkdir()
        local = {name: f"127.0.0.1:{port}" for name, port in addresses.items()}
        with Installation(services, local, logs) as running:
            yield running


def ask(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    with contextlib.closing(connection), connection.getresponse() as answer:
        return answer.status, answer.headers, answer.read()


def link_in(mailbox: smtp.SmtpServer, number: int, path: str) -> str:
    """Waits for a mail, from 0, and returns the path and query of its link to this path."""
    wait_for(lambda: len(mailbox.mails) > number, "the mail", 60)
    text = mailbox.mails[number].get_body(("plain",))
    assert text is not None
    link = re.search(rf"{re.escape(PUBLIC)}({path}\?\S+)", text.get_content())
    assert link is not None
    return link[1]


@pytest.mark.timeout(600)
def test_video_is_converted_end_to_end(installation: Installation, mailbox: smtp.SmtpServer, tmp_path: Path) -> None:
    url = installation.url
    clip = tmp_path / "Straßenmusik.mp4"
    inputs = ["-f", "lavfi", "-i", "testsrc=d=8:s=320x240", "-f", "lavfi", "-i", "sine=d=8"]
    make = [program("ffmpeg"), "-loglevel", "error", *inputs, "-preset", "ultrafast", "-shortest", str(clip)]
    subprocess.run(make, check=True)

    account = {"name": "Ann", "username": "ann@example.org", "password": "correct horse"}
    assert ask(url, "POST", "/register", json.dumps(account).encode())[0] == 201
    confirm = link_in(mailbox, 0, "/confirm")
    assert ask(url, "GET", confirm)[0] == 200
    assert ask(url, "POST", confirm)[0] == 200
    basic = base64.b64encode(b"ann@example.org:correct horse").decode()
    status, _, body = ask(url, "POST", "/login", Authorization=f"Basic {basic}")
    assert status == 200, body
    bearer = f"Bearer {json.loads(body)['token']}"
    status, _, body = ask(url, "POST", "/validate", Authorization=bearer)
    assert json.loads(body)["username"] == "ann@example.org"
    assert len(json.loads(ask(url, "GET", "/.well-known/jwks.json")[2])["keys"]) == 1

    video = clip.read_bytes()
    path = "/upload?filename=Stra%C3%9Fenmusik.mp4&bitrate=128k"
    status, headers, body = ask(url, "POST", path, video, Authorization=bearer, Content_Type="video/mp4")
    assert status == 202, body
    job = json.loads(body)["job"]
    assert headers["Location"] == f"/jobs/{job}"

    deadline = time.monotonic() + 120
    while (state := json.loads(ask(url, "GET", f"/jobs/{job}?wait=10", Authorization=bearer)[2]))["status"] != "done":
        assert state["status"] in {"uploaded", "converting"}, state
        assert time.monotonic() < deadline, installation.log("convert") + installation.log("bridge")

    link = link_in(mailbox, 1, "/download")
    assert [mail["To"] for mail in mailbox.mails] == ["ann@example.org"] * 2
    status, headers, mp3 = ask(url, "GET", link)
    assert (status, headers["Content-Type"]) == (200, "audio/mpeg")
    status, headers, part = ask(url, "GET", link, Range="bytes=1000-1999")
    assert (status, headers["Content-Range"]) == (206, f"bytes 1000-1999/{len(mp3)}")
    assert part == mp3[1000:2000]
    assert ask(url, "GET", f"/download?fid={state['mp3']}", Authorization=bearer)[2] == mp3
    # 8 s of 128 kbit/s, and the encoder's padding.
    assert 128_000 <= len(mp3) <= 134_000

    assert ask(url, "POST", "/upload", bytes(40 << 20), Content_Type="video/mp4")[0] == 401
    assert json.loads(ask(url, "GET", "/nowhere")[2])["status"] == 404
    assert ask(url, "DELETE", f"/jobs/{job}", Authorization=bearer)[0] == 204
    assert "WARNING" not in installation.log("ping"), installation.log("ping")
    assert "ERROR" not in installation.log("sweep"), installation.log("sweep")
    assert installation.log("bury") == ""
    assert set(installation.stop().values()) == {0}


def test_every_service_is_covered(tmp_path: Path) -> None:
    services = configuration(tmp_path)
    commands = {name: service["command"][:3] for name, service in services.items() if name not in FOREIGN}

    assert {tuple(command) for command in commands.values()} == {
        ("python", "-m", module) for module in ("infra.serve", "infra.migrations", "infra.ping", "events.bridge")
    }
