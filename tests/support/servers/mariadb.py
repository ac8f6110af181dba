"""MariaDB as packaged by Debian, on loopback, with its own data and port."""

from tests.support.servers import program
from tests.support.servers.sql import SqlServer


class MariaDB(SqlServer):
    """A MariaDB server with one empty database; a context manager."""

    users = ("mysql",)
    ready = b"ready for connections."

    def __init__(self) -> None:
        self._mariadbd = program("mariadbd")
        self._install = program("mariadb-install-db")
        super().__init__()

    @property
    def url(self) -> str:
        """Its DATABASE_URL."""
        return f"mysql+pymysql://mp3burst:mp3burst@127.0.0.1:{self.port}/mp3burst?charset=utf8mb4"

    def prepare(self) -> None:
        """Creates the data directory."""
        flags = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        self.run(self._install, "--no-defaults", *self._folders(), *flags)
        (self.folder / "init.sql").write_text(
            "CREATE DATABASE IF NOT EXISTS mp3burst CHARACTER SET utf8mb4;\n"
            "CREATE USER IF NOT EXISTS mp3burst@'127.0.0.1' IDENTIFIED BY 'mp3burst';\n"
            "GRANT ALL ON *.* TO mp3burst@'127.0.0.1' WITH GRANT OPTION;\n"
        )

    def command(self) -> list[str]:
        """Returns the command that starts the server in the foreground."""
        return [
            self._mariadbd,
            "--no-defaults",
            *self._folders(),
            f"--init-file={self.folder}/init.sql",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=64M",
            # Crashes of the machine are not tested: written data survives in the kernel's cache.
            "--innodb-flush-log-at-trx-commit=2",
            "--debug-no-sync",
        ]

    def _folders(self) -> tuple[str, str]:
        # Temporary tables are named for the process id, which a server in a container may have as well.
        return f"--datadir={self.folder}/data", f"--tmpdir={self.folder}"
