"""nginx as Debian packages it, as our gateway, on loopback."""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.servers import program
from tests.support.servers.process import Server

CONFIGURATION = ROOT / "functions/gateway/nginx.conf"


def filled(template: str, environ: Mapping[str, str]) -> str:
    """The template as the nginx image's envsubst fills it in: variables that the environment has, and no other."""
    return re.sub(r"\$\{(\w+)\}", lambda found: environ.get(found[1], found[0]), template)


class Gateway(Server):
    """A gateway; a context manager. ``url`` is where it is reached."""

    def __init__(self, environ: Mapping[str, str], arguments: tuple[str, ...] = ("-g", "daemon off;")) -> None:
        """Start nothing yet.

        Args:
            environ: what fills in the template, apart from LISTEN.
            arguments: of nginx, apart from the configuration's name.
        """
        self._program, self._arguments, self._environ = program("nginx"), arguments, environ
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Write its configuration, where its workers, who are somebody else, can read it."""
        self.folder.chmod(0o755)
        text = filled(
            CONFIGURATION.read_text(), {"BEHIND_PROXY": "no", **self._environ, "LISTEN": f"127.0.0.1:{self.port}"}
        )
        (self.folder / "nginx.conf").write_text(text.replace(" /tmp/", f" {self.folder}/"))

    def command(self) -> list[str]:
        """What starts the server in the foreground."""
        return [self._program, "-c", str(self.folder / "nginx.conf"), *self._arguments]

    def spooled(self) -> list[Path]:
        """The files in its temporary directories, those that it has deleted but not closed included."""
        kept = [path for place in self.folder.glob("nginx-*") for path in place.rglob("*") if path.is_file()]
        for link in (link for worker in self.children() for link in Path(f"/proc/{worker}/fd").iterdir()):
            try:
                target = str(link.readlink())
            except FileNotFoundError:
                continue
            if target.startswith(f"{self.folder}/nginx-"):
                kept.append(Path(target))
        return kept
