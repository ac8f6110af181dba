"""MongoDB on loopback, with its own data and port: mongod where there is one, else mongo-java-server.

No package registry has mongod, so most machines that test this have none. mongo-java-server stores GridFS right; its
Java class and what it needs are compiled once into the cache directory.
"""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import free_port, program

_SOURCES = Path(__file__).with_suffix("")
_START = 60.0  # seconds; an idle core needs 1


class MongoDB:
    """A server of its own; a context manager. ``url`` is its URI, without a database, and outlives restarts."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"mongodb://127.0.0.1:{self.port}"
        self._folder = tempfile.TemporaryDirectory(prefix="mongodb-")
        self._server: subprocess.Popen[bytes] | None = None
        data = Path(self._folder.name)
        if mongod := shutil.which("mongod"):
            where = ["--dbpath", str(data), "--bind_ip", "127.0.0.1", "--port", str(self.port)]
            self._command = [mongod, *where, "--nounixsocket"]
        else:
            path = f"{_compiled()}/*"
            self._command = [program("java"), "-Xmx1g", "-cp", path, "Server", str(self.port), str(data / "data")]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        log = Path(self._folder.name, "log")
        with log.open("ab") as output:
            self._server = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + _START
        while not self._listens():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MongoDB did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop in good order."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill, as a lost machine."""
        self._signal(signal.SIGKILL)

    def suspend(self) -> None:
        """Hang: connections stay up, nothing answers."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._server.pid, os.WSTOPPED)  # on a busy machine a thread of it may still answer

    def resume(self) -> None:
        """Go on after suspend()."""
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.send_signal(signal.SIGCONT)
        server.send_signal(number)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def _end(self) -> None:
        self._signal(signal.SIGKILL)
        self._folder.cleanup()


def _compiled() -> Path:
    """The directory with the jars and the compiled class, made on the first call on a machine."""
    sources = [_SOURCES / "pom.xml", _SOURCES / "Server.java"]
    version = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    done = home / "mp3burst" / f"mongodb-{version}"
    if done.exists():
        return done
    maven, compiler, archiver = program("mvn"), program("javac"), program("jar")
    done.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=done.parent) as folder:
        jars, classes = Path(folder, "jars"), Path(folder, "classes")
        fetch = ["-q", "-B", "-f", str(sources[0]), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        for command in (
            [maven, *fetch],
            [compiler, "-cp", f"{jars}/*", "-d", str(classes), str(sources[1])],
            [archiver, "cf", str(jars / "server.jar"), "-C", str(classes), "."],
        ):
            made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)
            if made.returncode:
                raise RuntimeError(f"{command[0]} failed:\n{made.stdout}{made.stderr}")
        try:
            jars.rename(done)
        except OSError:
            if not done.exists():  # else another test process was first
                raise
    return done
