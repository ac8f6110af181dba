"""key: what an API key costs a call, against a function that does nothing on the same stack."""

import contextlib
import http.client
import time
from collections.abc import Iterator

from functions.auth.keys import ApiKeys
from functions.state.database import Database
from scripts.benchmarks import timing
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.serving import USER, ask, keys, serving, token

_WARM_UP = 10


def key(bench: Bench) -> Iterator[Row]:
    """Milliseconds of POST /validate with a key, less those of a function that does nothing."""
    count = 50 if bench.quick else 1000
    environ = {**keys(), "DATABASE_URL": bench.database()}
    credentials = {"token": token(environ)}
    database = Database(environ["DATABASE_URL"])
    table = ApiKeys(database)
    credentials["key"], created = table.create(USER, "bench", ["read"])
    took: dict[str, list[float]] = {"key": [], "token": [], "hello": []}
    with (
        serving("validate", environ, bench.folder()) as validate,
        serving("hello", environ, bench.folder(), "scripts/benchmarks/hello.py") as hello,
        contextlib.ExitStack() as stack,
    ):
        ports = {"key": validate.port, "token": validate.port, "hello": hello.port}
        connections = {name: http.client.HTTPConnection("127.0.0.1", port, timeout=60) for name, port in ports.items()}
        for connection in connections.values():
            stack.callback(connection.close)
        for number in range(count + _WARM_UP):
            for name, connection in connections.items():
                headers = {"Authorization": f"Bearer {credentials.get(name, 'none')}"}
                begin = time.perf_counter()
                ask(connection, "POST", "/validate", headers)
                if number >= _WARM_UP:
                    took[name].append((time.perf_counter() - begin) * 1000)
    table.delete(created.id, USER)
    database.close()
    p50 = {name: timing.quantile(times, 0.5) for name, times in took.items()}
    cost = p50["key"] - p50["hello"]
    yield Row(
        "key",
        "p50 of a call with a key, less hello world",
        cost,
        "ms",
        f"hello world {p50['hello']:.2f} ms",
        **at_most(cost, 1),
        details={
            "with a key, ms": p50["key"],
            "with a token, ms": p50["token"],
            "p99 with a key, ms": timing.quantile(took["key"], 0.99),
            "servers": bench.servers(),
        },
    )
