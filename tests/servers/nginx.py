"""nginx as Debian packages it, as our gateway, on loopback."""

import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import free_port, program

CONFIGURATION = Path(__file__).parents[2] / "functions/gateway/nginx.conf"
_START = 30.0  # seconds


def filled(template: str, environ: Mapping[str, str]) -> str:
    """The template as the nginx image's envsubst fills it in: variables that the environment has, and no other."""
    return re.sub(r"\$\{(\w+)\}", lambda found: environ.get(found[1], found[0]), template)


class Gateway:
    """A gateway; a context manager. ``url`` is where it is reached."""

    def __init__(self, environ: Mapping[str, str], arguments: tuple[str, ...] = ("-g", "daemon off;")) -> None:
        """Start nothing yet.

        Args:
            environ: what fills in the template, apart from LISTEN.
            arguments: of nginx, apart from the configuration's name.
        """
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = tempfile.TemporaryDirectory(prefix="nginx-")
        self.folder = Path(self._folder.name)
        self.folder.chmod(0o755)
        text = filled(CONFIGURATION.read_text(), {**environ, "LISTEN": f"127.0.0.1:{self.port}"})
        (self.folder / "nginx.conf").write_text(text.replace(" /tmp/", f" {self.folder}/"))
        self._command = [program("nginx"), "-c", str(self.folder / "nginx.conf"), *arguments]
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(10)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        self._folder.cleanup()

    def spooled(self) -> list[Path]:
        """The files in its temporary directories, those that it has deleted but not closed included."""
        kept = [path for place in self.folder.glob("nginx-*") for path in place.rglob("*") if path.is_file()]
        assert self._server is not None
        parent = self._server.pid
        workers = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for link in (link for worker in workers for link in Path(f"/proc/{worker}/fd").iterdir()):
            try:
                target = str(link.readlink())
            except FileNotFoundError:
                continue
            if target.startswith(f"{self.folder}/nginx-"):
                kept.append(Path(target))
        return kept

    def _start(self) -> None:
        log = self.folder / "log"
        with log.open("ab") as output:
            self._server = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        deadline = time.monotonic() + _START
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"nginx did not start:\n{log.read_text()}") from None
                time.sleep(0.02)
            else:
                return
