"""What the SQL servers have in common: a folder, a port, a process, and ways to stop it."""

import contextlib
import os
import pwd
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from tests.servers import free_port

_START = 60.0  # seconds; an idle core needs 1


class SqlServer:
    """A server of its own; a context manager. ``url`` is its DATABASE_URL and stays the same over restarts.

    The folder is the server's own, not the test's: as root it runs as another user, whom pytest's folders shut out.
    """

    #: Who to run as when the tests run as root; the first that exists.
    users: ClassVar[tuple[str, ...]]
    #: What ends it in good order, without waiting for clients.
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    #: What the log says once connections are taken.
    ready: ClassVar[bytes]

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix=f"{type(self).__name__.lower()}-")
        self._server: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {"cwd": self._folder.name, "stdin": subprocess.DEVNULL}
        if os.geteuid() == 0:
            user = _first_of(*self.users, "nobody")
            os.chown(self._folder.name, user.pw_uid, user.pw_gid)
            self._as |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    @property
    def url(self) -> str:
        """The DATABASE_URL."""
        raise NotImplementedError

    def create(self, folder: Path) -> None:
        """Make the data directory."""
        raise NotImplementedError

    def command(self, folder: Path) -> list[str]:
        """What starts the server in the foreground."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.create(Path(self._folder.name))
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
        folder = Path(self._folder.name)
        log = folder / "log"
        began = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._server = subprocess.Popen(
                self.command(folder), stdout=output, stderr=output, start_new_session=True, **self._as
            )
        deadline = time.monotonic() + _START
        while self.ready not in log.read_bytes()[began:]:
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.command(folder)[0]} did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop in good order, without waiting for clients."""
        if self._server is not None:
            self._server.send_signal(self.stop_signal)
            self._server.wait(30)
            self._server = None

    def kill(self) -> None:
        """Kill, as a lost machine."""
        if self._server is None:
            return
        # Held, none can start another between the list and the kill.
        self.suspend()
        processes = self._processes()
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        self._server.wait()
        self._server = None
        deadline = time.monotonic() + 10
        while any(_runs(pid) for pid in processes):
            assert time.monotonic() < deadline, "a killed process is still there"
            time.sleep(0.01)

    def suspend(self) -> None:
        """Hang: connections stay up, nothing answers."""
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after suspend()."""
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    def run(self, *command: str) -> None:
        """Run a program of the server's, as the server's user, to its end."""
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **self._as)
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout.decode(errors='replace')[-3000:]}")

    def _processes(self) -> list[int]:
        assert self._server is not None
        parent = self._server.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [parent, *map(int, children)]

    def _end(self) -> None:
        self.kill()
        self._folder.cleanup()


def _first_of(*names: str) -> pwd.struct_passwd:
    for name in names:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError(f"There is no user {' or '.join(names)}, and the server does not run as root.")


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"
