"""follow: from a change of a job until its owner has it, with a thousand clients of one status process."""

import contextlib
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import delete, insert, update

from functions.auth.tokens import Signer
from functions.options import Options
from functions.state.database import Database
from functions.state.jobs import new_job_id
from functions.state.schema import UserId, jobs, now, users
from scripts.benchmarks import timing
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.serving import keys, serving
from scripts.benchmarks.timing import CannotMeasure

_CLIENTS = 1000
_SECONDS = 60.0  # for all clients to get something


def follow(bench: Bench) -> Iterator[Row]:
    """Seconds until clients of /jobs/events have a change, all jobs changed at once, and the process's memory."""
    count = 100 if bench.quick else _CLIENTS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    environ = {**keys(), "DATABASE_URL": bench.database(), "THREADS": "8", "STREAMS": str(count)}
    environ["REQUESTS_PER_ADDRESS"] = str(count)
    database = Database(environ["DATABASE_URL"])
    owners = [UserId(f"f0110e{n:026x}") for n in range(count)]
    _prepare(database, owners)
    took: list[float] = []
    with serving("status", environ, bench.folder()) as served, _Clients() as clients:
        signer = Signer(environ["TOKEN_PRIVATE_KEY"])
        for owner in owners:
            clients.connect(served.port, signer.sign(owner, owner, "user"))
        clients.receive(b"event: jobs\n")
        for number in range(1, 2 + bench.rounds):
            change = update(jobs).where(jobs.c.owner.in_(owners)).values(done=number)
            database.run(lambda connection, change=change: connection.execute(change))  # type: ignore[misc]
            began = time.monotonic()
            delays = [at - began for at in clients.receive(b"event: job\n")]
            took += delays if number > 1 else []  # the first is a warm-up
        memory = _peak_megabytes(served.worker())
    database.run(lambda connection: connection.execute(delete(jobs).where(jobs.c.owner.in_(owners))))
    database.close()
    p50, p99 = (timing.quantile(took, fraction) for fraction in (0.5, 0.99))
    details = {"p50, s": p50, "maximum, s": max(took)}
    yield Row("follow", f"{count} clients, each change, p99", p99, "s", "none", **at_most(p99, 1), details=details)
    yield Row("follow", f"{count} clients, memory of status", memory, "MB", "none", **at_most(memory, 120))


def _prepare(database: Database, owners: list[UserId]) -> None:
    """Adds the owners, each with a job that is being converted."""
    people = [{"id": owner, "username": owner, "email": f"{owner}@example.org", "name": "Ann"} for owner in owners]
    running = [{"id": new_job_id(), "owner": owner, "filename": "a.mp4"} for owner in owners]
    new_user = insert(users).values(password_hash="", role="user", created_at=0)
    new_job = insert(jobs).values(options=Options().to_json(), state="converting", lease="t", done=0, total=1000)
    with database.engine.begin() as connection:
        connection.execute(delete(users).where(users.c.id.in_(owners)))
        connection.execute(new_user, people)
        connection.execute(new_job.values(created_at=now(), stage_at=now()), running)


def _peak_megabytes(process: int) -> float:
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024


class _Clients(contextlib.ExitStack):
    """The connections of all clients, on one thread."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = self.enter_context(selectors.DefaultSelector())
        self._count = 0

    def connect(self, port: int, token: str) -> None:
        """Adds a client."""
        client = self.enter_context(socket.create_connection(("127.0.0.1", port), timeout=_SECONDS))
        client.sendall(f"GET /jobs/events HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        client.setblocking(False)
        self._selector.register(client, selectors.EVENT_READ, self._count)
        self._count += 1

    def receive(self, what: bytes) -> list[float]:
        """Receives until each client has these bytes; returns when each had them.

        Raises:
            CannotMeasure: one did not get them in time.
        """
        times: dict[int, float] = {}
        received = [b""] * self._count
        deadline = time.monotonic() + _SECONDS
        while len(times) < self._count:
            if time.monotonic() > deadline:
                raise CannotMeasure(f"{self._count - len(times)} clients got no {what!r}.")
            for key, _ in self._selector.select(1):
                received[key.data] += key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                if what in received[key.data]:
                    times.setdefault(key.data, time.monotonic())
        return list(times.values())
