"""The base of the SQL servers: runs them as an unprivileged user."""

import contextlib
import os
import pwd
import subprocess
from typing import Any, ClassVar

from tests.support.servers.process import Server


class SqlServer(Server):
    """An SQL server; a context manager. ``url`` is its DATABASE_URL and stays the same across restarts.

    Its folder is not the test's: when root runs the tests, the server runs as another user, who cannot enter pytest's
    folders.
    """

    #: Users to run as when the tests run as root; the first that exists is used.
    users: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        super().__init__()
        self._as: dict[str, Any] = {"cwd": self.folder}
        if os.geteuid() == 0:
            user = _first_of(*self.users, "nobody")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    @property
    def url(self) -> str:
        """Its DATABASE_URL."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """Returns its user and folder."""
        return self._as

    def run(self, *command: str) -> None:
        """Runs one of the server's programs as the server's user, and waits for its end."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **self._as}
        done = subprocess.run(command, check=False, **options)
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout.decode(errors='replace')[-3000:]}")


def _first_of(*names: str) -> pwd.struct_passwd:
    for name in names:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError(f"There is no user {' or '.join(names)}, and the server does not run as root.")
