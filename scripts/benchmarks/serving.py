"""Runs functions as processes, prepares their stores and jobs, and calls them with a client that needs little CPU."""

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
from sqlalchemy import insert

from events.schema import JobId
from functions.auth.tokens import Signer
from functions.media import BlobId, Description, connect
from functions.options import Options
from functions.state.blobs import Blobs
from functions.state.database import Conflict, Database
from functions.state.jobs import Jobs, NewJob, Outcome, new_job_id
from functions.state.schema import UserId, users
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.timing import ROOT, CannotMeasure
from tests.support.processes import children
from tests.support.servers import free_port

USER = UserId("5a" * 16)
_START = 60.0  # seconds
_CHUNK = 1 << 20


def keys() -> dict[str, str]:
    """Returns variables with fresh keys."""
    key = Ed25519PrivateKey.generate()
    return {
        "TOKEN_PRIVATE_KEY": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "TOKEN_PUBLIC_KEYS": key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        "LINK_KEY": secrets.token_hex(32),
        "PUBLIC_URL": "http://localhost",
    }


def token(environ: Mapping[str, str]) -> str:
    """Returns a token of USER, who is added to the database unless that was done."""
    row = {"id": USER, "username": "bench@example.org", "email": "bench@example.org", "name": "Bench"}
    database = Database(environ["DATABASE_URL"])
    with contextlib.suppress(Conflict):
        statement = insert(users).values(**row, password_hash="", role="user", created_at=0)
        database.run(lambda connection: connection.execute(statement))
    database.close()
    return Signer(environ["TOKEN_PRIVATE_KEY"]).sign(USER, "bench@example.org", "user")


class Cpu:
    """Counts the CPU seconds of a process and of the children that it has waited for."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __call__(self) -> float:
        """Returns the seconds since the process started."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / 100  # utime, stime, cutime, cstime; proc(5), USER_HZ is 100


class Served:
    """A running function."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.url = f"http://127.0.0.1:{port}/"

    def workers(self) -> list[int]:
        """Returns the processes that handle requests."""
        return children(self.process.pid)

    def worker(self) -> int:
        """Waits for the process that handles requests, which starts after the port is open, and returns it."""
        deadline = time.monotonic() + _START
        while not (found := self.workers()):
            if time.monotonic() > deadline:
                raise CannotMeasure(f"A function started no worker: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)
        return found[0]


def start(source: str, target: str, environ: Mapping[str, str], log: Path) -> Served:
    """Starts a function with infra.serve without waiting for it; the caller stops it."""
    port = free_port()
    variables = {
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
            env={**inherited, **environ, **variables},
            stdout=output,
            stderr=output,
        )
    return Served(process, port, log)


def stop(served: Served) -> None:
    """Stops a function gracefully, or kills it after ten seconds."""
    served.process.send_signal(signal.SIGTERM)
    try:
        served.process.wait(10)
    except subprocess.TimeoutExpired:
        served.process.kill()
        served.process.wait()


@contextlib.contextmanager
def serving(name: str, environ: Mapping[str, str], folder: Path, source: str | None = None) -> Iterator[Served]:
    """Runs a function until the block ends."""
    served = start(source or f"functions/{name}/main.py", name, environ, folder / f"{name}.log")
    try:
        await_port(served)
        yield served
    finally:
        stop(served)


def await_port(served: Served) -> None:
    """Waits until the function accepts connections."""
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
    """Calls a function and returns the JSON of its answer.

    Raises:
        CannotMeasure: the answer was an error.
    """
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 300:
        raise CannotMeasure(f"{method} {path.partition('?')[0]} was answered {answer.status}: {content[:500]!r}")
    return json.loads(content) if content.startswith((b"{", b"[")) else content


def upload(port: int, bearer: str, file: Path, form: bool = True) -> dict[str, str]:
    """Uploads as a browser does, or the raw bytes. The kernel moves them, so that the client needs little CPU."""
    size = file.stat().st_size
    boundary = secrets.token_hex(16)
    head = b""
    tail = b""
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
    """Downloads a file and returns its size. The kernel discards the bytes, so that the client needs little CPU."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1800)
    buffer = bytearray(_CHUNK)
    with contextlib.closing(connection):
        connection.request("GET", f"/download?fid={fid}", headers={"Authorization": f"Bearer {bearer}"})
        sock = connection.sock
        answer = connection.getresponse()
        if answer.status != 200:
            raise CannotMeasure(f"The download was answered {answer.status}: {answer.read()[:500]!r}")
        total = int(answer.headers["Content-Length"])
        size = len(answer.read1(_CHUNK))  # the bytes that arrived with the headers
        while size < total and (got := sock.recv_into(buffer, min(_CHUNK, total - size), socket.MSG_TRUNC)):
            size += got
    return size


def store(bench: Bench, file: Path, as_mp3: bool = False, media: dict[str, str] | None = None) -> BlobId:
    """Stores a file as a video or as an MP3 and returns its blob.

    Args:
        bench: the run.
        file: what to store.
        as_mp3: whether it goes to the MP3s.
        media: variables of another media store than the run's.
    """
    stores = connect(media or bench.media())
    database = Database(bench.database())
    name = "mp3s" if as_mp3 else "videos"
    description = Description(USER, new_job_id(), file.name, "video/mp4")
    with file.open("rb") as source, Blobs(database).writing(stores, name, description) as target:
        while data := source.read(_CHUNK):
            target.write(data)
    database.close()
    return target.blob


def add_done_job(bench: Bench, mp3: BlobId) -> JobId:
    """Adds a job that is done and has this MP3, and returns its id."""
    database = Database(bench.database())
    jobs = Jobs(database)
    job = jobs.add(NewJob(new_job_id(), USER, mp3, "video.mp4", Options()))
    lease = jobs.claim(job.id)
    if lease is None or jobs.finish(lease, Outcome(mp3, 1.0, None)) is None:
        raise CannotMeasure("The job could not be added.")
    database.close()
    return job.id
