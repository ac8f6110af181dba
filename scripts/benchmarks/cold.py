"""cold: from exec to the first answer of each function, against hello world and what its libraries take to import."""

import http.client
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks import clock
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.clock import ROOT, Took
from scripts.benchmarks.login import PASSWORD, account, basic
from scripts.benchmarks.memory import deliver
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.serving import ask, await_port, download, keys, kill, start, token, upload
from scripts.benchmarks.stored import finished, store

#: Prints which modules of others a function has loaded once it is imported and its libraries are, beyond hello's.
_LIST = """
import importlib, json, sys
import functions_framework, infra.serve, gunicorn.app.base, gunicorn.workers.gthread, flask
before = set(sys.modules)
importlib.import_module(sys.argv[1])
for name in sys.argv[2:]: importlib.import_module(name)
ours = ("functions", "events", "infra", "scripts")
print(json.dumps([m for m in sys.modules if m not in before and m.split(".")[0] not in ours]))
"""
#: Seconds that these modules take to import where hello's are there already.
_IMPORT = """
import functions_framework, infra.serve, gunicorn.app.base, gunicorn.workers.gthread, flask, contextlib, json, sys
import importlib, time
begin, cpu = time.perf_counter(), time.process_time()
for name in json.load(sys.stdin):
    with contextlib.suppress(ImportError): importlib.import_module(name)
print(json.dumps([time.perf_counter() - begin, time.process_time() - cpu]))
"""


@dataclass(frozen=True, slots=True)
class _Function:
    """How to start it, what to ask it first, and the libraries it loads only then."""

    source: str
    first: Callable[[int], object]
    lazy: tuple[str, ...] = ()
    beside: float = 0.0  # seconds that the first request works and no start can save


def cold(bench: Bench) -> Iterator[Row]:
    """The first request is a real one: it connects to the database and the media store where the function does."""
    url, folder = bench.database(), bench.folder()
    environ = {**keys(), **bench.media(), "DATABASE_URL": url, "K_SINK": "http://127.0.0.1:9/"}
    environ["MAIL_DIR"] = str(folder)
    check = account(url)
    verify = clock.quantile([check() for _ in range(10)], 0.5)
    functions = _functions(bench, environ, verify)
    hello = _Function("scripts/benchmarks/hello.py", lambda port: _get(port, "/"))
    takes: dict[str, Callable[[], Took]] = {"hello": lambda: _start("hello", hello, environ, folder)}
    for name, function in functions.items():
        takes[name] = lambda name=name, function=function: _start(name, function, environ, folder)  # type: ignore[misc]  # mypy takes no default in a lambda
        takes[f"{name}, libraries"] = _libraries(name, function)
    clock.in_turn(takes, 1)  # bytecode and page cache
    took = clock.in_turn(takes, bench.rounds)
    base = clock.median(took["hello"])
    for name, function in functions.items():
        mine, libraries = clock.median(took[name]), clock.median(took[f"{name}, libraries"])
        reference = base.seconds + libraries.seconds + function.beside
        yield Row(
            "cold",
            f"{name}, exec to the first real answer",
            mine.seconds / reference,
            "x",
            f"hello {_ms(base.seconds)} + libraries {_ms(libraries.seconds)} + work {_ms(function.beside)} ms",
            **at_most(mine.seconds / reference, 1.1),
            details={
                "ms": _ms(mine.seconds),
                "against hello": mine.seconds / base.seconds,
                "CPU ms": {"ours": _ms(mine.cpu), "hello": _ms(base.cpu), "libraries": _ms(libraries.cpu)},
                "by CPU": mine.cpu / (base.cpu + libraries.cpu + function.beside),
            },
        )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _functions(bench: Bench, environ: Mapping[str, str], verify: float) -> dict[str, _Function]:
    bearer, tiny = token(environ), bench.inputs.video(2)
    blob = store(bench, tiny, as_mp3=True)
    finished(bench, blob)
    kind = bench.database().partition("+")[0]
    dialects = {
        "postgresql": ("sqlalchemy.dialects.postgresql.psycopg", "psycopg"),
        "mysql": ("sqlalchemy.dialects.mysql.pymysql", "pymysql"),
    }
    sql: tuple[str, ...] = dialects.get(kind, ("sqlalchemy.dialects.sqlite", "sqlite3"))
    media = ("pymongo", "bson") if "MONGO_URI" in environ else ()
    tokens = (
        "jwt",
        "cryptography.hazmat.primitives.serialization",
        "cryptography.hazmat.primitives.asymmetric.ed25519",
    )
    header = {"Authorization": f"Bearer {bearer}"}

    def register(port: int) -> None:
        form = {"name": "B", "username": f"{secrets.token_hex(8)}@example.org", "password": PASSWORD}
        _ask(port, "POST", "/register", {}, json.dumps(form).encode())

    def delivered(type_: str) -> Callable[[int], None]:
        return lambda port: deliver(f"http://127.0.0.1:{port}/", type_, secrets.token_hex(16))

    def source(name: str) -> str:
        return f"functions/{name}/main.py"

    return {
        "register": _Function(source("register"), register, (*sql, "argon2"), verify),
        "login": _Function(
            source("login"), lambda port: _ask(port, "POST", "/login", basic()), (*sql, *tokens, "argon2"), verify
        ),
        "validate": _Function(source("validate"), lambda port: _ask(port, "POST", "/validate", header), tokens),
        "upload": _Function(source("upload"), lambda port: upload(port, bearer, tiny), (*sql, *media, *tokens)),
        "status": _Function(source("status"), lambda port: _ask(port, "GET", "/jobs", header), (*sql, *tokens)),
        "download": _Function(source("download"), lambda port: download(port, bearer, blob), (*sql, *media, *tokens)),
        "convert": _Function(source("convert"), delivered("video.uploaded"), sql),
        "notify": _Function(source("notify"), delivered("mp3.ready"), sql),
    }


def _start(name: str, function: _Function, environ: Mapping[str, str], folder: Path) -> Took:
    begin = time.perf_counter()
    served = start(function.source, name, environ, folder / f"{name}.log")
    try:
        await_port(served)
        function.first(served.port)
        seconds = time.perf_counter() - begin
    except BaseException:
        kill(served)
        raise
    return Took(seconds, kill(served))


def _libraries(name: str, function: _Function) -> Callable[[], Took]:
    def run(code: str, *arguments: str, given: str = "") -> str:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=True, cwd=ROOT).stdout

    modules = run(_LIST, f"functions.{name}.main", *function.lazy)
    return lambda: Took(*json.loads(run(_IMPORT, given=modules)))


def _get(port: int, path: str) -> None:
    _ask(port, "GET", path, {})


def _ask(port: int, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    ask(connection, method, path, headers, body)
    connection.close()
