"""Our gateway and a careless proxy on loopback: nginx as packaged by Debian."""

import re
from collections.abc import Mapping
from pathlib import Path

from infra.apidocs.site import write
from tests.support.paths import ROOT
from tests.support.servers import free_port, program
from tests.support.servers.process import Server

CONFIGURATION = ROOT / "functions/gateway/nginx.conf"


def upstreams(address: str) -> dict[str, str]:
    """Returns the variables that give every function of the gateway this address."""
    return dict.fromkeys(re.findall(r"\$\{(\w+_UPSTREAM)\}", CONFIGURATION.read_text()), address)


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
        write(self.folder / "documents")
        own = {"LISTEN": f"127.0.0.1:{self.port}", "DOCUMENTS": str(self.folder / "documents")}
        template = CONFIGURATION.read_text().replace(" /tmp/", f" {self.folder}/").replace(":8079", f":{free_port()}")
        text = filled(template, {"BEHIND_PROXY": "no", **self._environ, **own})
        (self.folder / "nginx.conf").write_text(text)

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


_CARELESS = """
pid {folder}/nginx.pid;
error_log /dev/stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
    }}
}}
"""


class CarelessProxy(Server):
    """A proxy that nobody has told about hosts and clients; a context manager.

    Its upstream gets ``Host: 127.0.0.1:PORT`` and no X-Forwarded-For, nginx's default.
    """

    def __init__(self, upstream: int) -> None:
        """Prepares the proxy of a port of this machine; the context manager starts it."""
        self._program = program("nginx")
        self._upstream = upstream
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Writes its configuration to where its workers, which run as another user, can read it."""
        self.folder.chmod(0o755)
        text = _CARELESS.format(folder=self.folder, port=self.port, upstream=self._upstream)
        (self.folder / "nginx.conf").write_text(text)

    def command(self) -> list[str]:
        """Returns the command that starts the server in the foreground."""
        return [self._program, "-c", str(self.folder / "nginx.conf"), "-g", "daemon off;"]
