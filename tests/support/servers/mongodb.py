"""MongoDB on loopback, with its own data and port: mongod if it is installed, else mongo-java-server.

No package registry offers mongod, so most test machines lack it. mongo-java-server stores GridFS correctly; its Java
class and dependencies are compiled once into the cache directory.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.servers import program
from tests.support.servers.process import Server

_SOURCES = Path(__file__).with_suffix("")


class MongoDB(Server):
    """A MongoDB server; a context manager. ``url`` is its URI without a database, the same across restarts."""

    def __init__(self) -> None:
        self._mongod = shutil.which("mongod")
        self._java = "" if self._mongod else program("java")
        self._classes = None if self._mongod else _compiled()
        super().__init__()
        self.url = f"mongodb://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Returns the command that starts the server in the foreground."""
        data = self.folder / "data"
        if self._mongod is None:
            return [self._java, "-Xmx1g", "-cp", f"{self._classes}/*", "Server", str(self.port), str(data)]
        data.mkdir(exist_ok=True)
        options = ["--dbpath", str(data), "--bind_ip", "127.0.0.1", "--port", str(self.port)]
        return [self._mongod, *options, "--nounixsocket"]


def _compiled() -> Path:
    """Returns the directory with the jars and the compiled class, created by the first call on a machine."""
    sources = [_SOURCES / "pom.xml", _SOURCES / "Server.java"]
    version = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    done = home / "mp3burst" / f"mongodb-{version}"
    if done.exists():
        return done
    maven = program("mvn")
    compiler = program("javac")
    archiver = program("jar")
    done.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=done.parent) as folder:
        jars = Path(folder, "jars")
        classes = Path(folder, "classes")
        fetch = ["-q", "-B", "-f", str(sources[0]), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        for command in (
            [maven, *fetch],
            [compiler, "-cp", f"{jars}/*", "-d", str(classes), str(sources[1])],
            [archiver, "cf", str(jars / "server.jar"), "-C", str(classes), "."],
        ):
            result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)
            if result.returncode:
                raise RuntimeError(f"{command[0]} failed:\n{result.stdout}{result.stderr}")
        try:
            jars.rename(done)
        except OSError:
            if not done.exists():  # otherwise another test process was faster
                raise
    return done
