"""The functions as processes of their own, and a client that costs as little as a client can."""

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from functions.auth.accounts import UserId
from functions.auth.tokens import Signer
from scripts.benchmarks.clock import ROOT, CannotMeasure

USER = UserId("5a" * 16)
_START = 60.0  # seconds
_CHUNK = 1 << 20


def keys() -> dict[str, str]:
    """Variables with keys of an installation of its own."""
    key = Ed25519PrivateKey.generate()
    return {
        "TOKEN_PRIVATE_KEY": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "TOKEN_PUBLIC_KEYS": key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        "LINK_KEY": secrets.token_hex(32),
        "PUBLIC_URL": "http://localhost",
    }


def token(environ: Mapping[str, str]) -> str:
    """A token of USER's."""
    return Signer(environ["TOKEN_PRIVATE_KEY"]).sign(USER, "bench@example.org", "user")


class Cpu:
    """CPU seconds of a process and of the children it has waited for."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __call__(self) -> float:
        """So many since it began."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / 100  # utime, stime, cutime, cstime; proc(5), USER_HZ is 100


class Served:
    """A function that runs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        self.url = f"http://127.0.0.1:{port}/"

    def workers(self) -> list[int]:
        """The processes that handle requests."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def worker(self) -> int:
        """The one that handles requests; the port is open before it is there."""
        deadline = time.monotonic() + _START
        while not (found := self.workers()):
            if time.monotonic() > deadline:
                raise CannotMeasure(f"A function has no worker: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)
        return found[0]


def start(source: str, target: str, environ: Mapping[str, str], log: Path) -> Served:
    """Start a function by infra.serve, without waiting for it; ``stop`` is the caller's."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = int(door.getsockname()[1])
    own = {
        "FUNCTION_SOURCE": source,
        "FUNCTION_TARGET": target,
        "BIND_ADDRESS": "127.0.0.1",
        "PORT": str(port),
        "PARENT_PID": str(os.getpid()),
        "PYTHONPATH": str(ROOT),
        "TIMEOUT_SECONDS": "5",
    }
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "FFMPEG") if name in os.environ}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.serve"],
            cwd=ROOT,
            env={**inherited, **environ, **own},
            stdout=output,
            stderr=output,
        )
    return Served(process, port, log)


def kill(served: Served) -> float:
    """End a function's processes at once; the CPU seconds that they took."""
    used = Cpu(served.process.pid)() + sum(Cpu(pid)() for pid in served.workers())
    served.process.kill()  # its workers die with it
    served.process.wait()
    return used


def stop(served: Served) -> None:
    """End a function, in good order if it can."""
    served.process.send_signal(signal.SIGTERM)
    try:
        served.process.wait(10)
    except subprocess.TimeoutExpired:
        served.process.kill()
        served.process.wait()


@contextlib.contextmanager
def serving(name: str, environ: Mapping[str, str], folder: Path, source: str | None = None) -> Iterator[Served]:
    """A function that takes requests, until the block ends."""
    served = start(source or f"functions/{name}/main.py", name, environ, folder / f"{name}.log")
    try:
        await_port(served)
        yield served
    finally:
        stop(served)


def await_port(served: Served) -> None:
    """Wait until the function takes connections."""
    deadline = time.monotonic() + _START
    while True:
        try:
            socket.create_connection(("127.0.0.1", served.port), 1).close()
            return
        except OSError:
            if served.process.poll() is not None or time.monotonic() > deadline:
                raise CannotMeasure(f"A function did not start: {served.log.read_text()[-2000:]}") from None
            time.sleep(0.001)


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> Any:
    """The JSON of an answer.

    Raises:
        CannotMeasure: it was an error.
    """
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 300:
        raise CannotMeasure(f"{method} {path.partition('?')[0]} was answered {answer.status}: {content[:500]!r}")
    return json.loads(content) if content.startswith((b"{", b"[")) else content


def upload(port: int, bearer: str, file: Path, form: bool = True) -> dict[str, str]:
    """Upload as a browser does, or the bare bytes; the kernel moves them, so that the client takes no core."""
    size, boundary = file.stat().st_size, secrets.token_hex(16)
    head = tail = b""
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "video/mp4"}
    if form:
        headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n'
            "Content-Type: video/mp4\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1800)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/upload" if form else f"/upload?filename={file.name}")
        for name, value in {**headers, "Content-Length": str(len(head) + size + len(tail))}.items():
            connection.putheader(name, value)
        connection.endheaders(head or None)
        with file.open("rb") as source:
            connection.sock.sendfile(source)
        if tail:
            connection.sock.sendall(tail)
        answer = connection.getresponse()
        content = answer.read()
    if answer.status != 202:
        raise CannotMeasure(f"The upload was answered {answer.status}: {content[:500]!r}")
    accepted: dict[str, str] = json.loads(content)
    return accepted


def download(port: int, bearer: str, fid: str) -> int:
    """Download and forget; how many bytes. The kernel throws them away, so that the client takes no core."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1800)
    buffer = bytearray(_CHUNK)
    with contextlib.closing(connection):
        connection.request("GET", f"/download?fid={fid}", headers={"Authorization": f"Bearer {bearer}"})
        link = connection.sock
        answer = connection.getresponse()
        if answer.status != 200:
            raise CannotMeasure(f"The download was answered {answer.status}: {answer.read()[:500]!r}")
        size, whole = len(answer.read1(_CHUNK)), int(answer.headers["Content-Length"])  # what came with the head
        while size < whole and (got := link.recv_into(buffer, min(_CHUNK, whole - size), socket.MSG_TRUNC)):
            size += got
    return size
