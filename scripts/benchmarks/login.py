"""login: the cost of a login apart from argon2, against a function that does nothing on the same stack."""

import base64
import contextlib
import http.client
import time
from collections.abc import Callable, Iterator

from functions.auth.accounts import Accounts, UsernameTaken
from functions.state.database import Database
from scripts.benchmarks import timing
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.serving import ask, keys, serving

NAME = "bench@example.org"
PASSWORD = "correct horse battery"  # noqa: S105 - of an account that lives for a minute


def _create_account(url: str) -> Callable[[], object]:
    """Creates the account and returns a function that verifies its password once."""
    database = Database(url)
    accounts = Accounts(database)
    with contextlib.suppress(UsernameTaken):
        accounts.add("Bench", NAME, PASSWORD, NAME)
    hasher = accounts._argon2()
    database.close()
    hashed = hasher.hash(PASSWORD)
    return lambda: hasher.verify(hashed, PASSWORD)


def login(bench: Bench) -> Iterator[Row]:
    """The function with a password check that takes no time; the details have the real one and argon2 alone."""
    count = 50 if bench.quick else 300
    url = bench.database()
    check = _create_account(url)
    environ = {**keys(), "DATABASE_URL": url}
    folder = "scripts/benchmarks"
    with (
        serving("login", environ, bench.folder(), f"{folder}/instant_login.py") as instant,
        serving("login", environ, bench.folder()) as real,
        serving("hello", environ, bench.folder(), f"{folder}/hello.py") as hello,
    ):
        took: dict[str, list[float]] = {"instant": [], "real": [], "hello": [], "check": []}
        connections = {
            name: http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
            for name, served in (("instant", instant), ("real", real), ("hello", hello))
        }
        # Separately: the 19 MiB of argon2 evict the CPU caches for whatever comes next, which is part of its cost.
        for names in (("instant", "hello"), ("check", "real")):
            for number in range(count):
                for name in names:
                    begin = time.perf_counter()
                    if name == "check":
                        check()
                    else:
                        ask(connections[name], "POST", "/login", basic())
                    if number >= 10:
                        took[name].append((time.perf_counter() - begin) * 1000)
        for connection in connections.values():
            connection.close()
    p50 = {name: timing.quantile(times, 0.5) for name, times in took.items()}
    yield Row(
        "login",
        "p50 without the password check",
        p50["instant"],
        "ms",
        f"hello world {p50['hello']:.2f} ms",
        **at_most(p50["instant"], 3),
        details={
            "with the check, ms": p50["real"],
            "the check alone, ms": p50["check"],
            "with the check less the check, ms": p50["real"] - p50["check"],
            "p99 without, ms": timing.quantile(took["instant"], 0.99),
            "servers": bench.servers(),
        },
    )


def basic() -> dict[str, str]:
    """Returns the header with name and password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()}
