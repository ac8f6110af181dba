"""PostgreSQL as packaged by Debian, on loopback, with its own data and port."""

import signal
from pathlib import Path

from tests.support.servers import program
from tests.support.servers.sql import SqlServer


class PostgreSQL(SqlServer):
    """A PostgreSQL server with one empty database; a context manager."""

    users = ("postgres",)
    stop_signal = signal.SIGINT
    ready = b"database system is ready to accept connections"

    def __init__(self) -> None:
        places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        self._postgres = program("postgres", *(str(place / "postgres") for place in places))
        self._initdb = program("initdb", *(str(place / "initdb") for place in places))
        super().__init__()

    @property
    def url(self) -> str:
        """Its DATABASE_URL."""
        return f"postgresql+psycopg://mp3burst@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        """Creates the data directory."""
        flags = ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        self.run(self._initdb, "-D", f"{self.folder}/data", "-U", "mp3burst", *flags)
        # Only the owner needs no password.
        (self.folder / "data/pg_hba.conf").write_text(
            "host all mp3burst 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )

    def command(self) -> list[str]:
        """Returns the command that starts the server in the foreground."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            # Crashes of the machine are not tested: written data survives in the kernel's cache.
            "fsync": "off",
            "full_page_writes": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self._postgres, "-D", f"{self.folder}/data", "-p", str(self.port), *options]
