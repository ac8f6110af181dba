"""Our gateway on loopback: nginx as packaged by Debian."""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.servers import program
from tests.support.servers.process import Server

CONFIGURATION = ROOT / "functions/gateway/nginx.conf"


def filled(template: str, environ: Mapping[str, str]) -> str:
    """Fills in the template as the nginx image's envsubst does: only variables that the environment has."""
    return re.sub(r"\$\{(\w+)\}", lambda found: environ.get(found[1], found[0]), template)


class Gateway(Server):
    """A gateway; a context manager. ``url`` is its address."""

    def __init__(self, environ: Mapping[str, str], arguments: tuple[str, ...] = ("-g", "daemon off;")) -> None:
        """Prepares the gateway; the context manager starts it.

        Args:
            environ: the template's variables except LISTEN.
            arguments: of nginx, except the configuration's name.
        """
        self._program = program("nginx")
        self._arguments = arguments
        self._environ = environ
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Writes its configuration to where its workers, which run as another user, can read it."""
        self.folder.chmod(0o755)
        text = filled(
            CONFIGURATION.read_text(), {"BEHIND_PROXY": "no", **self._environ, "LISTEN": f"127.0.0.1:{self.port}"}
        )
        (self.folder / "nginx.conf").write_text(text.replace(" /tmp/", f" {self.folder}/"))

    def command(self) -> list[str]:
        """Returns the command that starts the server in the foreground."""
        return [self._program, "-c", str(self.folder / "nginx.conf"), *self._arguments]

    def spooled(self) -> list[Path]:
        """Returns the files in its temporary directories, including those deleted but still open."""
        kept = [path for place in self.folder.glob("nginx-*") for path in place.rglob("*") if path.is_file()]
        for link in (link for worker in self.children() for link in Path(f"/proc/{worker}/fd").iterdir()):
            try:
                target = str(link.readlink())
            except FileNotFoundError:
                continue
            if target.startswith(f"{self.folder}/nginx-"):
                kept.append(Path(target))
        return kept
